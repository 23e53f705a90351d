"""How fast bundles answer and how much memory they hold under one engine: `pocketbert bench`, across checkpoints.

Takes bundles and an engine. Returns, for each bundle, the median milliseconds by length and the memory that opening and
running it added. Leaves out: how it is measured (runtime/bench): in turns, so that a busy machine hurts all
alike, and none begins before the process of the last one has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketbert.runtime.bench.measure import Measurement, Subject, make_texts, measure
from pocketbert.runtime.manifest import read_manifest
from pocketbert.runtime.progress import Progress

ROUNDS = 5  # turns of ten texts, a process each: the median of fifty
MILLISECONDS = 1000
MB = 1_000_000
MEASURE = "model"  # from ids to logits: tokenizers are not what is compared


@dataclass(frozen=True)
class Performance:
    """One bundle under one engine."""

    milliseconds: dict[int, float]  # tokens -> median
    resident_mb: float


def measure_bundles(
    folders: Sequence[Path], engine: str, lengths: Sequence[int], threads: int, progress: Progress | None = None
) -> list[Performance]:
    """Measures each bundle. Raises EngineError where one does not open."""
    subjects = [Subject(engine, threads, str(folder)) for folder in folders]
    texts = {str(folder): make_texts(folder, read_manifest(folder), lengths) for folder in folders}
    found = measure(subjects, texts, ROUNDS, starts=0, progress=progress)
    return [_summarize(result) for result in found.results]


def _summarize(result: Measurement) -> Performance:
    medians = {length: result.quantile(length, MEASURE, 0.5) * MILLISECONDS for length in result.samples}
    return Performance(medians, result.resident_bytes / MB)
