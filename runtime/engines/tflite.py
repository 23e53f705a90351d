"""Runs model.tflite, with the first of ai-edge-litert, tflite-runtime and TensorFlow that is installed.

Takes int32 (1, seq), seq being one of the artifact's lengths. Gives float32 (1, labels).
Leaves out: GPU and NPU delegates.

LiteRT packs weights into the layout of its kernels. With a cache file all signatures share one packed copy
(DistilBERT-base: 80 MB resident instead of 410) and the next start maps it instead of packing again.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.engines import can_import
from pocketbert.runtime.engines.quiet import quiet_stderr
from pocketbert.runtime.engines.weight_cache import WeightCache
from pocketbert.runtime.errors import EngineError, PocketbertError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Engine, Verified
    from pocketbert.runtime.manifest import Artifact

# Implementation -> (module with Interpreter, distributions that have it), best first.
INTERPRETERS = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", ("ai-edge-litert",)),
    "tflite_runtime": ("tflite_runtime.interpreter", ("tflite-runtime",)),
    "tensorflow": ("tensorflow.lite.python.interpreter", ("tensorflow", "tensorflow-cpu")),
}
# CompiledModel takes a weight cache since ai-edge-litert 2.1.5, with this module; before, the Interpreter runs.
WEIGHT_CACHE_MODULE = "ai_edge_litert.cpu_options"


def is_installed() -> bool:
    """Whether this host has any TFLite runtime."""
    return any(can_import(name) for name in INTERPRETERS)


def open(
    path: Path,
    artifact: Artifact,
    threads: int,
    implementation: str | None = None,
    verified: Verified = lambda: None,
) -> Engine:
    """Opens the model at `path` with `implementation`, or the first one installed. Raises EngineError."""
    name = implementation or next((name for name in INTERPRETERS if can_import(name)), None)
    if name is None:
        raise EngineError("no TFLite runtime is installed: pip install 'pocketbert[tflite]'")
    if name not in INTERPRETERS:
        raise EngineError(f"tflite has no implementation {name!r}: use {', '.join(INTERPRETERS)}")
    if not can_import(name):
        raise EngineError(f"{name} is not installed: pip install {INTERPRETERS[name][1][0]}")
    label = _label(name)
    try:
        with quiet_stderr():
            if name == "ai_edge_litert" and can_import(WEIGHT_CACHE_MODULE):
                return _CompiledEngine(path, artifact, threads, label, verified)
            verified()
            return _InterpreterEngine(path, artifact, threads, label, INTERPRETERS[name][0])
    except PocketbertError:  # it is a damaged file, not what LiteRT makes of it
        raise
    except (ImportError, RuntimeError, SystemError, ValueError) as problem:
        raise EngineError(f"{label} cannot open {path}: {str(problem).splitlines()[0]}") from problem


def _label(name: str) -> str:
    """The installed distribution and its version."""
    for distribution in INTERPRETERS[name][1]:
        with contextlib.suppress(PackageNotFoundError):
            return f"{distribution} {version(distribution)}"
    return name


class _CompiledEngine:
    """LiteRT's CompiledModel: the API that takes a weight cache."""

    name = "tflite"

    def __init__(self, path: Path, artifact: Artifact, threads: int, label: str, verified: Verified) -> None:
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, HardwareAccelerator, Options

        self.version = label
        self._entry = artifact.entry
        with WeightCache(key=f"{artifact.files[0].sha256[:16]}-{label.replace(' ', '-')}") as cache:
            cpu = CpuOptions(num_threads=threads, xnnpack_weight_cache_path=str(cache))
            options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=cpu)
            verified()
            self._model: Any = CompiledModel.from_file(str(path), options=options)
        signatures = self._model.get_signature_list()
        self._buffers = {name: self._make_buffers(name) for name in signatures}
        details = self._model.get_output_tensor_details(next(iter(signatures)))
        self._labels = int(details["logits"]["shape"][-1])
        self._lock = threading.Lock()
        self._wake(min(signatures))

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        signature = self._entry.format(length=ids.shape[1])
        if signature not in self._buffers:
            raise EngineError(f"the artifact takes no {ids.shape[1]} tokens: pad to one of its lengths")
        source, target = self._buffers[signature]
        with self._lock:
            source.write(ids)
            self._model.run_by_name(signature, {"input_ids": source}, {"logits": target})
            return np.array(target.read(self._labels, np.float32), np.float32).reshape(1, self._labels)

    def close(self) -> None:
        with quiet_stderr():  # it logs each accelerator that it lets go
            self._buffers.clear()
            self._model = None

    def _wake(self, signature: str) -> None:
        """The first write starts LiteRT's accelerators, with a line of log for each: better now than in a text."""
        shape = self._model.get_input_tensor_details(signature)["input_ids"]["shape"]
        self._buffers[signature][0].write(np.zeros(shape, np.int32))

    def _make_buffers(self, signature: str) -> tuple[Any, Any]:
        source = self._model.create_input_buffer_by_name(signature, "input_ids")
        return source, self._model.create_output_buffer_by_name(signature, "logits")


class _InterpreterEngine:
    """The Interpreter that every TFLite runtime since 2.5 has; no weight cache."""

    name = "tflite"

    def __init__(self, path: Path, artifact: Artifact, threads: int, label: str, module: str) -> None:
        self.version = label
        self._entry = artifact.entry
        interpreter = importlib.import_module(module).Interpreter
        self._interpreter: Any = interpreter(model_path=str(path), num_threads=threads)
        self._runners: dict[str, Any] = {}
        self._lock = threading.Lock()

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        signature = self._entry.format(length=ids.shape[1])
        with self._lock:
            if signature not in self._runners:
                self._runners[signature] = self._interpreter.get_signature_runner(signature)
            return np.array(self._runners[signature](input_ids=ids)["logits"], np.float32)

    def close(self) -> None:
        self._runners.clear()
        self._interpreter = None
