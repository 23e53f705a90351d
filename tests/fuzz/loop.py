"""Runs one target on mutated seeds, always the same ones: `python loop.py TARGET CASES BUNDLE...`, in any Python.

Prints the number of cases and each different find; exit status 1 if there was one. Bounded in memory and time.
"""

from __future__ import annotations

import random
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType

from targets import SCRATCH, TARGETS

MEMORY = 6 << 30  # bytes of address space: numpy's threads reserve one or two, and use little of it
SECONDS = 10  # for one input
SEED = 12


class Hang(BaseException):
    """An input took longer than SECONDS."""


def main(name: str, cases: int, bundles: list[Path]) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _hang)
    target, chance, finds = TARGETS[name], random.Random(SEED), {}
    for bundle in bundles:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
            run, seeds = target.open(bundle, Path(scratch).resolve()), target.seeds(bundle)
            for case in range(cases // len(bundles)):
                data = seeds[case % len(seeds)]
                for _ in range(chance.choice((0, 1, 1, 1, 2, 4)) if case >= len(seeds) else 0):
                    data = target.mutate(data, chance)
                signal.alarm(SECONDS)
                try:
                    run(data)
                except BaseException as problem:  # a panic of a Rust library is no Exception
                    if isinstance(problem, KeyboardInterrupt):
                        raise
                    finds.setdefault(_place(problem), (data, str(problem)[:300]))
                signal.alarm(0)
    print(f"{name}: {cases} cases, {len(finds)} finds")
    for place, (data, message) in finds.items():
        print(f"  {place}\n    {message}\n    {data[:300]!r}")
    return int(bool(finds))


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def _place(problem: BaseException) -> str:
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{type(problem).__name__} in {Path(frame.filename).name}:{frame.lineno}: {str(problem)[:20]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), [Path(bundle) for bundle in sys.argv[3:]]))
