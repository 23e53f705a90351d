"""Where grapheme clusters end, as far as a precompiled charsmap can tell: an automaton over classes of code points.

Takes nothing but the installed `tokenizers` library, which is asked about each code point. Returns the class of each
and the automaton's transitions.
Leaves out: regional indicators. A charsmap looks at clusters below six bytes only, and two flags have eight.

The rules are those of UAX #29, "Grapheme Cluster Boundary Rules" (https://unicode.org/reports/tr29/), GB3 to GB11.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from tokenizers import normalizers

from pocketbert.export.tokenizer.code_points import BLOCK, SURROGATES

BREAK = 0x8000  # set in a transition where a new cluster begins
# Planes with marks, jamo, pictographs or controls. The others hold ideographs, private use and nothing at all.
PLANES = (0, 1, 14)
PLANE = 0x10000
SEPARATOR = "\x01"  # a control: clusters end on both sides of it
ACUTE, ZWJ, COPYRIGHT = "\u0301", "\u200d", "\u00a9"  # an extender of two bytes, the joiner, a pictograph of two bytes
L, V, T = "\u1100", "\u1161", "\u11a8"  # Hangul jamo
KA, VIRAMA = "\u0915", "\u094d"  # a Devanagari consonant and the linker that joins it to the next


class Class(IntEnum):
    """What a code point does to clusters; the names of UAX #29."""

    OTHER = 0
    CR = 1
    LF = 2
    CONTROL = 3
    EXTEND = 4  # also InCB=Extend
    PLAIN_EXTEND = 5  # not InCB=Extend
    LINKER = 6  # Extend and InCB=Linker
    ZWJ = 7
    SPACING_MARK = 8
    PREPEND = 9
    L = 10
    V = 11
    T = 12
    LV = 13
    LVT = 14
    PICTOGRAPH = 15
    CONSONANT = 16


EXTENDERS = (Class.EXTEND, Class.PLAIN_EXTEND, Class.LINKER)
CONTROLS = (Class.CR, Class.LF, Class.CONTROL)
HANGUL = {
    Class.L: (Class.L, Class.V, Class.LV, Class.LVT),
    Class.V: (Class.V, Class.T),
    Class.LV: (Class.V, Class.T),
    Class.T: (Class.T,),
    Class.LVT: (Class.T,),
}
State = tuple[Class, str, str]  # last class; how far GB11 and GB9c have come: "", "base", "joined"

# What surrounds a code point c in each question. With a charsmap that turns every character, or every cluster below
# six bytes, into one letter, the number of letters says whether c was joined to its neighbours.
QUESTIONS = {
    "joins": ("a", ""),
    "prepends": ("", "a"),
    "extends": ("", ACUTE + ACUTE),
    "before V": ("", V + ACUTE),
    "before T": ("", T + ACUTE),
    "after V": (V, ACUTE),
    "pictograph": ("", ZWJ + COPYRIGHT + ACUTE),
    "consonant": ("", VIRAMA + KA + ACUTE),
    "linker": (KA, KA + ACUTE),
    "InCB extend": (KA, VIRAMA + KA + ACUTE),
    "extend": (COPYRIGHT, ZWJ + COPYRIGHT + ACUTE),
}


@functools.cache
def grapheme_classes() -> Mapping[int, Class]:
    """Code points -> class, where it is not OTHER."""
    ask = normalizers.Precompiled(_one_letter_charsmap()).normalize_str
    found = {}
    for block in _blocks():
        probes = [before + c + after for c in block for before, after in QUESTIONS.values()]
        letters = [len(answer) for answer in ask(SEPARATOR.join(probes)).split(SEPARATOR)]
        for i, c in enumerate(block):
            answers = dict(zip(QUESTIONS, letters[i * len(QUESTIONS) :], strict=False))
            found[ord(c)] = _class(c, answers)
    found[ord(SEPARATOR)] = Class.CONTROL
    return {point: kind for point, kind in found.items() if kind}


def _class(c: str, letters: Mapping[str, int]) -> Class:
    if c in "\r\n\u200d":
        return {"\r": Class.CR, "\n": Class.LF, ZWJ: Class.ZWJ}[c]
    if letters["joins"] == 1:
        if letters["linker"] == len("KcK'"):
            return Class.LINKER
        if letters["extend"] < len("©cz©'"):
            return Class.SPACING_MARK
        return Class.EXTEND if letters["InCB extend"] == len("KcvK'") else Class.PLAIN_EXTEND
    if letters["prepends"] == 1:
        return Class.PREPEND
    if letters["extends"] == len("c|"):
        return Class.CONTROL
    if letters["pictograph"] == len("cz©'"):
        return Class.PICTOGRAPH
    if letters["consonant"] == len("cvK'"):
        return Class.CONSONANT
    return _hangul(letters)


def _hangul(letters: Mapping[str, int]) -> Class:
    joins_v, joins_t, after_v = (letters[question] == 3 for question in ("before V", "before T", "after V"))
    if joins_v:
        return (Class.V if after_v else Class.LV) if joins_t else Class.L
    if joins_t:
        return Class.T if after_v else Class.LVT
    return Class.OTHER


def _blocks() -> Iterator[str]:
    for start in range(0, PLANE, BLOCK):
        for plane in PLANES:
            points = range(plane * PLANE + start, plane * PLANE + start + BLOCK)
            if points[0] not in SURROGATES:
                yield "".join(map(chr, points)).replace(SEPARATOR, "")


def _one_letter_charsmap() -> bytes:
    """A charsmap that turns whatever begins with any byte but 0 and SEPARATOR into "Y".

    A double-array trie as SentencePiece stores it: a unit for each byte (label in bits 0-7, bit 8 says that a value
    follows, offset from bit 10), and behind each, at `its place ^ offset`, the value 0: the start of the text "Y".
    """
    size, root, leaf = 0x400, 0x100, 0x200
    units = np.zeros(size, "<u4")
    units[0] = root << 10
    for byte in range(2, 0x100):
        units[root ^ byte] = byte | 1 << 8 | leaf << 10
        units[root ^ byte ^ leaf] = 1 << 31
    return np.uint32(units.nbytes).tobytes() + units.tobytes() + b"Y\0"


def transitions() -> NDArray[np.uint16]:
    """The automaton: uint16 (states, classes), the next state, with BREAK where a new cluster begins.

    State 0 is the start of a text.
    """
    states: list[State] = [(Class.CONTROL, "", "")]
    rows = []
    for state in states:  # grows while it is walked
        row = []
        for kind in Class:
            breaks = _breaks(state, kind)
            following = _next(("", "") if breaks else state[1:], kind)
            if following not in states:
                states.append(following)
            row.append(states.index(following) | (BREAK if breaks else 0))
        rows.append(row)
    return np.array(rows, np.uint16)


def _breaks(state: State, kind: Class) -> bool:
    last, pictograph, consonant = state
    if last in CONTROLS or kind in CONTROLS:
        return not (last == Class.CR and kind == Class.LF)  # GB3, GB4, GB5
    joined = (
        kind in (*EXTENDERS, Class.ZWJ, Class.SPACING_MARK)  # GB9, GB9a
        or last == Class.PREPEND  # GB9b
        or kind in HANGUL.get(last, ())  # GB6, GB7, GB8
        or (kind == Class.CONSONANT and consonant == "joined")  # GB9c
        or (kind == Class.PICTOGRAPH and pictograph == "joined")  # GB11
    )
    return not joined


def _next(progress: tuple[str, str], kind: Class) -> State:
    pictograph, consonant = progress
    if kind == Class.PICTOGRAPH:
        pictograph = "base"
    elif kind == Class.ZWJ:
        pictograph = "joined" if pictograph == "base" else ""
    elif not (kind in EXTENDERS and pictograph == "base"):
        pictograph = ""
    if kind == Class.CONSONANT:
        consonant = "base"
    elif kind == Class.LINKER:
        consonant = "joined" if consonant else ""
    elif kind not in (Class.EXTEND, Class.ZWJ):
        consonant = ""
    return kind, pictograph, consonant
