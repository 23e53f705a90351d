"""How fast a bundle answers and how much memory it holds, in a process of its own.

    python -m pocketbert.export.compare.measure BUNDLE ENGINE THREADS LENGTH...     prints one line of JSON

Takes a bundle and an engine. Gives the median milliseconds for texts of some lengths, and the resident memory that
opening and running added. Leaves out: comparing engines with each other in turns.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pocketbert.runtime.engines.quiet import leave_quietly
from pocketbert.runtime.errors import EngineError

WARM_UPS = 3  # runs that are not counted: buffers are allocated, weights packed
SECONDS = 1.0  # of counted runs for each length
LEAST_RUNS = 5
MB = 1_000_000
KIB = 1024
MILLISECONDS = 1000
# Imported before memory is read: on a phone there is no Python and no torch around the engine.
FRAMEWORKS = {"tflite": "ai_edge_litert.compiled_model", "executorch": "executorch.runtime", "coreml": "coremltools"}


@dataclass(frozen=True)
class Measured:
    """One bundle under one engine."""

    milliseconds: dict[int, float]  # tokens -> median
    resident_mb: float


def measure(bundle: Path, engine: str, lengths: Sequence[int], threads: int) -> Measured:
    """Runs the measurement in a child process. Raises EngineError with the child's last line where that fails."""
    command = [sys.executable, "-m", "pocketbert.export.compare.measure", str(bundle), engine, str(threads)]
    done = subprocess.run([*command, *map(str, lengths)], capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit status {done.returncode}")
        raise EngineError(f"{engine} could not be measured on {bundle.name}: {last}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Measured({int(tokens): ms for tokens, ms in found["milliseconds"].items()}, found["resident_mb"])


def _measure_here(bundle: Path, engine: str, threads: int, lengths: Sequence[int]) -> Measured:
    from pocketbert.runtime.classifier import Classifier

    with contextlib.suppress(ImportError):  # another implementation of the format may be installed
        importlib.import_module(FRAMEWORKS[engine])
    before = _resident()
    with Classifier.open(bundle, engine, threads, prove=False) as classifier:
        ids = classifier.tokenizer("a film " * max(lengths))  # which words costs no time
        milliseconds = {length: _median(lambda n=length: classifier.run(ids[:n])) for length in lengths}  # type: ignore[misc]
        return Measured(milliseconds, (_resident() - before) / MB)


def _median(run: Callable[[], object]) -> float:
    for _ in range(WARM_UPS):
        run()
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < LEAST_RUNS:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * MILLISECONDS


def _resident() -> int:
    """Bytes of this process in memory: now on Linux, elsewhere at the peak."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


if __name__ == "__main__":
    place, name, threads, *tokens = sys.argv[1:]
    print(json.dumps(asdict(_measure_here(Path(place), name, int(threads), [int(n) for n in tokens]))), flush=True)
    leave_quietly()
