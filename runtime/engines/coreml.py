"""Runs model.mlpackage: with Core ML on a Mac, elsewhere with the reference evaluator (runtime/mil).

Takes int32 (1, seq), seq one of the lengths that the program enumerates. Gives float32 (1, labels).
Leaves out: choosing between CPU, GPU and Neural Engine; Core ML does that by itself.

`version` says which of the two it is. The evaluator checks the program that was written, in the precision
that the program declares; only Core ML on a device checks what the Neural Engine makes of it.
"""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime import mil
from pocketbert.runtime.engines import can_import
from pocketbert.runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Engine, Verified
    from pocketbert.runtime.manifest import Artifact

INPUT, OUTPUT = "input_ids", "logits"
# Counts up when the evaluator's answers change, so that two reports can be compared.
EVALUATOR_VERSION = 1


def is_installed() -> bool:
    """Whether this host can run a Core ML program: the evaluator needs numpy alone, so it always can."""
    return True


def open(
    path: Path,
    artifact: Artifact,
    threads: int,
    implementation: str | None = None,
    verified: Verified = lambda: None,
) -> Engine:
    """Opens the package at `path` with `implementation`: coreml, mil (the evaluator), or the best that is here.

    `threads` is left to Core ML, and to the BLAS that numpy is built with (OMP_NUM_THREADS). Raises EngineError.
    """
    chosen = implementation or ("coreml" if _has_core_ml() else "mil")
    if chosen not in IMPLEMENTATIONS:
        raise EngineError(f"coreml has no implementation {chosen!r}: use {', '.join(IMPLEMENTATIONS)}")
    if chosen == "coreml" and not _has_core_ml():
        raise EngineError("Core ML needs macOS and coremltools: pip install coremltools, or use coreml:mil")
    verified()
    return IMPLEMENTATIONS[chosen](path)


def _has_core_ml() -> bool:
    return sys.platform == "darwin" and can_import("coremltools")


class _EvaluatorEngine:
    name = "coreml"
    version = f"MIL reference evaluator {EVALUATOR_VERSION} (numpy {np.__version__})"

    def __init__(self, path: Path) -> None:
        self._evaluator: mil.Evaluator | None = mil.load(path)

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        if self._evaluator is None:
            raise EngineError("the engine is closed")
        return self._evaluator.run({INPUT: ids})[OUTPUT]

    def close(self) -> None:
        self._evaluator = None


class _CoreMLEngine:
    name = "coreml"

    def __init__(self, path: Path) -> None:
        import coremltools

        self.version = f"Core ML on macOS {platform.mac_ver()[0]} (coremltools {version('coremltools')})"
        try:
            self._model: Any = coremltools.models.MLModel(str(path))
        except Exception as problem:  # coremltools raises whatever Core ML reports
            raise EngineError(f"{self.version} cannot open {path}: {problem}") from problem
        self._lock = threading.Lock()  # Apple: use an MLModel on one thread at a time

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        with self._lock:
            return np.asarray(self._model.predict({INPUT: ids})[OUTPUT], np.float32)

    def close(self) -> None:
        self._model = None


IMPLEMENTATIONS: dict[str, Callable[[Path], Engine]] = {"coreml": _CoreMLEngine, "mil": _EvaluatorEngine}
