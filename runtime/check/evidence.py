"""What a few texts can show of a share or a mean: that a limit does not hold, never that it does.

Takes how many of the texts went wrong. Returns how likely that is where the limit holds. Golden cases are few and odd
(an empty text, emoji, five scripts): one more flip among them says nothing of the texts that an app will see.
Leaves out: the limits, and what a gate makes of it (gates.py).
"""

from __future__ import annotations

import math

IMPLAUSIBLE = 1e-3  # what is less likely than this under a limit shows that the limit does not hold
# Times the limit of a mean. By Markov's inequality, whatever drifts look like, at most one text in FAR drifts so far.
FAR = 10


def tail(wrong: int, texts: int, share: float) -> float:
    """The probability that `wrong` or more of `texts` go wrong where each does with probability `share`: binomial."""
    if wrong <= 0:
        return 1.0
    if not 0 < share < 1:
        return float(share >= 1)
    return min(1.0, sum(math.exp(_log_probability(k, texts, share)) for k in range(wrong, texts + 1)))


def _log_probability(wrong: int, texts: int, share: float) -> float:
    ways = math.lgamma(texts + 1) - math.lgamma(wrong + 1) - math.lgamma(texts - wrong + 1)
    return ways + wrong * math.log(share) + (texts - wrong) * math.log1p(-share)


def is_implausible(wrong: int, texts: int, share: float) -> bool:
    """Whether so many wrong ones show that more than a `share` of all texts go wrong."""
    return tail(wrong, texts, share) < IMPLAUSIBLE
