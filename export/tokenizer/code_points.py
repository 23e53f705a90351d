"""What a tokenizer's parts do to each Unicode code point, found by asking the parts themselves.

Takes normalizers and pre-tokenizers of the `tokenizers` library. Returns sparse maps: code point to text, to the class
that a splitter puts it in, or to its rank in canonical ordering. Code points that are left alone are not in them.
Leaves out: how they are stored (tables.py) and grapheme clusters (graphemes.py).

Asking, instead of reading a Unicode database, is what makes phones equal: the library mixes tables of several Unicode
versions, and no phone has the same mix.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise

from tokenizers import normalizers, pre_tokenizers

CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)  # no Unicode scalar values: the library cannot be asked about them
BLOCK = 64  # asked together first: most blocks hold nothing that a part changes
REMOVED, ISOLATED = 1, 2  # a splitter's classes: taken out between pieces; a piece of its own
SPACE, WORD = 1, 2  # classes of \s and \w
LOWEST_MARK, HIGHEST_MARK = "\u0334", "\u0345"  # combining classes 1 and 240, the first and last there are
Text = tuple[int, ...]


@functools.cache
def blocks() -> Sequence[str]:
    """Every Unicode scalar value, in blocks."""
    starts = (start for start in range(0, CODE_POINTS, BLOCK) if start not in SURROGATES)
    return ["".join(map(chr, range(start, start + BLOCK))) for start in starts]


@functools.cache
def code_point_map(kind: str, *settings: bool) -> Mapping[int, Text]:
    """Code point -> what a normalizer makes of it, where that is not itself.

    `kind` and `settings` are the normalizer's name in `tokenizers` and its arguments. It must be one that looks at
    each code point alone, but for canonical ordering.
    """
    normalize = getattr(normalizers, kind)(*settings).normalize_str
    found = {ord(c): _points(normalize(c)) for block in blocks() if normalize(block) != block for c in block}
    return {point: text for point, text in found.items() if text != (point,)}


def compose(first: Mapping[int, Text], second: Mapping[int, Text]) -> dict[int, Text]:
    """The map that does `first`, then `second` to each code point that came of it."""
    both = {point: tuple(b for a in text for b in second.get(a, (a,))) for point, text in first.items()}
    both = {**{point: text for point, text in second.items() if point not in first}, **both}
    return {point: text for point, text in both.items() if text != (point,)}


@functools.cache
def combining_ranks() -> Mapping[int, int]:
    """Code points that canonical ordering moves -> rank, from 1; equal classes have equal ranks."""
    marks = [c for block in blocks() if _may_move(block) for c in block if _is_mark(c)]
    marks.sort(key=functools.cmp_to_key(_compare))
    ranks, rank = {ord(marks[0]): 1}, 1
    for before, mark in pairwise(marks):
        rank += _behind(mark, before)
        ranks[ord(mark)] = rank
    return ranks


def _behind(a: str, b: str) -> bool:
    """Whether NFD moves `a` behind `b`, as it does exactly if a's combining class is higher and b's is not 0."""
    return a != b and normalizers.NFD().normalize_str(a + b) == b + a


def _compare(a: str, b: str) -> int:
    """How the combining classes of two marks compare: 1, 0 or -1."""
    return int(_behind(a, b)) - int(_behind(b, a))


def _is_mark(c: str) -> bool:
    """Whether the combining class of `c` is not 0."""
    return c in (LOWEST_MARK, HIGHEST_MARK) or _behind(c, LOWEST_MARK) or _behind(HIGHEST_MARK, c)


def _may_move(block: str) -> bool:
    """Whether NFD changes the block's code points, each between the last mark and the first, in any way."""
    text = "".join(HIGHEST_MARK + c + LOWEST_MARK for c in block)
    return normalizers.NFD().normalize_str(text) != text


@functools.cache
def bert_classes() -> Mapping[int, int]:
    """How BertPreTokenizer splits: white space REMOVED, punctuation ISOLATED."""
    return _classes(pre_tokenizers.BertPreTokenizer())


@functools.cache
def whitespace_classes() -> Mapping[int, int]:
    """How WhitespaceSplit splits: white space REMOVED."""
    return _classes(pre_tokenizers.WhitespaceSplit())


@functools.cache
def word_classes() -> Mapping[int, int]:
    r"""SPACE for \s and WORD for \w, which decide how added tokens strip blanks and match whole words."""
    split = pre_tokenizers.Whitespace()  # the regex \w+|[^\w\s]+ of the same regex engine
    found = {}
    for block in blocks():
        for c in block:
            pieces = [piece for piece, _ in split.pre_tokenize_str("a" + c)]
            if len(pieces) == 1:
                found[ord(c)] = WORD if pieces == ["a" + c] else SPACE
    return found


def _classes(splitter: pre_tokenizers.PreTokenizer) -> dict[int, int]:
    found = {}
    for block in blocks():
        if len(splitter.pre_tokenize_str("a" + "a".join(block) + "a")) > 1:
            pieces = {c: len(splitter.pre_tokenize_str(f"a{c}a")) for c in block}
            found.update({ord(c): count - 1 for c, count in pieces.items() if count > 1})
    return found


def _points(text: str) -> Text:
    return tuple(map(ord, text))
