"""Lowers the int8 oracle to an ExecuTorch program for XNNPACK, for any length up to the longest.

Takes the oracle's exported graph. Gives `model.pte`, one method `forward`: int32 (1, seq) -> float32 (1, labels).
Leaves out: layer norms and the two table look-ups, which run on ExecuTorch's own kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import Tensor

from pocketbert.export.backends import Artifact, Graph, replace_gelu_tanh
from pocketbert.export.encoder import Encoder

FILENAME = "model.pte"
ENTRY = "forward"
REQUIRES = {"executorch": ">=1.0"}  # the oldest runtime that this program format was run on
# gelu_tanh(x) = x/2 (1 + tanh(z)) = x sigmoid(2z), z = sqrt(2/pi) (x + 0.044715 x^3); https://arxiv.org/abs/1606.08415
GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = GELU_LINEAR * 0.044715


def lower(oracle: Encoder, lengths: Sequence[int], folder: Path) -> Artifact:
    """Writes `folder/model.pte`."""
    program = Graph.export(replace_gelu_tanh(oracle, gelu_tanh), max_length=max(lengths)).program
    # The validity check knows core ATen only and stops at the ops that quantize a token; XNNPACK takes those.
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], compile_config=config)
    with open(folder / FILENAME, "wb") as file:
        edge.to_executorch().write_to_file(file)
    return Artifact(FILENAME, ENTRY, any_length=True, requires=REQUIRES)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU in ops that XNNPACK has, any shape."""
    return x * torch.sigmoid(x * (GELU_LINEAR + GELU_CUBIC * (x * x)))
