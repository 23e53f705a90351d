"""From a text to its entities: labels of tokens, grouped.

Takes a bundle folder. Returns `TokenClassifier`, which is safe to share between threads; `find_entities` is its rule
alone, which is that of transformers' token-classification pipeline (contract/BUNDLE.md, "From logits to entities").
Leaves out: opening and running (model.py), and other strategies than "first" and "simple".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import TOKEN_CLASSIFICATION
from pocketbert.runtime.model import Model
from pocketbert.runtime.scores import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.tokenizer import Encoding

STRATEGIES = ("first", "simple")
OUTSIDE = "O"  # the label of what belongs to no entity


@dataclass(frozen=True)
class Entity:
    """A stretch of a text with the kind of thing that it names."""

    label: str  # without B- and I-
    text: str  # as it is written
    start: int  # in code points
    end: int
    score: float  # mean probability of the labels that made it


class TokenClassifier(Model):
    """A bundle that finds entities in texts, opened with one engine."""

    task = TOKEN_CLASSIFICATION

    def __call__(self, text: str, strategy: str = "first") -> list[Entity]:
        """The entities of a text, in its order.

        `strategy` "first": a word has the label of its first token; "simple": each token has its own. Of a text of more
        than max_length tokens the end is not looked at. Raises TypeError for anything but a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is a str, not {type(text).__name__}: pass one at a time")
        if strategy not in STRATEGIES:
            raise PocketbertError(f"strategy {strategy!r}: use {' or '.join(STRATEGIES)}")
        encoding = self.tokenizer.encode(text)
        logits = self.run(encoding.ids)
        continues = self._continues(text, encoding) if strategy == "first" else None
        return find_entities(text, encoding, logits, self.manifest.labels, continues)

    def _continues(self, text: str, encoding: Encoding) -> list[bool]:
        return continue_words(text, encoding, self.tokenizer.unk_id, self.tokenizer.continuation is not None)


def continue_words(text: str, encoding: Encoding, unk_id: int | None, marks: bool) -> list[bool]:
    """By token, whether it goes on with the word of the one before: as transformers guesses it.

    Where the tokenizer `marks` continuing pieces: if a piece has another length than what it stands for. "##ing" has,
    and so has a first piece that lost an accent which was a code point of its own. Else: unless a space is before it
    or at its start. `unk_id` begins a word.
    """
    continues = []
    for id_, piece, (start, end) in zip(encoding.ids.tolist(), encoding.pieces, encoding.offsets.tolist(), strict=True):
        inside = len(piece) != end - start if marks else start > 0 and " " not in text[start - 1 : start + 1]
        continues.append(inside and id_ != unk_id)
    return continues


def find_entities(
    text: str,
    encoding: Encoding,
    logits: NDArray[np.float32],
    labels: Sequence[str],
    continues: Sequence[bool] | None = None,
) -> list[Entity]:
    """Entities by token logits, float32 (tokens, labels); with `continues` by those of each word's first token."""
    scores = softmax(logits)
    words = list(_words(encoding, scores, labels, continues))
    return [entity for group in _group(words) if (entity := _join(text, group)).label != OUTSIDE]


@dataclass
class _Word:
    """A word, or by the strategy "simple" a token."""

    label: str
    score: np.float32
    start: int
    end: int


def _words(
    encoding: Encoding, scores: NDArray[np.float32], labels: Sequence[str], continues: Sequence[bool] | None
) -> Iterator[_Word]:
    word = None
    for place, (start, end) in enumerate(encoding.offsets.tolist()):
        if encoding.sequence_ids[place] is None:
            continue
        if word is not None and continues is not None and continues[place]:
            word.end = end
            continue
        if word is not None:
            yield word
        best = int(scores[place].argmax())
        word = _Word(labels[best], scores[place, best], start, end)
    if word is not None:
        yield word


def _group(words: Sequence[_Word]) -> Iterator[list[_Word]]:
    """Neighbours of one kind, until a B- begins another entity."""
    group: list[_Word] = []
    for word in words:
        begins, kind = _tag(word.label)
        if group and (begins or kind != _tag(group[-1].label)[1]):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _tag(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and of which kind; one that is neither B- nor I- goes on with its like."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _join(text: str, group: Sequence[_Word]) -> Entity:
    start, end = group[0].start, group[-1].end
    score = np.mean(np.array([word.score for word in group], np.float32))
    return Entity(group[0].label.split("-", 1)[-1], text[start:end], start, end, float(score))
