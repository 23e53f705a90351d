"""Times one model file by length, in whatever Python has its engine: one line of JSON, seconds of each run.

    python tests/benchmarks/time_model.py model.tflite 16 32      two threads; .onnx by onnxruntime

Takes numpy and the engine, nothing of this project: litert_versions.py runs it with versions that are not installed
here. Leaves out: checking the answers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WARM, RUNS, THREADS = 5, 20, 2
Run = Callable[[Any], Any]  # of ids, int32 (1, seq)


def open_tflite(path: str, length: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=THREADS).get_signature_runner(f"seq_{length}")
    return lambda ids: runner(input_ids=ids)


def open_onnx(path: str, length: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids: session.run(None, {"input_ids": ids.astype(np.int64), "attention_mask": np.ones(ids.shape, int)})


def measure(path: str, length: int) -> list[float]:
    run = (open_onnx if path.endswith(".onnx") else open_tflite)(path, length)
    ids, samples = np.full((1, length), 2000, np.int32), []
    for _ in range(WARM + RUNS):
        started = time.perf_counter()
        run(ids)
        samples.append(time.perf_counter() - started)
    return samples[WARM:]


if __name__ == "__main__":
    model, lengths = sys.argv[1], map(int, sys.argv[2:])
    print(json.dumps({length: measure(model, length) for length in lengths}))
