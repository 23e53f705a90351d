"""The process in which one engine is measured: it opens the engine, then times what its parent asks for.

Takes a subject as a line of JSON on stdin, then a line for each task. Gives a line of JSON on stdout for each: seconds
and bytes as they were measured. Leaves out: choosing texts, order and statistics (bench.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.runtime import engines
from pocketbert.runtime import manifest as bundle
from pocketbert.runtime.classifier import Classifier, probabilities
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.tokenizer import Tokenizer

RIVAL = "onnxruntime"
# What an engine imports when it is opened. An idle interpreter has loaded it, as an app has loaded its libraries.
LIBRARIES = {
    "tflite": ("ai_edge_litert.compiled_model",),
    "executorch": ("torch", "executorch.extension.pybindings.portable_lib", "executorch.runtime"),
    "coreml": ("pocketbert.runtime.mil",),
    RIVAL: ("onnxruntime",),
}
WARM_UP = 3  # runs that are not counted: the first of a length may allocate, and the core may have slept
SETTLED = 10  # the first of so many parts of a soak is left out: by then every length has run once


class Rival:
    """A model of ONNX Runtime between the bundle's tokenizer and softmax, at exact lengths."""

    def __init__(self, folder: Path, model: Path, threads: int, tokenizer: Tokenizer | None) -> None:
        import onnxruntime

        self.manifest = bundle.read(folder)
        file = folder / self.manifest.tokenizer.path
        self.tokenizer = tokenizer or Tokenizer(file, self.manifest.max_length)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.version = f"onnxruntime {onnxruntime.__version__}"

    def __call__(self, text: str) -> str:
        scores = probabilities(self.run(self.tokenizer(text)), self.manifest.multi_label)
        return self.manifest.labels[int(scores.argmax())]

    def run(self, ids: Any) -> Any:
        """int32 (tokens,) -> float32 (labels,)."""
        wide = ids[None].astype(np.int64)
        return self.session.run(None, {"input_ids": wide, "attention_mask": np.ones_like(wide)})[0][0]


def main() -> None:
    """Answers one line for each line of stdin, until it ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native libraries print must not end up between the answers
    subject = json.loads(sys.stdin.readline())
    model, first = _open(subject)
    print(json.dumps(first), file=replies, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        answer = _soak(model, task["texts"], task["soak"]) if "soak" in task else _time(model, task["texts"])
        print(json.dumps(answer), file=replies, flush=True)


def _open(subject: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The opened model, and what it took to get to a first label."""
    for library in LIBRARIES[subject["engine"].partition(":")[0]]:
        importlib.import_module(library)
    importlib.import_module("tokenizers")
    tokenizer = None if subject["start"] else _load_tokenizer(Path(subject["bundle"]))
    idle, started = resident(), time.perf_counter()
    try:
        model = _open_model(subject, tokenizer)
    except PocketbertError as problem:
        return None, {"error": str(problem)}
    opened = time.perf_counter()
    model(subject["text"])
    labelled = time.perf_counter()
    version = model.version if isinstance(model, Rival) else model.engine.version
    times = {"open": opened - started, "first_label": labelled - started}
    return model, {"version": version, "idle_bytes": idle, **times}


def _load_tokenizer(folder: Path) -> Tokenizer:
    """Loaded first where memory is measured: phones read the tables of BUNDLE.md instead, which take a megabyte, while
    the library takes up to 54. What it needed for a moment is given back, or the engine would seem to need less."""
    manifest = bundle.read(folder)
    tokenizer = Tokenizer(folder / manifest.tokenizer.path, manifest.max_length)
    tokenizer("a text")
    with contextlib.suppress(AttributeError, OSError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return tokenizer


def _open_model(subject: dict[str, Any], tokenizer: Tokenizer | None) -> Any:
    """A classifier as an app opens it, or around a tokenizer that is there already."""
    folder, engine, threads = Path(subject["bundle"]), subject["engine"], subject["threads"]
    if engine == RIVAL:
        return Rival(folder, Path(subject["model"]), threads, tokenizer)
    if tokenizer is None:
        return Classifier.open(folder, engine, threads)
    manifest = bundle.read(folder)
    artifact = manifest.artifact(engine.partition(":")[0])
    return Classifier(manifest, tokenizer, engines.open_engine(engine, folder, artifact, threads))


def _time(model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Seconds of each text, from text to label and for the model alone."""
    ids = [model.tokenizer(text) for text in texts]
    for text in (list(texts) * WARM_UP)[:WARM_UP]:
        model(text)
    labels = [_seconds(model, text) for text in texts]
    alone = [_seconds(model.run, row) for row in ids]
    return {"text_to_label": labels, "model": alone, "peak_bytes": peak(), "resident_bytes": resident()}


def _soak(model: Any, texts: Sequence[str], count: int) -> dict[str, Any]:
    """Labels `count` texts and tells how far memory moved, after the first part of them."""
    settled = 0
    for index in range(count):
        model(texts[index % len(texts)])
        if index == count // SETTLED:
            settled = resident()
    end = resident()
    drift = (end - settled) / settled if settled else 0.0
    return {"texts": count, "settled_bytes": settled, "resident_bytes": end, "drift": drift}


def _seconds(function: Any, argument: Any) -> float:
    started = time.perf_counter()
    function(argument)
    return time.perf_counter() - started


def resident() -> int:
    """Bytes of this process that are in memory, mapped files included; 0 where the system does not tell."""
    return _status("VmRSS")


def peak() -> int:
    """The most that was resident at once."""
    return _status("VmHWM")


def _status(field: str) -> int:
    """A figure of /proc/self/status, which Linux has; in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


if __name__ == "__main__":
    main()
