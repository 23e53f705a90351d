"""Engines: one module per format, each with the same verbs, numpy in and out.

    open(path, artifact, threads) -> Engine
    Engine.run(ids) -> logits       int32 (1, seq) -> float32 (1, labels)
    Engine.close()

Takes an artifact of a bundle. Gives its logits. A module imports its framework, so it is imported only when
its engine is opened. `name:implementation` (tflite:tensorflow) picks one of several implementations.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from pocketbert.runtime.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pocketbert.runtime.manifest import Artifact

# In the order in which a host tries them: fastest and smallest first, the reference evaluator last.
ENGINES = ("tflite", "executorch", "coreml")


Verified = Callable[[], object]  # loading a library and checking a cache need not wait for an artifact's hash


class Engine(Protocol):
    """An opened artifact."""

    name: str  # as in ENGINES
    version: str  # what runs it, for reports

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]: ...

    def close(self) -> None: ...


class EngineModule(Protocol):
    """What every engine module has."""

    def is_installed(self) -> bool: ...

    def open(
        self, path: Path, artifact: Artifact, threads: int, implementation: str | None, verified: Verified
    ) -> Engine: ...


def open_engine(name: str, folder: Path, artifact: Artifact, threads: int, verified: Verified = lambda: None) -> Engine:
    """Opens `artifact` with the engine `name`. Raises EngineError for an unknown or missing engine.

    `verified` is called before the artifact is read; it returns once the files are known to be whole, or raises.
    """
    kind, _, implementation = name.partition(":")
    return _module(kind).open(folder / artifact.path, artifact, threads, implementation or None, verified)


def installed(formats: Sequence[str]) -> list[str]:
    """The engines for `formats` that this host can open, best first."""
    return [name for name in ENGINES if name in formats and _module(name).is_installed()]


def check_installed(format: str) -> None:
    """Raises EngineError if this host has no engine for `format`."""
    if not installed([format]):
        raise EngineError(f"no engine for {format} is installed: pip install 'pocketbert[{format}]'")


def check_name(name: str) -> None:
    """Raises EngineError if there is no engine of this name; `name:implementation` is looked at up to the colon."""
    if name.partition(":")[0] not in ENGINES:
        raise EngineError(f"unknown engine {name!r}: use {', '.join(ENGINES)}")


def can_import(package: str) -> bool:
    """Whether `package` is there, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is absent
        return False


def _module(name: str) -> EngineModule:
    check_name(name)
    return cast(EngineModule, importlib.import_module(f"pocketbert.runtime.engines.{name}"))
