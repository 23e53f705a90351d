"""Engines: one module for each runtime, all with the same verbs, numpy in and out.

    is_installed()                                              whether this host has it
    is_timed()                                                  whether its time here says anything of a device
    open_artifact(path, artifact, threads, implementation, verified, outputs) -> Engine

Takes an artifact of a bundle, and the names of its outputs. Returns its logits. A module imports its framework, so it
is imported only when its engine is opened. `name:implementation` (tflite:tensorflow) picks one of several.

An engine more is a module here and its name in ENGINES.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from pocketbert.runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.manifest import Artifact

# In the order in which a host tries them: fastest and smallest first, the reference evaluator behind. An engine has the
# name of the format that it runs. Bundles hold no onnxruntime artifact: `bench` makes one to compare with.
ENGINES = ("tflite", "executorch", "coreml", "onnxruntime")
LOGITS = ("logits",)  # the outputs of every classifier, of texts and of tokens
MAX_THREADS = 64  # of an engine: more than any phone has cores, and few enough to start

Verified = Callable[[], object]  # loading a library and checking a cache need not wait for an artifact's hash


class Engine(ABC):
    """An opened artifact. Safe to share between threads, which take turns."""

    name: str  # as in ENGINES
    version: str  # what runs it, for reports
    threads: int | None  # that it computes with; None where the host decides

    def __init__(self) -> None:
        self._turn = threading.Lock()  # an engine holds one set of activations
        self._is_open = True

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """int32 (1, seq) -> float32, a copy; several outputs are stacked on a last axis of their own.

        (1, labels), by token (1, seq, labels), and for start and end logits (1, seq, 2). Raises EngineError, also
        once it is closed.
        """
        with self._turn:
            if not self._is_open:
                raise EngineError(f"{self.name} is closed: open the bundle again")
            outputs = self._run(ids)
        return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)

    def close(self) -> None:
        """Releases the artifact, after the text that is being run; a second time does nothing."""
        with self._turn:
            if self._is_open:
                self._is_open = False
                self._release()

    @abstractmethod
    def _run(self, ids: NDArray[np.int32]) -> Sequence[NDArray[np.float32]]:
        """Each output, in the order of their names."""

    @abstractmethod
    def _release(self) -> None: ...


class EngineModule(Protocol):
    """What every engine module has."""

    LIBRARIES: Sequence[str]  # modules that opening it imports: an app has loaded them before it measures

    def is_installed(self) -> bool: ...

    def is_timed(self) -> bool: ...

    def open_artifact(
        self,
        path: Path,
        artifact: Artifact,
        threads: int,
        implementation: str | None,
        verified: Verified,
        outputs: Sequence[str],
    ) -> Engine: ...


def open_engine(
    name: str,
    folder: Path,
    artifact: Artifact,
    threads: int,
    verified: Verified = lambda: None,
    outputs: Sequence[str] = LOGITS,
) -> Engine:
    """Opens `artifact`, which has these `outputs`, with the engine `name` and 1 to MAX_THREADS threads.

    `verified` is called before the artifact is read; it returns once the files are known to be whole, or raises.
    Raises EngineError.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise EngineError(f"threads={threads!r}: use 1 to {MAX_THREADS}")
    implementation = name.partition(":")[2] or None
    return load_module(name).open_artifact(folder / artifact.path, artifact, threads, implementation, verified, outputs)


def installed(formats: Sequence[str]) -> list[str]:
    """The engines for `formats` that this host can open, best first."""
    return [name for name in ENGINES if name in formats and load_module(name).is_installed()]


def timed(formats: Sequence[str]) -> list[str]:
    """Those whose time on this host says something: an evaluator that stands in for a device is none."""
    return [name for name in installed(formats) if load_module(name).is_timed()]


def best(formats: Sequence[str]) -> str:
    """The first of the installed engines for `formats`. Raises EngineError where there is none."""
    found = installed(formats)
    if not found:
        raise EngineError(f"no engine for {', '.join(formats)} is installed: pip install 'pocketbert[tflite]'")
    return found[0]


def kind(name: str) -> str:
    """The engine in `name:implementation`, which is also the format that it runs."""
    return name.partition(":")[0]


def check_installed(format_name: str) -> None:
    """Raises EngineError if this host has no engine for the format."""
    if not installed([format_name]):
        raise EngineError(f"no engine for {format_name} is installed: pip install 'pocketbert[{format_name}]'")


def check_name(name: str) -> None:
    """Raises EngineError if there is no engine of this name; `name:implementation` is looked at up to the colon."""
    if kind(name) not in ENGINES:
        raise EngineError(f"unknown engine {name!r}: use {', '.join(ENGINES)}")


def can_import(package: str) -> bool:
    """Whether `package` is there, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is absent
        return False


def load_module(name: str) -> EngineModule:
    """The module of an engine. Raises EngineError for an unknown name."""
    check_name(name)
    return cast(EngineModule, importlib.import_module(f"pocketbert.runtime.engines.{kind(name)}"))
