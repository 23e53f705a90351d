"""How far apart two sets of logits are, and how right one of them is.

Takes float32 (units, labels); a unit is what has one answer: a text, or a token of one. Returns numbers.
Leaves out: where logits come from (parity.py) and which distance is too far (gates.py).

An answer is a row of booleans: one True at the best label, or where several labels may hold all those over one half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.scores import probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = Sequence[NDArray[np.float32]]  # of each input: (labels,), (tokens, labels), or start and end (tokens, 2)
    Rows = NDArray[np.float32]  # (units, labels)
    Table = NDArray[np.bool_]  # (texts, labels)

DECIBELS = 10  # per factor of ten in power
TINY = float(np.finfo(np.float32).tiny)  # for the peak of logits that are all zero


@dataclass(frozen=True)
class Divergence:
    """How far one set of logits is from another; drift is a unit's most moved probability."""

    texts: int
    agreement: float  # share of units with the same answer
    max_drift: float
    mean_drift: float
    psnr: float  # dB, of logits, by their largest magnitude; infinite where all are equal
    cosine: float  # of logits, mean over units


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two sets of logits of the same texts, unit by unit."""

    found: Rows
    expected: Rows
    multi_label: bool
    tolerance: float  # of a probability: what the bundle grants any engine
    owners: NDArray[np.int64] | None = None  # of each row, the number of the text that it is of; None: a row is a text

    @cached_property
    def drift(self) -> NDArray[np.float32]:
        """(units,): each unit's most moved probability."""
        return drift(self.found, self.expected, self.multi_label)

    @cached_property
    def flipped(self) -> NDArray[np.bool_]:
        """(units,): which of them are answered otherwise."""
        moved: NDArray[np.bool_] = answers(self.found, self.multi_label) != answers(self.expected, self.multi_label)
        return np.asarray(moved.any(axis=1))

    @cached_property
    def unit_owners(self) -> NDArray[np.int64]:
        """(units,): the number of the text that each is of."""
        return np.arange(len(self.flipped)) if self.owners is None else self.owners

    @cached_property
    def flipped_texts(self) -> list[int]:
        """The numbers of the texts of which any unit is answered otherwise."""
        numbers: list[int] = np.unique(self.unit_owners[self.flipped]).tolist()
        return numbers

    @cached_property
    def followed(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(units,) twice: one label's probability in `expected` and in `found`. Of two labels it is the second; of more
        the one that is answered in `expected`."""
        pair = (probabilities(logits, self.multi_label) for logits in (self.expected, self.found))
        labels = np.ones(len(self.expected), int) if self.expected.shape[1] == 2 else self.expected.argmax(axis=1)
        expected, found = (table[np.arange(len(table)), labels] for table in pair)
        return expected, found

    @cached_property
    def divergence(self) -> Divergence:
        """How far apart they are in all."""
        return Divergence(
            texts=len(set(self.unit_owners.tolist())),
            agreement=float((~self.flipped).mean()),
            max_drift=float(self.drift.max()),
            mean_drift=float(self.drift.mean()),
            psnr=_psnr(self.found, self.expected),
            cosine=_cosine(self.found, self.expected),
        )


def drift(found: Rows, expected: Rows, multi_label: bool) -> NDArray[np.float32]:
    """Each row's most moved probability: (units,)."""
    moved: NDArray[np.float32] = np.abs(probabilities(found, multi_label) - probabilities(expected, multi_label))
    return moved.max(axis=1)


def answers(logits: Rows, multi_label: bool) -> Table:
    """Which labels each unit is given."""
    if multi_label:
        return logits > 0  # sigmoid(0) is one half
    table = np.zeros(logits.shape, np.bool_)
    table[np.arange(len(logits)), logits.argmax(axis=1)] = True
    return table


def accuracy(logits: Rows, labels: Table, multi_label: bool) -> float:
    """Share of texts whose answer is right, all of it."""
    return float((answers(logits, multi_label) == labels).all(axis=1).mean())


def confusion(logits: Rows, labels: Table) -> NDArray[np.int64]:
    """How often each label (row) was answered by each (column); for one label at a time."""
    counts = np.zeros((labels.shape[1],) * 2, np.int64)
    np.add.at(counts, (labels.argmax(axis=1), logits.argmax(axis=1)), 1)
    return counts


def _psnr(found: Rows, expected: Rows) -> float:
    there = np.isfinite(expected)  # rows of several lengths are filled up with -inf
    error = float(np.mean((found[there].astype(np.float64) - expected[there]) ** 2))
    peak = float(np.abs(expected[there]).max())
    return math.inf if error == 0 else DECIBELS * math.log10(max(peak, TINY) ** 2 / error)


def _cosine(found: Rows, expected: Rows) -> float:
    found, expected = (np.where(np.isfinite(rows), rows, 0) for rows in (found, expected))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    products = (found * expected).sum(axis=1)
    return float(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 1).mean())
