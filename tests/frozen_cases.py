"""The frozen part of the tokenizer contract, runtime/contract/tokenizer_cases.jsonl: thousands of cases for every run.

    python tests/frozen_cases.py      # writes the file again: the same bytes, while `tokenizers` gives the same tokens

The texts come from tokenizer_texts.py: code points and strings of our own, no text of anyone else. The tokens come from
the `tokenizers` library. The first line holds the names of the tokenizers of tokenizer_kinds.py and the code points
that the small ones spell with; each other line is a case: tokenizer, text, second text or null, max_length or null,
stride or null, and encodings: one, or with a stride one for each window of the second text. An encoding is lists of a
number for each token, special tokens included: ids, starts and ends (code points of the text that the token is of),
words, which text (0 or 1), and code points of the vocabulary's piece. -1 stands for what special tokens have not, and
for the piece of the unknown token. The JSON is ASCII: unpaired surrogates stand as escapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import tokenizer_kinds
from tokenizer_cases import Text, Tokens, expected
from tokenizer_texts import ODD, POOLS, random_texts
from tokenizers import Tokenizer

from pocketbert.runtime.tokenizer import _valid

FILE = Path(__file__).resolve().parents[1] / "runtime/contract/tokenizer_cases.jsonl"
PER_TOKENIZER = 250  # random texts
LONGEST = 14  # pieces of a random text
EVERY = 5  # each pool's pieces go to the tokenizers in turns, so many to each
# Where paths of equal scores meet, in the small Unigram tokenizers.
TIES = ("lovely", "love", "lovelove", "abab", "ababa", "aaa", "film", "filmil", "alove", "love lovely elf", "lo ve ly")
# WordPiece's limit of 100 code points; marks that stay after accents are stripped, out of canonical order.
LONG = ("a" * 100, "a" * 101, "e\u0301" * 100)
DISORDER = ("a\U0001d16d\U0001d165b", "\u302e\u3099\u0323 a\u0345\u0334", "가\u302f\u302ab")
# Added tokens of tokenizer_kinds.py: between blanks, inside words, written in ways that normalization makes equal.
ADDED = (
    "a  lefty  b",
    "a\trighty\u3000b",
    "  both  ",
    "alefty brighty",
    "whole awhole whole.",
    "Café CAFE\u0301 café",
    "love it",
)
LIMITS = (2, 3, 7, 16)
ROOMS = (
    (1, 0),
    (2, 1),
    (5, 2),
    (9, 8),
    (12, 3),
)  # tokens of a window for the second text, and how many of them overlap
Case = tuple[str, Text, list[Tokens]]


def texts(index: int, tokenizer: Tokenizer) -> Iterator[Text]:
    """The texts of tokenizer number `index`."""
    yield from map(Text, (*ODD, *TIES, *LONG, *DISORDER, *ADDED))
    for place, pool in enumerate(POOLS.values()):
        for i in range((index + place) % EVERY, len(pool), len(pool) // EVERY + 1):
            yield Text(f"{pool[i]} a{pool[i]}b e\u0301{pool[i]}{pool[i]}")
    mixed = list(random_texts(PER_TOKENIZER, seed=100 + index, longest=LONGEST))
    yield from map(Text, mixed)
    for limit in LIMITS:
        yield from (Text(text, None, limit) for text in (*ODD[4:8], *mixed[:4]))
        yield from (Text(a, b, limit + 1) for a, b in zip(mixed[4:12], (*ODD[:4], *mixed[:4]), strict=True))
    yield from (Text(a, b) for a, b in zip(mixed[12:16], ODD[4:8], strict=True))
    for (room, stride), a, b in zip(ROOMS, mixed[16:], mixed[30:], strict=False):
        yield from (windows(tokenizer, a, text, room, stride) for text in (b, f"{b} {a} {b}"))


def windows(tokenizer: Tokenizer, question: str, text: str, room: int, stride: int) -> Text:
    """A text cut into windows of `room` tokens beside the question."""
    tokenizer.no_truncation()
    whole = len(tokenizer.encode(_valid(question), "").ids)
    return Text(question, text, whole + room, stride)


def tokenizers(points: str) -> dict[str, Tokenizer]:
    """The demo tokenizers, and small ones over `points`."""
    return {name: make() for name, make in {**tokenizer_kinds.demos(), **tokenizer_kinds.small(list(points))}.items()}


def choose_points() -> str:
    """What the small tokenizers spell with: ASCII, and two in three code points that normalizers leave of the pools."""
    chains = [tokenizer_kinds.albert_normalizer(keep_accents=True, lower=False), tokenizer_kinds.albert_normalizer()]
    pieces = [*DISORDER, *(piece for name, pool in POOLS.items() if name != "surrogates" for piece in pool)]
    found = {c for piece in pieces for text in (piece, *(chain.normalize_str(piece) for chain in chains)) for c in text}
    always = {*map(chr, range(0x21, 0x7F)), *"".join(DISORDER)} - {" "}
    return "".join(c for i, c in enumerate(sorted(found)) if c in always or (c > " " and i % 3))


def compute(points: str) -> Iterator[Case]:
    """Every case, with the tokens that the library gives now."""
    for index, (name, tokenizer) in enumerate(tokenizers(points).items()):
        every = list(texts(index, tokenizer))
        yield from ((name, text, found) for text, found in expected(tokenizer, every))


def write() -> str:
    """The content of the file."""
    points = choose_points()
    names = list(tokenizers(points))
    lines = [json.dumps({"tokenizers": names, "points": points})]
    for name, text, found in compute(points):
        row = [names.index(name), *astuple(text), [astuple(tokens) for tokens in found]]
        lines.append(json.dumps(row, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def read() -> tuple[str, list[Case]]:
    """The points of the small tokenizers, and the cases."""
    header, *rows = map(json.loads, FILE.read_text(encoding="ascii").splitlines())
    cases = [(header["tokenizers"][i], Text(*text), [Tokens(*found) for found in all_]) for i, *text, all_ in rows]
    return header["points"], cases


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(write(), encoding="ascii")
    print(f"{FILE}: {len(read()[1])} cases, {FILE.stat().st_size} bytes")
