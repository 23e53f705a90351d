"""The whole contract: Kotlin gives Hugging Face's ids for every Unicode scalar value and more than 100,000 texts.

    make tokenizer-contract

For each tokenizer of tokenizer_kinds.py: texts go to the `tokenizers` library, its ids through a pipe to
android_demo/core, which compares. Prints strings, mismatches and seconds, and ends with status 1 if anything
differed.
Leaves out: the cases of every test run (frozen_cases.py).
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import android_core
import tokenizer_kinds
from tokenizer_cases import Text, expected, pack
from tokenizer_texts import ODD, SCALARS, long_texts, pool_texts, random_texts, read_real

from pocketbert.export.tokenizer_tables import compile_tokenizer

SHARED = android_core.REPOSITORY.parent / "shared"  # real data, beside the repository
RANDOM = 60_000
MEGABYTE = 1_000_000  # code points of the longest texts
LIMITS = (2, 3, 5, 16, 17, 128)  # ids; 2 leaves room for special tokens only
PAIR_LIMITS = (3, 8, 15, 64, None)


def scalars() -> Iterator[Text]:
    """Every Unicode scalar value, alone and between letters."""
    for point in SCALARS:
        yield Text(chr(point))
        yield Text(f"a{chr(point)}b")


def texts(shared: Path) -> Iterator[Text]:
    """Everything else: odd, random, real, long; then pairs and cuts of a part of them."""
    real = list(itertools.chain(*read_real(shared).values())) if shared.is_dir() else []
    short = [*ODD, *pool_texts(), *random_texts(RANDOM, seed=1), *real]
    yield from map(Text, short)
    yield from map(Text, long_texts(MEGABYTE))
    some = short[::10]
    for limit in LIMITS:
        yield from (Text(text, None, limit) for text in some)
    for limit in PAIR_LIMITS:
        yield from (Text(a, b, limit) for a, b in zip(some, reversed(some), strict=True))


def replay(name: str, make: tokenizer_kinds.Maker, folder: Path, shared: Path) -> bool:
    """Replays one tokenizer's cases and prints the outcome. True if all were equal."""
    started, tokenizer = time.perf_counter(), make()
    tables = folder / "tokenizer.safetensors"
    compile_tokenizer(tokenizer).save(tables)
    command = android_core.command_line("ReplayKt", tables)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kotlin:
        assert kotlin.stdin and kotlin.stdout
        for text, ids in expected(tokenizer, itertools.chain(scalars(), texts(shared))):
            kotlin.stdin.write(pack(text, ids))
        kotlin.stdin.close()
        *mismatches, outcome = kotlin.stdout.read().decode().splitlines() or ["Kotlin gave no answer"]
    if kotlin.returncode:
        raise SystemExit(f"{name}: {outcome}")
    found = json.loads(outcome)
    counts = f"{found['strings']:>10}{found['mismatches']:>12}{found['seconds']:>10.1f}"
    print(f"{name:40}{counts}{time.perf_counter() - started:>10.1f}", flush=True)
    for line in mismatches:
        print(f"    {line}")
    return not found["mismatches"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NAME", help="tokenizers by name; else all")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with real models and data")
    options = parser.parse_args()
    shared = options.shared
    lacking = android_core.missing()
    if lacking:
        raise SystemExit(f"{lacking}: the contract needs a JDK and npm")
    with tempfile.TemporaryDirectory() as scratch:
        kinds = {**tokenizer_kinds.demos()}
        if shared.is_dir():
            kinds |= tokenizer_kinds.real(shared, Path(scratch))
        else:
            print(f"{shared} is not there: without real texts, BERT's and ALBERT's vocabulary")
        kinds |= tokenizer_kinds.small(tokenizer_kinds.assigned())
        print(f"{'tokenizer':40}{'strings':>10}{'mismatches':>12}{'Kotlin s':>10}{'all s':>10}")
        names = [name for name in kinds if name in (options.only or kinds)]
        equal = [replay(name, kinds[name], Path(scratch), shared) for name in names]
    sys.exit(0 if equal and all(equal) else 1)


if __name__ == "__main__":
    main()
