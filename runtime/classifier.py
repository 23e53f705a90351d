"""From a text to labels: tokenizer, engine, softmax or sigmoid.

Takes a bundle folder. Gives `Classifier`, which is safe to share between threads.
Leaves out: batches inside an engine (artifacts take one text at a time, at its own length).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime import engines, proof
from pocketbert.runtime import manifest as bundle
from pocketbert.runtime.errors import EngineError
from pocketbert.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_THREADS = 2  # what a phone gives an app without heating up


@dataclass(frozen=True)
class Prediction:
    """A label and its probability."""

    label: str
    score: float


class Classifier:
    """A bundle opened with one engine."""

    def __init__(self, manifest: bundle.Manifest, tokenizer: Tokenizer, engine: engines.Engine) -> None:
        self.manifest, self.tokenizer, self.engine = manifest, tokenizer, engine
        self.artifact = manifest.artifact(engine.name)

    @classmethod
    def open(
        cls, folder: str | Path, engine: str | None = None, threads: int = DEFAULT_THREADS, prove: bool = True
    ) -> Classifier:
        """Opens the bundle in `folder`, with the best installed engine or the one named.

        Files are compared with their hashes and, unless `prove` is False, an engine's first use with the golden
        cases. Raises BundleError for a damaged bundle, EngineError for an engine that is missing or wrong.
        """
        folder = Path(folder)
        manifest = bundle.read(folder)
        name = engine or _best_engine(manifest)
        engines.check_name(name)
        artifact = manifest.artifact(name.partition(":")[0])
        with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter free
            verified = pool.submit(bundle.verify, folder, artifact.files)
            bundle.verify(folder, [manifest.tokenizer])
            tokenizer = Tokenizer(folder / manifest.tokenizer.path, manifest.max_length)
            opened = engines.open_engine(name, folder, artifact, threads, verified.result)
            verified.result()  # also where an engine did not ask
        classifier = cls(manifest, tokenizer, opened)
        if prove:
            proof.prove(classifier, folder)
        return classifier

    def __call__(self, text: str) -> list[Prediction]:
        """The labels of one text, best first."""
        return self._predict(self._run(text))

    def classify_batch(self, texts: Iterable[str]) -> list[list[Prediction]]:
        """The labels of each text, best first."""
        return [self(text) for text in texts]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, labels)."""
        rows = [self._run(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, len(self.manifest.labels)), np.float32)

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """int32 (tokens,) -> float32 (labels,): pads to the next length if the artifact needs it."""
        if len(ids) > self.manifest.max_length:
            raise EngineError(f"{len(ids)} ids are more than the bundle's {self.manifest.max_length}: cut the text")
        if not self.artifact.any_length:
            padding = self.manifest.padded_length(len(ids)) - len(ids)
            ids = np.pad(ids, (0, padding), constant_values=self.manifest.pad_id)
        logits: NDArray[np.float32] = self.engine.run(ids[None, :])[0]
        if not np.isfinite(logits).all():
            raise EngineError(
                f"{self.engine.version} computed {logits.tolist()}: the artifact or the runtime is broken"
            )
        return logits

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (..., labels) -> the same shape: softmax, or sigmoid where several labels may hold."""
        return probabilities(logits, self.manifest.multi_label)

    def close(self) -> None:
        """Releases the engine."""
        self.engine.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, text: str) -> NDArray[np.float32]:
        return self.run(self.tokenizer(text))

    def _predict(self, logits: NDArray[np.float32]) -> list[Prediction]:
        scores = self.probabilities(logits)
        order = np.argsort(-scores, kind="stable")  # equal scores keep the order of the labels
        return [Prediction(self.manifest.labels[i], float(scores[i])) for i in order]


def probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
    """Softmax, or sigmoid where several labels may hold."""
    return sigmoid(logits) if multi_label else softmax(logits)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis, shifted by its maximum so that it cannot overflow."""
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), by way of tanh, which does not overflow."""
    half: NDArray[np.float32] = np.tanh(logits / 2)
    return ((half + 1) / 2).astype(np.float32)


def _best_engine(manifest: bundle.Manifest) -> str:
    formats = [artifact.format for artifact in manifest.artifacts]
    found = engines.installed(formats)
    if not found:
        raise EngineError(f"no engine for {', '.join(formats)} is installed: pip install 'pocketbert[tflite]'")
    return found[0]
