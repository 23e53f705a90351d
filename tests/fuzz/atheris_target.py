"""Fuzzes one target with atheris until libFuzzer ends it: `python atheris_target.py TARGET BUNDLE [FLAG ...] CORPUS`.

The flags are libFuzzer's. Leaves out: first inputs and bounds, which run.py gives.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pocketbert.runtime", "targets"]):
    from targets import TARGETS

OWN_MUTATIONS = 4  # of so many one is libFuzzer's; ours know the format


def main(name: str, bundle: Path, flags: list[str]) -> None:
    target = TARGETS[name]
    run = target.open(bundle, Path(tempfile.mkdtemp(dir=Path.cwd())).resolve())  # who starts this removes the folder

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if not chance.randrange(OWN_MUTATIONS):
            return atheris.Mutate(data, most)
        return target.mutate(data, chance)[:most]

    atheris.Setup([sys.argv[0], *flags], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
