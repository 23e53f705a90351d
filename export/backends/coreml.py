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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pocketbert.export.backends import Graph, Lowered, output_names, replace_gelu_tanh
from pocketbert.export.encoder import Encoder
from pocketbert.export.quantize import DynamicLinear, QuantizedEmbedding, dequantize, is_quantized, weight_bits
from pocketbert.export.rounding import FOUR_BITS, RANGE, Rounded

if TYPE_CHECKING:
    import coremltools

FILENAME = "model.mlpackage"
ENTRY = "main"
REQUIRES = {"ios": ">=16.0", "macos": ">=13.0"}
REQUIRES_FOUR_BITS = {"ios": ">=18.0", "macos": ">=15.0"}  # the first with weights of less than a byte
# The ops whose constant is a weight matrix: linears, and the word table that `gather` reads.
INT8_OPS = ("linear", "gather")
WEIGHT_RANK = 2  # biases have 1
GELU_CUBIC = 0.044715  # https://arxiv.org/abs/1606.08415


def lower(oracle: Encoder, lengths: Sequence[int], folder: Path) -> Lowered:
    """Writes `folder/model.mlpackage`."""
    four_bits = FOUR_BITS in weight_bits(oracle).values()
    encoder = replace_gelu_tanh(dequantize(oracle), gelu_tanh)
    model = _convert(encoder, sorted(lengths), _rounded_weights(oracle) if four_bits else None)
    if is_quantized(oracle) and not four_bits:
        model = _store_int8(model)
    model.save(str(folder / FILENAME))
    return Lowered(FILENAME, ENTRY, any_length=False, requires=REQUIRES_FOUR_BITS if four_bits else REQUIRES)


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


def _convert(
    encoder: Encoder, lengths: Sequence[int], rounded: Mapping[bytes, Rounded] | None
) -> coremltools.models.MLModel:
    """`rounded`: weights to store as the whole numbers that they are, by what they are in fp16."""
    import numpy as np

    ct = _import_quietly()
    pipeline = ct.PassPipeline.DEFAULT
    if rounded:
        _append_pass(pipeline, rounded)
    program = Graph.export(encoder, max_length=max(lengths)).program.run_decompositions({})
    choices = [(1, length) for length in lengths]
    shapes = ct.EnumeratedShapes(choices, default=choices[-1]) if len(choices) > 1 else ct.Shape(choices[0])
    return ct.convert(
        program,
        inputs=[ct.TensorType(name="input_ids", shape=shapes, dtype=np.int32)],
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in output_names(encoder)],
        minimum_deployment_target=ct.target.iOS18 if rounded else ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        pass_pipeline=pipeline,
        skip_model_load=True,
    )


def _rounded_weights(oracle: Encoder) -> dict[bytes, Rounded]:
    """Each weight of whole numbers, by what the converter makes of its floats."""
    parts = [part for part in oracle.modules() if isinstance(part, DynamicLinear | QuantizedEmbedding)]
    rounded = [Rounded(part.weight, part.scale.flatten(), part.bits) for part in parts]
    return {each.dequantize().half().numpy().tobytes(): each for each in rounded}


def _append_pass(pipeline: coremltools.PassPipeline, rounded: Mapping[bytes, Rounded]) -> None:
    """Lets the conversion end by storing these weights as whole numbers and scales. Raises ValueError for one that the
    program does not hold."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813  its name in every example
    from coremltools.converters.mil.mil import Program, types
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.pass_registry import register_pass

    kinds = {bits: types.nptype_from_builtin(types.get_nbits_int_builtin_type(bits, True)) for bits in RANGE}

    @register_pass(namespace="pocketbert", override=True)
    class store_rounded(AbstractGraphPass):  # noqa: N801  a pass is called what its class is
        def apply(self, program: Program) -> None:
            left = dict(rounded)
            for block in program.functions.values():
                for op in list(block.operations):
                    found = left.pop(_bytes(op), None) if op.op_type == "const" else None
                    if found:
                        self.replace(block, op, found)
            if left:
                raise ValueError(f"{len(left)} weights are not in the Core ML program")

        def replace(self, block: Any, op: Any, found: Rounded) -> None:
            data, scale = found.weight.numpy().astype(kinds[found.bits]), found.scale[:, None].half().numpy()
            with block:
                stored = mb.constexpr_blockwise_shift_scale(
                    data=data, scale=scale, before_op=op, name=f"{op.name}_rounded"
                )
            block.replace_uses_of_var_after_op(
                anchor_op=op, old_var=op.outputs[0], new_var=stored, no_check_var_types=True
            )
            block.remove_ops([op])

    pipeline.append_pass("pocketbert::store_rounded")


def _bytes(op: Any) -> bytes:
    """Of a constant; empty for what is no array."""
    value = op.outputs[0].val
    return value.tobytes() if hasattr(value, "tobytes") else b""


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
