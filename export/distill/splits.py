"""The splits of the data: the texts that a student learns from, and the held-out ones that choose its best weights.

Takes data files. Returns a `Split` for training and one held out, and the labels' names.
Leaves out: reading the formats (runtime/check/datasets.py) and token ids (data_loader.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketbert.export.distill.options import DistillError, DistillOptions
from pocketbert.runtime.check.datasets import Row, match_labels, read_rows, split_label

# Words of the longest text whose phrases are looked up (2,000 of them); longer ones are documents, not sentences.
PHRASE_WORDS = 64
LEAST_ROWS = 10  # fewer cannot be split into texts to learn from and texts to evaluate on


@dataclass(frozen=True)
class Split:
    """Texts, and the labels of those that have any."""

    texts: Sequence[str]
    labels: np.ndarray  # bool (texts, labels): which labels hold
    labelled: np.ndarray  # bool (texts,): whether `labels` says anything about the text

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Split:
        return Split([self.texts[row] for row in rows], self.labels[list(rows)], self.labelled[list(rows)])


@dataclass(frozen=True)
class Splits:
    """All that the data files hold."""

    train: Split
    held_out: Split
    labels: tuple[str, ...]
    notes: tuple[str, ...]  # a line per file: rows used and left out, how labels were matched


def read_splits(options: DistillOptions, labels: Sequence[str], multi_label: bool) -> Splits:
    """Reads the data files; `labels` are the teacher's. Raises DataError, DistillError."""
    files = [*options.data, *([options.dev] if options.dev else [])]
    known = () if options.labels == "data" else labels
    found = [read_rows(file, multi_label, options.columns, unlabelled=True, labels=known) for file in files]
    if options.labels == "data":
        labels = _label_names([row for rows, _ in found for row in rows], multi_label)
    parts, notes = [], []
    for file, (rows, skipped) in zip(files, found, strict=True):
        part, rule = _make_split(file, rows, labels, multi_label)
        left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "none"
        notes.append(
            f"{file.name}: {len(part)} texts, {int(part.labelled.sum())} labelled ({rule}); rows left out: {left_out}"
        )
        parts.append(part)
    joined = _join(parts[: len(options.data)])
    train, held_out = (joined, parts[-1]) if options.dev else hold_out(joined, options.held_out, options.seed)
    return Splits(train, held_out, tuple(labels), tuple(notes))


def _label_names(rows: Sequence[Row], multi_label: bool) -> list[str]:
    names = sorted({name for row in rows for name in split_label(row.label, multi_label)})
    if len(names) < 2:
        raise DistillError(f"--labels data needs two labels or more, the data has {', '.join(names) or 'none'}")
    return names


def _make_split(file: Path, rows: Sequence[Row], labels: Sequence[str], multi_label: bool) -> tuple[Split, str]:
    """The rows with their labels, and how those were matched with the names in `labels`."""
    named = [split_label(row.label, multi_label) for row in rows]
    advice = "; rename them, or pass --labels data to give the student the labels of the data"
    rule, index = match_labels(file, named, labels, "the teacher", advice)
    table = np.zeros((len(rows), len(labels)), np.bool_)
    for row, names in enumerate(named):
        table[row, [index[name] for name in names]] = True
    labelled = np.array([row.label is not None if multi_label else bool(row.label) for row in rows])
    return Split([row.text for row in rows], table, labelled), rule if labelled.any() else "no labels"


def _join(parts: Sequence[Split]) -> Split:
    return Split(
        [text for part in parts for text in part.texts],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.labelled for part in parts]),
    )


def hold_out(whole: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Texts to learn from, and about a `share` of them to evaluate on. Raises DistillError.

    Whole families are held out: a text, its repetitions, and every phrase of it that is a text of its own. SST-2 lists
    a sentence and its phrases, chat logs repeat greetings: no text may be both learned and held out.
    """
    if len(whole) < LEAST_ROWS:
        raise DistillError(f"{len(whole)} texts are too few to learn from and to judge by: {LEAST_ROWS} at least")
    words = [tuple(text.casefold().split()) for text in whole.texts]
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(words):
        rows_of.setdefault(key, []).append(row)
    inside = {part for key in rows_of for part in _phrases(key) if part in rows_of}
    any_labelled = bool(whole.labelled.any())
    whole_texts = [
        key for key, rows in rows_of.items() if key not in inside and (whole.labelled[rows].any() or not any_labelled)
    ]
    held: set[int] = set()
    for key in random.Random(seed).sample(whole_texts, len(whole_texts)):
        if len(held) >= share * len(whole):
            break
        held.update(rows_of[key], *(rows_of[part] for part in _phrases(key) if part in rows_of))
    if not held or len(held) == len(whole):
        raise DistillError("the texts cannot be split: they repeat each other; pass --dev FILE with others")
    chosen = [row for row in sorted(held) if whole.labelled[row] or not any_labelled]
    return whole.select([row for row in range(len(whole)) if row not in held]), whole.select(chosen)


def _phrases(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every run of two words or more that is shorter than the whole."""
    for length in range(2, len(words) if len(words) <= PHRASE_WORDS else 0):
        for start in range(len(words) - length + 1):
            yield words[start : start + length]
