"""Runs model.tflite, with the first of ai-edge-litert, tflite-runtime and TensorFlow that is installed.

Takes int32 (1, seq), seq being one of the artifact's lengths. Returns its float32 outputs by name.
Leaves out: GPU and NPU delegates.

LiteRT packs weights into the layout of its kernels. With a cache file all signatures share one packed copy
(DistilBERT-base: 80 MB resident instead of 410) and the next start maps it instead of packing again.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.engines import Engine, can_import
from pocketbert.runtime.engines.native_logging import silence_native_logs
from pocketbert.runtime.engines.weight_cache import WeightCache
from pocketbert.runtime.errors import EngineError, PocketbertError, PocketbertWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Verified
    from pocketbert.runtime.manifest import Artifact

# Implementation -> (module with Interpreter, distributions that have it), best first.
INTERPRETERS = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", ("ai-edge-litert",)),
    "tflite_runtime": ("tflite_runtime.interpreter", ("tflite-runtime",)),
    "tensorflow": ("tensorflow.lite.python.interpreter", ("tensorflow", "tensorflow-cpu")),
}
# CompiledModel takes a weight cache since ai-edge-litert 2.1.5, with this module; before, the Interpreter runs.
WEIGHT_CACHE_MODULE = "ai_edge_litert.cpu_options"
LIBRARIES = ("ai_edge_litert.compiled_model",)


def is_installed() -> bool:
    """Whether this host has any TFLite runtime."""
    return any(can_import(name) for name in INTERPRETERS)


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
        with silence_native_logs():
            if name != "ai_edge_litert" or not can_import(WEIGHT_CACHE_MODULE):
                verified()
                return _InterpreterEngine(path, artifact, threads, label, outputs, INTERPRETERS[name][0])
            engine = _CompiledEngine(path, artifact, threads, label, outputs, verified)
    except PocketbertError:  # it is a damaged file, not what LiteRT makes of it
        raise
    except (ImportError, RuntimeError, SystemError, ValueError) as problem:
        raise EngineError(f"{label} cannot open {path}: {str(problem).splitlines()[0]}") from problem
    if engine.warning:
        warnings.warn(engine.warning, PocketbertWarning, stacklevel=2)
    return engine


def _label(name: str) -> str:
    """The installed distribution and its version."""
    for distribution in INTERPRETERS[name][1]:
        with contextlib.suppress(PackageNotFoundError):
            return f"{distribution} {version(distribution)}"
    return name


class _CompiledEngine(Engine):
    """LiteRT's CompiledModel: the API that takes a weight cache."""

    name = "tflite"

    def __init__(
        self, path: Path, artifact: Artifact, threads: int, label: str, outputs: Sequence[str], verified: Verified
    ) -> None:
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, HardwareAccelerator, Options

        super().__init__()
        self.version, self.threads = label, threads
        self._entry, self._outputs = artifact.entry, outputs
        self._shapes: dict[str, list[list[int]]] = {}  # of outputs, by signature: asked for when it first runs
        key = f"{artifact.files[0].sha256[:16]}-{label.replace(' ', '-')}"
        cache = WeightCache(key, most=artifact.bytes)
        with cache as file:
            cpu = CpuOptions(num_threads=threads, xnnpack_weight_cache_path=str(file))
            options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=cpu)
            verified()
            self._model: Any = CompiledModel.from_file(str(path), options=options)
        self.warning = cache.warning
        signatures = self._model.get_signature_list()
        self._buffers = {name: self._make_buffers(name) for name in signatures}
        self._wake(min(signatures))

    def _run(self, ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        signature = self._entry.format(length=ids.shape[1])
        if signature not in self._buffers:
            raise EngineError(f"the artifact takes no {ids.shape[1]} tokens: pad to one of its lengths")
        source, targets = self._buffers[signature]
        source.write(ids)
        self._model.run_by_name(signature, {"input_ids": source}, targets)
        shapes = self._shapes.get(signature) or self._ask_shapes(signature)
        return [_read(target, shape) for target, shape in zip(targets.values(), shapes, strict=True)]

    def _release(self) -> None:
        with silence_native_logs():  # it logs each accelerator that it lets go
            self._buffers.clear()
            self._model = None

    def _wake(self, signature: str) -> None:
        """The first write starts LiteRT's accelerators, with a line of log for each: better now than in a text."""
        shape = self._model.get_input_tensor_details(signature)["input_ids"]["shape"]
        self._buffers[signature][0].write(np.zeros(shape, np.int32))

    def _make_buffers(self, signature: str) -> tuple[Any, dict[str, Any]]:
        source = self._model.create_input_buffer_by_name(signature, "input_ids")
        return source, {name: self._model.create_output_buffer_by_name(signature, name) for name in self._outputs}

    def _ask_shapes(self, signature: str) -> list[list[int]]:
        details = self._model.get_output_tensor_details(signature)
        self._shapes[signature] = shapes = [list(map(int, details[name]["shape"])) for name in self._outputs]
        return shapes


def _read(target: Any, shape: list[int]) -> NDArray[np.float32]:
    """A copy of what is in an output's buffer."""
    return np.array(target.read(math.prod(shape), np.float32), np.float32).reshape(shape)


class _InterpreterEngine(Engine):
    """The Interpreter that every TFLite runtime since 2.5 has; no weight cache."""

    name = "tflite"

    def __init__(
        self, path: Path, artifact: Artifact, threads: int, label: str, outputs: Sequence[str], module: str
    ) -> None:
        super().__init__()
        self.version, self.threads = label, threads
        self._entry, self._outputs = artifact.entry, outputs
        interpreter = importlib.import_module(module).Interpreter
        self._interpreter: Any = interpreter(model_path=str(path), num_threads=threads)
        self._runners: dict[str, Any] = {}

    def _run(self, ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        signature = self._entry.format(length=ids.shape[1])
        if signature not in self._runners:
            self._runners[signature] = self._interpreter.get_signature_runner(signature)
        found = self._runners[signature](input_ids=ids)
        return [np.array(found[name], np.float32) for name in self._outputs]

    def _release(self) -> None:
        self._runners.clear()
        self._interpreter = None
