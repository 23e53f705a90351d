"""The canonical encoder: one small torch module that computes BERT, DistilBERT and ALBERT classifiers.

Takes an `EncoderConfig` and the checkpoint's tensors under canonical names (architectures.py).
Gives `Encoder`: input_ids int32 (1, seq) -> logits float32 (1, labels), any seq from 1 to `positions`.
Leaves out: batches (a phone labels one message at a time, and an exact length beats padding), dropout,
token types other than 0, and text pairs.

Three rewrites are exact algebra, not approximation: token type 0 is added to the position table, the
1/sqrt(head_dim) of attention is multiplied into the query weights, and the last layer computes only the
positions that the head reads. The shapes in the comments leave the batch of 1 out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketbert.export.architectures import EncoderConfig, UnsupportedCheckpoint

# Added to the score of a padded key. exp(-10000) is 0 in fp32 and fp16 alike, so padding cannot leak; -inf
# could turn into NaN, and anything beyond -65504 is -inf in fp16.
MASKED_SCORE = -10_000.0

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: `reads` positions of the last layer (None: all), then `build`."""

    reads: int | None
    build: Callable[[EncoderConfig], nn.Module]


class Pooled(nn.Module):
    """Sequence classification: [CLS] through a linear, an activation and the classifier."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pool = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.label_count)
        self.activation = ACTIVATIONS[config.pool_activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.activation(self.pool(x)))  # (1, hidden) -> (1, labels)


HEADS = {"sequence-classification": Head(reads=1, build=Pooled)}


class Embeddings(nn.Module):
    """Token and position rows, added and normalized; ALBERT's narrow rows are projected to the hidden width."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.embedding_size)
        self.position = nn.Parameter(torch.empty(config.positions, config.embedding_size))
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.project = nn.Linear(config.embedding_size, config.hidden_size) if config.projects else nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word(ids) + self.position[: ids.shape[0]]  # (seq,) -> (seq, embedding)
        return self.project(self.norm(x))  # (seq, hidden)


class Layer(nn.Module):
    """One post-norm transformer layer, for the first `queries` positions of its input (None: all)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.heads, self.head_dim = config.heads, hidden // config.heads
        self.query, self.key, self.value, self.attention_out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.attention_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, mask: Tensor, queries: int | None = None) -> Tensor:
        return self.answer(x if queries is None else x[:queries], x, mask)

    def answer(self, asked: Tensor, x: Tensor, mask: Tensor) -> Tensor:  # (queries, hidden), (seq, hidden), (seq,)
        x = self.attention_norm(self.attention_out(self.attend(asked, x, mask)) + asked)
        return self.output_norm(self.down(self.activation(self.up(x))) + x)

    def attend(self, asked: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        split = (-1, self.heads, self.head_dim)
        query = self.query(asked).view(split).permute(1, 0, 2)  # (heads, queries, head_dim), already scaled
        key = self.key(x).view(split).permute(1, 2, 0)  # (heads, head_dim, seq)
        value = self.value(x).view(split).permute(1, 0, 2)  # (heads, seq, head_dim)
        weights = torch.softmax(torch.bmm(query, key) + mask, dim=-1)  # (heads, queries, seq)
        context = torch.bmm(weights, value)  # (heads, queries, head_dim)
        return context.permute(1, 0, 2).contiguous().view(-1, self.heads * self.head_dim)  # (queries, hidden)


class Encoder(nn.Module):
    """input_ids int32 (1, seq) -> logits float32 (1, labels)."""

    def __init__(self, config: EncoderConfig, task: str = "sequence-classification") -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.stored_layers))
        self.reads = HEADS[task].reads
        self.head = HEADS[task].build(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        ids = input_ids[0]  # (seq,)
        x = self.embeddings(ids)  # (seq, hidden)
        mask = (ids == self.config.pad_id).to(x.dtype) * MASKED_SCORE  # (seq,), the same for all heads and queries
        for depth, stored in enumerate(self.config.schedule, 1):
            last = depth == len(self.config.schedule)
            x = self.layers[stored](x, mask, queries=self.reads if last else None)
        return self.head(x)


def build(config: EncoderConfig, tensors: Mapping[str, Tensor], task: str = "sequence-classification") -> Encoder:
    """Builds the fp32 encoder. `tensors`: canonical name -> tensor of any float dtype.

    A `config` with fewer positions than the checkpoint has drops the rest of the position table.

    Raises UnsupportedCheckpoint naming a tensor whose shape the config does not give.
    """
    with torch.device("meta"):
        encoder = Encoder(config, task)
    folded = _fold({name: tensor.float() for name, tensor in tensors.items()}, config)
    for name, parameter in encoder.state_dict().items():
        found, needed = tuple(folded[name].shape), tuple(parameter.shape)
        if found != needed:
            raise UnsupportedCheckpoint(f"tensor {name!r} has the shape {found}, config.json asks for {needed}")
    encoder.load_state_dict(folded, assign=True)
    return encoder.eval().requires_grad_(False)


def _fold(tensors: dict[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    position = tensors.pop("embeddings.position.weight")[: config.positions]
    token_type = tensors.pop("embeddings.token_type.weight", None)
    tensors["embeddings.position"] = position if token_type is None else position + token_type[0]
    scale = (config.hidden_size // config.heads) ** -0.5
    for layer in range(config.stored_layers):
        for part in ("weight", "bias"):
            tensors[f"layers.{layer}.query.{part}"] = tensors[f"layers.{layer}.query.{part}"] * scale
    return tensors
