"""Checkpoints side by side: each is exported, opened, measured and evaluated, and set against the first.

Takes checkpoints and options. Returns a `Comparison`: `CheckpointMetrics` for each, plain data.
Leaves out: the terminal (cli/compare.py) and the page (report.py).
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.export.atomic_directory import stage
from pocketbert.export.bundle import ExportOptions, check_formats, export_bundle
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.compare.base_models import BASE_MODELS, write_base_model
from pocketbert.export.compare.measure import Performance, measure_bundles
from pocketbert.export.compare.model_cost import count_multiply_adds, count_parameters, describe_compression
from pocketbert.export.encoder import build_encoder, compute_logits
from pocketbert.runtime import engines
from pocketbert.runtime.check.evaluation import make_data_set
from pocketbert.runtime.check.evaluation_set import EvaluationSet
from pocketbert.runtime.check.tasks import Data, Task
from pocketbert.runtime.check.tasks.choice import choose, find
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import FORMATS, read_manifest
from pocketbert.runtime.progress import Progress
from pocketbert.runtime.tasks import open_model
from pocketbert.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pocketbert.runtime.check.metrics import Logits

LENGTHS = (16, 32, 64, 128)  # tokens: a chat message, a sentence, two, a paragraph
TYPICAL = 32  # the one of which a single figure speaks
FP32_BYTES = 4
STAGE = "comparing"
WORK = "pocketbert-compare"  # below the user's temporary files


@dataclass(frozen=True)
class CompareOptions:
    """What `pocketbert compare` can be told."""

    checkpoints: tuple[str, ...]  # none: the base models
    data: Path | None = None
    columns: tuple[str, ...] = ()
    limit: int | None = None
    formats: tuple[str, ...] = FORMATS
    threads: int = 2
    pairs: bool = False  # the checkpoints are classifiers of two texts


@dataclass(frozen=True)
class ArtifactMetrics:
    """One artifact of a checkpoint; None where this host cannot run it."""

    bytes: int
    performance: Performance | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class CheckpointMetrics:
    """A checkpoint's figures."""

    name: str
    architecture: str
    compression: str
    layers: int  # that run
    layers_stored: int
    parameters: int
    parameters_executed: int
    fp32_bytes: int
    multiply_adds: dict[int, int]  # tokens -> count
    accuracy: float | None  # in fp32
    formats: dict[str, ArtifactMetrics] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """All figures of one run, in the order of the checkpoints."""

    checkpoints: Sequence[CheckpointMetrics]
    data: str | None
    texts: int
    threads: int
    lengths: Sequence[int]
    measure: str = "accuracy"  # what `accuracy` is in this task


@dataclass(frozen=True)
class Candidate:
    """A checkpoint on its way: loaded, to be exported to `folder`."""

    source: str
    checkpoint: Checkpoint
    data: Data | None
    folder: Path

    @cached_property
    def task(self) -> Task:
        """Of the exported bundle."""
        manifest = read_manifest(self.folder)
        return choose(manifest, Tokenizer(self.folder / manifest.tokenizer.path, manifest.max_length))

    @cached_property
    def asked(self) -> EvaluationSet | None:
        """The data, as the exported bundle tokenizes them."""
        return None if self.data is None else make_data_set(self.task, self.data)

    def score(self, logits: Logits) -> float | None:
        """How right logits of the data are."""
        return self.task.score(self.asked, logits)[_measure(self.checkpoint)].value if self.asked else None


def compare(options: CompareOptions, progress: Progress | None = None) -> Comparison:
    """Exports and measures every checkpoint. Raises PocketbertError."""
    _check_options(options)
    progress = progress or Progress()
    progress.start(STAGE, _count_tasks(options))
    with stage(Path(tempfile.gettempdir()) / WORK) as work:  # what a killed run leaves there, the next one removes
        sources = options.checkpoints or [_write_base_model(name, work, progress) for name in BASE_MODELS]
        loaded = _distinguish_names([(str(source), load_checkpoint(source, pairs=options.pairs)) for source in sources])
        _check_tasks([checkpoint for _, checkpoint in loaded])
        # Bad data is told before the long work.
        candidates = [
            Candidate(*one, _read_data(one[1], options), work / f"bundle-{i}") for i, one in enumerate(loaded)
        ]
        lengths = _lengths([candidate.checkpoint for candidate in candidates])
        sizes = [_export(candidate, options, max(lengths), progress) for candidate in candidates]
        formats = [{name: ArtifactMetrics(size) for name, size in found.items()} for found in sizes]
        for name in _timed(options):
            for row, found in zip(formats, _run(name, candidates, lengths, options, progress), strict=True):
                row[name] = replace(found, bytes=row[name].bytes)
        rows = [_metrics(*pair, lengths, progress) for pair in zip(candidates, formats, strict=True)]
    progress.finish(STAGE)
    first, measure = candidates[0].data, _measure(candidates[0].checkpoint)
    file, texts = (first.name if first else None), (len(first.texts) if first else 0)
    return Comparison(rows, file, texts, options.threads, lengths, measure)


def _check_options(options: CompareOptions) -> None:
    check_formats(options.formats)
    if options.data and not options.checkpoints:
        raise PocketbertError("--data needs checkpoints: the base models have random weights and no accuracy")


def _check_tasks(checkpoints: Sequence[Checkpoint]) -> None:
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if other.config.task != first.config.task:
            tasks = f"{first.name} is for {first.config.task}, {other.name} for {other.config.task}"
            raise PocketbertError(f"{tasks}: compare checkpoints of one task")


def _measure(checkpoint: Checkpoint) -> str:
    """The one measure that a table shows: of exact match and F1 the F1, which moves with every word."""
    return find(checkpoint.config.task).measures[-1]


def _timed(options: CompareOptions) -> list[str]:
    """The formats that this host can run and time, in the order that was asked for."""
    return [name for name in options.formats if name in engines.timed(options.formats)]


def _count_tasks(options: CompareOptions) -> int:
    """How many there are of what `_task` announces."""
    written = 0 if options.checkpoints else len(BASE_MODELS)
    count, timed = len(options.checkpoints) or written, len(_timed(options))
    evaluated = count * (timed + 1) if options.data else 0
    return written + count + timed + evaluated


@contextmanager
def _task(progress: Progress, doing: str) -> Iterator[None]:
    progress.advance(STAGE, 0, doing)
    progress.log(doing)
    yield
    progress.advance(STAGE)


def _distinguish_names(loaded: list[tuple[str, Checkpoint]]) -> list[tuple[str, Checkpoint]]:
    """Folders of the same name go by the last parts of their paths, as many as tell them apart: reports are shared."""
    names = Counter(checkpoint.name for _, checkpoint in loaded)
    repeated = [source for source, checkpoint in loaded if names[checkpoint.name] > 1 and Path(source).exists()]
    same = {source: Path(os.path.abspath(source)).parts[1:] for source in repeated}
    folders = set(same.values())
    depth = next(depth for depth in count(1) if len({parts[-depth:] for parts in folders}) == len(folders))
    return [
        (source, replace(checkpoint, name="/".join(same[source][-depth:])) if source in same else checkpoint)
        for source, checkpoint in loaded
    ]


def _write_base_model(name: str, work: Path, progress: Progress) -> str:
    with _task(progress, f"{name}: writing random weights"):
        return str(write_base_model(name, work))


def _read_data(checkpoint: Checkpoint, options: CompareOptions) -> Data | None:
    if options.data is None:
        return None
    owner = f"the checkpoint {checkpoint.name}"
    return find(checkpoint.config.task).read(checkpoint, options.data, options.limit, options.columns, owner)


def _lengths(checkpoints: Sequence[Checkpoint]) -> list[int]:
    longest = min(checkpoint.config.max_position_embeddings for checkpoint in checkpoints)
    return [length for length in LENGTHS if length <= longest] or [longest]


def _export(candidate: Candidate, options: CompareOptions, max_length: int, progress: Progress) -> dict[str, int]:
    """Bytes by format."""
    with _task(progress, f"{candidate.checkpoint.name}: exporting to {', '.join(options.formats)}"):
        exported = export_bundle(
            candidate.source,
            candidate.folder,
            ExportOptions(options.formats, max_length=max_length, pairs=options.pairs),
            progress,
        )
    return {artifact.format: artifact.bytes for artifact in exported.manifest.artifacts}


def _run(
    name: str, candidates: Sequence[Candidate], lengths: Sequence[int], options: CompareOptions, progress: Progress
) -> list[ArtifactMetrics]:
    """Speed, memory and accuracy of every checkpoint under one engine."""
    with _task(progress, f"measuring {name}"):
        folders = [candidate.folder for candidate in candidates]
        performances = measure_bundles(folders, name, lengths, options.threads, progress)
    accuracies = [_evaluate_artifact(name, candidate, options, progress) for candidate in candidates]
    return [ArtifactMetrics(0, *pair) for pair in zip(performances, accuracies, strict=True)]


def _evaluate_artifact(name: str, candidate: Candidate, options: CompareOptions, progress: Progress) -> float | None:
    if candidate.asked is None:
        return None
    with (
        _task(progress, f"{candidate.checkpoint.name}: answering {len(candidate.asked.texts)} texts with {name}"),
        open_model(candidate.folder, name, options.threads) as model,
    ):
        return candidate.score([model.run(ids) for ids in candidate.asked.ids])


def _evaluate_fp32(candidate: Candidate, progress: Progress) -> float | None:
    checkpoint = candidate.checkpoint
    if candidate.asked is None:
        return None
    with _task(progress, f"{checkpoint.name}: answering {len(candidate.asked.texts)} texts in fp32"):
        return candidate.score(
            compute_logits(build_encoder(checkpoint.config, checkpoint.tensors), candidate.asked.ids)
        )


def _metrics(
    candidate: Candidate, formats: Mapping[str, ArtifactMetrics], lengths: Sequence[int], progress: Progress
) -> CheckpointMetrics:
    checkpoint = candidate.checkpoint
    config = checkpoint.config
    parameters = count_parameters(config, {name: tensor.numel() for name, tensor in checkpoint.tensors.items()})
    return CheckpointMetrics(
        name=checkpoint.name,
        architecture=config.architecture,
        compression=describe_compression(config),
        layers=len(config.layer_schedule),
        layers_stored=config.stored_layers,
        parameters=parameters.stored,
        parameters_executed=parameters.executed,
        fp32_bytes=FP32_BYTES * parameters.stored,
        multiply_adds={length: count_multiply_adds(config, length) for length in lengths},
        accuracy=_evaluate_fp32(candidate, progress),
        formats=dict(formats),
    )
