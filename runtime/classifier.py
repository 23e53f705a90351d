"""From a text, or two, to labels: softmax or sigmoid over what the engine answers.

Takes a bundle folder. Returns `Classifier`, which is safe to share between threads.
Leaves out: opening and running (model.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.errors import BundleError
from pocketbert.runtime.manifest import SEQUENCE_CLASSIFICATION
from pocketbert.runtime.model import DEFAULT_THREADS, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Texts = str | tuple[str, str]

__all__ = ["DEFAULT_THREADS", "Classifier", "Prediction"]


@dataclass(frozen=True)
class Prediction:
    """A label and its probability."""

    label: str
    score: float


class Classifier(Model):
    """A bundle that labels texts, or pairs of texts, opened with one engine."""

    task = SEQUENCE_CLASSIFICATION

    def __call__(self, text: str, text_pair: str | None = None) -> list[Prediction]:
        """The labels of one text or of two together, best first.

        Raises TypeError for a list of them, which classify_batch and logits take, and BundleError for a second text
        where the bundle takes one.
        """
        return self._predict(self._run(text, text_pair))

    def classify_batch(self, texts: Iterable[Texts]) -> list[list[Prediction]]:
        """The labels of each text, or tuple of two, best first. Raises TypeError for a single text."""
        return [self._predict(self._run(*_pair(text))) for text in _several(texts)]

    def logits(self, texts: Sequence[Texts]) -> NDArray[np.float32]:
        """float32 (texts, labels), of texts or tuples of two. Raises TypeError for a single text."""
        rows = [self._run(*_pair(text)) for text in _several(texts)]
        return np.stack(rows) if rows else np.zeros((0, len(self.manifest.labels)), np.float32)

    def _run(self, text: str, text_pair: str | None) -> NDArray[np.float32]:
        for each in (text,) if text_pair is None else (text, text_pair):
            if not isinstance(each, str):
                raise TypeError(f"a text is a str, not {type(each).__name__}: pass several to classify_batch or logits")
        if text_pair is not None and not self.manifest.pairs:
            raise BundleError("the bundle takes one text at a time: export its checkpoint with --pairs")
        return self.run(self.tokenizer(text, text_pair))

    def _predict(self, logits: NDArray[np.float32]) -> list[Prediction]:
        scores = self.probabilities(logits)
        order = np.argsort(-scores, kind="stable")  # equal scores keep the order of the labels
        return [Prediction(self.manifest.labels[i], float(scores[i])) for i in order]


def _pair(text: Texts) -> tuple[str, str | None]:
    return text if isinstance(text, tuple) else (text, None)


def _several(texts: Iterable[Texts]) -> Iterable[Texts]:
    """A str is an iterable of str too: its letters, which nobody means."""
    if isinstance(texts, str):
        raise TypeError("logits and classify_batch take a list of texts: pass [text], or call classifier(text)")
    return texts
