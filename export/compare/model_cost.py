"""What a checkpoint costs by its shape alone: parameters, and multiply-adds for one text.

Takes an `EncoderConfig` and the number of elements of each canonical tensor, so that tensors without storage will do.
Leaves out: everything that must be measured (measure.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pocketbert.export.architectures import EncoderConfig
from pocketbert.export.heads import HEADS


@dataclass(frozen=True)
class ParameterCount:
    """`executed` counts a layer as often as it runs."""

    stored: int
    executed: int


def count_parameters(config: EncoderConfig, elements: Mapping[str, int]) -> ParameterCount:
    """`elements`: canonical tensor name -> number of elements."""
    runs = Counter(config.layer_schedule)
    executed = sum(
        count * runs[_layer(name)] if name.startswith("layers.") else count for name, count in elements.items()
    )
    return ParameterCount(sum(elements.values()), executed)


def count_multiply_adds(config: EncoderConfig, length: int) -> int:
    """Multiply-adds for a text of `length` tokens, as artifacts compute it: the last layer does what the head reads."""
    hidden, inner = config.hidden_size, config.intermediate_size
    keys = 2 * length * hidden * hidden  # keys and values of every token
    per_query = 2 * hidden * hidden + 2 * length * hidden + 2 * hidden * inner  # query, output, scores, context, FFN
    depth, read = len(config.layer_schedule), HEADS[config.architecture, config.task].num_positions
    project = length * config.embedding_size * hidden if config.projects else 0
    pool = 0 if read is None else hidden * hidden
    queries = (depth - 1) * length + (length if read is None else read)
    return project + depth * keys + queries * per_query + pool + (read or length) * hidden * config.num_labels


def describe_compression(config: EncoderConfig) -> str:
    """How the checkpoint came to be small."""
    depth = len(config.layer_schedule)
    if config.architecture == "albert":
        shared = "one layer" if config.stored_layers == 1 else f"{config.stored_layers} layers"
        return f"{shared} × {depth}, embedding {config.embedding_size}"
    return f"{depth} layers, distilled" if config.architecture == "distilbert" else f"{depth} layers, uncompressed"


def _layer(name: str) -> int:
    return int(name.split(".")[1])
