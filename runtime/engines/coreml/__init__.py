"""Runs model.mlpackage: with Core ML on a Mac, elsewhere with the reference evaluator (mil/).

Takes int32 (1, seq), seq one of the lengths that the program enumerates. Returns its float32 outputs by name.
Leaves out: choosing between CPU, GPU and Neural Engine, and a number of threads: Core ML decides by itself, and numpy's
BLAS by OMP_NUM_THREADS.

`version` says which of the two it is. The evaluator checks the program that was written, in the precision
that the program declares; only Core ML on a device checks what the Neural Engine makes of it.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.engines import Engine, can_import
from pocketbert.runtime.engines.coreml import mil
from pocketbert.runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Verified
    from pocketbert.runtime.manifest import Artifact

INPUT = "input_ids"
# Counts up when the evaluator's answers change, so that two reports can be compared.
EVALUATOR_VERSION = 2
LIBRARIES = ("pocketbert.runtime.engines.coreml.mil",)


def is_installed() -> bool:
    """Whether this host can run a Core ML program: the evaluator needs numpy alone, so it always can."""
    return True


def is_timed() -> bool:
    """Only where Core ML itself runs: the evaluator's time says nothing."""
    return _has_core_ml()


def open_artifact(
    path: Path,
    artifact: Artifact,
    threads: int,
    implementation: str | None,
    verified: Verified,
    outputs: Sequence[str],
) -> Engine:
    """Opens the package at `path` with `implementation`: coreml, mil (the evaluator), or the best that is here.

    `threads` changes nothing: see above. Raises EngineError.
    """
    chosen = implementation or ("coreml" if _has_core_ml() else "mil")
    if chosen not in IMPLEMENTATIONS:
        raise EngineError(f"coreml has no implementation {chosen!r}: use {', '.join(IMPLEMENTATIONS)}")
    if chosen == "coreml" and not _has_core_ml():
        raise EngineError("Core ML needs macOS and coremltools: pip install coremltools, or use coreml:mil")
    verified()
    return IMPLEMENTATIONS[chosen](path, outputs)


def _has_core_ml() -> bool:
    return sys.platform == "darwin" and can_import("coremltools")


class _EvaluatorEngine(Engine):
    name, threads = "coreml", None
    version = f"MIL reference evaluator {EVALUATOR_VERSION} (numpy {np.__version__})"

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        super().__init__()
        self._evaluator, self._outputs = mil.load(path), outputs

    def _run(self, ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        found = self._evaluator.run({INPUT: ids})
        return [found[name] for name in self._outputs]

    def _release(self) -> None:
        del self._evaluator


class _CoreMLEngine(Engine):
    name, threads = "coreml", None

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        import coremltools

        super().__init__()
        self._outputs = outputs
        self.version = f"Core ML on macOS {platform.mac_ver()[0]} (coremltools {version('coremltools')})"
        try:
            self._model: Any = coremltools.models.MLModel(str(path))
        except Exception as problem:  # coremltools raises whatever Core ML reports
            raise EngineError(f"{self.version} cannot open {path}: {problem}") from problem

    def _run(self, ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:  # Apple: one thread at a time: see Engine
        found = self._model.predict({INPUT: ids})
        return [np.asarray(found[name], np.float32) for name in self._outputs]

    def _release(self) -> None:
        self._model = None


IMPLEMENTATIONS: dict[str, Callable[[Path, Sequence[str]], Engine]] = {"coreml": _CoreMLEngine, "mil": _EvaluatorEngine}
