"""Backends: each lowers the same int8 oracle to one phone runtime, with the same verb.

    lower(oracle, lengths, folder) -> Lowered

Takes the oracle (quantize.py), the lengths in tokens that the artifact must take, and the folder to write into.
Returns what was written, for the manifest. A backend's module imports its framework, so it is imported only
when its format is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pocketbert.runtime.manifest import FORMATS, make_outputs

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, fx

    from pocketbert.export.encoder import Encoder

EXAMPLE_LENGTH = 2  # tokens; the exported graph holds for any length, whatever the example's


@dataclass(frozen=True)
class Lowered:
    """What a backend wrote, and what an app must know to run it (the manifest's fields of the same names)."""

    path: str
    entry: str
    any_length: bool
    requires: Mapping[str, str]


class Backend(Protocol):
    """The one verb of a backend module."""

    def lower(self, oracle: Encoder, lengths: Sequence[int], folder: Path) -> Lowered: ...


def import_backend(name: str) -> Backend:
    """Imports the backend of the format `name`. Raises KeyError for a format that there is none for."""
    if name not in FORMATS:
        raise KeyError(f"unknown format {name!r}: use {', '.join(FORMATS)}")
    return cast(Backend, importlib.import_module(f"pocketbert.export.backends.{name}"))


def output_names(oracle: Encoder) -> list[str]:
    """What the outputs are called, in the order in which the oracle gives them."""
    return [output.name for output in make_outputs(oracle.config.task, oracle.config.num_labels)]


def replace_gelu_tanh(oracle: Encoder, function: Callable[[Tensor], Tensor]) -> Encoder:
    """A copy of `oracle` that computes the tanh form of GELU by `function`.

    XNNPACK's delegate and Core ML's converter both read `gelu(approximate="tanh")` as the exact GELU without a word,
    which moves ALBERT's answers as far as quantization itself does. Written out in other ops, it is lowered as it is.
    """
    from pocketbert.export.encoder import ACTIVATIONS, copy_modules

    replaced = copy_modules(oracle)
    for layer in replaced.layers:
        if layer.activation is ACTIVATIONS["gelu_tanh"]:
            layer.activation = function  # type: ignore[assignment]
    return replaced


class Graph:
    """The oracle as a graph of ATen ops over a symbolic length, with its constants as numpy arrays."""

    def __init__(self, program: Any, bits: Mapping[str, int]) -> None:
        """`bits`: of the weights that are whole numbers, by their names in the oracle."""
        self.program = program  # torch.export.ExportedProgram
        self.nodes: list[fx.Node] = list(program.graph.nodes)
        signature = program.graph_signature
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        state = program.state_dict
        self.constants: dict[fx.Node, np.ndarray] = {
            node: state[stored[node.name]].numpy() for node in self.nodes if node.name in stored
        }
        self.bits = {node: bits[stored[node.name]] for node in self.constants if stored[node.name] in bits}

    @classmethod
    def export(cls, oracle: Encoder, max_length: int) -> Graph:
        """Exports `oracle` for any length from 1 to `max_length` tokens."""
        import torch

        from pocketbert.export.quantize import weight_bits

        example = torch.zeros(1, EXAMPLE_LENGTH, dtype=torch.int32)
        length = torch.export.Dim("length", min=1, max=max_length)
        program = torch.export.export(oracle, (example,), dynamic_shapes=({1: length},), strict=False)
        return cls(program, weight_bits(oracle))

    def shape(self, node: fx.Node, length: int) -> tuple[int, ...]:
        """The shape of a node's value at `length` tokens."""
        return tuple(
            size
            if isinstance(size, int)
            else int(size.node.expr.subs({s: length for s in size.node.expr.free_symbols}))
            for size in node.meta["val"].shape
        )
