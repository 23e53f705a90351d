"""What `check` must know of a task: one module for each, all with the same verbs.

Takes logits, a float32 array for each input that was run. Returns how far they are from others, how right they are by
the measures that the field has for the task, and what they answer in words.
Leaves out: running engines (parity.py), and which distance is too far (gates.py).

A task more is a module here, and its place in choice.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from pocketbert.runtime.check import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.check.evaluation_set import EvaluationSet
    from pocketbert.runtime.check.metrics import Comparison, Logits
    from pocketbert.runtime.manifest import Manifest
    from pocketbert.runtime.tokenizer import Encoding, Tokenizer


class Labelled(Protocol):
    """What data are read for: a manifest, or a checkpoint."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def multi_label(self) -> bool: ...
    @property
    def pairs(self) -> bool: ...


class Data(Protocol):
    """What a data file gives, whatever its task."""

    @property
    def name(self) -> str: ...
    @property
    def texts(self) -> Sequence[str]: ...
    @property
    def rows(self) -> int: ...
    @property
    def skipped(self) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Score:
    """One measure of how right answers are."""

    value: float  # 0 to 1
    count: int  # of what there was to get right


class Task(ABC):
    """One task, for the bundle that is checked."""

    unit: ClassVar[str]  # what agreement counts
    measures: ClassVar[tuple[str, ...]]  # the names of its scores

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer) -> None:
        self.manifest, self.tokenizer = manifest, tokenizer

    @classmethod
    @abstractmethod
    def read(
        cls, model: Labelled, file: Path, limit: int | None, columns: Sequence[str], owner: str = "the bundle"
    ) -> Data:
        """The data file for a `model`, which errors call `owner`. Raises DataError."""

    @staticmethod
    @abstractmethod
    def seconds(data: Any) -> Sequence[str | None]:
        """The second text that belongs to each of the data's texts."""

    def encode(self, text: str, text_pair: str | None) -> list[Encoding]:
        """What is run for a text: one input, or where it is read in windows several."""
        return [self.tokenizer.encode(text, text_pair)]

    @abstractmethod
    def rows(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """One input's logits as rows, each of which becomes probabilities by itself."""

    def drift(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
        """The most moved probability of one input."""
        return float(metrics.drift(self.rows(found), self.rows(expected), self.manifest.multi_label).max())

    @abstractmethod
    def compare(self, asked: EvaluationSet, found: Logits, expected: Logits, tolerance: float) -> Comparison:
        """Two sets of logits of the same inputs."""

    @abstractmethod
    def score(self, asked: EvaluationSet, logits: Logits) -> Mapping[str, Score]:
        """How right the logits of a data set are, by each of `measures`."""

    @abstractmethod
    def describe(self, asked: EvaluationSet, text: int, logits: Logits) -> tuple[list[str], float]:
        """What logits answer to one of the texts, and its probability; none is answered with 1."""

    @abstractmethod
    def truth(self, asked: EvaluationSet, text: int) -> list[str]:
        """What a data set says to that."""

    def confusion(self, asked: EvaluationSet, logits: Logits) -> NDArray[np.int64] | None:
        """How often each label (row) was answered by each (column); None where labels do not exclude each other."""
        return None
