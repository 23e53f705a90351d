"""Checkpoint to bundle: load, quantize, lower to each format, write. The whole road of `pocketbert export`.

Takes a checkpoint and options. Gives a finished folder and its manifest, or nothing: everything is written into
a hidden folder beside it and renamed at the end, so a run that is killed leaves no folder that looks done.
Leaves out: how each format is lowered (backends/) and what the terminal shows (cli.py).

Formats are lowered in processes of their own, side by side: a converter's global state, memory and chatter
end with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path

from pocketbert.export import golden, whole_folder
from pocketbert.export.backends import FORMATS, open_backend
from pocketbert.export.checkpoint import Checkpoint, load
from pocketbert.export.encoder import Encoder, build
from pocketbert.export.quantize import (
    DEFAULT_SCHEME,
    PER_TENSOR,
    PER_TENSOR_ACTIVATIONS,
    SCHEMES,
    make_oracle,
    quantize,
)
from pocketbert.export.tokenizer_tables import TABLES, compile_tokenizer
from pocketbert.runtime import manifest as bundle
from pocketbert.runtime.errors import PocketbertError

DEFAULT_MAX_LENGTH = 128
# A text is padded to the next of these: from 16 on at most a third of the work is padding. All are multiples of 8,
# which the int8 kernels' tiles divide.
LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TOKENIZER = "tokenizer.json"
TOOLS = ("pocketbert", "torch", "executorch", "ai-edge-litert", "coremltools", "tokenizers")
# tflite-runtime 2.14, the last of its name, reads only the first scale of a weight and answers wrongly without an
# error. One scale for each whole weight is right there, and costs some accuracy.
TFLITE_COMPAT = "2.14"
COMPATIBLE = {"tflite-runtime": ">=2.14"}
PROCESSES = 2  # ExecuTorch takes as long as the other two together; a third process would only cost memory
MB = 1_000_000
SPACE_FACTOR = 3  # staging holds each artifact once, a converter's own temporary files up to twice more


class ExportError(PocketbertError):
    """The export cannot start or finish; the message says what to change."""


@dataclass(frozen=True)
class Options:
    """What `pocketbert export` can be told."""

    formats: tuple[str, ...] = FORMATS
    max_length: int = DEFAULT_MAX_LENGTH
    scheme: str = DEFAULT_SCHEME
    ignore: tuple[str, ...] = ()
    force: bool = False
    tflite_compat: str | None = None  # oldest TFLite runtime on which model.tflite must be right


@dataclass(frozen=True)
class Exported:
    """What an export gave: the manifest, and the seconds that each stage took."""

    folder: Path
    manifest: bundle.Manifest
    seconds: Mapping[str, float]


class Progress:
    """Told when a stage starts and ends, and keeps the seconds of each; the command line draws it."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def start(self, stage: str, doing: str) -> None:
        self.started[stage] = time.perf_counter()

    def done(self, stage: str, result: str, seconds: float | None = None) -> None:
        self.seconds[stage] = time.perf_counter() - self.started[stage] if seconds is None else seconds


def export(source: str, out: Path, options: Options, progress: Progress | None = None) -> Exported:
    """Exports the checkpoint `source` to the folder `out`.

    Raises ExportError, CheckpointError or another PocketbertError; `out` is then as it was before.
    """
    progress = progress or Progress()
    started = time.perf_counter()
    _check_options(out, options)
    progress.start("checkpoint", f"reading {source}")
    checkpoint = load(source, options.ignore)
    lengths = _lengths(checkpoint, options.max_length)
    progress.done("checkpoint", f"{checkpoint.config.architecture}, {len(checkpoint.labels)} labels")
    with _disk_errors(out), whole_folder.staging(out) as staging:
        _check_space(checkpoint, staging, len(options.formats))
        artifacts = _write_artifacts(checkpoint, lengths, options, staging, progress)
        manifest = _describe(checkpoint, lengths, options, staging, artifacts)
        bundle.write(manifest, staging)
        whole_folder.publish(staging, out)
    return Exported(out, manifest, {**progress.seconds, "total": time.perf_counter() - started})


def _check_options(out: Path, options: Options) -> None:
    unknown = [format for format in options.formats if format not in FORMATS]
    if unknown or not options.formats:
        raise ExportError(f"unknown format {(unknown or [''])[0]!r}: use {', '.join(FORMATS)}")
    if options.scheme not in SCHEMES:
        raise ExportError(f"unknown scheme {options.scheme!r}: use {', '.join(SCHEMES)}")
    if options.tflite_compat not in (None, TFLITE_COMPAT):
        raise ExportError(f"unknown --tflite-compat {options.tflite_compat!r}: use {TFLITE_COMPAT}")
    if out.exists() and not options.force:
        raise ExportError(f"{out} exists: choose another --out, or pass --force to replace it")
    if out.exists() and not (out / bundle.MANIFEST).exists():
        raise ExportError(f"{out} is not a bundle and is not replaced: choose another --out")


def _lengths(checkpoint: Checkpoint, max_length: int) -> tuple[int, ...]:
    positions = checkpoint.config.positions
    specials = checkpoint.tokenizer.num_special_tokens_to_add(False)
    if not specials < max_length <= positions:
        raise ExportError(
            f"--max-length {max_length} is out of range: {specials + 1} to {positions} for {checkpoint.name}"
        )
    return (*(length for length in LENGTHS if length < max_length), max_length)


def _write_artifacts(
    checkpoint: Checkpoint, lengths: Sequence[int], options: Options, staging: Path, progress: Progress
) -> list[bundle.Artifact]:
    """Lowers the formats side by side, while this process computes the golden cases."""
    jobs: dict[Future[tuple[bundle.Artifact, float]], str] = {}
    with _pool() as pool:
        for format in options.formats:
            progress.start(format, "lowering")
            job = pool.submit(_lower, checkpoint.folder, options, lengths, format, staging)
            jobs[job] = format
        progress.start("golden", "writing golden.json and the tokenizer")
        _write_golden(checkpoint, max(lengths), options, staging)
        progress.done("golden", f"{len(golden.TEXTS)} cases")
        artifacts = dict(_collect(jobs, progress))
    return [artifacts[format] for format in options.formats]


def _collect(
    jobs: Mapping[Future[tuple[bundle.Artifact, float]], str], progress: Progress
) -> Iterator[tuple[str, bundle.Artifact]]:
    for job in as_completed(jobs):
        try:
            artifact, seconds = job.result()
        except BrokenProcessPool:
            raise ExportError(f"lowering to {jobs[job]} was killed: is there enough memory?") from None
        progress.done(jobs[job], artifact.path, seconds)
        yield jobs[job], artifact


@contextlib.contextmanager
def _pool() -> Iterator[ProcessPoolExecutor]:
    """Worker processes that do not outlive a failure or Ctrl-C."""
    pool = ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"))
    try:
        yield pool
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _lower(
    folder: Path, options: Options, lengths: Sequence[int], format: str, staging: Path
) -> tuple[bundle.Artifact, float]:
    """In a worker: lowers one format, and gives its manifest entry and the seconds it took."""
    started = time.perf_counter()
    _use_one_thread()
    activations = _activations(format, options)
    scheme = PER_TENSOR if activations == PER_TENSOR_ACTIVATIONS else SCHEMES[options.scheme]
    with _converter(format):
        oracle = quantize(_build(load(folder, options.ignore), max(lengths)), scheme)
        lowered = open_backend(format).lower(oracle, lengths, staging)
    files = _describe_files(staging, lowered.path)
    artifact = bundle.Artifact(
        format=format,
        path=lowered.path,
        entry=lowered.entry,
        any_length=lowered.any_length,
        activations=activations,
        requires={**lowered.requires, **(COMPATIBLE if activations == PER_TENSOR_ACTIVATIONS else {})},
        parts=_parts(oracle, activations, sum(file.bytes for file in files)),
        files=files,
    )
    return artifact, time.perf_counter() - started


def _activations(format: str, options: Options) -> str:
    """The arithmetic of an artifact, and with it the golden logits that it must reproduce."""
    if format == "coreml":
        return "fp16"
    if not SCHEMES[options.scheme].int8:
        return "fp32"
    return PER_TENSOR_ACTIVATIONS if format == "tflite" and options.tflite_compat else "int8"


def _use_one_thread() -> None:
    """Formats are lowered side by side; torch's own threads would only wait for each other."""
    import torch

    torch.set_num_threads(1)


def _build(checkpoint: Checkpoint, max_length: int) -> Encoder:
    """The fp32 encoder, cut to `max_length` positions."""
    return build(replace(checkpoint.config, positions=max_length), checkpoint.tensors)


def _write_golden(checkpoint: Checkpoint, max_length: int, options: Options, staging: Path) -> None:
    compile_tokenizer(checkpoint.tokenizer).save(staging / TABLES)
    (staging / TOKENIZER).write_text(checkpoint.tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    _use_one_thread()
    encoder = _build(checkpoint, max_length)
    names = {_activations(format, options) for format in FORMATS}
    oracles = {name: make_oracle(encoder, name, options.scheme) for name in names}
    golden.write(staging, checkpoint.tokenizer, encoder, oracles, max_length)


def _describe(
    checkpoint: Checkpoint,
    lengths: Sequence[int],
    options: Options,
    staging: Path,
    artifacts: Sequence[bundle.Artifact],
) -> bundle.Manifest:
    return bundle.Manifest(
        task="sequence-classification",
        architecture=checkpoint.config.architecture,
        labels=tuple(checkpoint.labels),
        multi_label=checkpoint.multi_label,
        lengths=tuple(lengths),
        max_length=max(lengths),
        pad_id=checkpoint.config.pad_id,
        scheme=options.scheme,
        input=bundle.Tensor("input_ids", "int32", (1, None)),
        output=bundle.Tensor("logits", "float32", (1, len(checkpoint.labels))),
        tokenizer=bundle.describe_file(staging, TOKENIZER),
        tokenizer_tables=bundle.describe_file(staging, TABLES),
        golden=bundle.describe_file(staging, golden.GOLDEN),
        artifacts=tuple(artifacts),
        source={
            "name": checkpoint.name,
            "weights_sha256": checkpoint.weights_sha256,
            "ignored_tensors": list(checkpoint.ignored),
        },
        tools={tool: _version(tool) for tool in TOOLS},
    )


def _describe_files(staging: Path, path: str) -> tuple[bundle.File, ...]:
    """One file, or every file of a package folder."""
    place = staging / path
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    return tuple(bundle.describe_file(staging, file.relative_to(staging).as_posix()) for file in files)


def _parts(oracle: Encoder, activations: str, total: int) -> dict[str, int]:
    """Bytes of the weights by part, as the format stores them; the rest is the graph and its tables."""
    parts = {"embeddings": 0, "layers": 0, "head": 0}
    for name, tensor in oracle.state_dict().items():
        if not name.endswith("zero_point"):  # always 0; no two formats store it alike
            narrow = activations == "fp16" and tensor.is_floating_point()
            parts[name.partition(".")[0]] += tensor.numel() * (2 if narrow else tensor.element_size())
    return {**parts, "graph": total - sum(parts.values())}


def _check_space(checkpoint: Checkpoint, staging: Path, formats: int) -> None:
    needed = SPACE_FACTOR * formats * sum(tensor.numel() for tensor in checkpoint.tensors.values())
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise ExportError(f"{staging.parent} has {free // MB} MB free, the export needs {needed // MB}: make room")


@contextlib.contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space left on the disk: make room" if full else f"{problem.strerror or problem}"
        raise ExportError(f"cannot write {out}: {reason}") from problem


@contextlib.contextmanager
def _converter(format: str) -> Iterator[None]:
    """Sends all that a converter prints, native code included, to a log that is kept if it fails."""
    handle, log = tempfile.mkstemp(prefix=f"pocketbert-{format}-", suffix=".log")
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(handle, descriptor)
    os.close(handle)
    try:
        yield
    except (OSError, MemoryError, PocketbertError):
        Path(log).unlink()
        raise
    except Exception as problem:  # a converter's own: it can be anything
        reason = next(iter(str(problem).strip().splitlines()), "")
        message = f"lowering to {format} failed: {type(problem).__name__}: {reason} (log: {log})"
        raise ExportError(message) from None
    Path(log).unlink()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
