"""Lowers the int8 oracle to an ExecuTorch program for XNNPACK, for any length up to the longest.

Takes the oracle. Returns `model.pte`, one method `forward`: int32 (1, seq) -> float32 logits, as the task shapes them.
Leaves out: table look-ups, the mask, token types, the choice of [CLS] and the shape of outputs, which run on
ExecuTorch's own kernels.

Each stored layer is lowered by itself, whole, to one XNNPACK delegate, and the program calls that delegate at every
depth that uses the layer. So ALBERT's layer is lowered once, stored once and packed once; in one large delegate
XNNPACK would pack it for each of its twelve uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import getitem
from pathlib import Path
from typing import Any, cast

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge, to_edge_transform_and_lower
from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
from executorch.exir.lowered_backend_module import LoweredBackendModule, executorch_call_delegate
from executorch.exir.schema import DelegateCall, Program
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

from pocketbert.export.backends import EXAMPLE_LENGTH, Lowered, replace_gelu_tanh
from pocketbert.export.encoder import Encoder, Layer
from pocketbert.export.quantize import QuantizedEmbedding, TwoTables

FILENAME = "model.pte"
SIXTEEN = 16  # numbers that four bits can tell apart
ENTRY = "forward"
REQUIRES = {"executorch": ">=1.0"}  # the oldest runtime that this program format was run on
# gelu_tanh(x) = x/2 (1 + tanh(z)) = x sigmoid(2z), z = sqrt(2/pi) (x + 0.044715 x^3); https://arxiv.org/abs/1606.08415
GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = GELU_LINEAR * 0.044715
# The validity check knows core ATen only and stops at the ops that quantize a token; XNNPACK takes those.
CONFIG = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)


def lower(oracle: Encoder, lengths: Sequence[int], folder: Path) -> Lowered:
    """Writes `folder/model.pte`. Raises NotImplementedError naming an op of a layer that XNNPACK does not take."""
    encoder = delegate_parts(replace_gelu_tanh(oracle, gelu_tanh), max(lengths))
    ids = torch.zeros(1, EXAMPLE_LENGTH, dtype=torch.int32)
    program = torch.export.export(encoder, (ids,), dynamic_shapes=({1: _length(max(lengths))},), strict=False)
    file = deserialize_pte_binary(to_edge(program, compile_config=CONFIG).to_executorch().buffer)
    share_delegates(file.program)
    with open(folder / FILENAME, "wb") as stream:
        serialize_pte_binary(file, extract_delegate_segments=True).write_to_file(stream)
    return Lowered(FILENAME, ENTRY, any_length=True, requires=REQUIRES)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU in ops that XNNPACK has, any shape."""
    return x * torch.sigmoid(x * (GELU_LINEAR + GELU_CUBIC * (x * x)))


def delegate_parts(encoder: Encoder, max_length: int) -> Encoder:
    """Replaces, in place, the embeddings' end, each layer and the head by delegates that compute the same."""
    _replace_norms(encoder)
    word: Any = encoder.embeddings.word
    if isinstance(word, TwoTables):
        word.others = PackedEmbedding(word.others)  # type: ignore[assignment]
    config, length = encoder.config, _length(max_length)
    uses, count = config.layer_schedule, encoder.num_positions
    x, mask = torch.zeros(EXAMPLE_LENGTH, config.hidden_size), torch.zeros(EXAMPLE_LENGTH)
    # What the head reads, and the dimension that its rows are.
    read, rows = (x, length) if count is None else (torch.zeros(count, config.hidden_size), None)
    whole_uses, last_use = (uses, None) if count is None else (uses[:-1], uses[-1])
    for stored, layer in enumerate(cast("list[Layer]", list(encoder.layers))):
        whole = last = None
        if stored in whole_uses:
            whole = delegate(WholeLayer(layer), (x, mask), (length, length))
        if stored == last_use:
            last = delegate(layer, (read, x, mask), (rows, length, length))
        encoder.layers[stored] = DelegatedLayer(whole, last)
    narrow = torch.zeros(EXAMPLE_LENGTH, config.embedding_size)
    end = nn.Sequential(encoder.embeddings.norm, encoder.embeddings.project)
    replaced: Any = encoder  # whose modules are typed as what they were
    replaced.embeddings.norm, replaced.embeddings.project = delegate(end, (narrow,), (length,)), nn.Identity()
    replaced.head = delegate(encoder.head, (read,), (rows,))
    return encoder


class Norm(nn.Module):
    """Layer norm in ops that XNNPACK has: a mean is a product with a row of 1/width."""

    mean: Tensor  # float32 (1, width)
    eps: Tensor  # float32 (1, 1)

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        width = norm.normalized_shape[0]
        self.register_buffer("mean", torch.full((1, width), 1 / width))
        self.register_buffer("eps", torch.full((1, 1), norm.eps))
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:  # (tokens, width) -> the same
        x = x - functional.linear(x, self.mean)
        variance = functional.linear(x * x, self.mean)  # (tokens, 1)
        return x * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class PackedEmbedding(nn.Module):
    """A 4-bit table, two numbers in a byte: 16 times one of a row's first half plus the one of its second half.

    Taken apart by arithmetic that is exact in floats and that every ExecuTorch has kernels for; `embedding_4bit`
    belongs to a library that an app would have to add.
    """

    pairs: Tensor  # int8 (rows, width / 2)
    scale: Tensor  # float32 (rows, 1)

    def __init__(self, table: QuantizedEmbedding) -> None:
        super().__init__()
        first, second = table.weight.chunk(2, dim=1)
        self.register_buffer("pairs", SIXTEEN * first + second)  # at most 16 * 7 + 7
        self.register_buffer("scale", table.scale)

    def forward(self, ids: Tensor) -> Tensor:  # (seq,) -> (seq, width)
        pairs = functional.embedding(ids, self.pairs).float()  # (seq, width / 2)
        first = torch.floor((pairs + SIXTEEN / 2) / SIXTEEN)  # the second is -7 to 7
        rows = torch.cat([first, pairs - SIXTEEN * first], dim=1)
        return rows * functional.embedding(ids, self.scale)


class WholeLayer(nn.Module):
    """A layer in which every position queries: (seq, hidden), (seq,) -> (seq, hidden)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        return self.layer(hidden_states, hidden_states, mask)


class Delegated(nn.Module):
    """Calls a delegate with the inputs that it takes, given by their places, and its constants."""

    def __init__(self, lowered: LoweredBackendModule, places: Sequence[int], constants: Sequence[Tensor]) -> None:
        super().__init__()
        self.lowered, self.places = lowered, tuple(places)
        for index, constant in enumerate(constants):
            self.register_buffer(f"constant_{index}", constant)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.lowered(*(inputs[place] for place in self.places), *self.buffers())[0]


class DelegatedLayer(nn.Module):
    """Stands for a `Layer`: its whole form, its last, of the head's positions, or both where ALBERT needs both."""

    def __init__(self, whole: Delegated | None, last: Delegated | None) -> None:
        super().__init__()
        self.whole, self.last = whole, last

    def forward(self, query_states: Tensor, hidden_states: Tensor, mask: Tensor) -> Tensor:
        if query_states is hidden_states:
            return cast(Delegated, self.whole)(hidden_states, mask)
        return cast(Delegated, self.last)(query_states, hidden_states, mask)


def delegate(part: nn.Module, inputs: tuple[Tensor, ...], lengths: tuple[Any, ...]) -> Delegated:
    """Lowers `part` to one delegate. `lengths`: for each input, the dimension that its axis 0 is, or None.

    Constants of additions and products stay outside, as inputs of the delegate: ExecuTorch 1.0 crashes on a delegate
    that owns them. Raises NotImplementedError naming the first op that XNNPACK does not take.
    """
    shapes = tuple(length and {0: length} for length in lengths)
    exported = torch.export.export(part, inputs, dynamic_shapes=shapes, strict=False)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], compile_config=CONFIG)
    program = edge.exported_program()
    calls = [node for node in program.graph.nodes if node.op == "call_function" and node.target is not getitem]
    outside = [node for node in calls if node.target is not executorch_call_delegate]
    if outside or len(calls) != 1:
        raise NotImplementedError(
            f"XNNPACK does not take {outside[0].target.__name__ if outside else 'this part in one piece'}"
        )
    lowered, *arguments = calls[0].args
    given = list(program.graph_signature.user_inputs)
    places = [given.index(node.name) for node in arguments if node.name in given]
    constants = [_constant(program, node.name) for node in arguments if node.name not in given]
    stand_in = _stand_in(part, inputs, shapes, places, constants)
    return Delegated(_with_program(getattr(program.graph_module, lowered.target), stand_in), places, constants)


class StandIn(nn.Module):
    """Takes what a delegate takes, returns zeros of the shape that it returns."""

    zeros: Tensor

    def __init__(self, first: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.first = first  # the place of the part's first input, whose rows the output has
        self.register_buffer("zeros", torch.zeros(widths))

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        return (inputs[self.first] @ self.zeros,)


def _stand_in(
    part: nn.Module,
    inputs: tuple[Tensor, ...],
    shapes: tuple[Any, ...],
    places: Sequence[int],
    constants: Sequence[Tensor],
) -> ExportedProgram:
    """What the passes over the whole program run for a delegate to learn the shape of its output: they do so ten times
    for each call, and the delegate's own program would take as long as lowering it."""
    width = part(*inputs).shape[-1]
    model = StandIn(list(places).index(0), (inputs[0].shape[-1], width))
    given = (*(inputs[place] for place in places), *constants)
    lengths = (*(shapes[place] for place in places), *(None for _ in constants))
    return torch.export.export(model, given, dynamic_shapes=(lengths,), strict=False)


def _with_program(lowered: LoweredBackendModule, program: ExportedProgram) -> LoweredBackendModule:
    return LoweredBackendModule(
        program,
        lowered.backend_id,
        lowered.processed_bytes,
        lowered.compile_specs,
        lowered.named_data_store_output,
    )


def _constant(program: ExportedProgram, name: str) -> Tensor:
    signature = program.graph_signature
    if name in signature.inputs_to_lifted_tensor_constants:
        return cast(Tensor, program.constants[signature.inputs_to_lifted_tensor_constants[name]])
    return program.state_dict[{**signature.inputs_to_parameters, **signature.inputs_to_buffers}[name]].detach()


def share_delegates(program: Program) -> None:
    """Lets all calls of equal delegates call one, in place: the emitter writes a delegate for each call."""
    plan, data = program.execution_plan[0], program.backend_delegate_data
    payloads = [bytes(data[delegate.processed.index].data) for delegate in plan.delegates]
    kept = list(dict.fromkeys(payloads))
    plan.delegates = [plan.delegates[payloads.index(payload)] for payload in kept]
    program.backend_delegate_data = [data[delegate.processed.index] for delegate in plan.delegates]
    for index, delegate in enumerate(plan.delegates):
        delegate.processed.index = index
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if isinstance(call, DelegateCall):
                call.delegate_index = kept.index(payloads[call.delegate_index])


def _replace_norms(encoder: Encoder) -> None:
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(parent, name, Norm(child))


def _length(max_length: int) -> Any:
    return torch.export.Dim("length", min=1, max=max_length)
