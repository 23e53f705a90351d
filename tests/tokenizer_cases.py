"""Cases of the tokenizer contract: texts, with the ids that Hugging Face's tokenizers gives them.

Takes a `tokenizers.Tokenizer` and texts. Gives the bytes that android_demo/core's Replay reads.
Leaves out: which texts and tokenizers (tokenizer_contract.py for the full sweep, frozen_cases.py for every test run).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tokenizers import Tokenizer

from pocketbert.runtime.tokenizer import _valid

BATCH = 10_000  # texts given to the library at a time


@dataclass(frozen=True)
class Text:
    """What is encoded: a text or two, cut to `max_length` ids if it is given."""

    text: str
    second: str | None = None
    max_length: int | None = None


def expected(tokenizer: Tokenizer, texts: Iterable[Text]) -> Iterator[tuple[Text, Sequence[int]]]:
    """Each text with its ids; texts of one length limit that follow each other are encoded together."""
    rest = iter(texts)
    while batch := list(islice(rest, BATCH)):
        start = 0
        while start < len(batch):
            limit = batch[start].max_length
            end = next((i for i in range(start, len(batch)) if batch[i].max_length != limit), len(batch))
            if limit is None:
                tokenizer.no_truncation()
            else:
                tokenizer.enable_truncation(limit)
            encodings = tokenizer.encode_batch_fast([_input(text) for text in batch[start:end]])
            yield from ((text, encoding.ids) for text, encoding in zip(batch[start:end], encodings, strict=True))
            start = end
    tokenizer.no_truncation()


def _input(text: Text) -> str | tuple[str, str]:
    return _valid(text.text) if text.second is None else (_valid(text.text), _valid(text.second))


def pack(text: Text, ids: Sequence[int], tokenizer: int = 0) -> bytes:
    """A case for tokenizer number `tokenizer`, all numbers big-endian int32; Replay.kt describes it."""
    limit = -1 if text.max_length is None else text.max_length
    second = struct.pack(">i", -1) if text.second is None else _units(text.second)
    counted = struct.pack(f">{len(ids) + 1}i", len(ids), *ids)
    return struct.pack(">ii", tokenizer, limit) + _units(text.text) + second + counted


def _units(text: str) -> bytes:
    units = text.encode("utf-16-be", "surrogatepass")
    return struct.pack(">i", len(units) // 2) + units
