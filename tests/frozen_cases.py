"""The frozen part of the tokenizer contract: some thousand cases, in golden/tokenizer_cases.jsonl, for every test run.

    python tests/frozen_cases.py      # writes the file again: the same bytes, while `tokenizers` gives the same ids

The texts come from tokenizer_texts.py: code points and strings of our own, no text of anyone else. The ids come from
the `tokenizers` library. The first line holds the names of the tokenizers of tokenizer_kinds.py and the code points
that the small ones spell with; each other line is a case: tokenizer, text, second text or null, max_length or null,
ids, all special tokens included. The JSON is ASCII: unpaired surrogates stand as escapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import tokenizer_kinds
from tokenizer_cases import Text, expected
from tokenizer_texts import ODD, POOLS, random_texts
from tokenizers import Tokenizer

FILE = Path(__file__).parent / "golden/tokenizer_cases.jsonl"
PER_TOKENIZER = 250  # random texts
LONGEST = 14  # pieces of a random text
EVERY = 5  # each pool's pieces go to the tokenizers in turns, so many to each
# Where paths of equal scores meet, in the small Unigram tokenizers.
TIES = ("lovely", "love", "lovelove", "abab", "ababa", "aaa", "film", "filmil", "alove", "love lovely elf", "lo ve ly")
# WordPiece's limit of 100 code points; marks that stay after accents are stripped, out of canonical order.
LONG = ("a" * 100, "a" * 101, "e\u0301" * 100)
DISORDER = ("a\U0001d16d\U0001d165b", "\u302e\u3099\u0323 a\u0345\u0334", "가\u302f\u302ab")
LIMITS = (2, 3, 7, 16)
Case = tuple[str, Text, list[int]]


def texts(index: int) -> Iterator[Text]:
    """The texts of tokenizer number `index`."""
    yield from map(Text, (*ODD, *TIES, *LONG, *DISORDER))
    for place, pool in enumerate(POOLS.values()):
        for i in range((index + place) % EVERY, len(pool), len(pool) // EVERY + 1):
            yield Text(f"{pool[i]} a{pool[i]}b e\u0301{pool[i]}{pool[i]}")
    mixed = list(random_texts(PER_TOKENIZER, seed=100 + index, longest=LONGEST))
    yield from map(Text, mixed)
    for limit in LIMITS:
        yield from (Text(text, None, limit) for text in (*ODD[4:8], *mixed[:4]))
        yield from (Text(a, b, limit + 1) for a, b in zip(mixed[4:12], (*ODD[:4], *mixed[:4]), strict=True))


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
    """Every case, with the ids that the library gives now."""
    for index, (name, tokenizer) in enumerate(tokenizers(points).items()):
        yield from ((name, text, list(ids)) for text, ids in expected(tokenizer, texts(index)))


def write() -> str:
    """The content of the file."""
    points = choose_points()
    names = list(tokenizers(points))
    lines = [json.dumps({"tokenizers": names, "points": points})]
    for name, text, ids in compute(points):
        row = [names.index(name), text.text, text.second, text.max_length, ids]
        lines.append(json.dumps(row, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def read() -> tuple[str, list[Case]]:
    """The points of the small tokenizers, and the cases."""
    header, *rows = map(json.loads, FILE.read_text(encoding="ascii").splitlines())
    cases = [(header["tokenizers"][i], Text(text, second, limit), ids) for i, text, second, limit, ids in rows]
    return header["points"], cases


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(write(), encoding="ascii")
    print(f"{FILE}: {len(read()[1])} cases, {FILE.stat().st_size} bytes")
