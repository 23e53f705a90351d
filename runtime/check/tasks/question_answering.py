"""Question answering: agreement by question, exact match and F1 as SQuAD's script counts them.

A long text is read in windows, each an input of its own; the answer is the best of all. How far an input drifts is how
far the likeliest moves of the probabilities that an answer starts, or ends, at a token.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.check import answer_f1
from pocketbert.runtime.check.metrics import Comparison, drift
from pocketbert.runtime.check.questions import Questions, read_questions
from pocketbert.runtime.check.tasks import Labelled, Score, Task
from pocketbert.runtime.question_answerer import Answer, find_answer
from pocketbert.runtime.scores import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.check.evaluation_set import EvaluationSet
    from pocketbert.runtime.check.metrics import Logits
    from pocketbert.runtime.manifest import Manifest
    from pocketbert.runtime.tokenizer import Encoding, Tokenizer

EXACT, F1 = "exact match", "answer F1"
NO_ANSWER = "no answer"


class QuestionAnswering(Task):
    """Each question has an answer: a stretch of its text, or none where the data have questions of that kind."""

    unit = "questions"
    measures = (EXACT, F1)

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer) -> None:
        super().__init__(manifest, tokenizer)
        self._known: dict[tuple[int, int], tuple[EvaluationSet, Logits, list[Answer | None]]] = {}

    @classmethod
    def read(
        cls, model: Labelled, file: Path, limit: int | None, columns: Sequence[str], owner: str = "the bundle"
    ) -> Questions:
        return read_questions(file, limit)

    @staticmethod
    def seconds(data: Questions) -> Sequence[str | None]:
        return data.contexts

    def encode(self, text: str, text_pair: str | None) -> list[Encoding]:
        return self.tokenizer.encode_windows(text, text_pair or "")

    def rows(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits.T

    def compare(self, asked: EvaluationSet, found: Logits, expected: Logits, tolerance: float) -> Comparison:
        longest = max(map(len, asked.ids))
        own, other = (np.concatenate([_widen(rows.T, longest) for rows in logits]) for logits in (found, expected))
        questions = np.repeat(asked.owners, 2)
        answers = [[_place(answer) for answer in self._answers(asked, logits)] for logits in (found, expected)]
        changed = np.array([one != other for one, other in zip(*answers, strict=True)])
        return SpanComparison(own, other, False, tolerance, questions=questions, changed=changed)

    def score(self, asked: EvaluationSet, logits: Logits) -> Mapping[str, Score]:
        said = [answer.text if answer else None for answer in self._answers(asked, logits)]
        pairs = list(zip(said, asked.data.answers, strict=True))
        exact = [answer_f1.exact_match(one, right) for one, right in pairs]
        overlap = [answer_f1.f1(one, right) for one, right in pairs]
        return {name: Score(float(np.mean(each)), len(pairs)) for name, each in ((EXACT, exact), (F1, overlap))}

    def describe(self, asked: EvaluationSet, text: int, logits: Logits) -> tuple[list[str], float]:
        answer = self._answers(asked, logits)[text]
        return ([answer.text], answer.score) if answer else ([NO_ANSWER], 1.0)

    def truth(self, asked: EvaluationSet, text: int) -> list[str]:
        return list(dict.fromkeys(asked.data.answers[text])) or [NO_ANSWER]

    def _answers(self, asked: EvaluationSet, logits: Logits) -> list[Answer | None]:
        """To each question; gates and report ask for the same ones many times."""
        key = id(asked), id(logits)
        if key not in self._known:
            self._known[key] = (asked, logits, list(_find_answers(asked, logits)))  # both live on, and keep their ids
        return self._known[key][-1]


def _find_answers(asked: EvaluationSet, logits: Logits) -> Iterator[Answer | None]:
    allow_none = isinstance(asked.data, Questions) and asked.data.has_unanswerable
    inputs = zip(asked.owners, asked.encodings, logits, strict=True)
    for text, own in itertools.groupby(inputs, key=lambda each: each[0]):  # windows of a text stand together
        _, windows, rows = zip(*own, strict=True)
        yield find_answer(asked.seconds[text] or "", windows, rows, allow_none=allow_none)


@dataclass(frozen=True, eq=False)
class SpanComparison(Comparison):
    """Units are questions; `found` and `expected` have two rows for each of their windows, wide as the longest."""

    questions: NDArray[np.int64] = field(kw_only=True)  # of each row, the number of its question
    changed: NDArray[np.bool_] = field(kw_only=True)  # (questions,): which are answered otherwise

    @cached_property
    def drift(self) -> NDArray[np.float32]:
        moved = np.zeros(len(self.changed), np.float32)
        np.maximum.at(moved, self.questions, drift(self.found, self.expected, multi_label=False))
        return moved

    @cached_property
    def flipped(self) -> NDArray[np.bool_]:
        return self.changed

    @cached_property
    def unit_owners(self) -> NDArray[np.int64]:
        return np.arange(len(self.changed))

    @cached_property
    def followed(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of each question the start or end of which the checkpoint is surest."""
        expected, found = softmax(self.expected), softmax(self.found)
        best = [
            max(np.flatnonzero(self.questions == unit), key=lambda row: expected[row].max())
            for unit in self.unit_owners
        ]
        places = expected[best].argmax(axis=1)
        return expected[best, places], found[best, places]


def _widen(rows: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-np.inf)


def _place(answer: Answer | None) -> tuple[int, int] | None:
    return None if answer is None else (answer.start, answer.end)
