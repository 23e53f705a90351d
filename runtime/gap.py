"""How far apart two sets of logits are, and how right one of them is.

Takes float32 (texts, labels). Gives numbers.
Leaves out: where logits come from (parity.py) and which distance is too far (gates.py).

An answer is a row of booleans: one True at the best label, or where several labels may hold all those over one half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.classifier import probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]  # (texts, labels)
    Table = NDArray[np.bool_]  # (texts, labels)

DECIBELS = 10  # per factor of ten in power


@dataclass(frozen=True)
class Gap:
    """How far one set of logits is from another; drift is a text's most moved probability."""

    texts: int
    agreement: float  # share of texts with the same answer
    max_drift: float
    mean_drift: float
    psnr: float  # dB, of logits, by their largest magnitude; infinite where all are equal
    cosine: float  # of logits, mean over texts


def measure(found: Logits, expected: Logits, multi_label: bool) -> Gap:
    """The gap from `expected` to `found`."""
    moved = drift(found, expected, multi_label)
    same = (answers(found, multi_label) == answers(expected, multi_label)).all(axis=1)
    return Gap(
        texts=len(found),
        agreement=float(same.mean()),
        max_drift=float(moved.max()),
        mean_drift=float(moved.mean()),
        psnr=_psnr(found, expected),
        cosine=_cosine(found, expected),
    )


def drift(found: Logits, expected: Logits, multi_label: bool) -> NDArray[np.float32]:
    """Each text's most moved probability: (texts,)."""
    moved: NDArray[np.float32] = np.abs(probabilities(found, multi_label) - probabilities(expected, multi_label))
    return moved.max(axis=1)


def answers(logits: Logits, multi_label: bool) -> Table:
    """Which labels each text is given."""
    if multi_label:
        return logits > 0  # sigmoid(0) is one half
    table = np.zeros(logits.shape, np.bool_)
    table[np.arange(len(logits)), logits.argmax(axis=1)] = True
    return table


def accuracy(logits: Logits, labels: Table, multi_label: bool) -> float:
    """Share of texts whose answer is right, all of it."""
    return float((answers(logits, multi_label) == labels).all(axis=1).mean())


def confusion(logits: Logits, labels: Table) -> NDArray[np.int64]:
    """How often each label (row) was answered by each (column); for one label at a time."""
    counts = np.zeros((labels.shape[1],) * 2, np.int64)
    np.add.at(counts, (labels.argmax(axis=1), logits.argmax(axis=1)), 1)
    return counts


def _psnr(found: Logits, expected: Logits) -> float:
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    peak = float(np.abs(expected).max())
    return math.inf if error == 0 else DECIBELS * math.log10(max(peak, np.finfo(np.float32).tiny) ** 2 / error)


def _cosine(found: Logits, expected: Logits) -> float:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    products = (found * expected).sum(axis=1)
    return float(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 1).mean())
