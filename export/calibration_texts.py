"""The texts that 4 bits are calibrated by: a file of the user's, or the package's own.

Takes a checkpoint and a file without labels, or with any. Returns token ids, one input for each text.
Leaves out: what they are for (calibration.py).

A model rounds best by texts of its own kind. calibration.txt, beside this file, has messages, reviews, orders, news and
questions in plain English, written for this; a line and the one behind it make a pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, TypeVar

import torch

from pocketbert.export.golden import encode
from pocketbert.runtime.check.datasets import DataError, read_rows
from pocketbert.runtime.check.tasks.choice import find
from pocketbert.runtime.manifest import SEQUENCE_CLASSIFICATION

if TYPE_CHECKING:
    from torch import Tensor

    from pocketbert.export.checkpoint import Checkpoint

T = TypeVar("T")

OWN = Path(__file__).with_name("calibration.txt")
# On SST-2 the 6-layer DistilBERT moves by 0.019 in a probability on average with 4,000, by 0.018 with 8,000, by 0.016
# with 9,000 to 16,000; each thousand takes it some three seconds on one core.
MOST_TOKENS = 12_288
LOOKED_AT = 4096  # texts, of which the longer half is chosen from: short ones tell little of what layers see
LEAST_TEXTS = 16  # fewer say more of themselves than of a language


@dataclass(frozen=True)
class CalibrationTexts:
    """Inputs, and where they come from."""

    name: str  # the file's
    ids: Sequence[Tensor]  # int32 (seq,) each

    @property
    def sha256(self) -> str:
        """Of all ids; hexadecimal. It tells the same texts from others, and keeps them to itself."""
        digest = hashlib.sha256()
        for ids in self.ids:
            digest.update(f"{ids.tolist()}\n".encode())
        return digest.hexdigest()


def read_calibration_texts(checkpoint: Checkpoint, file: Path | None, max_length: int) -> CalibrationTexts:
    """Of `file`, or the package's own, about MOST_TOKENS in its longer texts. Raises DataError."""
    ids = read_inputs(checkpoint, file or OWN, max_length, LOOKED_AT)
    if len(ids) < LEAST_TEXTS:
        raise DataError(f"{file} has {len(ids)} texts: 4 bits are calibrated by {LEAST_TEXTS} or more, best hundreds")
    return CalibrationTexts((file or OWN).name, choose(ids))


def read_inputs(checkpoint: Checkpoint, file: Path, max_length: int, most: int | None = None) -> list[Tensor]:
    """The token ids of the texts in `file`, or of so many evenly from all of it: int32 (seq,) each.

    Raises DataError.
    """
    found = _read(checkpoint, file)
    texts = _pick(found, most or len(found))
    ids = (encode(checkpoint.tokenizer, *each, max_length=max_length) for each in texts)
    return [torch.tensor(each, dtype=torch.int32) for each in ids]


def choose(ids: Sequence[Tensor]) -> Sequence[Tensor]:
    """All of them, or where they have more than MOST_TOKENS so many from the longer half."""
    if sum(map(len, ids)) > MOST_TOKENS:
        usual = median(map(len, ids))
        ids = [each for each in ids if len(each) >= usual]
    return _pick(ids, max(LEAST_TEXTS, int(MOST_TOKENS / mean(map(len, ids)))))


def _read(checkpoint: Checkpoint, file: Path) -> list[tuple[str, ...]]:
    """One text each, or two where the model takes two."""
    task, pairs = checkpoint.config.task, checkpoint.pairs
    if file == OWN:
        lines = OWN.read_text(encoding="utf-8").splitlines()
        return list(pairwise(lines)) if pairs else [(line,) for line in lines]
    if task == SEQUENCE_CLASSIFICATION or file.suffix == ".txt":
        rows, _ = read_rows(file, unlabelled=True, pairs=pairs)
        return [(row.text,) if row.text_pair is None else (row.text, row.text_pair) for row in rows]
    data = find(task).read(checkpoint, file, None, (), "the checkpoint")
    seconds = find(task).seconds(data)
    return [(one,) if other is None else (one, other) for one, other in zip(data.texts, seconds, strict=True)]


def _pick(found: Sequence[T], most: int) -> Sequence[T]:
    """At most so many, evenly from all of them."""
    step = max(1.0, len(found) / most)
    return [found[int(place * step)] for place in range(min(len(found), most))]
