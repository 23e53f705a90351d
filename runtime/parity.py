"""Does every artifact still answer like the checkpoint? Runs each engine through all that could show otherwise.

Takes a bundle, engines, labelled data and the checkpoint's own logits (both optional). Gives a `Check`.
Leaves out: computing the checkpoint's logits (export/reference.py), judging (gates.py), showing (report.py).

Two gaps are kept apart: checkpoint to oracle is what quantization costs, oracle to artifact is what lowering
breaks. The oracle is the artifact's arithmetic in torch; golden.json carries its logits for a few texts, so that
every bundle can be checked without its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime import gap, proof
from pocketbert.runtime import manifest as bundle
from pocketbert.runtime.classifier import Classifier
from pocketbert.runtime.data import Dataset
from pocketbert.runtime.errors import BundleError
from pocketbert.runtime.gap import Gap
from pocketbert.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int32]  # (tokens,)
    Logits = NDArray[np.float32]  # (texts, labels)
    # (ids of each text, what to call after each step) -> logits by CHECKPOINT and by every artifact's activations
    Reference = Callable[[Sequence[Ids], Callable[[], None]], Mapping[str, Logits]]

CHECKPOINT = "fp32"  # the name of the checkpoint's own logits among the references
PADDED_TEXTS = 64  # texts run at every larger length: a second or two per engine
REPEATED_TEXTS = 16  # texts run again, and from several threads at once
REPEATS = 2
CONCURRENT_THREADS = 4  # an app has a UI thread and a few workers


@dataclass(frozen=True)
class Cases:
    """Texts that engines answer, and the logits to compare with, where they are known."""

    name: str
    texts: Sequence[str]
    ids: Sequence[Ids]
    reference: Mapping[str, Logits] | None = None  # by CHECKPOINT and by activations
    labels: NDArray[np.bool_] | None = None  # (texts, labels)


@dataclass(frozen=True)
class Questions:
    """All that every engine is asked."""

    golden: Cases
    sweep: Cases  # a text for each length at which something could change
    data: Cases | None = None

    @property
    def basis(self) -> Cases:
        """What gaps are measured on: the data where the checkpoint's logits are known, else the golden cases."""
        return self.data if self.data and self.data.reference else self.golden


@dataclass(frozen=True)
class Answers:
    """What one engine did."""

    golden: Logits
    sweep: Logits
    data: Logits | None
    texts_per_second: float
    padding_drift: float  # of the most moved text, padded to every larger length
    repeat_drift: float  # of logits, the same ids again
    concurrent_drift: float  # of logits, from several threads at once


@dataclass(frozen=True)
class Engine:
    """An engine that was asked: its answers, or the error that kept it from answering."""

    name: str
    artifact: bundle.Artifact
    version: str = ""
    answers: Answers | None = None
    error: str = ""


@dataclass(frozen=True)
class Check:
    """All that was measured of a bundle."""

    folder: Path
    manifest: bundle.Manifest
    questions: Questions
    engines: Sequence[Engine]
    wrong_ids: Sequence[str]  # golden texts that the tokenizer turns into other ids
    golden_drift: float | None  # from the checkpoint's logits to golden.json's
    absent: Sequence[str] = ()  # formats that no engine was found for
    checkpoint: str | None = None
    data: Dataset | None = None

    def logits(self, answers: Answers) -> Logits:
        """An engine's logits of the basis."""
        on_data = answers.data is not None and self.questions.basis is self.questions.data
        return answers.data if on_data else answers.golden  # type: ignore[return-value]

    def gaps(self, engine: Engine) -> dict[str, Gap]:
        """The gaps between checkpoint, oracle and artifact on the basis; empty for an engine that failed."""
        reference = self.questions.basis.reference
        if engine.answers is None or reference is None:
            return {}
        found, oracle = self.logits(engine.answers), reference[engine.artifact.activations]
        pairs = {
            "checkpoint_to_oracle": (oracle, reference[CHECKPOINT]),
            "oracle_to_artifact": (found, oracle),
            "checkpoint_to_artifact": (found, reference[CHECKPOINT]),
        }
        return {name: gap.measure(*pair, self.manifest.multi_label) for name, pair in pairs.items()}

    def between(self) -> Iterator[tuple[Engine, Engine, Gap]]:
        """The gap between any two engines, on the data or else on the golden cases."""
        for one, other in combinations([engine for engine in self.engines if engine.answers], 2):
            logits = [_best_known(engine.answers) for engine in (one, other) if engine.answers]
            yield one, other, gap.measure(logits[1], logits[0], self.manifest.multi_label)

    def accuracy(self, logits: Logits | None) -> float | None:
        """Share of the data that `logits` label rightly."""
        data = self.questions.data
        if logits is None or data is None or data.labels is None:
            return None
        return gap.accuracy(logits, data.labels, self.manifest.multi_label)

    def sweep_drift(self, engine: Engine) -> Iterator[tuple[int, float | None]]:
        """Each swept length in tokens, with the drift from the oracle there."""
        sweep = self.questions.sweep
        if engine.answers is None:
            return
        drift: Sequence[Any] = [None] * len(sweep.ids)
        if sweep.reference:
            oracle = sweep.reference[engine.artifact.activations]
            drift = gap.drift(engine.answers.sweep, oracle, self.manifest.multi_label).tolist()
        yield from zip(map(len, sweep.ids), drift, strict=True)


class Progress:
    """Told how far each stage is; the command line draws it."""

    def start(self, stage: str, steps: int) -> None:
        """A stage begins that will advance by `steps`."""

    def advance(self, stage: str, steps: int = 1) -> None:
        """Some steps more."""


def check(
    folder: Path,
    names: Sequence[str],
    data: Dataset | None = None,
    reference: Reference | None = None,
    checkpoint: str | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Check:
    """Runs the engines `names` on the bundle in `folder`. Raises BundleError for a damaged bundle.

    `reference` gives the logits of `checkpoint`; without it the golden cases serve.
    """
    progress = progress or Progress()
    manifest = bundle.read(folder)
    bundle.verify(folder, [manifest.tokenizer])
    tokenizer = Tokenizer(folder / manifest.tokenizer.path, manifest.max_length)
    golden = proof.read_golden(folder, manifest)
    wrong = [case.text for case in golden if not np.array_equal(tokenizer(case.text), case.ids)]
    stored = _golden_cases(manifest, golden)
    questions, golden_drift = _ask(manifest, tokenizer, stored, data, reference, progress)
    engines = [_run_engine(folder, manifest, name, threads, questions, progress) for name in names]
    return Check(folder, manifest, questions, engines, wrong, golden_drift, checkpoint=checkpoint, data=data)


# The questions: golden cases, lengths, data; and the checkpoint's logits of all three.


def _ask(
    manifest: bundle.Manifest,
    tokenizer: Tokenizer,
    stored: Cases,
    data: Dataset | None,
    reference: Reference | None,
    progress: Progress,
) -> tuple[Questions, float | None]:
    sweep, texts = _sweep_cases(manifest, tokenizer, stored.texts), None
    if data is not None:
        ids = [tokenizer(text) for text in data.texts]
        texts = Cases(f"{len(ids)} texts of {data.name}", data.texts, ids, labels=data.labels)
    if reference is None:
        return Questions(stored, sweep, texts), None
    asked = [stored, sweep, *([texts] if texts else [])]
    progress.start("checkpoint", len({CHECKPOINT, *_arithmetics(manifest)}) * sum(len(cases.ids) for cases in asked))
    computed = _refer(asked, reference, progress)
    drift = _golden_drift(stored, computed[0])
    return Questions(stored, computed[1], computed[2] if texts else None), drift


def _golden_cases(manifest: bundle.Manifest, golden: Sequence[proof.GoldenCase]) -> Cases:
    kinds = _arithmetics(manifest)
    if not golden or not all(kinds <= case.oracle.keys() for case in golden):
        raise BundleError(
            f"{manifest.golden.path} lacks logits for {', '.join(sorted(kinds))}: export the bundle again"
        )
    logits = {kind: np.stack([case.oracle[kind] for case in golden]) for kind in kinds}
    logits[CHECKPOINT] = np.stack([case.logits for case in golden])
    return Cases(f"{len(golden)} golden cases", [case.text for case in golden], [case.ids for case in golden], logits)


def _sweep_cases(manifest: bundle.Manifest, tokenizer: Tokenizer, texts: Sequence[str]) -> Cases:
    """One word, two words, both sides of each length's edge, and a text that is too long and must be cut."""
    words = max(texts, key=len).split() or ["word"]
    long = tokenizer(" ".join(words * manifest.max_length))
    whole = [tokenizer(words[0]), tokenizer(" ".join(words[:2])), long]
    lengths = {edge + step for edge in manifest.lengths for step in (0, 1)} - {len(ids) for ids in whole}
    cut = [np.append(long[: length - 1], long[-1:]) for length in lengths if 2 < length < len(long)]
    return Cases("lengths", [], sorted([*whole, *cut], key=len))


def _refer(asked: Sequence[Cases], reference: Reference, progress: Progress) -> list[Cases]:
    """The same cases with the checkpoint's logits, computed in one go."""
    ids = [row for cases in asked for row in cases.ids]
    logits = reference(ids, lambda: progress.advance("checkpoint"))
    ends = np.cumsum([len(cases.ids) for cases in asked])
    spans = [slice(end - len(cases.ids), end) for cases, end in zip(asked, ends, strict=True)]
    shares = [{kind: rows[span] for kind, rows in logits.items()} for span in spans]
    return [replace(cases, reference=share) for cases, share in zip(asked, shares, strict=True)]


def _arithmetics(manifest: bundle.Manifest) -> set[str]:
    """Each has an oracle."""
    return {artifact.activations for artifact in manifest.artifacts}


def _golden_drift(stored: Cases, computed: Cases) -> float:
    if stored.reference is None or computed.reference is None:
        raise ValueError("both need logits")
    return float(np.abs(stored.reference[CHECKPOINT] - computed.reference[CHECKPOINT]).max())


def _best_known(answers: Answers) -> Logits:
    return answers.golden if answers.data is None else answers.data


# The answers: each engine is opened once and asked everything.


def _run_engine(
    folder: Path, manifest: bundle.Manifest, name: str, threads: int, questions: Questions, progress: Progress
) -> Engine:
    engine = Engine(name, manifest.artifact(name.partition(":")[0]))
    try:
        # Unproven: a wrong answer is what the gates are to name.
        with Classifier.open(folder, name, threads, prove=False) as classifier:
            engine = replace(engine, version=classifier.engine.version)
            return replace(engine, answers=_Run(classifier, name, progress).answer(questions))
    except BundleError:
        raise
    except Exception as problem:  # native runtimes raise anything; the gate `answers` names it
        return replace(engine, error=(str(problem).strip() or type(problem).__name__).splitlines()[0])


class _Run:
    """One classifier being asked, with its progress."""

    def __init__(self, classifier: Classifier, name: str, progress: Progress) -> None:
        self.classifier, self.name, self.progress = classifier, name, progress

    def answer(self, questions: Questions) -> Answers:
        data = questions.data.ids if questions.data else []
        everything = [*questions.golden.ids, *questions.sweep.ids, *data]
        padded, repeated = spread(self.paddable(everything), PADDED_TEXTS), spread(everything, REPEATED_TEXTS)
        steps = len(everything) + len(padded) + (1 + REPEATS + CONCURRENT_THREADS) * len(repeated)
        self.progress.start(self.name, steps)
        golden, golden_rate = self.run(questions.golden.ids)
        data_logits, data_rate = self.run(data) if data else (None, golden_rate)
        return Answers(
            golden=golden,
            sweep=self.run(questions.sweep.ids)[0],
            data=data_logits,
            texts_per_second=data_rate,
            padding_drift=max((self.padding_drift(ids) for ids in padded), default=0.0),  # one length pads nothing
            repeat_drift=self.repeat_drift(repeated),
            concurrent_drift=self.concurrent_drift(repeated),
        )

    def run(self, ids: Sequence[Ids]) -> tuple[Logits, float]:
        """Logits, and texts per second."""
        started = time.perf_counter()
        logits = np.stack([self.step(row) for row in ids])
        return logits, len(ids) / (time.perf_counter() - started)

    def step(self, ids: Ids) -> NDArray[np.float32]:
        logits = self.classifier.run(ids)
        self.progress.advance(self.name)
        return logits

    def paddable(self, ids: Sequence[Ids]) -> list[Ids]:
        return [row for row in ids if self.larger_lengths(row)]

    def larger_lengths(self, ids: Ids) -> list[int]:
        """The lengths to which `ids` can be padded beyond what the classifier does by itself."""
        manifest = self.classifier.manifest
        own = len(ids) if self.classifier.artifact.any_length else manifest.padded_length(len(ids))
        return [length for length in manifest.lengths if length > own]

    def padding_drift(self, ids: Ids) -> float:
        """The largest change of a probability when the same ids are padded to each larger length."""
        pad = self.classifier.manifest.pad_id
        rows = [np.pad(ids, (0, length - len(ids)), constant_values=pad) for length in self.larger_lengths(ids)]
        logits = np.stack([self.classifier.run(row) for row in rows])
        self.progress.advance(self.name)
        alone = self.classifier.run(ids)[None]
        return float(gap.drift(logits, alone, self.classifier.manifest.multi_label).max())

    def repeat_drift(self, ids: Sequence[Ids]) -> float:
        first = self.run(ids)[0]
        return max(float(np.abs(self.run(ids)[0] - first).max()) for _ in range(REPEATS))

    def concurrent_drift(self, ids: Sequence[Ids]) -> float:
        """Threads share the classifier, each starting at another text."""
        alone = np.stack([self.classifier.run(row) for row in ids])
        starts = np.linspace(0, len(ids), CONCURRENT_THREADS, endpoint=False, dtype=int)
        orders = [np.roll(np.arange(len(ids)), -start) for start in starts]
        with ThreadPoolExecutor(CONCURRENT_THREADS) as pool:
            found = list(pool.map(lambda order: self.run([ids[i] for i in order])[0], orders))
        return max(float(np.abs(logits - alone[order]).max()) for logits, order in zip(found, orders, strict=True))


def spread(ids: Sequence[Ids], count: int) -> list[Ids]:
    """At most `count` of `ids`, evenly from the shortest to the longest."""
    ordered = sorted(ids, key=len)
    places = np.linspace(0, len(ordered) - 1, count).round().astype(int).tolist() if ordered else []
    return [ordered[place] for place in sorted(set(places))]
