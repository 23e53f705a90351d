"""What a student is shown at each step: batches of similar lengths, as ids for student and teacher.

Takes texts and the two tokenizers (often one). Gives `Batch`es that depend on the seed and the step alone, so that a
run can be taken up anywhere. Leaves out: models (train.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pocketbert.export.distill.texts import Texts
from pocketbert.export.distill.vocabulary import pair_tokens

CHUNK = 64  # batches sorted by length together: little padding, still well shuffled
Pairs = list[tuple[int, int]]


@dataclass(frozen=True)
class Inputs:
    """What a model takes: both int64 (batch, seq)."""

    input_ids: Tensor
    attention_mask: Tensor

    def to(self, device: torch.device) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids.to(device), "attention_mask": self.attention_mask.to(device)}


@dataclass(frozen=True)
class Batch:
    """Texts for one step."""

    student: Inputs
    teacher: Inputs
    pairs: Tensor  # int64 (3, pairs): row, the student's position, the teacher's; padding is in none
    labels: Tensor  # bool (batch, labels)
    known: Tensor  # bool (batch,)


@dataclass(frozen=True)
class Speller:
    """A model's tokenizer, cut to a length, and its pad id."""

    tokenizer: Tokenizer
    pad_id: int
    max_length: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.cut().encode_batch(list(texts))]

    def cut(self) -> Tokenizer:
        """A copy that truncates: the checkpoint's own is left as it is."""
        copied = Tokenizer.from_str(self.tokenizer.to_str())
        copied.enable_truncation(self.max_length)
        return copied

    def pad(self, rows: Sequence[Sequence[int]]) -> Inputs:
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad_id] * (longest - len(row))] for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        return Inputs(ids, (torch.arange(longest) < lengths[:, None]).long())


@dataclass
class Lesson:
    """All texts, spelled for student and teacher."""

    student: Speller
    teacher: Speller
    texts: Texts
    batch_size: int
    seed: int
    student_ids: list[list[int]] = field(init=False)
    teacher_ids: list[list[int]] = field(init=False)
    pairs: list[Pairs] | None = field(init=False)  # None: one tokenizer, position meets position
    planned: tuple[int, list[list[int]]] = field(init=False, default=(-1, []))  # the epoch at hand

    def __post_init__(self) -> None:
        texts = list(self.texts.texts)
        if self.student.tokenizer is self.teacher.tokenizer:
            self.student_ids = self.teacher_ids = self.student.encode(texts)
            self.pairs = None
            return
        spelled = self.student.cut().encode_batch(texts), self.teacher.cut().encode_batch(texts)
        self.student_ids, self.teacher_ids = ([encoding.ids for encoding in side] for side in spelled)
        self.pairs = [pair_tokens(*row) for row in zip(texts, *spelled, strict=True)]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.texts) // self.batch_size)

    @property
    def paired(self) -> float:
        """The share of the student's tokens whose hidden state has a teacher's to match."""
        if self.pairs is None:
            return 1.0
        return sum(map(len, self.pairs)) / sum(map(len, self.student_ids))

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0; each epoch shows every text once."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self.planned[0] != epoch:
            self.planned = epoch, self._plan(epoch)
        rows = self.planned[1][index]
        student = [self.student_ids[row] for row in rows]
        pairs = [self.pairs[row] if self.pairs else [(i, i) for i in range(len(self.student_ids[row]))] for row in rows]
        return Batch(
            self.student.pad(student),
            self.teacher.pad([self.teacher_ids[row] for row in rows]),
            torch.tensor([(i, *pair) for i, row in enumerate(pairs) for pair in row]).T,
            torch.from_numpy(self.texts.labels[rows]),
            torch.from_numpy(self.texts.known[rows]),
        )

    def _plan(self, epoch: int) -> list[list[int]]:
        """The rows of each batch of an epoch."""
        draw = random.Random(f"{self.seed}/{epoch}")
        order = draw.sample(range(len(self.texts)), len(self.texts))
        size = self.batch_size * CHUNK
        chunks = (order[start : start + size] for start in range(0, len(order), size))
        batches = [batch for chunk in chunks for batch in by_length(chunk, self.student_ids, self.batch_size)]
        return draw.sample(batches, len(batches))

    def count_words(self) -> Counter[int]:
        return Counter(i for ids in self.student_ids for i in ids)

    def count_positions(self) -> Counter[int]:
        return Counter(position for ids in self.student_ids for position in range(len(ids)))


def by_length(rows: Sequence[int], ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Batches of rows, shortest first."""
    ordered = sorted(rows, key=lambda row: len(ids[row]))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
