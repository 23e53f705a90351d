"""Heads: what turns an encoder's hidden states into logits, by family and task.

Takes an `EncoderConfig`, whose architecture and task choose. Returns the module, how many positions of the last
layer it reads, so that no other is computed, and how its rows become the outputs that a manifest names.
Leaves out: where checkpoints keep a head's tensors (architectures.py).

Another task is an entry here, its tensors' names in architectures.py, and its name among runtime/manifest.py's TASKS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketbert.export.architectures import NAMES, START_AND_END, EncoderConfig
from pocketbert.runtime.manifest import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION

Outputs: TypeAlias = Tensor | tuple[Tensor, ...]


class ClassificationHead(nn.Module):
    """Sequence classification: [CLS] through a linear, an activation and the classifier."""

    def __init__(self, config: EncoderConfig, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.activation = activation

    def forward(self, hidden_states: Tensor) -> Tensor:  # (1, hidden) -> (1, labels)
        return self.classifier(self.activation(self.pool(hidden_states)))


class TokenHead(nn.Module):
    """Token classification: each position through the classifier."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden_states: Tensor) -> Tensor:  # (seq, hidden) -> (seq, labels)
        return self.classifier(hidden_states)


class SpanHead(nn.Module):
    """Question answering: for each position, how well an answer starts and ends there."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.span = nn.Linear(config.hidden_size, START_AND_END)

    def forward(self, hidden_states: Tensor) -> Tensor:  # (seq, hidden) -> (seq, 2)
        return self.span(hidden_states)


def as_they_are(logits: Tensor) -> Tensor:
    """(1, labels), which a text's one position gives."""
    return logits


def add_batch(logits: Tensor) -> Tensor:
    """(seq, labels) -> (1, seq, labels)"""
    return logits[None]


def split_span(logits: Tensor) -> tuple[Tensor, ...]:
    """(seq, 2) -> start (1, seq), end (1, seq)"""
    rows = logits.permute(1, 0)  # (2, seq)
    return rows[:1], rows[1:]


@dataclass(frozen=True)
class Head:
    """One head: heads that are equal compute the same, so weights of one fit the other."""

    build: Callable[[EncoderConfig], nn.Module]
    num_positions: int | None  # of the last layer that it reads, from [CLS] on; None: all
    shape_outputs: Callable[[Tensor], Outputs]  # what the module gives -> the artifact's outputs


TANH_POOLED = Head(lambda config: ClassificationHead(config, torch.tanh), 1, as_they_are)
RELU_POOLED = Head(lambda config: ClassificationHead(config, functional.relu), 1, as_they_are)
BY_TOKEN = Head(TokenHead, None, add_batch)
SPAN = Head(SpanHead, None, split_span)

HEADS: Mapping[tuple[str, str], Head] = {
    ("bert", SEQUENCE_CLASSIFICATION): TANH_POOLED,
    ("distilbert", SEQUENCE_CLASSIFICATION): RELU_POOLED,
    ("albert", SEQUENCE_CLASSIFICATION): TANH_POOLED,
    **{(family, TOKEN_CLASSIFICATION): BY_TOKEN for family in NAMES},
    **{(family, QUESTION_ANSWERING): SPAN for family in NAMES},
}
