"""How right an answer is: exact match and F1, as SQuAD's evaluation script counts them.

Takes an answer, or none, and the answers that count as right. Returns numbers from 0 to 1. Texts are compared in lower
case, without punctuation and articles; F1 is that of the words that two answers share. Of several right answers the
nearest counts; where there is none, saying so is right.

https://rajpurkar.github.io/SQuAD-explorer/ (evaluate-v2.0.py; on answerable questions that of v1.1 gives the same)
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_ANSWER = ""
PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str | None, right: Sequence[str]) -> float:
    """1 or 0."""
    found = _words(answer)
    return float(any(found == _words(other) for other in right or [NO_ANSWER]))


def f1(answer: str | None, right: Sequence[str]) -> float:
    """Of the words that the answer shares with the nearest right one."""
    found = _words(answer)
    return max(_overlap(found, _words(other)) for other in right or [NO_ANSWER])


def _words(text: str | None) -> list[str]:
    return ARTICLES.sub(" ", (text or NO_ANSWER).lower().translate(PUNCTUATION)).split()


def _overlap(found: Sequence[str], right: Sequence[str]) -> float:
    if not found or not right:
        return float(found == right)
    shared = sum((Counter(found) & Counter(right)).values())
    return 2 * shared / (len(found) + len(right))
