"""The whole contract: Kotlin gives Hugging Face's tokens for every Unicode scalar value and more than 100,000 texts.

    make tokenizer-contract

For each tokenizer of tokenizer_kinds.py: texts go to the `tokenizers` library, its ids, offsets, words and all else
through a pipe to android_demo/core, which compares. Prints strings, tokens, strings with other ids ("mismatches") and
with the same ids elsewhere ("misplaced"), and seconds; ends with status 1 if anything differed.
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

import android_build
import frozen_cases
import tokenizer_kinds
from tokenizer_cases import Text, expected, pack
from tokenizer_texts import ODD, SCALARS, long_texts, pool_texts, random_texts, read_real
from tokenizers import Tokenizer

from pocketbert.export.tokenizer.tables import compile_tokenizer

SHARED = android_build.REPOSITORY.parent / "shared"  # real data, beside the repository
RANDOM = 60_000
MEGABYTE = 1_000_000  # code points of the longest texts
LIMITS = (2, 3, 5, 16, 17, 128)  # ids; 2 leaves room for special tokens only
PAIR_LIMITS = (3, 8, 15, 64, None)
WINDOWS = ((1, 0), (4, 3), (16, 5), (64, 32))  # tokens of the second text, and how many overlap
COUNTS = ("strings", "tokens", "mismatches", "misplaced")


def scalars() -> Iterator[Text]:
    """Every Unicode scalar value, alone and between letters."""
    for point in SCALARS:
        yield Text(chr(point))
        yield Text(f"a{chr(point)}b")


def texts(shared: Path, tokenizer: Tokenizer) -> Iterator[Text]:
    """Everything else: odd, random, real, long; then pairs and cuts of a part of them."""
    real = list(itertools.chain(*read_real(shared).values())) if shared.is_dir() else []
    short = [*ODD, *frozen_cases.ADDED, *pool_texts(), *random_texts(RANDOM, seed=1), *real]
    yield from map(Text, short)
    yield from map(Text, long_texts(MEGABYTE))
    some = short[::10]
    for limit in LIMITS:
        yield from (Text(text, None, limit) for text in some)
    for limit in PAIR_LIMITS:
        yield from (Text(a, b, limit) for a, b in zip(some, reversed(some), strict=True))
    for room, stride in WINDOWS:
        yield from (
            frozen_cases.windows(tokenizer, a, b, room, stride) for a, b in zip(some[::20], some[1::20], strict=False)
        )


def replay(name: str, make: tokenizer_kinds.Maker, folder: Path, shared: Path) -> bool:
    """Replays one tokenizer's cases and prints the outcome. True if all were equal."""
    started, tokenizer = time.perf_counter(), make()
    tables = folder / "tokenizer.safetensors"
    compile_tokenizer(tokenizer).save(tables)
    command = android_build.command_line("core.ReplayKt", tables)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kotlin:
        assert kotlin.stdin and kotlin.stdout
        for text, found in expected(tokenizer, itertools.chain(scalars(), texts(shared, tokenizer))):
            kotlin.stdin.write(pack(text, found))
        kotlin.stdin.close()
        *mismatches, outcome = kotlin.stdout.read().decode().splitlines() or ["Kotlin gave no answer"]
    if kotlin.returncode:
        raise SystemExit(f"{name}: {outcome}")
    found = json.loads(outcome)
    counts = "".join(f"{found[count]:>12}" for count in COUNTS) + f"{found['seconds']:>10.1f}"
    print(f"{name:40}{counts}{time.perf_counter() - started:>10.1f}", flush=True)
    for line in mismatches:
        print(f"    {line}")
    return not found["mismatches"] and not found["misplaced"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NAME", help="tokenizers by name; else all")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with real models and data")
    options = parser.parse_args()
    shared = options.shared
    lacking = android_build.missing()
    if lacking:
        raise SystemExit(f"{lacking}: the contract needs a JDK and Maven")
    with tempfile.TemporaryDirectory() as scratch:
        kinds = {**tokenizer_kinds.demos()}
        if shared.is_dir():
            kinds |= tokenizer_kinds.real(shared, Path(scratch))
        else:
            print(f"{shared} is not there: without real texts, BERT's and ALBERT's vocabulary")
        kinds |= tokenizer_kinds.small(tokenizer_kinds.assigned())
        print(f"{'tokenizer':40}{''.join(f'{count:>12}' for count in COUNTS)}{'Kotlin s':>10}{'all s':>10}")
        names = [name for name in kinds if name in (options.only or kinds)]
        equal = [replay(name, kinds[name], Path(scratch), shared) for name in names]
    sys.exit(0 if equal and all(equal) else 1)


if __name__ == "__main__":
    main()
