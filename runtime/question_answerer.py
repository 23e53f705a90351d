"""From a question and a text to the stretch of the text that answers it.

Takes a bundle folder. Returns `QuestionAnswerer`, which is safe to share between threads; `find_answer` is its rule
alone, which is that of transformers 4's question-answering pipeline (contract/BUNDLE.md, "From logits to an answer").
Leaves out: opening and running (model.py), and all answers but the best.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import QUESTION_ANSWERING
from pocketbert.runtime.model import Model
from pocketbert.runtime.scores import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.tokenizer import Encoding

MAX_ANSWER_LENGTH = 15  # tokens: transformers' default
CANDIDATES = 12  # of a window: as many as transformers looks at for one answer, whole words being asked for
MASKED = np.float32(-10000)  # the logit of what can be no part of an answer


@dataclass(frozen=True)
class Answer:
    """A stretch of a text. Equal answers of several places, or windows that share one, add up: above 1, at times."""

    text: str  # as it is written
    start: int  # in code points
    end: int
    score: float  # probability of its start times that of its end


class QuestionAnswerer(Model):
    """A bundle that answers questions out of texts, opened with one engine."""

    task = QUESTION_ANSWERING

    def __call__(
        self,
        question: str,
        text: str,
        stride: int | None = None,
        max_answer_length: int = MAX_ANSWER_LENGTH,
        allow_none: bool = False,
    ) -> Answer | None:
        """The best answer, of at most `max_answer_length` tokens and whole words.

        None where the text has no token, and with `allow_none` where that none is there is likelier, which a
        checkpoint must have been trained to say. A long text is read in windows that share `stride` tokens, see
        `Tokenizer.encode_windows`. Raises TypeError for anything but a str, PocketbertError for other bad values.
        """
        for each in (question, text):
            if not isinstance(each, str):
                raise TypeError(f"question and text are each a str, not {type(each).__name__}: ask one at a time")
        if max_answer_length < 1:
            raise PocketbertError(f"max_answer_length {max_answer_length}: use 1 or more")
        windows = self.tokenizer.encode_windows(question, text, stride)
        logits = [self.run(window.ids) for window in windows]
        return find_answer(text, windows, logits, max_answer_length, allow_none)


def find_answer(
    text: str,
    windows: Sequence[Encoding],
    logits: Sequence[NDArray[np.float32]],
    max_answer_length: int = MAX_ANSWER_LENGTH,
    allow_none: bool = False,
) -> Answer | None:
    """The best answer over all windows, each with its logits, float32 (tokens, 2)."""
    found: dict[str, Answer] = {}  # by what it says, upper or lower case: the first place of several
    none_score = np.inf
    for window, each in zip(windows, logits, strict=True):
        start, end = _probabilities(window, each)
        none_score = min(none_score, float(start[0] * end[0]))
        for score, first, last in _candidates(window, start, end, max_answer_length):
            begin, behind = _word(window, first)[0], _word(window, last)[1]
            said = text[begin:behind]
            known = found.get(said.lower(), Answer(said, begin, behind, 0.0))
            found[said.lower()] = replace(known, score=known.score + score)
    best = max(found.values(), key=lambda answer: answer.score, default=None)
    return None if best is None or (allow_none and none_score > best.score) else best


def _probabilities(window: Encoding, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (2, tokens): of start and of end, over the text's tokens and the first special token, which stands for
    no answer."""
    possible = np.array([sequence == 1 for sequence in window.sequence_ids])
    possible[0] = True
    return softmax(np.where(possible, np.ascontiguousarray(logits.T), MASKED))


def _candidates(
    window: Encoding, start: NDArray[np.float32], end: NDArray[np.float32], max_answer_length: int
) -> Iterator[tuple[float, int, int]]:
    """The best spans of the text's tokens: score, first and last token."""
    (places,) = np.nonzero([sequence == 1 for sequence in window.sequence_ids])
    lengths = np.arange(min(max_answer_length, len(places)))
    firsts, lasts = np.broadcast_arrays(places[:, None], places[:, None] + lengths)
    inside = np.isin(lasts, places)
    firsts, lasts = firsts[inside], lasts[inside]
    scores = start[firsts] * end[lasts]
    for best in np.argsort(-scores, kind="stable")[:CANDIDATES]:  # of equal ones the first
        yield float(scores[best]), int(firsts[best]), int(lasts[best])


def _word(window: Encoding, place: int) -> tuple[int, int]:
    """Where the word of a token begins and ends in the text, as far as this window shows it."""
    word = window.word_ids[place]
    own = [i for i, (w, s) in enumerate(zip(window.word_ids, window.sequence_ids, strict=True)) if w == word and s == 1]
    return int(window.offsets[own[0], 0]), int(window.offsets[own[-1], 1])
