"""Lowers the int8 oracle to a Core ML program: fp16 arithmetic over int8 weights, enumerated lengths.

Takes the oracle; its int8 weights go in bit for bit, its activations stay fp16 (Core ML quantizes none on the fly).
Returns `model.mlpackage`, one input of any of the lengths: int32 (1, seq) -> float32 logits, as the task shapes them.
Leaves out: running it. Core ML exists on Apple's systems only.

Enumerated shapes are what lets the Neural Engine take a flexible input; a range would keep it on the CPU:
https://apple.github.io/coremltools/docs-guides/source/flexible-inputs.html
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pocketbert.export.backends import Graph, Lowered, output_names, replace_gelu_tanh
from pocketbert.export.encoder import Encoder
from pocketbert.export.quantize import dequantize, is_quantized

if TYPE_CHECKING:
    import coremltools

FILENAME = "model.mlpackage"
ENTRY = "main"
REQUIRES = {"ios": ">=16.0", "macos": ">=13.0"}
# The ops whose constant is a weight matrix: linears, and the word table that `gather` reads.
INT8_OPS = ("linear", "gather")
WEIGHT_RANK = 2  # biases have 1
GELU_CUBIC = 0.044715  # https://arxiv.org/abs/1606.08415


def lower(oracle: Encoder, lengths: Sequence[int], folder: Path) -> Lowered:
    """Writes `folder/model.mlpackage`."""
    model = _convert(replace_gelu_tanh(dequantize(oracle), gelu_tanh), sorted(lengths))
    if is_quantized(oracle):
        model = _store_int8(model)
    model.save(str(folder / FILENAME))
    return Lowered(FILENAME, ENTRY, any_length=False, requires=REQUIRES)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU, any shape, in the ops that coremltools fuses back into its own gelu of that mode."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + GELU_CUBIC * torch.pow(x, 3))))


def _import_quietly() -> Any:
    """coremltools warns of every package version that is newer than it is, and of the missing Core ML."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools

    return coremltools


def _convert(encoder: Encoder, lengths: Sequence[int]) -> coremltools.models.MLModel:
    import numpy as np

    ct = _import_quietly()
    program = Graph.export(encoder, max_length=max(lengths)).program.run_decompositions({})
    choices = [(1, length) for length in lengths]
    shapes = ct.EnumeratedShapes(choices, default=choices[-1]) if len(choices) > 1 else ct.Shape(choices[0])
    return ct.convert(
        program,
        inputs=[ct.TensorType(name="input_ids", shape=shapes, dtype=np.int32)],
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in output_names(encoder)],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )


def _store_int8(model: coremltools.models.MLModel) -> coremltools.models.MLModel:
    """Rounds every weight to the int8 grid that it lies on: its largest value is 127 times the oracle's scale."""
    from coremltools.optimize import coreml as optimize

    rows = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=0
    )
    # By name, not by op: biases that are equal, all zero say, are one constant of ops of several kinds.
    weights = [
        name
        for name, constant in optimize.get_weights_metadata(model, weight_threshold=0).items()
        if constant.val.ndim == WEIGHT_RANK and any(op.op_type in INT8_OPS for op in constant.child_ops)
    ]
    return optimize.linear_quantize_weights(
        model, optimize.OptimizationConfig(op_name_configs=dict.fromkeys(weights, rows))
    )
