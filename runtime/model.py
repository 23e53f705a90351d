"""What all tasks share: a bundle opened with one engine, and ids run through it.

Takes a bundle folder. Returns the subclass of `Model` that was asked for, which is safe to share between threads.
Leaves out: what logits mean (classifier.py, token_classifier.py, question_answerer.py), and batches inside an engine
(artifacts take one text at a time, at its own length).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from pocketbert.runtime import engines
from pocketbert.runtime.errors import BundleError, EngineError
from pocketbert.runtime.manifest import (
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    Manifest,
    read_manifest,
    verify_files,
)
from pocketbert.runtime.scores import task_probabilities
from pocketbert.runtime.self_check import check_golden_cases
from pocketbert.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    M = TypeVar("M", bound="Model")

DEFAULT_THREADS = 2  # what a phone gives an app without heating up
# Who opens a bundle of which task.
CLASSES = {
    SEQUENCE_CLASSIFICATION: "Classifier",
    TOKEN_CLASSIFICATION: "TokenClassifier",
    QUESTION_ANSWERING: "QuestionAnswerer",
}


class Model:
    """A bundle opened with one engine."""

    task: ClassVar[str]  # of the bundles that a class opens

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, engine: engines.Engine) -> None:
        self.manifest, self.tokenizer, self.engine = manifest, tokenizer, engine
        self.artifact = manifest.artifact(engine.name)

    @classmethod
    def open(
        cls: type[M],
        folder: str | Path,
        engine: str | None = None,
        threads: int = DEFAULT_THREADS,
        self_check: bool = True,
    ) -> M:
        """Opens the bundle in `folder`, with the best installed engine or the one named.

        `threads` are the engine's, 1 to 64; coreml chooses its own, and executorch has one pool for a process, so that
        a second model with another number is refused while a first is open.
        Files are compared with their hashes and, unless `self_check` is False, an engine's first use with the golden
        cases. Raises BundleError for a damaged bundle or one of another task, EngineError for an engine that is
        missing or wrong.
        """
        manifest = read_manifest(folder)
        if manifest.task != cls.task:
            raise BundleError(f"{folder} is for {manifest.task}: open it with {CLASSES[manifest.task]}")
        return cls.open_described(manifest, Path(folder), engine, threads, self_check)

    @classmethod
    def open_described(
        cls: type[M], manifest: Manifest, folder: Path, engine: str | None, threads: int, self_check: bool
    ) -> M:
        """`open` for who has read the manifest already, and knows that it is of the class's task."""
        name = engine or engines.best([artifact.format for artifact in manifest.artifacts])
        engines.check_name(name)
        artifact = manifest.artifact(engines.kind(name))
        outputs = [output.name for output in manifest.outputs]
        with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter free
            verified = pool.submit(verify_files, folder, artifact.files)
            verify_files(folder, [manifest.tokenizer, manifest.golden])
            tokenizer = Tokenizer(folder / manifest.tokenizer.path, manifest.max_length)
            opened = engines.open_engine(name, folder, artifact, threads, verified.result, outputs)
        model = cls(manifest, tokenizer, opened)
        try:
            verified.result()  # also where an engine did not ask
            if self_check:
                check_golden_cases(model, folder)
        except BaseException:
            model.close()
            raise
        return model

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """int32 (tokens,) -> float32 (labels,), by token (tokens, labels), or start and end (tokens, 2).

        Pads to the next length if the artifact needs it; what it answers for padding is left out.
        """
        if len(ids) > self.manifest.max_length:
            raise EngineError(f"{len(ids)} ids are more than the bundle's {self.manifest.max_length}: cut the text")
        tokens = len(ids)
        if not self.artifact.any_length:
            padding = self.manifest.padded_length(tokens) - tokens
            ids = np.pad(ids, (0, padding), constant_values=self.manifest.pad_id)
        logits: NDArray[np.float32] = self.engine.run(ids[None, :])[0]
        if self.manifest.by_token:
            logits = logits[:tokens]
        if not np.isfinite(logits).all():
            raise EngineError(
                f"{self.engine.version} computed {logits.tolist()}: the artifact or the runtime is broken"
            )
        return logits

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits -> the same shape: softmax over labels, sigmoid where several labels may hold, or of an answer's start
        and end over the tokens."""
        return task_probabilities(logits, self.manifest.task, self.manifest.multi_label)

    def close(self) -> None:
        """Releases the engine; what is asked afterwards raises EngineError."""
        self.engine.close()

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
