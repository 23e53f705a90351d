"""Calibration: what the linears of a model's layers see of real texts, and their weights rounded by it.

Takes the fp32 encoder and token ids of texts without labels. Returns the weight of each linear in 4 bits, and its bias.
Leaves out: rounding one weight (rounding.py), and which are stored with how many bits (quantize.py).

Layer after layer: what a layer sees comes from those before it as they are rounded already, so it makes up for what
they lost. A layer that runs at several depths is rounded once, by what it sees at all of them. All in float64: fp32 is
added up by every processor in an order of its own, and two computers would round differently.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from pocketbert.export.encoder import Encoder, Layer, Pack
from pocketbert.export.rounding import Rounded, round_second_order, round_to_half_scales

PACK = 256  # tokens that run at once: enough for linears, and few enough that attention between texts costs little
LINEARS = ("query", "key", "value", "attention_out", "up", "down")  # of a layer, in the order in which texts meet them


@dataclass(frozen=True)
class Calibrated:
    """A linear, rounded."""

    rounded: Rounded
    bias: Tensor  # float32 (out,)


class Moments:
    """Mean and covariance of the inputs of a linear, (tokens, width) each."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, inputs: Tensor) -> None:
        self.count += len(inputs)
        self.total += inputs.sum(dim=0)
        self.products.addmm_(inputs.T, inputs)

    @property
    def mean(self) -> Tensor:  # (width,)
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:  # (width, width)
        return self.products / self.count - torch.outer(self.mean, self.mean)


def calibrate(
    encoder: Encoder,
    texts: Sequence[Tensor],
    on_step: Callable[[], None] = lambda: None,
    eight_bit_layers: int = 0,
) -> Mapping[str, Calibrated]:
    """Rounds the linears of all layers, by name: "layers.0.query". `texts`: int (seq,) each.

    So many of the first layers get 8 bits. `on_step` is called after each stored layer. Raises ValueError where there
    are no texts.
    """
    if not texts:
        raise ValueError("4 bits are calibrated by texts: there are none")
    model = copy.deepcopy(encoder).double()
    packs = [Pack.of(part) for part in split_texts(texts)]
    states = [model.embed(pack) for pack in packs]
    schedule, depth = model.config.layer_schedule, 0
    found: dict[str, Calibrated] = {}
    for stored, layer in enumerate(cast("list[Layer]", list(model.layers))):
        first, last = schedule.index(stored), len(schedule) - schedule[::-1].index(stored)
        states = [model.run_layers(state, pack, depth, first) for state, pack in zip(states, packs, strict=True)]
        with observe(layer) as seen:
            for state, pack in zip(states, packs, strict=True):
                model.run_layers(state, pack, first, last)
        for name in LINEARS:
            found[f"layers.{stored}.{name}"] = _round(getattr(layer, name), seen[name], stored < eight_bit_layers)
        depth = first
        on_step()
    return found


@contextmanager
def observe(layer: Layer) -> Iterator[dict[str, Moments]]:
    """The moments of what each linear of `layer` sees in the block, by name; key and value see the same."""
    seen = {name: Moments(getattr(layer, name).in_features) for name in LINEARS if name != "value"}

    def add(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[name].add(inputs[0])

    hooks = [getattr(layer, name).register_forward_pre_hook(partial(add, name)) for name in seen]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        seen["value"] = seen["key"]


def _round(linear: nn.Linear, moments: Moments, eight_bits: bool = False) -> Calibrated:
    """Rounds a linear, in place. What rounding moves every output by goes into the bias, which is exact."""
    weight = linear.weight.detach()
    rounded = round_to_half_scales(weight) if eight_bits else round_second_order(weight, moments.covariance)
    lost = linear.weight - rounded.dequantize().double()
    linear.bias.add_(lost @ moments.mean)
    linear.weight.sub_(lost)
    return Calibrated(rounded, linear.bias.float())


def split_texts(texts: Sequence[Tensor], most: int | None = None) -> Iterator[list[Tensor]]:
    """Texts of `most` tokens together, PACK by default, or one that is longer by itself."""
    part: list[Tensor] = []
    for text in texts:
        if part and sum(map(len, part)) + len(text) > (most or PACK):
            yield part
            part = []
        part.append(text)
    if part:
        yield part
