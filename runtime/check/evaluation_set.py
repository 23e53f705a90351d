"""Texts with what is known of them: their inputs, the logits to compare with, and what is right.

Leaves out: where they come from (evaluation.py), and what their logits mean (tasks/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pocketbert.runtime.check.metrics import Logits
    from pocketbert.runtime.tokenizer import Encoding

    Ids = NDArray[np.int32]  # (tokens,)

CHECKPOINT = "fp32"  # the name of the checkpoint's own logits among the references


@dataclass(frozen=True)
class EvaluationSet:
    """Texts that engines answer, and the logits to compare with, where they are known. A text is one input, or several:
    a long one of a question is read in windows."""

    name: str
    texts: Sequence[str]
    ids: Sequence[Ids]  # of each input
    reference: Mapping[str, Logits] | None = None  # by CHECKPOINT and by activations, of each input
    seconds: Sequence[str | None] = ()  # of each text, the second one that belongs to it
    encodings: Sequence[Encoding] = ()  # of each input
    owners: Sequence[int] = ()  # of each input, the number of its text
    data: Any = None  # what is right, as the task's data file says it
