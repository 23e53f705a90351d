"""What a student is shown at each step: batches of similar lengths, as ids for student and teacher.

Takes a split of the data and the two tokenizers (often one). Returns `Batch`es that depend on the seed and the step
alone, so that a run can be taken up anywhere. Leaves out: models (train.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pocketbert.export.distill.splits import Split
from pocketbert.export.distill.vocabulary import align_tokens

CHUNK = 64  # batches sorted by length together: little padding, still well shuffled
Alignment = list[tuple[int, int]]


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
    alignment: Tensor  # int64 (3, pairs): row, the student's position, the teacher's; padding is in none
    labels: Tensor  # bool (batch, labels)
    labelled: Tensor  # bool (batch,)


@dataclass(frozen=True)
class BatchEncoder:
    """A model's tokenizer, truncating to a length, and its pad id."""

    tokenizer: Tokenizer
    pad_id: int
    max_length: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.truncating().encode_batch(list(texts))]

    def truncating(self) -> Tokenizer:
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
class DataLoader:
    """The training split, encoded for student and teacher, batch by batch."""

    student_encoder: BatchEncoder
    teacher_encoder: BatchEncoder
    split: Split
    batch_size: int
    seed: int
    student_ids: list[list[int]] = field(init=False)
    teacher_ids: list[list[int]] = field(init=False)
    alignments: list[Alignment] | None = field(init=False)  # None: one tokenizer, position meets position
    shuffled: tuple[int, list[list[int]]] = field(init=False, default=(-1, []))  # the epoch at hand, and its batches

    def __post_init__(self) -> None:
        texts = list(self.split.texts)
        if self.student_encoder.tokenizer is self.teacher_encoder.tokenizer:
            self.student_ids = self.teacher_ids = self.student_encoder.encode(texts)
            self.alignments = None
            return
        encodings = [
            encoder.truncating().encode_batch(texts) for encoder in (self.student_encoder, self.teacher_encoder)
        ]
        self.student_ids, self.teacher_ids = ([encoding.ids for encoding in side] for side in encodings)
        self.alignments = [align_tokens(*row) for row in zip(texts, *encodings, strict=True)]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.split) // self.batch_size)

    @property
    def aligned_share(self) -> float:
        """The share of the student's tokens whose hidden state has a teacher's to match."""
        if self.alignments is None:
            return 1.0
        return sum(map(len, self.alignments)) / sum(map(len, self.student_ids))

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0; each epoch shows every text once."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self.shuffled[0] != epoch:
            self.shuffled = epoch, self._shuffle(epoch)
        rows = self.shuffled[1][index]
        alignments = [self._alignment(row) for row in rows]
        return Batch(
            self.student_encoder.pad([self.student_ids[row] for row in rows]),
            self.teacher_encoder.pad([self.teacher_ids[row] for row in rows]),
            torch.tensor([(i, *pair) for i, alignment in enumerate(alignments) for pair in alignment]).T,
            torch.from_numpy(self.split.labels[rows]),
            torch.from_numpy(self.split.labelled[rows]),
        )

    def _alignment(self, row: int) -> Alignment:
        return self.alignments[row] if self.alignments else [(i, i) for i in range(len(self.student_ids[row]))]

    def _shuffle(self, epoch: int) -> list[list[int]]:
        """The rows of each batch of an epoch."""
        draw = random.Random(f"{self.seed}/{epoch}")
        order = draw.sample(range(len(self.split)), len(self.split))
        size = self.batch_size * CHUNK
        chunks = (order[start : start + size] for start in range(0, len(order), size))
        batches = [batch for chunk in chunks for batch in batch_by_length(chunk, self.student_ids, self.batch_size)]
        return draw.sample(batches, len(batches))

    def count_tokens(self) -> Counter[int]:
        return Counter(i for ids in self.student_ids for i in ids)

    def count_positions(self) -> Counter[int]:
        return Counter(position for ids in self.student_ids for position in range(len(ids)))


def batch_by_length(rows: Sequence[int], ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Batches of rows, shortest first."""
    ordered = sorted(rows, key=lambda row: len(ids[row]))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
