"""Runs model.onnx with ONNX Runtime on the CPU: the baseline that `bench` compares with.

Takes int32 (1, seq), any length; the model has Hugging Face's two inputs, and texts at their exact length need no mask
but ones. Returns its float32 outputs by name.
Leaves out: making the model (export/onnxruntime_baseline.py) and other execution providers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.engines import Engine, can_import
from pocketbert.runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Verified
    from pocketbert.runtime.manifest import Artifact

LIBRARIES = ("onnxruntime",)
ERRORS_ONLY = 3  # its log level


def is_installed() -> bool:
    """Whether this host has ONNX Runtime."""
    return can_import("onnxruntime")


def is_timed() -> bool:
    """It runs here as it would elsewhere."""
    return True


def open_artifact(
    path: Path,
    artifact: Artifact,
    threads: int,
    implementation: str | None,
    verified: Verified,
    outputs: Sequence[str],
) -> Engine:
    """Opens the model at `path`. Raises EngineError."""
    if not is_installed():
        raise EngineError("ONNX Runtime is not installed: pip install 'pocketbert[bench]'")
    if implementation is not None:
        raise EngineError(f"onnxruntime has no implementation {implementation!r}")
    verified()
    return _OnnxRuntimeEngine(path, threads, outputs)


class _OnnxRuntimeEngine(Engine):
    name = "onnxruntime"

    def __init__(self, path: Path, threads: int, outputs: Sequence[str]) -> None:
        import onnxruntime

        super().__init__()
        self.version, self.threads = f"onnxruntime {onnxruntime.__version__}", threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = ERRORS_ONLY
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # it has a dozen exceptions of its own, without a base
            raise EngineError(f"{self.version} cannot open {path}: {str(problem).splitlines()[0]}") from problem
        self._session: Any = session
        self._outputs = list(outputs)

    def _run(self, ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        wide = ids.astype(np.int64)
        found = self._session.run(self._outputs, {"input_ids": wide, "attention_mask": np.ones_like(wide)})
        return [np.asarray(logits, np.float32) for logits in found]

    def _release(self) -> None:
        self._session = None
