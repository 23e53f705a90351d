"""Lowers the int8 oracle to an ExecuTorch program for XNNPACK, for any length up to the longest.

Takes the oracle's exported graph. Gives `model.pte`, one method `forward`: int32 (1, seq) -> float32 (1, labels).
Leaves out: layer norms and the two table look-ups, which run on ExecuTorch's own kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

from pocketbert.export.backends import Artifact, Graph
from pocketbert.export.encoder import Encoder

FILENAME = "model.pte"
ENTRY = "forward"
REQUIRES = {"executorch": ">=1.0", "executorch-backends": "xnnpack"}


def lower(oracle: Encoder, lengths: Sequence[int], folder: Path) -> Artifact:
    """Writes `folder/model.pte`."""
    program = Graph.export(oracle, max_length=max(lengths)).program
    # The validity check knows core ATen only and stops at the ops that quantize a token; XNNPACK takes those.
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], compile_config=config)
    with open(folder / FILENAME, "wb") as file:
        edge.to_executorch().write_to_file(file)
    return Artifact(FILENAME, ENTRY, any_length=True, activations="int8", requires=REQUIRES)
