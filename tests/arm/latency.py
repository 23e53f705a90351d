"""Times models on the Arm kernels under emulation; runs inside the emulated Python.

    python latency.py tflite|executorch|onnxruntime MODEL LENGTH...      one line of JSON

Takes a model file. Returns the median CPU seconds of a run at each length, with one thread. A proxy: emulation counts
instructions more than cycles, so compare engines with it and never quote it as a phone's time.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

RUNS = 5
Run = Callable[[Any], Any]


def open_tflite(model: Path) -> Run:
    files = (SimpleNamespace(sha256=f"{model.stat().st_size:016x}{model.stat().st_mtime_ns:016x}"),)
    return open_engine("tflite", model, entry="seq_{length}", files=files)


def open_executorch(model: Path) -> Run:
    return open_engine("executorch", model, entry="forward")


def open_engine(name: str, model: Path, **artifact: Any) -> Run:
    from pocketbert.runtime import engines

    stored = SimpleNamespace(path=model.name, bytes=model.stat().st_size, **artifact)
    return engines.open_engine(name, model.parent, stored, 1).run  # type: ignore[arg-type]


def open_onnxruntime(model: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options)

    def run(ids: Any) -> Any:
        wide = ids.astype(np.int64)
        return session.run(None, {"input_ids": wide, "attention_mask": np.ones_like(wide)})[0]

    return run


OPEN = {"tflite": open_tflite, "executorch": open_executorch, "onnxruntime": open_onnxruntime}


def seconds(run: Run, length: int) -> float:
    ids = np.random.default_rng(0).integers(1000, 20000, (1, length)).astype(np.int32)
    run(ids)
    samples = []
    for _ in range(RUNS):
        started = time.process_time()  # of this process: what else the machine does is not in it
        run(ids)
        samples.append(time.process_time() - started)
    return statistics.median(samples)


if __name__ == "__main__":
    engine, path, *lengths = sys.argv[1:]
    run = OPEN[engine](Path(path))
    print(json.dumps({length: seconds(run, int(length)) for length in lengths}), flush=True)
