"""The scheme, and the int8 oracle: the arithmetic that every artifact must reproduce, in torch.

Takes the fp32 `Encoder`. Returns the same module with every linear and the word table in whole numbers.
Leaves out: rounding a weight (rounding.py) and what 4 bits are calibrated by (calibration.py); activations are
quantized as they come.

The scheme's name is its specification, after ai-edge-quantizer: `dynamic_wi8_afp32` stores weights as
symmetric int8, one scale per output channel (per row of the word table), and keeps fp32 between the
linears, whose inputs are quantized on the fly, asymmetric int8 with one scale and zero point per token.
`dynamic_wi4_afp32` is the same with int4 in the linears of the layers and in most rows of the word table, each scale a
number of fp16.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.ao.quantization.fx._decomposed import quantized_decomposed_lib  # noqa: F401  registers the ops
from torch.nn import functional

from pocketbert.export.calibration import Calibrated, calibrate
from pocketbert.export.encoder import Encoder, Layer, copy_modules
from pocketbert.export.rounding import (
    FOUR_BITS,
    RANGE,
    Rounded,
    find_grid,
    round_rows,
    round_table,
    round_to_half_scales,
)
from pocketbert.runtime.manifest import FOUR_BIT_SCHEME

# Hidden units put in twice per layer. On the 6-layer DistilBERT 8 take the mean drift from 0.0041 to 0.0034, 32 to
# 0.0032, for 0.3 and 1 % more bytes; a multiple of 8 keeps the kernels' tiles full.
SPLIT_UNITS = 8
# One row of so many in a word table of 4 bits keeps 8: on the 6-layer DistilBERT that halves what the table costs, from
# 0.0115 to 0.0058 in a probability on average, for an eighth more bytes. A scale for each 32 numbers takes as many, and
# leaves 0.0074.
FREQUENT_SHARE = 8
INT8_MIN, INT8_MAX = -128, 127


@dataclass(frozen=True)
class Scheme:
    """How weights are stored; activations follow from it and from the backend."""

    name: str
    bits: int | None  # of a weight of a layer or the word table; None: floats
    per_channel: bool = True  # else one scale for a whole weight, repeated for each row


DEFAULT_SCHEME = "dynamic_wi8_afp32"
SCHEMES = {
    scheme.name: scheme
    for scheme in (Scheme(DEFAULT_SCHEME, 8), Scheme(FOUR_BIT_SCHEME, FOUR_BITS), Scheme("float_wf32_afp32", None))
}
# For runtimes that ignore all but the first scale of a weight; coarser, so no choice of its own.
PER_TENSOR_ACTIVATIONS = "int8_per_tensor"  # how a manifest names it
PER_TENSOR = Scheme("dynamic_wi8_per_tensor_afp32", 8, per_channel=False)

decomposed = torch.ops.quantized_decomposed


class DynamicLinear(nn.Module):
    """A linear with int8 or int4 weights per output channel and dynamic int8 activations per token."""

    weight: Tensor  # int8 (out, in)
    scale: Tensor  # float32 (out,)
    zero_point: Tensor  # int64 (out,), all 0
    bias: Tensor  # float32 (out,)

    def __init__(self, linear: nn.Linear, rounded: Rounded | None = None) -> None:
        super().__init__()
        rounded = rounded or round_rows(linear.weight)
        self.bits = rounded.bits
        self.register_buffer("weight", rounded.weight)
        self.register_buffer("scale", rounded.scale)
        self.register_buffer("zero_point", torch.zeros(len(rounded.scale), dtype=torch.int64))
        self.register_buffer("bias", linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:  # (tokens, in) -> (tokens, out)
        weight = decomposed.dequantize_per_channel(
            self.weight, self.scale, self.zero_point, 0, *RANGE[self.bits], torch.int8
        )
        return functional.linear(round_activations(x), weight, self.bias)

    def dequantize(self) -> nn.Linear:
        return _linear(self.weight * self.scale[:, None], self.bias)


class UnpackedLinear(nn.Module):
    """A `DynamicLinear` whose weights are floats already, for many texts: the same arithmetic, bit for bit."""

    def __init__(self, linear: DynamicLinear) -> None:
        super().__init__()
        self.linear = linear.dequantize()

    def forward(self, x: Tensor) -> Tensor:  # (tokens, in) -> (tokens, out)
        return self.linear(round_activations(x))  # type: ignore[no-any-return]


def round_activations(x: Tensor) -> Tensor:
    """(tokens, width), each token on its own int8 grid."""
    token = decomposed.choose_qparams_per_token_asymmetric(x, torch.int8)
    quantized = decomposed.quantize_per_token(x, *token, INT8_MIN, INT8_MAX, torch.int8)
    return decomposed.dequantize_per_token(  # type: ignore[no-any-return]
        quantized, *token, INT8_MIN, INT8_MAX, torch.int8, torch.float32
    )


class QuantizedEmbedding(nn.Module):
    """A table with int8 or int4 rows and a scale for each."""

    weight: Tensor  # int8 (rows, width)
    scale: Tensor  # float32 (rows, 1)

    def __init__(self, rounded: Rounded) -> None:
        super().__init__()
        self.bits = rounded.bits
        self.register_buffer("weight", rounded.weight)
        self.register_buffer("scale", rounded.scale[:, None])

    def forward(self, ids: Tensor) -> Tensor:  # (seq,) -> (seq, width)
        rows = functional.embedding(ids, self.weight)  # int8 (seq, width)
        return rows.float() * functional.embedding(ids, self.scale)  # (seq, width) * (seq, 1)

    def dequantize(self) -> nn.Embedding:
        return nn.Embedding.from_pretrained(self.weight * self.scale)


class TwoTables(nn.Module):
    """A word table whose first rows are int8 and whose others are int4.

    Vocabularies list their pieces by how frequent they are: of BERT's the first eighth has seven of ten tokens that
    texts are made of. It is stored apart, with a row of zeros behind it for all other ids, which have their rows in
    the second table, behind a row of zeros for these.
    """

    zeros: Tensor  # int32: the first id that the first table does not have, in whose place it has zeros
    before: Tensor  # int32: the id before, in whose place the second table has zeros

    def __init__(self, first: QuantizedEmbedding, others: QuantizedEmbedding) -> None:
        super().__init__()
        self.first, self.others = first, others
        self.register_buffer("zeros", torch.tensor(len(first.weight) - 1, dtype=torch.int32))
        self.register_buffer("before", self.zeros - 1)

    @classmethod
    def of(cls, embedding: nn.Embedding) -> TwoTables:
        """Rounds a table; what was trained to be of 4 bits is taken as it is."""
        count = max(1, len(embedding.weight) // FREQUENT_SHARE)
        empty = torch.zeros(1, embedding.embedding_dim)
        first, others = embedding.weight[:count], embedding.weight[count:]
        rounded = find_grid(others) or round_table(others)
        zero = Rounded(empty.to(torch.int8), torch.ones(1), FOUR_BITS)
        return cls(
            QuantizedEmbedding(round_to_half_scales(torch.cat([first, empty]))),
            QuantizedEmbedding(
                Rounded(torch.cat([zero.weight, rounded.weight]), torch.cat([zero.scale, rounded.scale]), FOUR_BITS)
            ),
        )

    def forward(self, ids: Tensor) -> Tensor:  # (seq,) -> (seq, width)
        return self.first(torch.minimum(ids, self.zeros)) + self.others(torch.maximum(ids, self.before) - self.before)

    def dequantize(self) -> nn.Embedding:
        first, others = self.first.dequantize().weight, self.others.dequantize().weight
        return nn.Embedding.from_pretrained(torch.cat([first[:-1], others[1:]]))


def quantize(
    encoder: Encoder,
    scheme: Scheme,
    texts: Sequence[Tensor] = (),
    on_step: Callable[[], None] = lambda: None,
    eight_bit_layers: int = 0,
) -> Encoder:
    """Returns a quantized copy of `encoder`, or `encoder` itself for a float scheme. ALBERT stays shared.

    `texts`: token ids, int (seq,) each, by which 4 bits are calibrated; `on_step` is called after each layer.
    `eight_bit_layers`: so many of the first ones keep 8 bits all the same.
    """
    if scheme.bits is None:
        return encoder
    if scheme.bits == FOUR_BITS:
        return _quantize_to_four_bits(encoder, texts, on_step, eight_bit_layers)
    oracle = split_outliers(encoder)
    for parent in list(oracle.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, DynamicLinear(child, round_rows(child.weight, scheme.per_channel)))
            elif isinstance(child, nn.Embedding):
                setattr(parent, name, QuantizedEmbedding(round_rows(child.weight, scheme.per_channel)))
    return oracle


def _quantize_to_four_bits(
    encoder: Encoder, texts: Sequence[Tensor], on_step: Callable[[], None], eight_bit_layers: int
) -> Encoder:
    """The linears of the layers in 4 bits, the word table mostly; the small linears before and behind keep 8."""
    word = TwoTables.of(encoder.embeddings.word)
    trained = _find_trained(encoder)
    oracle = copy_modules(encoder) if trained else split_outliers(encoder)
    oracle.embeddings.word = word.dequantize()
    calibrated = trained or calibrate(oracle, texts, on_step, eight_bit_layers)
    for place, parent in list(oracle.named_modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                found = calibrated.get(f"{place}.{name}")
                linear = _linear(child.weight, found.bias) if found else child
                setattr(
                    parent, name, DynamicLinear(linear, found.rounded if found else round_to_half_scales(child.weight))
                )
    oracle.embeddings.word = word  # type: ignore[assignment]
    return oracle


def _find_trained(encoder: Encoder) -> Mapping[str, Calibrated] | None:
    """The linears of a model whose layers were trained to be of 4 bits, and are taken as they are."""
    found = {}
    for name, part in encoder.layers.named_modules(prefix="layers"):
        if isinstance(part, nn.Linear):
            rounded = find_grid(part.weight)
            if rounded is None:
                return None
            found[name] = Calibrated(rounded, part.bias)
    return found


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


def make_oracles(
    encoder: Encoder,
    activations: Iterable[str],
    scheme: str,
    texts: Sequence[Tensor] = (),
    on_step: Callable[[], None] = lambda: None,
    eight_bit_layers: int = 0,
) -> dict[str, Encoder]:
    """What artifacts whose manifests name these `activations` must equal, by that name; quantized once.

    fp32 is the encoder itself, fp16 its weights in the scheme under exact activations, int8 and int8_per_tensor the
    whole scheme. `texts`, `on_step` and `eight_bit_layers` as `quantize` takes them.
    """
    quantized = functools.cache(lambda: quantize(encoder, SCHEMES[scheme], texts, on_step, eight_bit_layers))
    makers: Mapping[str, Callable[[], Encoder]] = {
        "fp32": lambda: encoder,
        "fp16": lambda: dequantize(quantized()),
        "int8": quantized,
        PER_TENSOR_ACTIVATIONS: lambda: quantize(encoder, PER_TENSOR),
    }
    return {name: makers[name]() for name in activations}


def unpack(oracle: Encoder) -> Encoder:
    """Returns the oracle ready for many texts: its weights become floats once, not for each text. The same answers."""
    return _replace(oracle, (DynamicLinear,), UnpackedLinear)


def dequantize(oracle: Encoder) -> Encoder:
    """Returns a float copy of `oracle` whose weights lie on the int8 grid: int8 weights, exact activations."""
    return _replace(oracle, (DynamicLinear, QuantizedEmbedding), lambda part: part.dequantize())


def _replace(oracle: Encoder, kinds: tuple[type, ...], make: Callable[[Any], nn.Module]) -> Encoder:
    """A copy in which every module of these kinds is what `make` makes of it."""
    encoder = copy_modules(oracle)
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kinds):
                setattr(parent, name, make(child))
    return encoder


def weight_bits(oracle: Encoder) -> dict[str, int]:
    """The bits of each weight that is whole numbers, by its name in the state dict."""
    return {
        f"{name}.weight": part.bits
        for name, part in oracle.named_modules()
        if isinstance(part, DynamicLinear | QuantizedEmbedding)
    }


def hash_weights(oracle: Encoder) -> str:
    """sha256 of all whole numbers and scales of `oracle`; hexadecimal."""
    digest = hashlib.sha256()
    for name, bits in sorted(weight_bits(oracle).items()):
        part = oracle.get_submodule(name.removesuffix(".weight"))
        digest.update(f"{name} {bits}".encode())
        for tensor in (part.weight, part.scale):
            digest.update(cast(Tensor, tensor).contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_quantized(encoder: Encoder) -> bool:
    """Whether `encoder` rounds activations."""
    return any(isinstance(module, DynamicLinear | UnpackedLinear) for module in encoder.modules())


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear.requires_grad_(False)
