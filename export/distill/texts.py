"""The texts that a student learns from, and those that choose its best weights.

Takes data files. Gives `Texts` for training and `Texts` held out, and the labels' names.
Leaves out: reading the formats (runtime/data.py) and token ids (lesson.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketbert.export.distill.options import DistillError, Options
from pocketbert.runtime import data
from pocketbert.runtime.data import Row

# Words of the longest text whose phrases are looked up (2,000 of them); longer ones are documents, not sentences.
PHRASE_WORDS = 64
LEAST_ROWS = 10  # fewer cannot be split into texts to learn from and texts to judge by


@dataclass(frozen=True)
class Texts:
    """Texts with what is known of them."""

    texts: Sequence[str]
    labels: np.ndarray  # bool (texts, labels): which labels hold
    known: np.ndarray  # bool (texts,): whether `labels` says anything about the text

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Texts:
        return Texts([self.texts[row] for row in rows], self.labels[list(rows)], self.known[list(rows)])


@dataclass(frozen=True)
class Source:
    """All that the data files gave."""

    train: Texts
    held_out: Texts
    labels: tuple[str, ...]
    notes: tuple[str, ...]  # a line per file: rows used and left out, how labels were matched


def read(options: Options, labels: Sequence[str], multi_label: bool) -> Source:
    """Reads the data files; `labels` are the teacher's. Raises DataError, DistillError."""
    files = [*options.data, *([options.dev] if options.dev else [])]
    found = [data.read_rows(file, multi_label, options.columns, unlabelled=True) for file in files]
    if options.labels == "data":
        labels = _names([row for rows, _ in found for row in rows], multi_label)
    parts, notes = [], []
    for file, (rows, skipped) in zip(files, found, strict=True):
        texts, rule = _label(file, rows, labels, multi_label)
        left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "none"
        notes.append(
            f"{file.name}: {len(texts)} texts, {int(texts.known.sum())} labelled ({rule}); rows left out: {left_out}"
        )
        parts.append(texts)
    learned = _join(parts[: len(options.data)])
    train, held_out = (learned, parts[-1]) if options.dev else split(learned, options.held_out, options.seed)
    return Source(train, held_out, tuple(labels), tuple(notes))


def _names(rows: Sequence[Row], multi_label: bool) -> list[str]:
    names = sorted({name for row in rows for name in data.split_label(row.label, multi_label)})
    if len(names) < 2:
        raise DistillError(f"--labels data needs two labels or more, the data has {', '.join(names) or 'none'}")
    return names


def _label(file: Path, rows: Sequence[Row], labels: Sequence[str], multi_label: bool) -> tuple[Texts, str]:
    named = [data.split_label(row.label, multi_label) for row in rows]
    advice = "; rename them, or pass --labels data to give the student the labels of the data"
    rule, index = data.match(file, named, labels, "the teacher", advice)
    table = np.zeros((len(rows), len(labels)), np.bool_)
    for row, names in enumerate(named):
        table[row, [index[name] for name in names]] = True
    known = np.array([row.label is not None if multi_label else bool(row.label) for row in rows])
    return Texts([row.text for row in rows], table, known), rule if known.any() else "no labels"


def _join(parts: Sequence[Texts]) -> Texts:
    return Texts(
        [text for part in parts for text in part.texts],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.known for part in parts]),
    )


def split(texts: Texts, share: float, seed: int) -> tuple[Texts, Texts]:
    """Texts to learn from, and about a `share` of them to judge by. Raises DistillError.

    Whole families are held out: a text, its repetitions, and every phrase of it that is a text of its own. SST-2 lists
    a sentence and its phrases, chat logs repeat greetings: a text that was learned may not judge.
    """
    if len(texts) < LEAST_ROWS:
        raise DistillError(f"{len(texts)} texts are too few to learn from and to judge by: {LEAST_ROWS} at least")
    words = [tuple(text.casefold().split()) for text in texts.texts]
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(words):
        rows_of.setdefault(key, []).append(row)
    inside = {part for key in rows_of for part in _phrases(key) if part in rows_of}
    labelled = bool(texts.known.any())
    whole = [key for key, rows in rows_of.items() if key not in inside and (texts.known[rows].any() or not labelled)]
    held: set[int] = set()
    for key in random.Random(seed).sample(whole, len(whole)):
        if len(held) >= share * len(texts):
            break
        held.update(rows_of[key], *(rows_of[part] for part in _phrases(key) if part in rows_of))
    if not held or len(held) == len(texts):
        raise DistillError("the texts cannot be split: they repeat each other; pass --dev FILE with others")
    chosen = [row for row in sorted(held) if texts.known[row] or not labelled]
    return texts.take([row for row in range(len(texts)) if row not in held]), texts.take(chosen)


def _phrases(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every run of two words or more that is shorter than the whole."""
    for length in range(2, len(words) if len(words) <= PHRASE_WORDS else 0):
        for start in range(len(words) - length + 1):
            yield words[start : start + length]
