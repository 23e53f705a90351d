"""Pads operands and texts in random ways and prints, for each operation, how many results moved by a bit.

    python tests/padding_drift.py SEED PACKAGE...

A program of its own, because numpy chooses its kernels once for a process: OPENBLAS_CORETYPE, OMP_NUM_THREADS and
NPY_DISABLE_CPU_FEATURES decide which. Imports nothing but numpy and the evaluator. Writes one JSON object,
operation -> [moved, tried].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pocketbert.runtime.engines.coreml import mil
from pocketbert.runtime.engines.coreml.mil import ops

SHAPES, PADDINGS = 8, 4  # random shapes of each operation, and paddings of each shape
TEXTS = 40  # random texts of each package
MOST_ROWS, MOST_FEATURES, MOST_HEADS = 70, 200, 4  # several blocks of each, and a last one that is not whole
MASKED = -1e4  # the score of a padded key: its power is 0
Pair = tuple[np.ndarray, np.ndarray]  # what the operation gives for the same rows alone and padded


def linear(random: np.random.Generator) -> Iterator[Pair]:
    inner, outer = random.integers(1, MOST_FEATURES, 2)
    weight, bias = normal(random, outer, inner), normal(random, outer)
    for rows, x in padded_rows(random, inner):
        yield ops.linear(x[:, :rows], weight, bias), ops.linear(x, weight, bias)[:, :rows]


def layer_norm(random: np.random.Generator) -> Iterator[Pair]:
    inner = random.integers(2, MOST_FEATURES)
    gamma, beta = normal(random, inner), normal(random, inner)
    for rows, x in padded_rows(random, inner):
        alone, padded = (ops.layer_norm(each, np.array([-1]), gamma, beta) for each in (x[:, :rows], x))
        yield alone, padded[:, :rows]


def pointwise(random: np.random.Generator) -> Iterator[Pair]:
    """The functions of one number, whose vector kernels have ends too."""
    for rows, x in padded_rows(random, random.integers(1, MOST_FEATURES)):
        for function in (ops.gelu, lambda x: ops.gelu(x, "TANH_APPROXIMATION"), ops.sigmoid, np.tanh):
            yield function(x[:, :rows]), function(x)[:, :rows]


def attention(random: np.random.Generator) -> Iterator[Pair]:
    """Queries times keys, softmax, times values: padding adds rows, columns and terms. One query is a classifier's."""
    for heads in (1, int(random.integers(2, MOST_HEADS + 1))):
        size = int(random.integers(1, MOST_FEATURES))
        for rows, x in padded_rows(random, heads * size):
            q, k, v = (np.swapaxes(part.reshape(1, -1, heads, size), 1, 2) for part in (x, x[..., ::-1], x + 1))
            mask = np.where(np.arange(x.shape[1]) < rows, 0, MASKED).astype(np.float32)
            for queries in (1, rows):
                asked = q[:, :, :queries]
                yield attend(asked, k[:, :, :rows], v[:, :, :rows], mask[:rows]), attend(asked, k, v, mask)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return ops.matmul(ops.softmax(ops.matmul(q, k, transpose_y=True) + mask), v)


def padded_rows(random: np.random.Generator, features: int) -> Iterator[tuple[int, np.ndarray]]:
    """A number of rows, and (1, more rows, features)."""
    rows = int(random.integers(1, MOST_ROWS))
    for _ in range(PADDINGS):
        yield rows, normal(random, 1, rows + int(random.integers(1, MOST_ROWS)), features)


def normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def answers(random: np.random.Generator, package: Path) -> Iterator[Pair]:
    """The logits of random texts, padded to each length that the program takes; of each token, where it has its own."""
    evaluator = mil.load(package)
    lengths = sorted(length for _, length in evaluator.inputs[0].shapes)
    for _ in range(TEXTS):
        ids = random.integers(1, 60, int(random.integers(1, lengths[-1]))).astype(np.int32)
        rows = (np.pad(ids, (0, length - len(ids)))[None] for length in lengths if length >= len(ids))
        first, *others = (of_text(evaluator.run({"input_ids": row}), len(ids)) for row in rows)
        yield from ((first, other) for other in others)


def of_text(outputs: dict[str, np.ndarray], tokens: int) -> np.ndarray:
    """All logits but those of padding, in one row. A text has one output of rank 2, its tokens one of 3, or two."""
    by_token = len(outputs) > 1 or next(iter(outputs.values())).ndim > 2
    return np.concatenate([values[:, : tokens if by_token else None].ravel() for values in outputs.values()])


def moved(pairs: Iterator[Pair]) -> tuple[int, int]:
    """How many pairs are not equal bit for bit, of how many."""
    differ = [not np.array_equal(*pair) for pair in pairs]
    return sum(differ), len(differ)


def main(seed: str, *packages: str) -> None:
    random = np.random.default_rng(int(seed))
    operations = (linear, layer_norm, pointwise, attention)
    found = {each.__name__: moved(pair for _ in range(SHAPES) for pair in each(random)) for each in operations}
    found |= {Path(package).parent.name: moved(answers(random, Path(package))) for package in packages}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
