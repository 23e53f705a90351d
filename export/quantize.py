"""The scheme, and the int8 oracle: the arithmetic that every artifact must reproduce, in torch.

Takes the fp32 `Encoder`. Returns the same module with every linear and the word table in int8.
Leaves out: calibration (activations are quantized as they come) and anything below 8 bits.

The scheme's name is its specification, after ai-edge-quantizer: `dynamic_wi8_afp32` stores weights as
symmetric int8, one scale per output channel (per row of the word table), and keeps fp32 between the
linears, whose inputs are quantized on the fly, asymmetric int8 with one scale and zero point per token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.ao.quantization.fx._decomposed import quantized_decomposed_lib  # noqa: F401  registers the ops
from torch.nn import functional

from pocketbert.export.encoder import Encoder, Layer, copy_modules

# Hidden units put in twice per layer. On the 6-layer DistilBERT 8 take the mean drift from 0.0041 to 0.0034, 32 to
# 0.0032, for 0.3 and 1 % more bytes; a multiple of 8 keeps the kernels' tiles full.
SPLIT_UNITS = 8
INT8_MIN, INT8_MAX = -128, 127
WEIGHT_MAX = 127  # symmetric: -128 stays unused, so that negating a weight cannot overflow


@dataclass(frozen=True)
class Scheme:
    """How weights are stored; activations follow from it and from the backend."""

    name: str
    int8: bool
    per_channel: bool = True  # else one scale for a whole weight, repeated for each row


SCHEMES = {
    scheme.name: scheme for scheme in (Scheme("dynamic_wi8_afp32", int8=True), Scheme("float_wf32_afp32", int8=False))
}
DEFAULT_SCHEME = "dynamic_wi8_afp32"
# For runtimes that ignore all but the first scale of a weight; coarser, so no choice of its own.
PER_TENSOR_ACTIVATIONS = "int8_per_tensor"  # how a manifest names it
PER_TENSOR = Scheme("dynamic_wi8_per_tensor_afp32", int8=True, per_channel=False)

decomposed = torch.ops.quantized_decomposed


class DynamicLinear(nn.Module):
    """A linear with int8 weights per output channel and dynamic int8 activations per token."""

    weight: Tensor  # int8 (out, in)
    scale: Tensor  # float32 (out,)
    zero_point: Tensor  # int64 (out,), all 0
    bias: Tensor  # float32 (out,)

    def __init__(self, linear: nn.Linear, per_channel: bool = True) -> None:
        super().__init__()
        weight, scale = quantize_rows(linear.weight, per_channel)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int64))
        self.register_buffer("bias", linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:  # (tokens, in) -> (tokens, out)
        token = decomposed.choose_qparams_per_token_asymmetric(x, torch.int8)
        quantized = decomposed.quantize_per_token(x, *token, INT8_MIN, INT8_MAX, torch.int8)
        x = decomposed.dequantize_per_token(quantized, *token, INT8_MIN, INT8_MAX, torch.int8, torch.float32)
        weight = decomposed.dequantize_per_channel(
            self.weight, self.scale, self.zero_point, 0, -WEIGHT_MAX, WEIGHT_MAX, torch.int8
        )
        return functional.linear(x, weight, self.bias)

    def dequantize(self) -> nn.Linear:
        return _linear(self.weight * self.scale[:, None], self.bias)


class Int8Embedding(nn.Module):
    """A table with int8 rows and a scale for each."""

    weight: Tensor  # int8 (rows, width)
    scale: Tensor  # float32 (rows, 1)

    def __init__(self, embedding: nn.Embedding, per_channel: bool = True) -> None:
        super().__init__()
        weight, scale = quantize_rows(embedding.weight, per_channel)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale[:, None])

    def forward(self, ids: Tensor) -> Tensor:  # (seq,) -> (seq, width)
        rows = functional.embedding(ids, self.weight)  # int8 (seq, width)
        return rows.float() * functional.embedding(ids, self.scale)  # (seq, width) * (seq, 1)

    def dequantize(self) -> nn.Embedding:
        return nn.Embedding.from_pretrained(self.weight * self.scale)


def quantize_rows(weight: Tensor, per_channel: bool = True) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with a scale per row: float (rows, width) -> int8 (rows, width), float32 (rows,)."""
    peak = weight.detach().abs().amax(dim=1)
    if not per_channel:
        peak = torch.full_like(peak, float(peak.max()))
    scale = torch.where(peak > 0, peak / WEIGHT_MAX, 1.0)  # an empty row needs any scale but 0
    return torch.round(weight.detach() / scale[:, None]).to(torch.int8), scale


def quantize(encoder: Encoder, scheme: Scheme) -> Encoder:
    """Returns a quantized copy of `encoder`, or `encoder` itself for a float scheme. ALBERT stays shared."""
    if not scheme.int8:
        return encoder
    oracle = split_outliers(encoder)
    for parent in list(oracle.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, DynamicLinear(child, scheme.per_channel))
            elif isinstance(child, nn.Embedding):
                setattr(parent, name, Int8Embedding(child, scheme.per_channel))
    return oracle


def split_outliers(encoder: Encoder) -> Encoder:
    """Returns an equal encoder in which the largest weights of each layer's `down` are half as large or less.

    One weight of a row, up to 170 times the typical one, sets the scale of all the others: most of what int8 costs
    DistilBERT is there. So the hidden unit that it leaves from is put in twice and its outgoing weights are halved,
    which is exact: up's row is repeated, the activation sees the same number twice, and the halves add up again.
    Outlier channel splitting: https://arxiv.org/abs/1901.09504
    """
    split = copy_modules(encoder)
    for layer in cast("list[Layer]", list(split.layers)):
        tensors: tuple[Tensor, Tensor, Tensor] = (layer.up.weight, layer.up.bias, layer.down.weight)
        up, bias, down = tensors
        for _ in range(SPLIT_UNITS):
            unit = int(down.abs().amax(dim=0).argmax())
            half = down[:, unit : unit + 1] / 2
            down = torch.cat([down[:, :unit], half, down[:, unit + 1 :], half], dim=1)
            up, bias = torch.cat([up, up[unit : unit + 1]]), torch.cat([bias, bias[unit : unit + 1]])
        layer.up, layer.down = _linear(up, bias), _linear(down, layer.down.bias)
    return split


def make_oracles(encoder: Encoder, activations: Iterable[str], scheme: str) -> dict[str, Encoder]:
    """What artifacts whose manifests name these `activations` must equal, by that name; quantized once.

    fp32 is the encoder itself, fp16 int8 weights under exact activations, int8 and int8_per_tensor the whole scheme.
    """
    quantized = functools.cache(lambda: quantize(encoder, SCHEMES[scheme]))
    makers: Mapping[str, Callable[[], Encoder]] = {
        "fp32": lambda: encoder,
        "fp16": lambda: dequantize(quantized()),
        "int8": quantized,
        PER_TENSOR_ACTIVATIONS: lambda: quantize(encoder, PER_TENSOR),
    }
    return {name: makers[name]() for name in activations}


def dequantize(oracle: Encoder) -> Encoder:
    """Returns a float copy of `oracle` whose weights lie on the int8 grid: int8 weights, exact activations."""
    encoder = copy_modules(oracle)
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DynamicLinear | Int8Embedding):
                setattr(parent, name, child.dequantize())
    return encoder


def is_quantized(encoder: Encoder) -> bool:
    """Whether `encoder` holds int8 weights."""
    return any(isinstance(module, DynamicLinear) for module in encoder.modules())


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear.requires_grad_(False)
