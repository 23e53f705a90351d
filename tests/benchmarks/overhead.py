"""What an ExecuTorch program costs beyond its delegates: the whole against the sum of its parts, in one process.

    python tests/benchmarks/overhead.py CHECKPOINT      one line of JSON

Takes a checkpoint. Gives, by length, the median seconds of the program and the sum of those of its delegates, each run
as a program of its own as often as the whole one calls it. Leaves out: what XNNPACK does inside a delegate.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from executorch.exir import to_edge

from pocketbert.export import checkpoint as checkpoints
from pocketbert.export import encoder, quantize
from pocketbert.export.backends import executorch as backend
from pocketbert.export.backends import replace_gelu_tanh
from pocketbert.runtime.engines.executorch import open as open_engine

LENGTHS = (16, 32, 64, 128)
ROUNDS, RUNS, THREADS = 8, 8, 2


def main(source: str) -> None:
    loaded = checkpoints.load(source)
    oracle = quantize.quantize(encoder.build(loaded.config, loaded.tensors), quantize.SCHEMES["dynamic_wi8_afp32"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        backend.lower(oracle, (max(LENGTHS),), place)
        whole = open_engine(place / backend.FILENAME, SimpleNamespace(entry=backend.ENTRY), THREADS)  # type: ignore[arg-type]
        parts = write_parts(backend.delegate_parts(replace_gelu_tanh(oracle, backend.gelu_tanh), max(LENGTHS)), place)
        samples = {length: measure(whole, parts, loaded.config, length) for length in LENGTHS}
    print(json.dumps({"lengths": LENGTHS, "threads": THREADS, "samples": samples}))


def write_parts(delegated: Any, folder: Path) -> list[tuple[Any, int, tuple[str, ...]]]:
    """Each delegate as a program of its own: its method, how often the whole calls it, and what it takes."""
    config, uses = delegated.config, delegated.config.schedule
    parts = [(delegated.embeddings.norm, 1, ("narrow",)), (delegated.head, 1, ("row",))]
    for stored, layer in enumerate(delegated.layers):
        if layer.whole is not None:
            parts.append((layer.whole, uses[:-1].count(stored), ("wide", "mask")))
        if layer.last is not None:
            parts.append((layer.last, 1, ("row", "wide", "mask")))
    return [
        (write_program(part, inputs, config, folder / f"{index}.pte"), count, inputs)
        for index, (part, count, inputs) in enumerate(parts)
    ]


def write_program(part: Any, inputs: tuple[str, ...], config: Any, file: Path) -> Any:
    from executorch.runtime import Runtime

    length = torch.export.Dim("length", min=1, max=max(LENGTHS))
    shapes = tuple(None if name == "row" else {0: length} for name in inputs)
    program = torch.export.export(part, make(inputs, config, 2), dynamic_shapes=(shapes,), strict=False)
    file.write_bytes(to_edge(program, compile_config=backend.CONFIG).to_executorch().buffer)
    return Runtime.get().load_program(file).load_method("forward")


def make(inputs: tuple[str, ...], config: Any, length: int) -> tuple[torch.Tensor, ...]:
    hidden = config.hidden_size
    shapes = {
        "narrow": (length, config.embedding_size),
        "wide": (length, hidden),
        "row": (1, hidden),
        "mask": (length,),
    }
    return tuple(torch.zeros(shapes[name]) if name == "mask" else torch.randn(shapes[name]) for name in inputs)


def measure(whole: Any, parts: list[tuple[Any, int, tuple[str, ...]]], config: Any, length: int) -> dict[str, Any]:
    ids = torch.randint(1000, 20_000, (1, length), dtype=torch.int32).numpy()
    given = [(method, count, list(make(inputs, config, length))) for method, count, inputs in parts]
    totals: list[float] = []
    singles: list[list[float]] = [[] for _ in given]
    for _ in range(ROUNDS):
        totals += times(lambda: whole.run(ids))
        for (method, _, tensors), samples in zip(given, singles, strict=True):
            samples += times(lambda method=method, tensors=tensors: method.execute(tensors))  # type: ignore[misc]
    kernels = sum(count * statistics.median(samples) for (_, count, _), samples in zip(given, singles, strict=True))
    return {"program": statistics.median(totals), "delegates": kernels, "program_samples": totals}


def times(function: Callable[[], Any]) -> list[float]:
    function()
    samples = []
    for _ in range(RUNS):
        started = time.perf_counter()
        function()
        samples.append(time.perf_counter() - started)
    return samples


if __name__ == "__main__":
    main(sys.argv[1])
