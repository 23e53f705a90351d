"""What an ExecuTorch program costs beyond its delegates, which hold every layer whole.

    python tests/benchmarks/overhead.py CHECKPOINT      one line of JSON

Takes a checkpoint. Prints, by length, the median seconds of the program, and of all that runs outside its delegates
(look-ups, mask, the row of [CLS]) as a program of its own. Leaves out: what XNNPACK does inside a delegate.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from executorch.exir import to_edge
from torch import Tensor, nn

from pocketbert.export import quantize
from pocketbert.export.backends import executorch as backend
from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.encoder import MASKED_SCORE, Encoder, build_encoder
from pocketbert.runtime import engines

LENGTHS = (16, 32, 64, 128)
ROUNDS, RUNS, THREADS = 8, 8, 2


class Outside(nn.Module):
    """The encoder's forward without its delegates: int32 (1, seq) -> float32 (embedding + seq,), the one output that an
    engine of classifiers takes."""

    def __init__(self, oracle: Encoder) -> None:
        super().__init__()
        self.word, self.position = oracle.embeddings.word, oracle.embeddings.position
        self.pad_id = oracle.config.pad_id

    def forward(self, input_ids: Tensor) -> Tensor:
        ids = input_ids[0]
        x = self.word(ids) + self.position[: ids.shape[0]]
        mask = (ids == self.pad_id).to(x.dtype) * MASKED_SCORE
        return torch.cat([x[0], mask])


def main(source: str) -> None:
    loaded = load_checkpoint(source)
    oracle = quantize.quantize(build_encoder(loaded.config, loaded.tensors), quantize.SCHEMES["dynamic_wi8_afp32"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        backend.lower(oracle, (max(LENGTHS),), place)
        write_outside(oracle, place / "outside.pte")
        programs = {"program": place / backend.FILENAME, "outside": place / "outside.pte"}
        opened = {name: open_program(file) for name, file in programs.items()}
        samples = {length: measure(opened, length) for length in LENGTHS}
    print(json.dumps({"lengths": LENGTHS, "threads": THREADS, "samples": samples}))


def write_outside(oracle: Encoder, file: Path) -> None:
    length = torch.export.Dim("length", min=1, max=max(LENGTHS))
    ids = torch.zeros(1, 2, dtype=torch.int32)
    program = torch.export.export(Outside(oracle), (ids,), dynamic_shapes=({1: length},), strict=False)
    file.write_bytes(to_edge(program, compile_config=backend.CONFIG).to_executorch().buffer)


def open_program(file: Path) -> Any:
    artifact = SimpleNamespace(path=file.name, entry=backend.ENTRY)
    return engines.open_engine("executorch", file.parent, artifact, THREADS)  # type: ignore[arg-type]


def measure(opened: dict[str, Any], length: int) -> dict[str, Any]:
    """Medians of the programs, which take turns."""
    ids = torch.randint(1000, 20_000, (1, length), dtype=torch.int32).numpy()
    samples: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(ROUNDS):
        for name, engine in opened.items():
            engine.run(ids)
            for _ in range(RUNS):
                started = time.perf_counter()
                engine.run(ids)
                samples[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in samples.items()} | {"samples": samples}


if __name__ == "__main__":
    main(sys.argv[1])
