"""Entities out of the tags of words, and how many of them were found.

Takes BIO tags, a list for each text. Returns spans, and precision, recall and F1 over all texts, as seqeval's default
mode and the script `conlleval` of CoNLL-2000 count them: an entity is right if its kind and both its ends are.
Leaves out: entities out of logits (runtime/token_classifier.py), and strict schemes in which an I may not begin one.

https://github.com/chakki-works/seqeval, https://www.clips.uantwerpen.be/conll2000/chunking/output.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OUTSIDE, INSIDE = "O", "I"
FIRST, LAST = ("B", "S"), ("E", "S")  # prefixes of a word with which an entity begins, and ends

Span = tuple[str, int, int]  # the kind, the first word, and the word behind the last


@dataclass(frozen=True)
class EntityScore:
    """How many entities there are, were found, and were found rightly."""

    expected: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the found ones that are right; 0 where none was found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the expected ones that were found; 0 where there are none."""
        return self.right / self.expected if self.expected else 0.0

    @property
    def f1(self) -> float:
        """Their harmonic mean."""
        return 2 * self.right / (self.expected + self.found) if self.expected + self.found else 0.0


def find_spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one text, in order."""
    spans: list[Span] = []
    prefix_before, kind_before, start = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = _split(tag)
        begins = prefix in FIRST or kind != kind_before or prefix_before in (OUTSIDE, *LAST)
        if prefix_before != OUTSIDE and (prefix == OUTSIDE or begins):
            spans.append((kind_before, start, place))
        if begins:
            start = place
        prefix_before, kind_before = prefix, kind
    return spans


def _split(tag: str) -> tuple[str, str]:
    """Prefix and kind; a tag that has no prefix says that a word is inside."""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash or tag == OUTSIDE else (INSIDE, tag)


def score_entities(found: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> EntityScore:
    """Counts over all texts; tags of a text in `found` are as many as in `expected`."""
    pairs = [(set(find_spans(one)), set(find_spans(other))) for one, other in zip(found, expected, strict=True)]
    return EntityScore(
        expected=sum(len(other) for _, other in pairs),
        found=sum(len(one) for one, _ in pairs),
        right=sum(len(one & other) for one, other in pairs),
    )
