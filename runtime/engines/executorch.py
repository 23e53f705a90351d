"""Runs model.pte with ExecuTorch's Python runtime (XNNPACK).

Takes int32 (1, seq), any length that the program allows. Returns each of its float32 outputs, in
their order: a program does not know them by name. Leaves out: other methods than the manifest's entry.

ExecuTorch has one thread pool for the whole process. So all classifiers that are open at a time share one number of
threads; opening one with another number is refused, not answered with a number that nobody asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.engines import Engine, can_import
from pocketbert.runtime.engines.native_logging import silence_native_logs
from pocketbert.runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Verified
    from pocketbert.runtime.manifest import Artifact

LIBRARIES = ("torch", "executorch.extension.pybindings.portable_lib", "executorch.runtime")


def is_installed() -> bool:
    """Whether this host has ExecuTorch."""
    return can_import("executorch")


def is_timed() -> bool:
    """It runs here as it does on a phone, with kernels for another processor."""
    return True


def open_artifact(
    path: Path,
    artifact: Artifact,
    threads: int,
    implementation: str | None,
    verified: Verified,
    outputs: Sequence[str],
) -> Engine:
    """Opens the program at `path`. Raises EngineError."""
    if not is_installed():
        raise EngineError("ExecuTorch is not installed: pip install 'pocketbert[executorch]'")
    if implementation not in (None, "executorch"):
        raise EngineError(f"executorch has no implementation {implementation!r}")
    return _ExecutorchEngine(path, artifact.entry, threads, verified, len(outputs))


class ThreadPool:
    """The process's pool: how many engines use it, and with how many threads."""

    def __init__(self) -> None:
        self._change = threading.Lock()
        self.threads, self.users = 0, 0

    def join(self, threads: int) -> None:
        """Sets the pool for a first user, or shares it. Raises EngineError where it is in use with another number."""
        from executorch.extension.pybindings import portable_lib

        with self._change:
            if self.users and threads != self.threads:
                raise EngineError(
                    f"ExecuTorch has one thread pool for a process, and an open classifier uses {self.threads} of its "
                    f"threads: close that first, or open this one with threads={self.threads}"
                )
            if not self.users:
                portable_lib._unsafe_reset_threadpool(threads)
            self.threads, self.users = threads, self.users + 1

    def leave(self) -> None:
        with self._change:
            self.users -= 1


POOL = ThreadPool()


class _ExecutorchEngine(Engine):
    name = "executorch"

    def __init__(self, path: Path, entry: str, threads: int, verified: Verified, outputs: int) -> None:
        super().__init__()
        self._outputs = outputs
        with silence_native_logs():  # its CPU probe logs files that only phones have
            self.version, self.threads = f"executorch {_version()}", threads
            try:
                POOL.join(threads)
                try:
                    self._load(path, entry, verified)
                except BaseException:
                    POOL.leave()
                    raise
            except (ImportError, RuntimeError) as problem:  # built for another torch; or another program format
                raise EngineError(f"{self.version} cannot open {path}: {str(problem).splitlines()[0]}") from problem

    def _load(self, path: Path, entry: str, verified: Verified) -> None:
        from executorch.runtime import Runtime, Verification

        verified()
        # The buffer outlives the program: its constants stay mapped from it.
        self._program: Any = Runtime.get().load_program(path, verification=Verification.Minimal)
        self._method: Any = self._program.load_method(entry)

    def _run(self, ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        import torch

        outputs = self._method.execute([torch.from_numpy(ids)])
        if len(outputs) != self._outputs:
            raise EngineError(f"the program has {len(outputs)} outputs, not {self._outputs}: export the bundle again")
        return [np.array(output.numpy(), np.float32) for output in outputs]  # copies: the next run reuses the memory

    def _release(self) -> None:
        self._method = self._program = None
        POOL.leave()

    def __del__(self) -> None:
        if getattr(self, "_program", None) is not None:  # nobody closed it
            self.close()


def _version() -> str:
    from importlib.metadata import version

    return version("executorch")
