"""Sequence classification, of one text or of two: agreement and accuracy by text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.check import metrics
from pocketbert.runtime.check.datasets import Dataset, read_dataset
from pocketbert.runtime.check.metrics import Comparison
from pocketbert.runtime.check.tasks import Labelled, Score, Task
from pocketbert.runtime.scores import probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.check.evaluation_set import EvaluationSet
    from pocketbert.runtime.check.metrics import Logits


class SequenceClassification(Task):
    """Each text has one answer: its best label, or where several may hold all those over one half."""

    unit = "texts"
    measures = ("accuracy",)

    @classmethod
    def read(
        cls, model: Labelled, file: Path, limit: int | None, columns: Sequence[str], owner: str = "the bundle"
    ) -> Dataset:
        return read_dataset(file, model.labels, model.multi_label, limit, columns, owner, model.pairs)

    @staticmethod
    def seconds(data: Dataset) -> Sequence[str | None]:
        return data.text_pairs or [None] * len(data.texts)

    def rows(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits[None]

    def compare(self, asked: EvaluationSet, found: Logits, expected: Logits, tolerance: float) -> Comparison:
        return Comparison(np.stack(found), np.stack(expected), self.manifest.multi_label, tolerance)

    def score(self, asked: EvaluationSet, logits: Logits) -> Mapping[str, Score]:
        right = metrics.accuracy(np.stack(logits), asked.data.labels, self.manifest.multi_label)
        return {"accuracy": Score(right, len(asked.texts))}

    def describe(self, asked: EvaluationSet, text: int, logits: Logits) -> tuple[list[str], float]:
        several = self.manifest.multi_label
        names = self._names(metrics.answers(logits[text][None], several)[0])
        return names, float(probabilities(logits[text], several).max())

    def truth(self, asked: EvaluationSet, text: int) -> list[str]:
        return self._names(asked.data.labels[text])

    def confusion(self, asked: EvaluationSet, logits: Logits) -> NDArray[np.int64] | None:
        return None if self.manifest.multi_label else metrics.confusion(np.stack(logits), asked.data.labels)

    def _names(self, holds: NDArray[np.bool_]) -> list[str]:
        return [self.manifest.labels[index] for index in np.flatnonzero(holds)]
