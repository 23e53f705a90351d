"""What must hold of a bundle, and whether it does.

Takes a `Check` (parity.py) and `Limits`. Gives a `Gate` for each engine and each thing that must hold.
Leaves out: measuring. A gate that cannot be evaluated says why and what it needs; it never passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime import gap
from pocketbert.runtime.parity import CHECKPOINT

if TYPE_CHECKING:
    from pocketbert.runtime.gap import Gap
    from pocketbert.runtime.parity import Answers, Check, Engine

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

    min_agreement: float = 0.99
    max_accuracy_drop: float = 0.5  # percentage points
    # Mean drift from the checkpoint to its oracle. Measured: 0.0034 and 0.0020.
    max_quantization_gap: float = 0.01
    # Mean drift from the oracle to an artifact. Measured: at most 0.0010; activations per tensor cost 0.008.
    max_lowering_gap: float = 0.003
    # The most moved text. An int8 step that rounds the other way moves a text near the border: measured 0.043.
    max_lowering_peak: float = 0.15
    max_padding_drift: float = 1e-5  # measured 0: every sum runs in an order that padding does not change
    max_repeat_drift: float = 0.0  # of logits


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
        gates.append(_agreement(f"{one.name} and {other.name}", between, limits))
    return [*gates, *_absent(check)]


def missed(gates: Sequence[Gate], require_all: bool = False) -> list[Gate]:
    """The gates that do not hold, and with `require_all` those that could not be evaluated."""
    return [gate for gate in gates if gate.passed is False or (require_all and gate.passed is None)]


def _bundle_gates(check: Check) -> Iterator[Gate]:
    wrong = check.wrong_ids
    note = f"golden texts get other ids than at export, first {wrong[0][:SHOWN]!r}" if wrong else ""
    yield _at_most("tokenizer", "", len(wrong), 0, note)
    yield _at_most("golden cases", "", check.golden_drift, GOLDEN_DRIFT, "", NEEDS_CHECKPOINT)


def _engine_gates(check: Check, engine: Engine, limits: Limits) -> list[Gate]:
    name, answers = engine.name, engine.answers
    if answers is None:
        return [Gate("answers", name, False, None, 0, engine.error)]
    gaps = check.gaps(engine)
    quantization, lowering = gaps["checkpoint_to_oracle"], gaps["oracle_to_artifact"]
    return [
        Gate("answers", name, True, None, 0),
        _agreement(name, gaps["checkpoint_to_artifact"], limits),
        _accuracy_drop(check, engine, limits),
        _label_order(check, engine),
        _at_most("quantization gap", name, quantization.mean_drift, limits.max_quantization_gap),
        _at_most("lowering gap", name, lowering.mean_drift, limits.max_lowering_gap),
        _at_most("lowering peak", name, lowering.max_drift, limits.max_lowering_peak),
        _lengths(check, engine, limits),
        *_steady(engine, answers, limits),
    ]


def _steady(engine: Engine, answers: Answers, limits: Limits) -> Iterator[Gate]:
    """What must not depend on padding, on time or on threads."""
    name = engine.name
    if not engine.artifact.any_length:  # else no app pads
        yield _at_most("padding drift", name, answers.padding_drift, limits.max_padding_drift)
    yield _at_most("repeated runs", name, answers.repeat_drift, limits.max_repeat_drift)
    yield _at_most("concurrent threads", name, answers.concurrent_drift, limits.max_repeat_drift)


def _agreement(name: str, found: Gap, limits: Limits) -> Gate:
    share, limit = found.agreement, limits.min_agreement
    if share < limit and round((1 - share) * found.texts) == 1:
        note = f"one flip among {found.texts} texts shows too little: pass --checkpoint and more --data"
        return Gate("agreement", name, None, share, limit, note)
    return Gate("agreement", name, share >= limit, share, limit)


def _accuracy_drop(check: Check, engine: Engine, limits: Limits) -> Gate:
    data, limit = check.questions.data, limits.max_accuracy_drop
    found = check.accuracy(engine.answers.data if engine.answers else None)
    expected = check.accuracy(data.reference[CHECKPOINT] if data and data.reference else None)
    if data is None or found is None or expected is None:
        return Gate(
            "accuracy drop", engine.name, None, None, limit, NEEDS_LABELS if found is None else NEEDS_CHECKPOINT
        )
    texts = len(data.ids)
    lost = round((expected - found) * texts)
    drop = PERCENT * lost / texts
    if drop > limit and lost == 1:
        note = f"one of {texts} texts shows too little: pass more --data"
        return Gate("accuracy drop", engine.name, None, drop, limit, note)
    return _at_most("accuracy drop", engine.name, drop, limit)


def _label_order(check: Check, engine: Engine) -> Gate:
    """A manifest whose labels are swapped agrees with itself everywhere; only labelled texts can tell."""
    data, answers = check.questions.data, engine.answers
    if check.manifest.multi_label or data is None or data.labels is None or answers is None or answers.data is None:
        needs = "several labels at a time" if check.manifest.multi_label else NEEDS_LABELS
        return Gate("label order", engine.name, None, None, 0, needs)
    swapped = _swapped(gap.confusion(answers.data, data.labels))
    note = " and ".join(check.manifest.labels[label] for label in swapped[0]) if swapped else ""
    return _at_most("label order", engine.name, len(swapped), 0, note)


def _swapped(confusion: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of labels whose texts are answered with each other's label more often than with their own."""
    right = confusion.diagonal()[:, None] + confusion.diagonal()
    crossed = confusion + confusion.T
    np.fill_diagonal(crossed, 0)
    return [(int(i), int(j)) for i, j in np.argwhere((crossed > right) & (crossed >= SWAP_TEXTS)) if i < j]


def _lengths(check: Check, engine: Engine, limits: Limits) -> Gate:
    drifts = {tokens: drift for tokens, drift in check.sweep_drift(engine) if drift is not None}
    if not drifts:
        return Gate("lengths", engine.name, None, None, limits.max_lowering_peak, NEEDS_CHECKPOINT)
    worst = max(drifts, key=lambda tokens: drifts[tokens])
    return _at_most("lengths", engine.name, drifts[worst], limits.max_lowering_peak, f"at {worst} tokens")


def _absent(check: Check) -> Iterator[Gate]:
    for format in check.absent:
        yield Gate("answers", format, None, None, 0, f"no engine for it here: pip install 'pocketbert[{format}]'")


def _at_most(name: str, engine: str, value: float | None, limit: float, note: str = "", needs: str = "") -> Gate:
    if value is None:
        return Gate(name, engine, None, None, limit, needs)
    return Gate(name, engine, bool(value <= limit), value, limit, note)
