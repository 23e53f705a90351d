"""Checkpoint to bundle: load, quantize, lower to each format, write. The whole road of `pocketbert export`.

Takes a checkpoint and options. Returns a finished folder and its manifest, or nothing: everything is written into
a hidden folder beside it and renamed at the end, so a run that is killed leaves no folder that looks done, and what it
leaves the next export removes.
Leaves out: how formats are lowered (lowering.py, backends/) and what the terminal shows (cli/export.py).

The checkpoint is loaded, hashed and quantized once; the oracles go to the workers, and to the golden cases.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pocketbert.export.atomic_directory import publish, stage
from pocketbert.export.calibration_texts import CalibrationTexts, read_calibration_texts
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder
from pocketbert.export.golden import GOLDEN, write_golden
from pocketbert.export.lowering import Result, Workers, save_oracles
from pocketbert.export.quantize import (
    DEFAULT_SCHEME,
    PER_TENSOR_ACTIVATIONS,
    SCHEMES,
    hash_weights,
    make_oracles,
    weight_bits,
)
from pocketbert.export.rounding import FOUR_BITS
from pocketbert.export.tokenizer.tables import TABLES, compile_tokenizer
from pocketbert.export.worker_process import SCRATCH
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import (
    FORMATS,
    FOUR_BIT_SCHEME,
    MANIFEST,
    QUESTION_ANSWERING,
    TASKS,
    TOKEN_CLASSIFICATION,
    Artifact,
    Calibration,
    Manifest,
    Tensor,
    describe_file,
    make_outputs,
    write_manifest,
)
from pocketbert.runtime.progress import Progress

DEFAULT_MAX_LENGTH = 128  # a message is shorter
LONGEST_WINDOW = 384  # of a text that a question is asked of: transformers' question-answering pipeline reads as much
# A text is padded to the next of these: from 16 on at most a third of the work is padding. All are multiples of 8,
# which the int8 kernels' tiles divide.
LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TOKENIZER = "tokenizer.json"
TOOLS = ("pocketbert", "torch", "executorch", "ai-edge-litert", "coremltools", "tokenizers")
# tflite-runtime 2.14, the last of its name, reads only the first scale of a weight and answers wrongly without an
# error. One scale for each whole weight is right there, and costs some accuracy.
TFLITE_COMPAT = "2.14"
COMPATIBLE = {"tflite-runtime": ">=2.14"}
ORACLES = "oracles.pt"  # in the hidden folder, beside the bundle
MB = 1_000_000
SPACE_FACTOR = 3  # staging holds each artifact once, a converter's own temporary files up to twice more
FP32_BYTES = 4
BYTE_BITS, HALF_BITS = 8, 16


class ExportError(PocketbertError):
    """The export cannot start or finish; the message says what to change."""


@dataclass(frozen=True)
class ExportOptions:
    """What `pocketbert export` can be told."""

    formats: tuple[str, ...] = FORMATS
    max_length: int | None = None  # by default what the task needs
    scheme: str = DEFAULT_SCHEME
    ignore: tuple[str, ...] = ()
    force: bool = False
    tflite_compat: str | None = None  # oldest TFLite runtime on which model.tflite must be right
    task: str | None = None  # for a checkpoint whose config.json does not say it
    pairs: bool = False  # a classifier was trained on two texts at once
    calibrate: Path | None = None  # texts that 4 bits are calibrated by; None: the package's own
    eight_bit_layers: int = 0  # with 4 bits: so many of the first layers keep 8


@dataclass(frozen=True)
class ExportResult:
    """What an export gave: the manifest, and the seconds that each stage took."""

    folder: Path
    manifest: Manifest
    seconds: Mapping[str, float]


def export_bundle(source: str, out: Path, options: ExportOptions, progress: Progress | None = None) -> ExportResult:
    """Exports the checkpoint `source` to the folder `out`.

    Raises ExportError, CheckpointError or another PocketbertError; `out` is then as it was before.
    """
    stages = _Stages(progress or Progress())
    started = time.perf_counter()
    _check_options(out, options)
    stages.start("checkpoint", note=f"reading {source}")
    checkpoint = load_checkpoint(source, options.ignore, options.task, options.pairs)
    lengths = _lengths(checkpoint, _default_length(checkpoint) if options.max_length is None else options.max_length)
    stages.finish("checkpoint", _say_task(checkpoint))
    with _disk_errors(out), stage(out) as staging:
        _check_space(checkpoint, staging, options)
        artifacts, calibration = _write_artifacts(checkpoint, lengths, options, staging, stages)
        manifest = _describe(checkpoint, lengths, options, staging, artifacts, calibration)
        write_manifest(manifest, staging)
        _check_out(out, options)  # much can happen in a minute
        publish(staging, out, replace=options.force)
    return ExportResult(out, manifest, {**stages.seconds, "total": time.perf_counter() - started})


class _Stages(Progress):
    """Passes progress on, and keeps the seconds of each stage."""

    def __init__(self, shown: Progress) -> None:
        self.shown = shown
        self.started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        self.started[stage] = time.perf_counter()
        self.shown.start(stage, total, note)

    def finish(self, stage: str, note: str = "", seconds: float | None = None) -> None:
        self.seconds[stage] = time.perf_counter() - self.started[stage] if seconds is None else seconds
        self.shown.finish(stage, note, self.seconds[stage])


def _say_task(checkpoint: Checkpoint) -> str:
    config, labels = checkpoint.config, f"{len(checkpoint.labels)} labels"
    shown = {TOKEN_CLASSIFICATION: f"{labels} for each token", QUESTION_ANSWERING: "start and end of an answer"}
    return f"{config.architecture}, {shown.get(config.task, f'{labels} of text pairs' if checkpoint.pairs else labels)}"


def _check_options(out: Path, options: ExportOptions) -> None:
    check_formats(options.formats)
    check_scheme(options.scheme)
    four_bits = SCHEMES[options.scheme].bits == FOUR_BITS
    if options.eight_bit_layers and not four_bits:
        raise ExportError(
            f"--eight-bit-layers is for --scheme {FOUR_BIT_SCHEME}: {options.scheme} has one width for all"
        )
    if options.calibrate and not four_bits:
        raise ExportError(
            f"{options.scheme} needs no calibration: leave --calibrate out, or pass --scheme {FOUR_BIT_SCHEME}"
        )
    if options.tflite_compat and four_bits:
        raise ExportError(f"tflite-runtime {TFLITE_COMPAT} cannot compute {options.scheme}: leave one of the two out")
    if options.tflite_compat not in (None, TFLITE_COMPAT):
        raise ExportError(f"unknown --tflite-compat {options.tflite_compat!r}: use {TFLITE_COMPAT}")
    if options.task not in (None, *TASKS):
        raise ExportError(f"unknown task {options.task!r}: use {', '.join(TASKS)}")
    _check_out(out, options)


def check_scheme(name: str) -> None:
    """Raises ExportError unless it is one of SCHEMES."""
    if name not in SCHEMES:
        raise ExportError(f"unknown scheme {name!r}: use {', '.join(SCHEMES)}")


def check_formats(formats: Sequence[str]) -> None:
    """Raises ExportError unless these are one or more of FORMATS, each once."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ExportError(f"unknown format {(unknown or [''])[0]!r}: use {', '.join(FORMATS)}")
    twice = [name for name in FORMATS if formats.count(name) > 1]
    if twice:
        raise ExportError(f"format {twice[0]!r} is named twice: name each once")


def _check_out(out: Path, options: ExportOptions) -> None:
    if out.exists() and not options.force:
        raise ExportError(f"{out} exists: choose another --out, or pass --force to replace it")
    if out.exists() and not (out / MANIFEST).exists():
        raise ExportError(f"{out} is not a bundle and is not replaced: choose another --out")


def _default_length(checkpoint: Checkpoint) -> int:
    if checkpoint.config.task != QUESTION_ANSWERING:
        return DEFAULT_MAX_LENGTH
    return min(LONGEST_WINDOW, checkpoint.config.max_position_embeddings)


def _lengths(checkpoint: Checkpoint, max_length: int) -> tuple[int, ...]:
    positions = checkpoint.config.max_position_embeddings
    specials = checkpoint.tokenizer.num_special_tokens_to_add(checkpoint.pairs)
    if not specials < max_length <= positions:
        raise ExportError(
            f"--max-length {max_length} is out of range: {specials + 1} to {positions} for {checkpoint.name}"
        )
    return (*(length for length in LENGTHS if length < max_length), max_length)


def _write_artifacts(
    checkpoint: Checkpoint, lengths: Sequence[int], options: ExportOptions, staging: Path, stages: Progress
) -> tuple[list[Artifact], Calibration | None]:
    """Quantizes while the workers start, and computes the golden cases while they lower."""
    hidden = staging.parent
    (hidden / SCRATCH).mkdir()
    with Workers(options.formats, hidden) as workers:
        file = hidden / ORACLES
        oracles, calibration = _make_oracles(checkpoint, max(lengths), options, file, stages)
        for name in options.formats:
            stages.start(name, note="lowering")
            workers.lower(name, file, _stored_oracle(name, options), lengths, staging)
        _write_golden(checkpoint, oracles, options, max(lengths), staging, stages)
        parts = {name: _weight_bytes(name, oracles, options) for name in options.formats}
        del oracles  # larger than the checkpoint; the workers have theirs from the file
        return _collect(workers, parts, options, stages), calibration


def _make_oracles(
    checkpoint: Checkpoint, max_length: int, options: ExportOptions, file: Path, stages: Progress
) -> tuple[dict[str, Encoder], Calibration | None]:
    """By activations: the fp32 encoder, and all that is lowered or in the golden cases. `file` gets what is lowered."""
    stages.start("oracle", note="quantizing")
    encoder = build_encoder(replace(checkpoint.config, max_position_embeddings=max_length), checkpoint.tensors)
    _check_half_range(encoder, options)
    four_bits = SCHEMES[options.scheme].bits == FOUR_BITS
    texts = read_calibration_texts(checkpoint, options.calibrate, max_length) if four_bits else None
    stored = {_stored_oracle(name, options) for name in options.formats}
    golden_ones = {_activations(name, options) for name in FORMATS}
    names = sorted({"fp32", *stored, *golden_ones})
    oracles = make_oracles(
        encoder,
        names,
        options.scheme,
        texts.ids if texts else (),
        lambda: stages.advance("oracle"),
        options.eight_bit_layers,
    )
    save_oracles({name: oracles[name] for name in sorted(stored)}, file)
    stages.finish("oracle", f"{options.scheme}, calibrated by {len(texts.ids)} texts" if texts else options.scheme)
    return oracles, _describe_calibration(texts, oracles, options) if texts else None


def _describe_calibration(
    texts: CalibrationTexts, oracles: Mapping[str, Encoder], options: ExportOptions
) -> Calibration:
    return Calibration(len(texts.ids), texts.sha256, hash_weights(oracles["int8"]), options.eight_bit_layers)


def _check_half_range(encoder: Encoder, options: ExportOptions) -> None:
    """Core ML computes in fp16, which rounds what is beyond its range to infinity."""
    if "coreml" not in options.formats:
        return
    largest = torch.finfo(torch.float16).max
    for name, tensor in encoder.state_dict().items():
        peak = float(tensor.abs().max())
        if peak > largest:
            raise ExportError(
                f"tensor {name!r} holds {peak:.6g}, Core ML's fp16 ends at {largest:g}: leave coreml out of --formats"
            )


def _activations(name: str, options: ExportOptions) -> str:
    """The arithmetic of a format's artifact, and with it the golden logits that it must reproduce."""
    return "fp16" if name == "coreml" else _stored_oracle(name, options)


def _stored_oracle(name: str, options: ExportOptions) -> str:
    """The oracle whose weights a format stores. Core ML's are int8 too: only its activations are not."""
    if SCHEMES[options.scheme].bits is None:
        return "fp32"
    return PER_TENSOR_ACTIVATIONS if name == "tflite" and options.tflite_compat else "int8"


def _write_golden(
    checkpoint: Checkpoint,
    oracles: Mapping[str, Encoder],
    options: ExportOptions,
    max_length: int,
    staging: Path,
    stages: Progress,
) -> None:
    """Writes golden.json and both forms of the tokenizer."""
    stages.start("golden", note="writing golden.json and the tokenizer")
    compile_tokenizer(checkpoint.tokenizer).save(staging / TABLES)
    (staging / TOKENIZER).write_text(checkpoint.tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    expected = {name: oracles[name] for name in sorted({_activations(each, options) for each in FORMATS})}
    with _one_thread():
        cases = write_golden(staging, checkpoint, oracles["fp32"], expected, max_length)
    stages.finish("golden", f"{cases} cases")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Beside the workers more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _weight_bytes(name: str, oracles: Mapping[str, Encoder], options: ExportOptions) -> dict[str, int]:
    """Bytes of the weights by part, as the format stores them; equal ones, as zero biases are, count once."""
    oracle = oracles[_stored_oracle(name, options)]
    bits, sixteen = weight_bits(oracle), _activations(name, options) == "fp16"
    stored, seen = {"embeddings": 0, "layers": 0, "head": 0}, set()
    for place, tensor in oracle.state_dict().items():
        if place.endswith("zero_point"):  # always 0; no two formats store it alike
            continue
        content = hashlib.sha256(tensor.contiguous().numpy()).digest()
        if content not in seen:
            seen.add(content)
            own = HALF_BITS if sixteen and tensor.is_floating_point() else BYTE_BITS * tensor.element_size()
            stored[place.partition(".")[0]] += tensor.numel() * bits.get(place, own)
    return {part: total // BYTE_BITS for part, total in stored.items()}


def _collect(
    workers: Workers, parts: Mapping[str, Mapping[str, int]], options: ExportOptions, stages: Progress
) -> list[Artifact]:
    artifacts = {}
    for name, result in workers.results():
        stages.finish(name, result.lowered.path, result.seconds)
        artifacts[name] = _describe_artifact(name, result, parts[name], options)
    return [artifacts[name] for name in options.formats]


def _describe_artifact(name: str, result: Result, parts: Mapping[str, int], options: ExportOptions) -> Artifact:
    lowered, activations = result.lowered, _activations(name, options)
    rest = sum(file.bytes for file in result.files) - sum(parts.values())  # the graph and its tables
    return Artifact(
        format=name,
        path=lowered.path,
        entry=lowered.entry,
        any_length=lowered.any_length,
        activations=activations,
        requires={**lowered.requires, **(COMPATIBLE if activations == PER_TENSOR_ACTIVATIONS else {})},
        parts={**parts, "graph": rest},
        files=result.files,
    )


def _describe(
    checkpoint: Checkpoint,
    lengths: Sequence[int],
    options: ExportOptions,
    staging: Path,
    artifacts: Sequence[Artifact],
    calibration: Calibration | None,
) -> Manifest:
    return Manifest(
        task=checkpoint.config.task,
        architecture=checkpoint.config.architecture,
        labels=tuple(checkpoint.labels),
        multi_label=checkpoint.multi_label,
        lengths=tuple(lengths),
        max_length=max(lengths),
        pad_id=checkpoint.config.pad_id,
        scheme=options.scheme,
        input=Tensor("input_ids", "int32", (1, None)),
        outputs=make_outputs(checkpoint.config.task, len(checkpoint.labels)),
        tokenizer=describe_file(staging, TOKENIZER),
        tokenizer_tables=describe_file(staging, TABLES),
        golden=describe_file(staging, GOLDEN),
        artifacts=tuple(artifacts),
        source={
            "name": checkpoint.name,
            "weights_sha256": checkpoint.weights_sha256,
            "ignored_tensors": list(checkpoint.ignored),
        },
        tools={tool: _version(tool) for tool in TOOLS},
        pairs=checkpoint.pairs,
        calibration=calibration,
    )


def _check_space(checkpoint: Checkpoint, staging: Path, options: ExportOptions) -> None:
    weights = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    stored = weights if SCHEMES[options.scheme].bits else FP32_BYTES * weights
    needed = stored * (SPACE_FACTOR * len(options.formats) + 1)  # 1: the oracles
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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
