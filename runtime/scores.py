"""Logits to probabilities: softmax, or sigmoid where several labels may hold.

Takes and returns float32 of any shape, labels on the last axis; of question-answering (tokens, 2), start and end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.manifest import QUESTION_ANSWERING

if TYPE_CHECKING:
    from numpy.typing import NDArray


def task_probabilities(logits: NDArray[np.float32], task: str, multi_label: bool) -> NDArray[np.float32]:
    """As `task` reads logits: where an answer starts or ends is a softmax over all tokens."""
    return softmax(logits, axis=-2) if task == QUESTION_ANSWERING else probabilities(logits, multi_label)


def probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
    """Softmax, or sigmoid where several labels may hold."""
    return sigmoid(logits) if multi_label else softmax(logits)


def softmax(logits: NDArray[np.float32], axis: int = -1) -> NDArray[np.float32]:
    """Over one axis, shifted by its maximum so that it cannot overflow."""
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), by way of tanh, which does not overflow."""
    half: NDArray[np.float32] = np.tanh(logits / 2)
    return ((half + 1) / 2).astype(np.float32)
