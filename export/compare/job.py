"""Checkpoints and schemes side by side: each is exported, opened, measured and evaluated, and set against the first.

Takes checkpoints and options. Returns a `Comparison`: `CheckpointMetrics` for each checkpoint in each scheme, as plain
data. Leaves out: the terminal (cli/compare.py) and the page (report.py).
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
from pocketbert.export.bundle import ExportOptions, check_formats, check_scheme, export_bundle
from pocketbert.export.calibration_texts import read_calibration_texts
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.compare.base_models import BASE_MODELS, write_base_model
from pocketbert.export.compare.measure import Performance, measure_bundles
from pocketbert.export.compare.model_cost import count_multiply_adds, count_parameters, describe_compression
from pocketbert.export.encoder import build_encoder, compute_logits
from pocketbert.export.quantize import DEFAULT_SCHEME
from pocketbert.runtime import engines
from pocketbert.runtime.check.evaluation import make_data_set
from pocketbert.runtime.check.evaluation_set import EvaluationSet
from pocketbert.runtime.check.tasks import Data, Task
from pocketbert.runtime.check.tasks.choice import choose, find
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import FORMATS, FOUR_BIT_SCHEME, read_manifest
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
    schemes: tuple[str, ...] = (DEFAULT_SCHEME,)  # each checkpoint in each of them
    calibrate: Path | None = None  # texts that 4 bits are calibrated by; None: the package's own


@dataclass(frozen=True)
class Quality:
    """How right logits of the data are, and the share of answers that are the checkpoint's own in fp32."""

    accuracy: float
    agreement: float


@dataclass(frozen=True)
class ArtifactMetrics:
    """One artifact of a checkpoint; None where this host cannot run it."""

    bytes: int
    performance: Performance | None = None
    quality: Quality | None = None


@dataclass(frozen=True)
class CheckpointMetrics:
    """A checkpoint's figures, in one scheme."""

    name: str
    scheme: str
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
    """All figures of one run, in the order of the checkpoints, and for each in that of the schemes."""

    checkpoints: Sequence[CheckpointMetrics]
    data: str | None
    texts: int
    threads: int
    lengths: Sequence[int]
    measure: str = "accuracy"  # what `accuracy` is in this task


@dataclass(frozen=True)
class Candidate:
    """A checkpoint on its way: loaded, to be exported to `folder` in `scheme`."""

    source: str
    checkpoint: Checkpoint
    data: Data | None
    scheme: str
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

    def judge(self, asked: EvaluationSet, logits: Logits, reference: Logits) -> Quality:
        """Logits of the data against their labels and against the checkpoint's own."""
        compared = self.task.compare(asked, logits, reference, tolerance=0)
        return Quality(
            accuracy=self.task.score(asked, logits)[_measure(self.checkpoint)].value,
            agreement=compared.divergence.agreement,
        )


def compare(options: CompareOptions, progress: Progress | None = None) -> Comparison:
    """Exports and measures every checkpoint in every scheme. Raises PocketbertError."""
    _check_options(options)
    progress = progress or Progress()
    progress.start(STAGE, _count_tasks(options))
    with stage(Path(tempfile.gettempdir()) / WORK) as work:  # what a killed run leaves there, the next one removes
        candidates = _make_candidates(options, work, progress)
        lengths = _lengths([candidate.checkpoint for candidate in candidates])
        sizes = [_export(candidate, options, max(lengths), progress) for candidate in candidates]
        references = {candidate.source: candidate for candidate in candidates}
        logits = {source: _answer_in_fp32(candidate, progress) for source, candidate in references.items()}
        formats = [{name: ArtifactMetrics(size) for name, size in found.items()} for found in sizes]
        for name in _timed(options):
            for row, found in zip(formats, _run(name, candidates, logits, lengths, options, progress), strict=True):
                row[name] = replace(found, bytes=row[name].bytes)
        rows = [
            _metrics(candidate, logits[candidate.source], found, lengths)
            for candidate, found in zip(candidates, formats, strict=True)
        ]
    progress.finish(STAGE)
    first, measure = candidates[0].data, _measure(candidates[0].checkpoint)
    file, texts = (first.name if first else None), (len(first.texts) if first else 0)
    return Comparison(rows, file, texts, options.threads, lengths, measure)


def _make_candidates(options: CompareOptions, work: Path, progress: Progress) -> list[Candidate]:
    """Each checkpoint in each scheme. Bad checkpoints, data and texts are told before the long work."""
    sources = options.checkpoints or [_write_base_model(name, work, progress) for name in BASE_MODELS]
    loaded = _distinguish_names([(str(source), load_checkpoint(source, pairs=options.pairs)) for source in sources])
    _check_tasks([checkpoint for _, checkpoint in loaded])
    if options.calibrate:
        for _, checkpoint in loaded:
            read_calibration_texts(checkpoint, options.calibrate, checkpoint.config.max_position_embeddings)
    return [
        Candidate(source, checkpoint, data, scheme, work / f"bundle-{number}-{scheme}")
        for number, (source, checkpoint) in enumerate(loaded)
        for data in [_read_data(checkpoint, options)]
        for scheme in options.schemes
    ]


def _check_options(options: CompareOptions) -> None:
    check_formats(options.formats)
    for scheme in options.schemes:
        check_scheme(scheme)
        if options.schemes.count(scheme) > 1:
            raise PocketbertError(f"scheme {scheme!r} is named twice: name each once")
    if options.calibrate and FOUR_BIT_SCHEME not in options.schemes:
        raise PocketbertError(f"--calibrate is for 4 bits: leave it out, or pass --scheme {FOUR_BIT_SCHEME}")
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
    count = (len(options.checkpoints) or written) * len(options.schemes)
    timed, in_fp32 = len(_timed(options)), len(set(options.checkpoints))
    evaluated = count * timed + in_fp32 if options.data else 0
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
    scheme = candidate.scheme
    with _task(progress, f"{candidate.checkpoint.name}: exporting {scheme} to {', '.join(options.formats)}"):
        exported = export_bundle(
            candidate.source,
            candidate.folder,
            ExportOptions(
                options.formats,
                max_length=max_length,
                scheme=scheme,
                pairs=options.pairs,
                calibrate=options.calibrate if scheme == FOUR_BIT_SCHEME else None,
            ),
            progress,
        )
    return {artifact.format: artifact.bytes for artifact in exported.manifest.artifacts}


def _run(
    name: str,
    candidates: Sequence[Candidate],
    references: Mapping[str, Logits | None],
    lengths: Sequence[int],
    options: CompareOptions,
    progress: Progress,
) -> list[ArtifactMetrics]:
    """Speed, memory and quality of every candidate under one engine."""
    with _task(progress, f"measuring {name}"):
        folders = [candidate.folder for candidate in candidates]
        performances = measure_bundles(folders, name, lengths, options.threads, progress)
    qualities = [_evaluate(name, each, references[each.source], options, progress) for each in candidates]
    return [ArtifactMetrics(0, *pair) for pair in zip(performances, qualities, strict=True)]


def _evaluate(
    name: str, candidate: Candidate, reference: Logits | None, options: CompareOptions, progress: Progress
) -> Quality | None:
    if candidate.asked is None or reference is None:
        return None
    doing = f"{candidate.checkpoint.name}, {candidate.scheme}: answering {len(candidate.asked.texts)} texts with {name}"
    with _task(progress, doing), open_model(candidate.folder, name, options.threads) as model:
        return candidate.judge(candidate.asked, [model.run(ids) for ids in candidate.asked.ids], reference)


def _answer_in_fp32(candidate: Candidate, progress: Progress) -> Logits | None:
    checkpoint = candidate.checkpoint
    if candidate.asked is None:
        return None
    with _task(progress, f"{checkpoint.name}: answering {len(candidate.asked.texts)} texts in fp32"):
        return compute_logits(build_encoder(checkpoint.config, checkpoint.tensors), candidate.asked.ids)


def _metrics(
    candidate: Candidate, reference: Logits | None, formats: Mapping[str, ArtifactMetrics], lengths: Sequence[int]
) -> CheckpointMetrics:
    checkpoint, asked = candidate.checkpoint, candidate.asked
    config = checkpoint.config
    parameters = count_parameters(config, {name: tensor.numel() for name, tensor in checkpoint.tensors.items()})
    return CheckpointMetrics(
        name=checkpoint.name,
        scheme=candidate.scheme,
        architecture=config.architecture,
        compression=describe_compression(config),
        layers=len(config.layer_schedule),
        layers_stored=config.stored_layers,
        parameters=parameters.stored,
        parameters_executed=parameters.executed,
        fp32_bytes=FP32_BYTES * parameters.stored,
        multiply_adds={length: count_multiply_adds(config, length) for length in lengths},
        accuracy=candidate.judge(asked, reference, reference).accuracy if asked and reference else None,
        formats=dict(formats),
    )
