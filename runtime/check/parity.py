"""Does every artifact still answer like the checkpoint? Runs each engine through all that could show otherwise.

Takes a bundle, engines, labelled data and the checkpoint's own logits (both optional). Returns a `Check`.
Leaves out: computing the checkpoint's logits (export/reference.py), judging (gates.py), showing (report.py).

Two divergences are kept apart: checkpoint to oracle is what quantization costs, oracle to artifact is what lowering
breaks. The oracle is the artifact's arithmetic in torch; golden.json carries its logits for a few texts, so that
every bundle can be checked without its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.check.evaluation import Evaluation, assemble
from pocketbert.runtime.check.evaluation_set import CHECKPOINT
from pocketbert.runtime.check.metrics import Comparison
from pocketbert.runtime.check.tasks import Data, Score, Task
from pocketbert.runtime.check.tasks.choice import choose
from pocketbert.runtime.engines import kind
from pocketbert.runtime.errors import BundleError
from pocketbert.runtime.manifest import Artifact, Manifest, read_manifest, verify_files
from pocketbert.runtime.progress import Progress
from pocketbert.runtime.self_check import read_golden
from pocketbert.runtime.tasks import open_model
from pocketbert.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.check.evaluation import Reference
    from pocketbert.runtime.check.evaluation_set import EvaluationSet, Ids
    from pocketbert.runtime.check.metrics import Logits
    from pocketbert.runtime.model import Model
    from pocketbert.runtime.self_check import GoldenCase

PADDED_TEXTS = 64  # texts run at every larger length: a second or two per engine
REPEATED_TEXTS = 16  # texts run again, and from several threads at once
REPEATS = 2
CONCURRENT_THREADS = 4  # an app has a UI thread and a few workers


@dataclass(frozen=True)
class EngineResult:
    """What one engine did."""

    golden: Logits
    sweep: Logits
    data: Logits | None
    texts_per_second: float
    padding_drift: float  # of the most moved text, padded to every larger length
    repeat_drift: float  # of logits, the same ids again
    concurrent_drift: float  # of logits, from several threads at once


@dataclass(frozen=True)
class CheckedEngine:
    """An engine that was asked: its result, or the error that kept it from answering."""

    name: str
    artifact: Artifact
    version: str = ""
    result: EngineResult | None = None
    error: str = ""


@dataclass(frozen=True)
class Check:
    """All that was measured of a bundle."""

    folder: Path
    manifest: Manifest
    task: Task
    evaluation: Evaluation
    engines: Sequence[CheckedEngine]
    wrong_ids: Sequence[str]  # golden texts that the tokenizer turns into other ids
    absent: Sequence[str] = ()  # formats that no engine was found for
    checkpoint: str | None = None
    data: Data | None = None

    def logits(self, result: EngineResult) -> Logits:
        """An engine's logits of the comparison set."""
        on_data = result.data is not None and self.evaluation.comparison_set is self.evaluation.data
        return result.data if on_data else result.golden  # type: ignore[return-value]

    def comparisons(self, engine: CheckedEngine) -> dict[str, Comparison]:
        """Checkpoint, oracle and artifact against each other on the comparison set; empty where the engine failed."""
        reference = self.evaluation.comparison_set.reference
        if engine.result is None or reference is None:
            return {}
        asked, found = self.evaluation.comparison_set, self.logits(engine.result)
        oracle = reference[engine.artifact.activations]
        return {
            "checkpoint_to_oracle": self._compare(asked, oracle, reference[CHECKPOINT]),
            "oracle_to_artifact": self._compare(asked, found, oracle),
            "checkpoint_to_artifact": self._compare(asked, found, reference[CHECKPOINT]),
        }

    def between(self) -> Iterator[tuple[CheckedEngine, CheckedEngine, Comparison]]:
        """Any two engines against each other, on the data or else on the golden cases."""
        asked = self.evaluation.data or self.evaluation.golden
        for one, other in combinations([engine for engine in self.engines if engine.result], 2):
            logits = [_best_known(engine.result) for engine in (one, other) if engine.result]
            yield one, other, self._compare(asked, logits[1], logits[0])

    def _compare(self, asked: EvaluationSet, found: Logits, expected: Logits) -> Comparison:
        return self.task.compare(asked, found, expected, self.evaluation.tolerance)

    def scores(self, logits: Logits | None) -> Mapping[str, Score]:
        """How right logits of the data are, by each of the task's measures; empty where that is not known."""
        data = self.evaluation.data
        return {} if logits is None or data is None else self.task.score(data, logits)

    def confusion(self, engine: CheckedEngine) -> NDArray[np.int64] | None:
        """How often each label was answered by each, where the data say and labels exclude each other."""
        data, found = self.evaluation.data, engine.result.data if engine.result else None
        return None if data is None or found is None else self.task.confusion(data, found)

    def sweep_drift(self, engine: CheckedEngine) -> Iterator[tuple[int, float | None]]:
        """Each swept length in tokens, with the drift from the oracle there."""
        sweep = self.evaluation.sweep
        if engine.result is None:
            return
        drifts: Sequence[float | None] = [None] * len(sweep.ids)
        if sweep.reference:
            oracle = sweep.reference[engine.artifact.activations]
            drifts = [self.task.drift(*pair) for pair in zip(engine.result.sweep, oracle, strict=True)]
        yield from zip(map(len, sweep.ids), drifts, strict=True)


def check_bundle(
    folder: Path,
    names: Sequence[str],
    data: Data | None = None,
    reference: Reference | None = None,
    checkpoint: str | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Check:
    """Runs the engines `names` on the bundle in `folder`. Raises BundleError for a damaged bundle.

    `reference` gives the logits of `checkpoint`; without it the golden cases serve.
    """
    progress = progress or Progress()
    manifest = read_manifest(folder)
    verify_files(folder, manifest.files)
    task = choose(manifest, Tokenizer(folder / manifest.tokenizer.path, manifest.max_length))
    golden = read_golden(folder, manifest)
    wrong = [case.text for case in golden.cases if not _gives_ids(task.tokenizer, case)]
    evaluation = assemble(task, golden, data, reference, progress)
    engines = [_run_engine(folder, task, name, threads, evaluation, progress) for name in names]
    return Check(folder, manifest, task, evaluation, engines, wrong, checkpoint=checkpoint, data=data)


def _gives_ids(tokenizer: Tokenizer, case: GoldenCase) -> bool:
    return np.array_equal(tokenizer(case.text, case.text_pair), case.ids)


def _best_known(result: EngineResult) -> Logits:
    return result.golden if result.data is None else result.data


# Each engine is opened once and asked everything.


def _run_engine(
    folder: Path, task: Task, name: str, threads: int, evaluation: Evaluation, progress: Progress
) -> CheckedEngine:
    engine = CheckedEngine(name, task.manifest.artifact(kind(name)))
    try:
        # Not self-checked: a wrong answer is what the gates are to name.
        with open_model(folder, name, threads, self_check=False) as model:
            engine = replace(engine, version=model.engine.version)
            return replace(engine, result=_Run(model, task, name, progress).evaluate(evaluation))
    except BundleError:
        raise
    except Exception as problem:  # native runtimes raise anything; the gate `answers` names it
        return replace(engine, error=(str(problem).strip() or type(problem).__name__).splitlines()[0])


class _Run:
    """One model being evaluated, with its progress."""

    def __init__(self, model: Model, task: Task, name: str, progress: Progress) -> None:
        self.model, self.task, self.name, self.progress = model, task, name, progress

    def evaluate(self, evaluation: Evaluation) -> EngineResult:
        data = evaluation.data.ids if evaluation.data else []
        everything = [*evaluation.golden.ids, *evaluation.sweep.ids, *data]
        padded, repeated = spread(self.paddable(everything), PADDED_TEXTS), spread(everything, REPEATED_TEXTS)
        steps = len(everything) + len(padded) + (1 + REPEATS + CONCURRENT_THREADS) * len(repeated)
        self.progress.start(self.name, steps)
        golden, golden_rate = self.run(evaluation.golden.ids)
        data_logits, data_rate = self.run(data) if data else (None, golden_rate)
        return EngineResult(
            golden=golden,
            sweep=self.run(evaluation.sweep.ids)[0],
            data=data_logits,
            texts_per_second=data_rate,
            padding_drift=max((self.padding_drift(ids) for ids in padded), default=0.0),  # one length pads nothing
            repeat_drift=self.repeat_drift(repeated),
            concurrent_drift=self.concurrent_drift(repeated),
        )

    def run(self, ids: Sequence[Ids]) -> tuple[Logits, float]:
        """Logits, and texts per second."""
        started = time.perf_counter()
        logits = [self.step(row) for row in ids]
        return logits, len(ids) / (time.perf_counter() - started)

    def step(self, ids: Ids) -> NDArray[np.float32]:
        logits = self.model.run(ids)
        self.progress.advance(self.name)
        return logits

    def paddable(self, ids: Sequence[Ids]) -> list[Ids]:
        return [row for row in ids if self.larger_lengths(row)]

    def larger_lengths(self, ids: Ids) -> list[int]:
        """The lengths to which `ids` can be padded beyond what the model does by itself."""
        manifest = self.model.manifest
        own = len(ids) if self.model.artifact.any_length else manifest.padded_length(len(ids))
        return [length for length in manifest.lengths if length > own]

    def padding_drift(self, ids: Ids) -> float:
        """The largest change of a probability when the same ids are padded to each larger length."""
        pad = self.model.manifest.pad_id
        rows = [np.pad(ids, (0, length - len(ids)), constant_values=pad) for length in self.larger_lengths(ids)]
        padded = [self.model.run(row) for row in rows]
        self.progress.advance(self.name)
        alone, own = self.model.run(ids), slice(len(ids) if self.model.manifest.by_token else None)
        return max(self.task.drift(logits[own], alone) for logits in padded)

    def repeat_drift(self, ids: Sequence[Ids]) -> float:
        first = self.run(ids)[0]
        return max(_largest_change(self.run(ids)[0], first) for _ in range(REPEATS))

    def concurrent_drift(self, ids: Sequence[Ids]) -> float:
        """Threads share the model, each starting at another text."""
        alone = [self.model.run(row) for row in ids]
        starts = np.linspace(0, len(ids), CONCURRENT_THREADS, endpoint=False, dtype=int)
        orders = [np.roll(np.arange(len(ids)), -start) for start in starts]
        with ThreadPoolExecutor(CONCURRENT_THREADS) as pool:
            found = list(pool.map(lambda order: self.run([ids[i] for i in order])[0], orders))
        return max(
            _largest_change(logits, [alone[i] for i in order]) for logits, order in zip(found, orders, strict=True)
        )


def _largest_change(found: Logits, expected: Logits) -> float:
    """Of any logit."""
    return max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))


def spread(ids: Sequence[Ids], count: int) -> list[Ids]:
    """At most `count` of `ids`, evenly from the shortest to the longest."""
    ordered = sorted(ids, key=len)
    places = np.linspace(0, len(ordered) - 1, count).round().astype(int).tolist() if ordered else []
    return [ordered[place] for place in sorted(set(places))]
