"""Checkpoints side by side: each is exported, opened, measured and judged, and set against the first.

Takes checkpoints and options. Gives a `Comparison`: a `Row` for each, plain data.
Leaves out: the terminal (cli.py) and the page (report.py).
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.export import bundle
from pocketbert.export.checkpoint import Checkpoint, load
from pocketbert.export.compare import base
from pocketbert.export.compare.measure import Measured, measure
from pocketbert.export.compare.shape import count_multiply_adds, count_parameters, describe_method
from pocketbert.runtime import data, engines, gap
from pocketbert.runtime.classifier import Classifier
from pocketbert.runtime.errors import PocketbertError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.data import Dataset

LENGTHS = (16, 32, 64, 128)  # tokens: a chat message, a sentence, two, a paragraph
TYPICAL = 32  # the one of which a single figure speaks
FP32_BYTES = 4


@dataclass(frozen=True)
class Options:
    checkpoints: tuple[str, ...]  # none: the base shapes
    data: Path | None = None
    columns: tuple[str, ...] = ()
    limit: int | None = None
    formats: tuple[str, ...] = ("tflite", "executorch", "coreml")
    threads: int = 2


@dataclass(frozen=True)
class Format:
    """One artifact of a checkpoint; None where this host cannot run it."""

    bytes: int
    measured: Measured | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Row:
    """A checkpoint's figures."""

    name: str
    architecture: str
    method: str
    layers: int  # that run
    layers_stored: int
    parameters: int
    parameters_executed: int
    fp32_bytes: int
    multiply_adds: dict[int, int]  # tokens -> count
    accuracy: float | None  # of the fp32 checkpoint
    formats: dict[str, Format] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    rows: Sequence[Row]
    data: str | None
    texts: int
    threads: int
    lengths: Sequence[int]


Tell = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A checkpoint on its way: loaded, and exported to `folder`."""

    source: str
    checkpoint: Checkpoint
    texts: Dataset | None
    folder: Path


def compare(options: Options, tell: Tell = lambda doing: None) -> Comparison:
    """Exports and measures every checkpoint. `tell` hears what is being done. Raises PocketbertError."""
    _check(options)
    with tempfile.TemporaryDirectory(prefix="pocketbert-compare-") as folder:
        work = Path(folder)
        sources = options.checkpoints or [_write_base(name, work, tell) for name in base.SHAPES]
        loaded = _tell_apart([(str(source), load(source)) for source in sources])
        # Bad data is told before the long work.
        entries = [Entry(*one, _read_texts(one[1], options), work / f"bundle-{i}") for i, one in enumerate(loaded)]
        lengths = _lengths([entry.checkpoint for entry in entries])
        artifacts = [_export(entry, options, max(lengths), tell) for entry in entries]
        formats = [{name: Format(size) for name, size in found.items()} for found in artifacts]
        for name in filter(_runs_here, options.formats):
            for row, found in zip(formats, _run(name, entries, lengths, options, tell), strict=True):
                row[name] = replace(found, bytes=row[name].bytes)
        rows = [_row(entry, found, lengths, tell) for entry, found in zip(entries, formats, strict=True)]
    first = entries[0].texts
    return Comparison(rows, first.name if first else None, len(first.texts) if first else 0, options.threads, lengths)


def _check(options: Options) -> None:
    unknown = [name for name in options.formats if name not in engines.ENGINES]
    if unknown or not options.formats:
        raise PocketbertError(f"unknown format {(unknown or [''])[0]!r}: use {', '.join(engines.ENGINES)}")
    if options.data and not options.checkpoints:
        raise PocketbertError("--data needs checkpoints: the base shapes have random weights and no accuracy")


def _tell_apart(loaded: list[tuple[str, Checkpoint]]) -> list[tuple[str, Checkpoint]]:
    """Folders of the same name go by the paths that were given."""
    names = Counter(checkpoint.name for _, checkpoint in loaded)
    return [
        (source, replace(checkpoint, name=source) if names[checkpoint.name] > 1 else checkpoint)
        for source, checkpoint in loaded
    ]


def _write_base(name: str, work: Path, tell: Tell) -> str:
    tell(f"{name}: writing random weights")
    return str(base.write(name, work))


def _read_texts(checkpoint: Checkpoint, options: Options) -> Dataset | None:
    if options.data is None:
        return None
    owner = f"the checkpoint {checkpoint.name}"
    return data.read(options.data, checkpoint.labels, checkpoint.multi_label, options.limit, options.columns, owner)


def _lengths(checkpoints: Sequence[Checkpoint]) -> list[int]:
    longest = min(checkpoint.config.positions for checkpoint in checkpoints)
    return [length for length in LENGTHS if length <= longest] or [longest]


def _export(entry: Entry, options: Options, max_length: int, tell: Tell) -> dict[str, int]:
    """Bytes by format."""
    tell(f"{entry.checkpoint.name}: exporting to {', '.join(options.formats)}")
    exported = bundle.export(entry.source, entry.folder, bundle.Options(options.formats, max_length=max_length))
    return {artifact.format: artifact.bytes for artifact in exported.manifest.artifacts}


def _run(name: str, entries: Sequence[Entry], lengths: Sequence[int], options: Options, tell: Tell) -> list[Format]:
    """Speed, memory and accuracy of every checkpoint under one engine."""
    tell(f"measuring {name}")
    measured = measure([entry.folder for entry in entries], name, lengths, options.threads)
    accuracies = [_int8_accuracy(name, entry, options, tell) for entry in entries]
    return [Format(0, *pair) for pair in zip(measured, accuracies, strict=True)]


def _int8_accuracy(name: str, entry: Entry, options: Options, tell: Tell) -> float | None:
    if entry.texts is None:
        return None
    tell(f"{entry.checkpoint.name}: answering {len(entry.texts.texts)} texts with {name}")
    with Classifier.open(entry.folder, name, options.threads) as classifier:
        logits = classifier.logits(entry.texts.texts)
    return gap.accuracy(logits, entry.texts.labels, entry.checkpoint.multi_label)


def _row(entry: Entry, formats: dict[str, Format], lengths: Sequence[int], tell: Tell) -> Row:
    checkpoint, texts, accuracy = entry.checkpoint, entry.texts, None
    config = checkpoint.config
    parameters = count_parameters(config, {name: tensor.numel() for name, tensor in checkpoint.tensors.items()})
    if texts:
        tell(f"{checkpoint.name}: answering {len(texts.texts)} texts in fp32")
        logits = _fp32_logits(checkpoint, texts, max(lengths))
        accuracy = gap.accuracy(logits, texts.labels, checkpoint.multi_label)
    return Row(
        name=checkpoint.name,
        architecture=config.architecture,
        method=describe_method(config),
        layers=len(config.schedule),
        layers_stored=config.stored_layers,
        parameters=parameters.unique,
        parameters_executed=parameters.executed,
        fp32_bytes=FP32_BYTES * parameters.unique,
        multiply_adds={length: count_multiply_adds(config, length) for length in lengths},
        accuracy=accuracy,
        formats=formats,
    )


def _runs_here(name: str) -> bool:
    """Core ML runs on Apple's systems alone: elsewhere a reference evaluator would be timed."""
    return bool(engines.installed([name])) and (name != "coreml" or sys.platform == "darwin")


def _fp32_logits(checkpoint: Checkpoint, texts: Dataset, max_length: int) -> NDArray[np.float32]:
    import torch

    from pocketbert.export.encoder import build

    encoder = build(checkpoint.config, checkpoint.tensors)
    tokenizer = checkpoint.tokenizer
    tokenizer.enable_truncation(max_length)
    with torch.inference_mode():
        ids = (
            torch.tensor([encoding.ids], dtype=torch.int32) for encoding in tokenizer.encode_batch(list(texts.texts))
        )
        return np.concatenate([encoder(row).numpy() for row in ids])
