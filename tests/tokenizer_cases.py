"""Cases of the tokenizer contract: texts, with the tokens of Hugging Face's tokenizers, and where these stand.

Takes a `tokenizers.Tokenizer` and texts. Returns the bytes that android_demo/core's Replay reads.
Leaves out: which texts and tokenizers (tokenizer_contract.py for the full sweep, frozen_cases.py for every test run).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice

from tokenizers import Encoding, Tokenizer

from pocketbert.runtime.tokenizer import _valid

BATCH = 10_000  # texts given to the library at a time
NONE = -1


@dataclass(frozen=True)
class Text:
    """What is encoded: a text or two, cut to `max_length` ids if it is given; with `stride` the second into windows."""

    text: str
    second: str | None = None
    max_length: int | None = None
    stride: int | None = None


@dataclass(frozen=True)
class Tokens:
    """An encoding: a number for each token in each list, special tokens included; NONE for what these have not."""

    ids: Sequence[int]
    starts: Sequence[int]  # code points of the text that the token is of; 0 for special tokens
    ends: Sequence[int]
    words: Sequence[int]
    sequences: Sequence[int]
    lengths: Sequence[
        int
    ]  # of the vocabulary's piece, in code points; NONE for the unknown token, which spells nothing


def expected(tokenizer: Tokenizer, texts: Iterable[Text]) -> Iterator[tuple[Text, list[Tokens]]]:
    """Each text with its tokens, or those of each window; neighbours that are cut alike are encoded together."""
    lengths = _piece_lengths(tokenizer)
    rest = iter(texts)
    while batch := list(islice(rest, BATCH)):
        for (limit, stride), group in groupby(batch, key=lambda text: (text.max_length, text.stride)):
            if limit is None:
                tokenizer.no_truncation()
            elif stride is None:
                tokenizer.enable_truncation(limit)
            else:
                tokenizer.enable_truncation(limit, stride=stride, strategy="only_second")
            alike = list(group)
            for text, encoding in zip(alike, tokenizer.encode_batch([_input(text) for text in alike]), strict=True):
                windows = [encoding] if stride is None else [encoding, *encoding.overflowing]
                yield text, [_tokens(window, lengths) for window in windows]
    tokenizer.no_truncation()


def _piece_lengths(tokenizer: Tokenizer) -> dict[int, int]:
    """Id -> code points of its piece."""
    model = json.loads(tokenizer.to_str())["model"]
    lengths = {id: len(tokenizer.id_to_token(id)) for id in tokenizer.get_vocab().values()}
    unknown = model["unk_id"] if model["type"] == "Unigram" else tokenizer.token_to_id(model["unk_token"])
    return {**lengths, unknown: NONE}


def _tokens(encoding: Encoding, lengths: Mapping[int, int]) -> Tokens:
    ids, offsets = encoding.ids, encoding.offsets
    words = [NONE if word is None else word for word in encoding.word_ids]
    sequences = [NONE if number is None else number for number in encoding.sequence_ids]
    pieces = [0 if number == NONE else lengths[id] for id, number in zip(ids, sequences, strict=True)]
    return Tokens(ids, [start for start, _ in offsets], [end for _, end in offsets], words, sequences, pieces)


def _input(text: Text) -> str | tuple[str, str]:
    return _valid(text.text) if text.second is None else (_valid(text.text), _valid(text.second))


def pack(text: Text, windows: Sequence[Tokens], tokenizer: int = 0) -> bytes:
    """A case for tokenizer number `tokenizer`, all numbers big-endian int32; Replay.kt describes it."""
    limit, stride = (NONE if number is None else number for number in (text.max_length, text.stride))
    second = struct.pack(">i", NONE) if text.second is None else units(text.second)
    head = struct.pack(">iii", tokenizer, limit, stride) + units(text.text) + second + struct.pack(">i", len(windows))
    return head + b"".join(map(_pack_tokens, windows))


def _pack_tokens(tokens: Tokens) -> bytes:
    count = len(tokens.ids)
    numbers = chain(tokens.ids, tokens.starts, tokens.ends, tokens.words, tokens.sequences, tokens.lengths)
    return struct.pack(f">{6 * count + 1}i", count, *numbers)


def units(text: str) -> bytes:
    encoded = text.encode("utf-16-be", "surrogatepass")
    return struct.pack(">i", len(encoded) // 2) + encoded
