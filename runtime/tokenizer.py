"""Turns texts into the ids that every artifact takes, and says where in a text each id comes from.

Takes a bundle's tokenizer.json. Returns int32 ids of one text or of two, special tokens included, cut to the bundle's
max_length; an `Encoding` has offsets and words beside them.
Leaves out: padding (the model knows which lengths an engine takes) and attention masks and token types (artifacts
derive theirs from the ids).
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.errors import BundleError, PocketbertError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_STRIDE = 128  # tokens that windows share where nobody says: as in transformers' question-answering pipeline
SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True)
class Encoding:
    """The ids of one text or of two, and for each where it comes from; special tokens come from nowhere."""

    ids: NDArray[np.int32]  # (tokens,)
    offsets: NDArray[np.int32]  # (tokens, 2): start and end in its text, in code points; 0, 0 of special tokens
    word_ids: tuple[int | None, ...]  # the word's number in its text
    sequence_ids: tuple[int | None, ...]  # 0 for the first text, 1 for the second
    pieces: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Sequence[int]) -> Encoding:
        """The tokens at `places` alone."""
        return Encoding(
            self.ids[places],
            self.offsets[places],
            tuple(self.word_ids[place] for place in places),
            tuple(self.sequence_ids[place] for place in places),
            tuple(self.pieces[place] for place in places),
        )


class Tokenizer:
    """A bundle's tokenizer; safe to share between threads."""

    def __init__(self, file: Path, max_length: int) -> None:
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        self._file, self._max_length = file, max_length
        with self._failures("cannot read"):
            self._tokenizer = HuggingFaceTokenizer.from_file(str(file))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._check_room(specials)

    def __call__(self, text: str, text_pair: str | None = None) -> NDArray[np.int32]:
        """The ids of one text or of two: int32 (tokens,), at most max_length; of two the longer is cut first."""
        encoding = self._encode(text, text_pair)
        ids = np.array(encoding.ids, np.int32)
        return ids if len(ids) <= self._max_length else ids[self._keep(encoding.sequence_ids)]

    def encode(self, text: str, text_pair: str | None = None) -> Encoding:
        """The same ids, with where they come from."""
        encoding = self._describe(text, text_pair)
        return encoding if len(encoding) <= self._max_length else encoding.take(self._keep(encoding.sequence_ids))

    def encode_windows(self, question: str, text: str, stride: int | None = None) -> list[Encoding]:
        """The whole question with each part of the text, in so many parts that all of the text is in one of them.

        Parts that follow each other share `stride` tokens, less than there is room for; without it half the
        max_length or LARGEST_STRIDE, or half the room where that is too much. Raises PocketbertError for a question
        that leaves no room, and for a stride that leaves none for anything new.
        """
        whole = self._describe(question, text)
        if len(whole) <= self._max_length:
            return [whole]
        start, end = _span(whole.sequence_ids, 1)
        length, room = end - start, self._max_length - (len(whole) - (end - start))
        if room < 1:
            raise PocketbertError(f"a question of {_count(whole.sequence_ids, 0)} tokens leaves no room for the text")
        step = room - self._check_stride(stride, room)
        starts = range(start, start + length - room + step, step)
        before, after = range(start), range(end, len(whole))
        return [whole.take([*before, *range(first, min(first + room, end)), *after]) for first in starts]

    @functools.cached_property
    def continuation(self) -> str | None:
        """What pieces behind the start of a word begin with; None where pieces do not show it."""
        return getattr(self._tokenizer.model, "continuing_subword_prefix", None) or None

    @functools.cached_property
    def unk_id(self) -> int | None:
        """The id of what is in no piece."""
        with self._failures("cannot read"):
            if self.continuation:
                return self._tokenizer.token_to_id(self._tokenizer.model.unk_token)
            return json.loads(self._tokenizer.to_str())["model"].get("unk_id")

    def _encode(self, text: str, text_pair: str | None) -> Any:
        with self._failures("cannot tokenize with"):
            return self._tokenizer.encode(_valid(text), None if text_pair is None else _valid(text_pair))

    def _describe(self, text: str, text_pair: str | None) -> Encoding:
        """An encoding that is not cut."""
        found = self._encode(text, text_pair)
        offsets, sequences = np.array(found.offsets, np.int32).reshape(-1, 2), tuple(found.sequence_ids)
        for i, each in enumerate((text, text_pair or "")):
            if SURROGATE_PAIR.search(each):
                own = [place for place, sequence in enumerate(sequences) if sequence == i]
                offsets[own] = _starts(each)[offsets[own]]
        return Encoding(np.array(found.ids, np.int32), offsets, tuple(found.word_ids), sequences, tuple(found.tokens))

    def _keep(self, sequences: Sequence[int | None]) -> list[int]:
        """The places that stay: special tokens, and of each text what `share_room` leaves it."""
        first, second = _count(sequences, 0), _count(sequences, 1)
        room = self._max_length - (len(sequences) - first - second)
        self._check_room(len(sequences) - first - second)
        left = share_room(first, second, room)
        kept = []
        for place, sequence in enumerate(sequences):
            if sequence is not None:
                left[sequence] -= 1
            if sequence is None or left[sequence] >= 0:
                kept.append(place)
        return kept

    def _check_room(self, specials: int) -> None:
        if self._max_length < specials:  # nothing would be cut
            raise BundleError(
                f"max_length {self._max_length} has no room for the {specials} special tokens of {self._file}"
            )

    def _check_stride(self, stride: int | None, room: int) -> int:
        if stride is None:
            wanted = min(self._max_length // 2, LARGEST_STRIDE)
            return wanted if wanted < room else room // 2
        if not 0 <= stride < room:
            raise PocketbertError(f"stride {stride}: use 0 to {room - 1}, what the question leaves room for")
        return stride

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """tokenizers raises plain Exception, and where Rust panics a PanicException, which is none."""
        try:
            yield
        except BaseException as problem:
            if not isinstance(problem, Exception) and type(problem).__name__ != "PanicException":
                raise
            raise BundleError(f"{what} {self._file}: {problem}") from problem


def share_room(first: int, second: int, room: int) -> list[int]:
    """How many of its tokens each of two texts keeps: the longer is cut first, then both to half the room."""
    if first + second <= room:
        return [first, second]
    shorter = min(first, second)
    longer = max(shorter, room - shorter)
    if shorter > room or shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return [longer, shorter] if first > second else [shorter, longer]


def _span(sequences: Sequence[int | None], sequence: int) -> tuple[int, int]:
    """From the first to behind the last token of a text; an empty one's place is behind the other."""
    start = sequences.index(sequence) if sequence in sequences else len(sequences)
    return start, start + _count(sequences, sequence)


def _count(sequences: Sequence[int | None], sequence: int) -> int:
    return sequences.count(sequence)


def _valid(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can hold, replaced by U+FFFD; pairs become one character."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _starts(text: str) -> NDArray[np.int32]:
    """Where in `text` each code point of `_valid(text)` begins, and where the last ends."""
    seconds = {match.end() - 1 for match in SURROGATE_PAIR.finditer(text)}
    return np.array([place for place in range(len(text) + 1) if place not in seconds], np.int32)
