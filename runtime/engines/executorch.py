"""Runs model.pte with ExecuTorch's Python runtime (XNNPACK).

Takes int32 (1, seq), any length that the program allows. Gives float32 (1, labels).
Leaves out: other methods than the manifest's entry.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.engines import can_import
from pocketbert.runtime.engines.quiet import quiet_stderr
from pocketbert.runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Engine, Verified
    from pocketbert.runtime.manifest import Artifact


def is_installed() -> bool:
    """Whether this host has ExecuTorch."""
    return can_import("executorch")


def open(
    path: Path,
    artifact: Artifact,
    threads: int,
    implementation: str | None = None,
    verified: Verified = lambda: None,
) -> Engine:
    """Opens the program at `path`. Raises EngineError."""
    if not is_installed():
        raise EngineError("ExecuTorch is not installed: pip install 'pocketbert[executorch]'")
    if implementation not in (None, "executorch"):
        raise EngineError(f"executorch has no implementation {implementation!r}")
    return _ExecutorchEngine(path, artifact.entry, threads, verified)


class _ExecutorchEngine:
    name = "executorch"

    def __init__(self, path: Path, entry: str, threads: int, verified: Verified) -> None:
        with quiet_stderr():  # its CPU probe logs files that only phones have
            self.version = f"executorch {_version()}"
            try:
                from executorch.extension.pybindings import portable_lib
                from executorch.runtime import Runtime, Verification

                portable_lib._unsafe_reset_threadpool(threads)
                verified()
                # The buffer outlives the program: its constants stay mapped from it.
                program: Any = Runtime.get().load_program(path, verification=Verification.Minimal)
                self._method: Any = program.load_method(entry)
            except (ImportError, RuntimeError) as problem:  # built for another torch; or another program format
                raise EngineError(f"{self.version} cannot open {path}: {str(problem).splitlines()[0]}") from problem
        self._program = program
        self._lock = threading.Lock()  # a method holds one set of activations

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        import torch

        with self._lock:
            logits = self._method.execute([torch.from_numpy(ids)])[0]
            return np.array(logits.numpy(), np.float32)  # a copy: the next run reuses the memory

    def close(self) -> None:
        self._method = self._program = None


def _version() -> str:
    from importlib.metadata import version

    return version("executorch")
