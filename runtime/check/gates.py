"""What must hold of a bundle, and whether it does.

Takes a `Check` (parity.py) and `Limits`. Returns a `Gate` for each engine and each thing that must hold.
Leaves out: measuring. A gate that cannot be evaluated says why and what it needs; it never passes.

Shares and means are judged on data. The golden cases, which stand in where there is none or no checkpoint, are few and
odd: text by text they show how an artifact was lowered, of a share or a mean only that it is far off (evidence.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.check.evaluation_set import CHECKPOINT
from pocketbert.runtime.check.evidence import FAR, is_implausible
from pocketbert.runtime.manifest import FOUR_BIT_SCHEME, QUESTION_ANSWERING

if TYPE_CHECKING:
    from pocketbert.runtime.check.metrics import Comparison
    from pocketbert.runtime.check.parity import Check, CheckedEngine, EngineResult
    from pocketbert.runtime.check.tasks import Score

PERCENT = 100
SHOWN = 40  # characters of a text that a line spells out
NEEDS_CHECKPOINT = "needs --checkpoint"
NEEDS_LABELS = "needs --data with labels"
# Two labels need this many texts before a majority answered with each other's label means that they are swapped.
SWAP_TEXTS = 10
GOLDEN_DRIFT = 1e-3  # of logits in fp32, which another machine adds up in another order


@dataclass(frozen=True)
class Limits:
    """What each gate allows. Figures called measured are of the 6-layer DistilBERT and ALBERT on SST-2's 872 texts."""

    min_agreement: float = 0.99  # of texts, tokens or questions: whatever has an answer in the task
    max_accuracy_drop: float = 0.5  # percentage points of accuracy, or of the task's other measures
    # Mean drift from the checkpoint to its oracle. Measured: 0.0034 and 0.0020.
    max_quantization_gap: float = 0.01
    # Mean drift from the oracle to an artifact. Measured: at most 0.0010; activations per tensor cost 0.008.
    max_lowering_gap: float = 0.003
    # The most moved text. An int8 step that rounds the other way moves a text near the border: measured 0.043.
    max_lowering_peak: float = 0.15
    max_padding_drift: float = 1e-5  # measured 0: every sum runs in an order that padding does not change
    max_repeat_drift: float = 0.0  # of logits


# Of an answer the drift is that of the start or end that moved most, of hundreds of tokens: further than one label's
# does. Measured on the 6-layer DistilBERT of questions, 198 of them: 0.032, 0.022, and 0.11 of the most moved.
OF_ANSWERS = Limits(max_quantization_gap=0.1, max_lowering_gap=0.06, max_lowering_peak=0.3)
# Weights of 4 bits, calibrated by the package's own texts. From the checkpoint to its oracle, DistilBERT and ALBERT on
# SST-2: 0.016 and 0.010, agreement 0.9885 of both. From there to an artifact they cost what 8 bits do: of DistilBERT
# 0.0012, and 0.070 of the most moved text. On BERT's pairs of texts 0.028, on DistilBERT's questions 0.169: there most
# answers that have a close runner-up change, and the other gates say so.
OF_FOUR_BITS = Limits(min_agreement=0.985, max_quantization_gap=0.03)
ANSWERS_OF_FOUR_BITS = replace(OF_ANSWERS, min_agreement=0.985, max_quantization_gap=0.2)


def default_limits(task: str, scheme: str) -> Limits:
    """The limits of a task and a scheme where nobody says others."""
    answers = task == QUESTION_ANSWERING
    if scheme == FOUR_BIT_SCHEME:
        return ANSWERS_OF_FOUR_BITS if answers else OF_FOUR_BITS
    return OF_ANSWERS if answers else Limits()


@dataclass(frozen=True)
class Gate:
    """One thing that must hold. `passed` is None where it could not be evaluated; `note` then says why."""

    name: str
    engine: str  # empty for the bundle itself
    passed: bool | None
    value: float | None
    limit: float
    note: str = ""

    @property
    def status(self) -> str:
        """passed, missed or not evaluated."""
        return "not evaluated" if self.passed is None else "passed" if self.passed else "missed"

    def __str__(self) -> str:
        subject = f"{self.engine}: {self.name}" if self.engine else self.name
        numbers = "" if self.value is None else f"{self.value:.6g}, limit {self.limit:.6g}"
        return ": ".join(part for part in (f"{subject} {self.status}", numbers, self.note) if part)


def judge(check: Check, limits: Limits) -> list[Gate]:
    """Every gate of the bundle, of each engine, and of each pair of engines."""
    gates = [*_bundle_gates(check)]
    for engine in check.engines:
        gates += _engine_gates(check, engine, limits)
    for one, other, between in check.between():
        needs = "" if check.evaluation.data else _too_few(check, "--data")
        gates.append(_agreement(f"{one.name} and {other.name}", between, limits, needs, check.task.unit))
    return [*gates, *_absent(check)]


def missed(gates: Sequence[Gate], require_all: bool = False) -> list[Gate]:
    """The gates that do not hold, and with `require_all` those that could not be evaluated."""
    return [gate for gate in gates if gate.passed is False or (require_all and gate.passed is None)]


def _bundle_gates(check: Check) -> Iterator[Gate]:
    wrong = check.wrong_ids
    note = f"golden texts get other ids than at export, first {wrong[0][:SHOWN]!r}" if wrong else ""
    yield _at_most("tokenizer", "", len(wrong), 0, note)
    yield _at_most("golden cases", "", check.evaluation.golden_drift, GOLDEN_DRIFT, "", NEEDS_CHECKPOINT)


def _engine_gates(check: Check, engine: CheckedEngine, limits: Limits) -> list[Gate]:
    name, result = engine.name, engine.result
    if result is None:
        return [Gate("answers", name, False, None, 0, engine.error)]
    found, needs = check.comparisons(engine), _missing_data(check)
    lowering = found["oracle_to_artifact"]
    return [
        Gate("answers", name, True, None, 0),
        _agreement(name, found["checkpoint_to_artifact"], limits, needs, check.task.unit),
        *_drops(check, engine, limits),
        *_label_order(check, engine),
        _mean_drift("quantization gap", name, found["checkpoint_to_oracle"], limits.max_quantization_gap, needs),
        _mean_drift("lowering gap", name, lowering, limits.max_lowering_gap, needs),
        _lowering_peak(name, lowering, limits, golden=bool(needs)),
        _lengths(check, engine, limits),
        *_steady(engine, result, limits),
    ]


def _missing_data(check: Check) -> str:
    """What it takes to judge shares and means; empty where the comparison is on data."""
    evaluation = check.evaluation
    if evaluation.comparison_set is evaluation.data:
        return ""
    lacking = {"--checkpoint": evaluation.golden_drift is None, "--data": evaluation.data is None}
    return _too_few(check, " and ".join(option for option, lacks in lacking.items() if lacks))


def _too_few(check: Check, options: str) -> str:
    return f"{len(check.evaluation.golden.ids)} golden texts show too little: pass {options}"


def _steady(engine: CheckedEngine, result: EngineResult, limits: Limits) -> Iterator[Gate]:
    """What must not depend on padding, on time or on threads."""
    name = engine.name
    if not engine.artifact.any_length:  # else no app pads
        yield _at_most("padding drift", name, result.padding_drift, limits.max_padding_drift)
    yield _at_most("repeated runs", name, result.repeat_drift, limits.max_repeat_drift)
    yield _at_most("concurrent threads", name, result.concurrent_drift, limits.max_repeat_drift)


def _agreement(name: str, compared: Comparison, limits: Limits, needs: str, unit: str = "texts") -> Gate:
    """`needs` says what to pass where only golden texts were compared.

    Of those a flip counts if a probability moved beyond the tolerance that the bundle grants any engine: among odd
    texts answers often lie close to each other.
    """
    limit, units, share = limits.min_agreement, len(compared.flipped), compared.divergence.agreement
    flips = int((compared.flipped & (compared.drift > compared.tolerance)).sum() if needs else compared.flipped.sum())
    if not needs and (share >= limit or _resolves(units, 1 - limit)):
        return Gate("agreement", name, share >= limit, share, limit)
    return _by_chance(Gate("agreement", name, None, share, limit, needs), f"{unit} flipped", flips, units, 1 - limit)


def _mean_drift(name: str, engine: str, compared: Comparison, limit: float, needs: str) -> Gate:
    mean = compared.divergence.mean_drift
    if not needs:
        return _at_most(name, engine, mean, limit)
    far, share = int((compared.drift > FAR * limit).sum()), 1 / FAR if limit else 0.0
    what = f"texts moved by more than {FAR * limit:.6g}"
    return _by_chance(Gate(name, engine, None, mean, limit, needs), what, far, len(compared.drift), share)


def _lowering_peak(engine: str, compared: Comparison, limits: Limits, golden: bool) -> Gate:
    """Each golden text by itself must keep within the tolerance that every engine's self-check has."""
    limit = min(limits.max_lowering_peak, compared.tolerance) if golden else limits.max_lowering_peak
    return _at_most("lowering peak", engine, compared.divergence.max_drift, limit)


def _by_chance(gate: Gate, what: str, wrong: int, texts: int, share: float) -> Gate:
    """`gate` as it is, open, unless so many wrong texts are implausible under its limit."""
    shown = f"{wrong} of {texts} {what}"
    if is_implausible(wrong, texts, share):
        return replace(gate, passed=False, note=shown)
    return replace(gate, note=gate.note or f"{shown}, which shows too little: pass more --data")


def _resolves(texts: int, share: float) -> bool:
    """Whether there are enough texts that one wrong one keeps within the limit."""
    return round(texts * share, 9) >= 1


def _drops(check: Check, engine: CheckedEngine, limits: Limits) -> Iterator[Gate]:
    """What is lost by each measure of the task."""
    data = check.evaluation.data
    found = check.scores(engine.result.data if engine.result else None)
    expected = check.scores(data.reference[CHECKPOINT] if data and data.reference else None)
    for measure in check.task.measures:
        name, limit = f"{measure} drop", limits.max_accuracy_drop
        if measure in found and measure in expected:
            yield _drop(name, engine.name, found[measure], expected[measure], limit)
        else:
            needs = NEEDS_CHECKPOINT if measure in found else NEEDS_LABELS
            yield Gate(name, engine.name, None, None, limit, needs)


def _drop(name: str, engine: str, found: Score, expected: Score, limit: float) -> Gate:
    """`limit`: percentage points. What is lost is counted in whole texts, entities or questions."""
    count = expected.count
    drop = round(PERCENT * (expected.value - found.value), 9)
    lost, share = round(drop * count / PERCENT), limit / PERCENT
    if drop <= limit or _resolves(count, share):
        return _at_most(name, engine, drop, limit)
    return _by_chance(Gate(name, engine, None, drop, limit), "lost", lost, count, share)


def _label_order(check: Check, engine: CheckedEngine) -> Iterator[Gate]:
    """A manifest whose labels are swapped agrees with itself everywhere; only labelled data can tell."""
    labels, counts = check.manifest.labels, check.confusion(engine)
    if counts is not None:
        swapped = _swapped(counts)
        note = " and ".join(labels[label] for label in swapped[0]) if swapped else ""
        yield _at_most("label order", engine.name, len(swapped), 0, note)
    elif labels:
        needs = "several labels at a time" if check.manifest.multi_label else NEEDS_LABELS
        yield Gate("label order", engine.name, None, None, 0, needs)


def _swapped(counts: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of labels whose texts are answered with each other's label more often than with their own."""
    right = counts.diagonal()[:, None] + counts.diagonal()
    crossed = counts + counts.T
    np.fill_diagonal(crossed, 0)
    return [(int(i), int(j)) for i, j in np.argwhere((crossed > right) & (crossed >= SWAP_TEXTS)) if i < j]


def _lengths(check: Check, engine: CheckedEngine, limits: Limits) -> Gate:
    drifts = {tokens: drift for tokens, drift in check.sweep_drift(engine) if drift is not None}
    if not drifts:
        return Gate("lengths", engine.name, None, None, limits.max_lowering_peak, NEEDS_CHECKPOINT)
    worst = max(drifts, key=lambda tokens: drifts[tokens])
    return _at_most("lengths", engine.name, drifts[worst], limits.max_lowering_peak, f"at {worst} tokens")


def _absent(check: Check) -> Iterator[Gate]:
    for name in check.absent:
        yield Gate("answers", name, None, None, 0, f"no engine for it here: pip install 'pocketbert[{name}]'")


def _at_most(name: str, engine: str, value: float | None, limit: float, note: str = "", needs: str = "") -> Gate:
    if value is None:
        return Gate(name, engine, None, None, limit, needs)
    return Gate(name, engine, bool(value <= limit), value, limit, note)
