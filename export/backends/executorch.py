"""Lowers the int8 oracle to an ExecuTorch program for XNNPACK, for any length up to the longest.

Takes the oracle's exported graph. Gives `model.pte`, one method `forward`: int32 (1, seq) -> float32 (1, labels).
Leaves out: layer norms and the two table look-ups, which run on ExecuTorch's own kernels.

XNNPACK's GELU is the exact one, and its delegate takes `gelu(approximate="tanh")` without a word: ALBERT's
answers then move as far as quantization itself moves them. So the tanh form is written out before it gets there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import Tensor

from pocketbert.export.backends import Artifact, Graph
from pocketbert.export.encoder import ACTIVATIONS, Encoder

FILENAME = "model.pte"
ENTRY = "forward"
REQUIRES = {"executorch": ">=1.0"}  # the oldest runtime that this program format was run on
# gelu_tanh(x) = x/2 (1 + tanh(z)) = x sigmoid(2z), z = sqrt(2/pi) (x + 0.044715 x^3); https://arxiv.org/abs/1606.08415
GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = GELU_LINEAR * 0.044715


def lower(oracle: Encoder, lengths: Sequence[int], folder: Path) -> Artifact:
    """Writes `folder/model.pte`."""
    program = Graph.export(_write_out_gelu_tanh(oracle), max_length=max(lengths)).program
    # The validity check knows core ATen only and stops at the ops that quantize a token; XNNPACK takes those.
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], compile_config=config)
    with open(folder / FILENAME, "wb") as file:
        edge.to_executorch().write_to_file(file)
    return Artifact(FILENAME, ENTRY, any_length=True, requires=REQUIRES)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU in ops that XNNPACK has, any shape."""
    return x * torch.sigmoid(x * (GELU_LINEAR + GELU_CUBIC * (x * x)))


def _write_out_gelu_tanh(oracle: Encoder) -> Encoder:
    written = copy.deepcopy(oracle)
    for layer in written.layers:
        if layer.activation is ACTIVATIONS["gelu_tanh"]:
            layer.activation = gelu_tanh  # type: ignore[assignment]
    return written
