"""Token classification: agreement by token, and F1 of whole entities as seqeval counts them.

A word has the label of its first token, as it had when the model was trained; a word that was cut off has none. Special
tokens are compared for how far they drift, never counted as agreeing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.check.entity_f1 import OUTSIDE, find_spans, score_entities
from pocketbert.runtime.check.metrics import Comparison
from pocketbert.runtime.check.tagged_texts import TaggedTexts, read_tagged_texts
from pocketbert.runtime.check.tasks import Labelled, Score, Task
from pocketbert.runtime.token_classifier import find_entities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.check.evaluation_set import EvaluationSet
    from pocketbert.runtime.check.metrics import Logits
    from pocketbert.runtime.tokenizer import Encoding

MEASURE = "entity F1"


class TokenClassification(Task):
    """Each token has an answer: its best label."""

    unit = "tokens"
    measures = (MEASURE,)

    @classmethod
    def read(
        cls, model: Labelled, file: Path, limit: int | None, columns: Sequence[str], owner: str = "the bundle"
    ) -> TaggedTexts:
        return read_tagged_texts(file, model.labels, limit, owner)

    @staticmethod
    def seconds(data: TaggedTexts) -> Sequence[str | None]:
        return [None] * len(data.texts)

    def rows(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits

    def compare(self, asked: EvaluationSet, found: Logits, expected: Logits, tolerance: float) -> Comparison:
        specials = self.tokenizer("")
        inside = [~np.isin(ids, specials) for ids in asked.ids]
        own, other = (
            np.concatenate([rows[mask] for rows, mask in zip(logits, inside, strict=True)])
            for logits in (found, expected)
        )
        owners = np.repeat(np.arange(len(asked.ids)), [int(mask.sum()) for mask in inside])
        return Comparison(own, other, multi_label=False, tolerance=tolerance, owners=owners)

    def score(self, asked: EvaluationSet, logits: Logits) -> Mapping[str, Score]:
        data: TaggedTexts = asked.data
        found = [list(self._tags(*each)) for each in zip(asked.encodings, data.words, logits, strict=True)]
        counted = score_entities(found, data.tags)
        return {MEASURE: Score(counted.f1, counted.expected)}

    def describe(self, asked: EvaluationSet, text: int, logits: Logits) -> tuple[list[str], float]:
        entities = find_entities(asked.texts[text], asked.encodings[text], logits[text], self.manifest.labels)
        scores = [entity.score for entity in entities]
        return [f"{entity.text}: {entity.label}" for entity in entities], min(scores, default=1.0)

    def truth(self, asked: EvaluationSet, text: int) -> list[str]:
        data: TaggedTexts = asked.data
        words, whole = data.words[text], data.texts[text]
        return [
            f"{whole[words[first][0] : words[behind - 1][1]]}: {kind}"
            for kind, first, behind in find_spans(data.tags[text])
        ]

    def confusion(self, asked: EvaluationSet, logits: Logits) -> NDArray[np.int64] | None:
        """By word."""
        data: TaggedTexts = asked.data
        place = self.manifest.labels.index
        counts = np.zeros((len(self.manifest.labels),) * 2, np.int64)
        for encoding, words, tags, rows in zip(asked.encodings, data.words, data.tags, logits, strict=True):
            for tag, token in zip(tags, first_tokens(encoding, words), strict=True):
                if token is not None:
                    counts[place(tag), int(rows[token].argmax())] += 1
        return counts

    def _tags(self, encoding: Encoding, words: Sequence[tuple[int, int]], logits: NDArray[np.float32]) -> Iterator[str]:
        for token in first_tokens(encoding, words):
            yield OUTSIDE if token is None else self.manifest.labels[int(logits[token].argmax())]


def first_tokens(encoding: Encoding, words: Sequence[tuple[int, int]]) -> Iterator[int | None]:
    """The first token that stands for a part of each word; None for a word that has none."""
    tokens = [place for place, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
    at = 0
    for start, end in words:
        while at < len(tokens) and encoding.offsets[tokens[at], 1] <= start:
            at += 1
        inside = at < len(tokens) and encoding.offsets[tokens[at], 0] < end
        yield tokens[at] if inside else None
