"""The canonical encoder: one small torch module that computes BERT, DistilBERT and ALBERT, whatever the head.

Takes an `EncoderConfig` and the checkpoint's tensors under canonical names (architectures.py).
Returns `Encoder`: input_ids int32 (1, seq) -> float32 logits (1, labels), (1, seq, labels), or start and end (1, seq)
each, by the task; any seq from 1 to `max_position_embeddings`.
Leaves out: batches (a phone reads one message at a time, and an exact length beats padding), dropout, and token types
other than 0 and 1.

Four rewrites are exact algebra, not approximation: token type 0 is added to the position table, where texts come in
pairs type 1 adds the difference of the two rows behind the first separator, the 1/sqrt(head_dim) of attention is
multiplied into the query weights, and the last layer computes only the positions that the head (heads.py) reads. The
shapes in the comments leave the batch of 1 out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pocketbert.export.architectures import EncoderConfig, UnsupportedCheckpoint
from pocketbert.export.heads import HEADS, Outputs

# Added to the score of a padded key. exp(-10000) is 0 in fp32 and fp16 alike, so padding cannot leak; -inf
# could turn into NaN, and anything beyond -65504 is -inf in fp16.
MASKED_SCORE = -10_000.0


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh form, any shape."""
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": functional.relu,
}


class Embeddings(nn.Module):
    """Token and position rows, added and normalized; ALBERT's narrow rows are projected to the hidden width."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.embedding_size)
        self.position = nn.Parameter(torch.empty(config.max_position_embeddings, config.embedding_size))
        self.separator_id = config.separator_id
        if config.separator_id is not None:
            self.second = nn.Parameter(torch.empty(config.embedding_size))  # what a position of type 1 has more
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.project = nn.Linear(config.embedding_size, config.hidden_size) if config.projects else nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word(ids) + self.position[: ids.shape[0]]  # (seq,) -> (seq, embedding)
        if self.separator_id is not None:
            x = x + find_second(ids, self.separator_id, x.dtype).view(-1, 1) * self.second
        return self.project(self.norm(x))  # (seq, hidden)


def find_second(ids: Tensor, separator_id: int, dtype: torch.dtype) -> Tensor:
    """1 where a separator stands anywhere before, else 0: int32 (seq,) -> dtype (seq,).

    Counts are whole numbers, which fp16 adds up exactly to 2048; where it stops counting, they are still more than 1.
    """
    separators = (ids == separator_id).to(dtype)
    return (torch.cumsum(separators, 0) > separators).to(dtype)


class Layer(nn.Module):
    """One post-norm transformer layer: answers for `query_states`, which look at all of `hidden_states`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.num_attention_heads, self.head_dim = config.num_attention_heads, hidden // config.num_attention_heads
        self.query, self.key, self.value, self.attention_out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.attention_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, query_states: Tensor, hidden_states: Tensor, mask: Tensor) -> Tensor:
        # (queries, hidden), (seq, hidden), (seq,) -> (queries, hidden)
        x = self.attention_norm(self.attention_out(self.attend(query_states, hidden_states, mask)) + query_states)
        return self.output_norm(self.down(self.activation(self.up(x))) + x)

    def attend(self, query_states: Tensor, hidden_states: Tensor, mask: Tensor) -> Tensor:
        split = (-1, self.num_attention_heads, self.head_dim)
        query = self.query(query_states).view(split).permute(1, 0, 2)  # (heads, queries, head_dim), already scaled
        key = self.key(hidden_states).view(split).permute(1, 2, 0)  # (heads, head_dim, seq)
        value = self.value(hidden_states).view(split).permute(1, 0, 2)  # (heads, seq, head_dim)
        weights = torch.softmax(torch.bmm(query, key) + mask, dim=-1)  # (heads, queries, seq)
        context = torch.bmm(weights, value)  # (heads, queries, head_dim)
        return context.permute(1, 0, 2).contiguous().view(-1, self.num_attention_heads * self.head_dim)


@dataclass(frozen=True)
class Pack:
    """Texts whose tokens lie one after the other, none padded, so that linears see one large matrix."""

    texts: Sequence[Tensor]  # int (seq,) each
    starts: Tensor  # int64 (texts,): where each has its [CLS], the one position that some heads read
    mask: Tensor  # float32 (tokens, tokens): 0 within a text, MASKED_SCORE between texts

    @classmethod
    def of(cls, texts: Sequence[Tensor]) -> Pack:
        """Packs texts of one token or more each."""
        lengths = torch.tensor([len(ids) for ids in texts])
        owners = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        return cls(texts, torch.cumsum(lengths, 0) - lengths, (owners[:, None] != owners) * MASKED_SCORE)


class Encoder(nn.Module):
    """input_ids int32 (1, seq) -> float32 logits: (1, labels), (1, seq, labels), or start and end (1, seq) each."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        head = HEADS[config.architecture, config.task]
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.stored_layers))
        self.num_positions = head.num_positions
        self.head, self.shape_outputs = head.build(config), head.shape_outputs

    def forward(self, input_ids: Tensor) -> Outputs:
        ids = input_ids[0]  # (seq,)
        x = self.embeddings(ids)  # (seq, hidden)
        mask = (ids == self.config.pad_id).to(x.dtype) * MASKED_SCORE  # (seq,), the same for all heads and queries
        *schedule, last = self.config.layer_schedule
        for stored in schedule:
            x = self.layers[stored](x, x, mask)
        query_states = x if self.num_positions is None else x[: self.num_positions]
        return self.shape_outputs(self.head(self.layers[last](query_states, x, mask)))

    def embed(self, pack: Pack) -> Tensor:
        """float (tokens, hidden) of several texts, for `run_layers`."""
        return torch.cat([self.embeddings(ids) for ids in pack.texts])

    def run_layers(self, x: Tensor, pack: Pack, start: int, stop: int) -> Tensor:
        """From `start` to before `stop` of the depths: (tokens, hidden) -> the same, or behind the last depth a row for
        each position that the head reads, text by text."""
        mask = pack.mask.to(x.dtype)
        for depth in range(start, stop):
            ends = depth + 1 == len(self.config.layer_schedule) and self.num_positions is not None
            read = pack.starts if ends else slice(None)
            x = self.layers[self.config.layer_schedule[depth]](x[read], x, mask[read])
        return x


def build_encoder(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Encoder:
    """Builds the fp32 encoder. `tensors`: canonical name -> tensor of any float dtype.

    A `config` with fewer positions than the checkpoint has drops the rest of the position table.

    Raises UnsupportedCheckpoint naming a tensor whose shape the config does not give.
    """
    with torch.device("meta"):
        encoder = Encoder(config)
    _check_shapes(tensors, encoder)
    folded = _fold({name: tensor.float() for name, tensor in tensors.items()}, config)
    encoder.load_state_dict(folded, assign=True)
    return encoder.eval().requires_grad_(False)


def compute_logits(
    encoder: Encoder, ids_list: Sequence[Sequence[int] | NDArray[np.int32]], on_step: Callable[[], None] = lambda: None
) -> list[NDArray[np.float32]]:
    """The logits of texts, one by one: ids (tokens,) each -> float32 (labels,), (tokens, labels), or (tokens, 2): start
    and end.

    `on_step` is called after each text.
    """
    logits = []
    with torch.inference_mode():
        for ids in ids_list:
            found = encoder(torch.as_tensor(ids, dtype=torch.int32)[None])
            logits.append((torch.stack(found, dim=-1) if isinstance(found, tuple) else found)[0].numpy())
            on_step()
    return logits


def copy_modules(encoder: Encoder) -> Encoder:
    """A copy whose modules can be replaced; its tensors are those of `encoder`, which nothing here changes."""
    shared = {id(tensor): tensor for tensor in (*encoder.parameters(), *encoder.buffers())}
    return copy.deepcopy(encoder, shared)


def _check_shapes(tensors: Mapping[str, Tensor], encoder: Encoder) -> None:
    """Looks at what the checkpoint gives, before it is folded: all parts but the two tables are the encoder's own."""
    needed = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    rows, width = needed.pop("embeddings.position")
    types = 1 if needed.pop("embeddings.second", None) is None else 2
    tables = {"embeddings.position.weight": rows, "embeddings.token_type.weight": types}  # they may have more rows
    for name, tensor in tensors.items():
        found = tuple(tensor.shape)
        shape = (max(found[0] if found else 0, tables[name]), width) if name in tables else needed[name]
        if found != shape:
            raise UnsupportedCheckpoint(f"tensor {name!r} has the shape {found}, config.json asks for {shape}")


def _fold(tensors: dict[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    position = tensors.pop("embeddings.position.weight")[: config.max_position_embeddings]
    token_type = tensors.pop("embeddings.token_type.weight", None)
    tensors["embeddings.position"] = position if token_type is None else position + token_type[0]
    if token_type is not None and config.separator_id is not None:
        tensors["embeddings.second"] = token_type[1] - token_type[0]
    scale = (config.hidden_size // config.num_attention_heads) ** -0.5
    for layer in range(config.stored_layers):
        for part in ("weight", "bias"):
            tensors[f"layers.{layer}.query.{part}"] = tensors[f"layers.{layer}.query.{part}"] * scale
    return tensors
