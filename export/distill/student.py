"""A student that starts from its teacher: chosen layers, folded token types, a factorized table, a narrower width.

Takes a teacher's `Checkpoint` and options. Returns a transformers model of the student's family, and where it is
narrower than the teacher the projection that compares their hidden states.
Leaves out: training (train.py) and the algebra (algebra.py). All tensors go by the canonical names of
architectures.py, so every family teaches every other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pocketbert.export.architectures import EncoderConfig, canonical_names, read_config
from pocketbert.export.distill.algebra import Embedding, factorize, find_basis, narrow_norm, widen
from pocketbert.export.distill.options import DistillError, DistillOptions
from pocketbert.export.distill.vocabulary import find_rows, find_special
from pocketbert.export.heads import HEADS
from pocketbert.export.transformers_import import import_transformers

if TYPE_CHECKING:
    from collections import Counter

    from tokenizers import Tokenizer

    from pocketbert.export.checkpoint import Checkpoint

Tensors = dict[str, Tensor]
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}  # canonical -> Hugging Face's
TILE = 8  # widths are multiples of it, as the int8 kernels like them


@dataclass(frozen=True)
class Shape:
    """The student's sizes, all decided."""

    family: str
    num_layers: int  # that run
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    embedding_size: int  # ALBERT's narrow width; DistilBERT's is `hidden_size`
    max_position_embeddings: int


@dataclass(frozen=True)
class Usage:
    """How often the data uses each of the student's tokens and each position."""

    tokens: Counter[int]
    positions: Counter[int]


def decide_shape(teacher: EncoderConfig, options: DistillOptions) -> Shape:
    """Raises DistillError for a size that the teacher cannot give."""
    depth = len(teacher.layer_schedule)
    hidden_size = options.hidden or teacher.hidden_size
    head_size = teacher.hidden_size // teacher.num_attention_heads
    albert = options.student == "albert"
    shape = Shape(
        family=options.student,
        num_layers=options.layers or (depth if albert else max(1, depth // 2)),
        hidden_size=hidden_size,
        num_attention_heads=hidden_size // head_size,
        intermediate_size=-(-teacher.intermediate_size * hidden_size // teacher.hidden_size // TILE) * TILE,
        embedding_size=min(options.embedding_size, teacher.embedding_size) if albert else hidden_size,
        max_position_embeddings=options.positions or teacher.max_position_embeddings,
    )
    _check_shape(shape, teacher, head_size)
    return shape


def _check_shape(shape: Shape, teacher: EncoderConfig, head_size: int) -> None:
    depth, widest = len(teacher.layer_schedule), teacher.hidden_size
    if not 0 < shape.num_layers <= depth:
        raise DistillError(f"--layers {shape.num_layers}: the teacher has {depth}, choose from 1 to {depth}")
    if not head_size <= shape.hidden_size <= widest or shape.hidden_size % head_size:
        raise DistillError(
            f"--hidden {shape.hidden_size}: choose a multiple of the teacher's head size {head_size}, up to {widest}"
        )
    if not 0 < shape.max_position_embeddings <= teacher.max_position_embeddings:
        raise DistillError(
            f"--positions {shape.max_position_embeddings}: the teacher has {teacher.max_position_embeddings}"
        )


def pick_layers(count: int, depth: int) -> list[int]:
    """Which teacher layers a student of `count` starts from: evenly from the first to the last.

    6 of 12 are 0, 2, 4, 7, 9, 11, as in DistilBERT's own extract_distilbert.py.
    """
    return [round(layer * (depth - 1) / max(1, count - 1)) for layer in range(count)]


def pair_layers(count: int, depth: int) -> list[int]:
    """How many teacher layers each student layer stands for, so that the last meets the last."""
    return [round((layer + 1) * depth / count) for layer in range(count)]


def build_student(
    teacher: Checkpoint,
    tokenizer: Tokenizer,
    labels: Sequence[str],
    shape: Shape,
    usage: Usage,
    states: Tensor,
    options: DistillOptions,
) -> tuple[Any, nn.Module]:
    """The student, and the projection (size, teacher's size) of its hidden states: identity where none is needed.

    `states`: a sample of the teacher's hidden states, (n, hidden).
    """
    tensors = {name: tensor.float() for name, tensor in teacher.tensors.items()}
    basis = find_basis(states, shape.hidden_size) if shape.hidden_size < teacher.config.hidden_size else None
    same_labels = list(labels) == list(teacher.labels)
    initial = {
        **_initial_embedding(teacher, tensors, tokenizer, shape, usage, basis, options.seed),
        **_initial_layers(teacher.config, tensors, shape, basis),
        **_initial_head(teacher.config, tensors, shape, basis, same_labels),
    }
    torch.manual_seed(options.seed)
    student = _build_model(teacher, tokenizer, labels, shape, options)
    _copy_tensors(student, initial)
    return student, _projection(basis)


def _projection(basis: Tensor | None) -> nn.Module:
    if basis is None:
        return nn.Identity()
    width, size = basis.shape
    linear = nn.Linear(size, width, bias=False)
    linear.weight.data.copy_(basis)
    return linear


# ---- embeddings -----------------------------------------------------------------------------------------


def _initial_embedding(
    teacher: Checkpoint,
    tensors: Tensors,
    tokenizer: Tokenizer,
    shape: Shape,
    usage: Usage,
    basis: Tensor | None,
    seed: int,
) -> Tensors:
    embedding = _read_embedding(tensors, _word_table(teacher, tensors, tokenizer), shape.max_position_embeddings)
    if shape.family == "albert":
        counts = (
            _as_tensor(usage.tokens, len(embedding.word)),
            _as_tensor(usage.positions, shape.max_position_embeddings),
        )
        embedding = factorize(embedding, shape.embedding_size, *counts)
        project = embedding.matrix if basis is None else basis.T @ embedding.matrix
        offset = embedding.constant if basis is None else embedding.constant @ basis
        projected: Tensors = {"project.weight": project, "project.bias": offset}
    else:
        embedding = widen(embedding, torch.Generator().manual_seed(seed))
        embedding = embedding if basis is None else _narrow_embedding(embedding, basis)
        projected = {}
    parts = {
        "word.weight": embedding.word,
        "position.weight": embedding.position,
        "norm.weight": embedding.gain,
        "norm.bias": embedding.shift,
        **projected,
    }
    return {f"embeddings.{name}": part for name, part in parts.items()}


def _narrow_embedding(embedding: Embedding, basis: Tensor) -> Embedding:
    gain, shift = narrow_norm(embedding.gain, embedding.shift, basis)
    return Embedding(embedding.word @ basis, embedding.position @ basis, gain, shift)


def _word_table(teacher: Checkpoint, tensors: Tensors, tokenizer: Tokenizer) -> Tensor:
    """A row for each of the student's pieces: the teacher's own, or the mean of the pieces that spell it there."""
    table = tensors["embeddings.word.weight"]
    if tokenizer is teacher.tokenizer:
        return table
    return torch.stack([table[rows].mean(0) for rows in find_rows(tokenizer, teacher.tokenizer)])


def _read_embedding(tensors: Tensors, word: Tensor, positions: int) -> Embedding:
    position = tensors["embeddings.position.weight"][:positions]
    if "embeddings.token_type.weight" in tensors:
        position = position + tensors["embeddings.token_type.weight"][0]
    return Embedding(
        word,
        position,
        tensors["embeddings.norm.weight"],
        tensors["embeddings.norm.bias"],
        tensors.get("embeddings.project.weight"),
        tensors.get("embeddings.project.bias"),
    )


def _as_tensor(counts: Counter[int], size: int) -> Tensor:
    return torch.tensor([float(counts[i]) for i in range(size)])


# ---- layers ---------------------------------------------------------------------------------------------


def _initial_layers(config: EncoderConfig, tensors: Tensors, shape: Shape, basis: Tensor | None) -> Tensors:
    """DistilBERT takes layers evenly from the first to the last, ALBERT the middle one."""
    depth = len(config.layer_schedule)
    chosen = [(depth - 1) // 2] if shape.family == "albert" else pick_layers(shape.num_layers, depth)
    initial: Tensors = {}
    for place, level in enumerate(chosen):
        layer = _read_layer(tensors, config.layer_schedule[level])
        if basis is not None:
            layer = _narrow_layer(layer, basis, shape, config.hidden_size // config.num_attention_heads)
        initial |= {f"layers.{place}.{part}": tensor for part, tensor in layer.items()}
    return initial


def _read_layer(tensors: Tensors, stored: int) -> Tensors:
    prefix = f"layers.{stored}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _narrow_layer(layer: Tensors, basis: Tensor, shape: Shape, head_size: int) -> Tensors:
    """The layer on `basis`, with the heads and the inner units that carry most."""
    carried = (layer["attention_out.weight"].norm(dim=0) * layer["value.weight"].norm(dim=1)).view(-1, head_size)
    heads = carried.square().sum(1).topk(shape.num_attention_heads).indices.sort().values
    inside = (heads[:, None] * head_size + torch.arange(head_size)).flatten()
    strength = layer["up.weight"].norm(dim=1) * layer["down.weight"].norm(dim=0)
    units = strength.topk(shape.intermediate_size).indices.sort().values
    narrow: Tensors = {}
    for part, rows in (("query", inside), ("key", inside), ("value", inside), ("up", units)):
        narrow[f"{part}.weight"] = layer[f"{part}.weight"][rows] @ basis
        narrow[f"{part}.bias"] = layer[f"{part}.bias"][rows]
    for part, columns in (("attention_out", inside), ("down", units)):
        narrow[f"{part}.weight"] = basis.T @ layer[f"{part}.weight"][:, columns]
        narrow[f"{part}.bias"] = layer[f"{part}.bias"] @ basis
    for part in ("attention_norm", "output_norm"):
        gain, shift = narrow_norm(layer[f"{part}.weight"], layer[f"{part}.bias"], basis)
        narrow |= {f"{part}.weight": gain, f"{part}.bias": shift}
    return narrow


# ---- head -----------------------------------------------------------------------------------------------


def _initial_head(
    config: EncoderConfig, tensors: Tensors, shape: Shape, basis: Tensor | None, same_labels: bool
) -> Tensors:
    """The teacher's head, where the student's computes the same; else nothing: it starts afresh.

    DistilBERT's has a ReLU where BERT's and ALBERT's pooler has a tanh, so weights of one mean nothing in the other.
    """
    if HEADS[config.architecture, config.task] != HEADS[shape.family, config.task]:
        return {}
    pool, bias = tensors["head.pool.weight"], tensors["head.pool.bias"]
    classifier = tensors["head.classifier.weight"]
    if basis is not None:
        units = (classifier.norm(dim=0) * pool.norm(dim=1)).topk(shape.hidden_size).indices.sort().values
        pool, bias, classifier = pool[units] @ basis, bias[units], classifier[:, units]
    initial = {"head.pool.weight": pool, "head.pool.bias": bias}
    if same_labels:
        initial |= {"head.classifier.weight": classifier, "head.classifier.bias": tensors["head.classifier.bias"]}
    return initial


# ---- the model ------------------------------------------------------------------------------------------


def _build_model(
    teacher: Checkpoint, tokenizer: Tokenizer, labels: Sequence[str], shape: Shape, options: DistillOptions
) -> Any:
    """A transformers model of the shape, randomly initialized, dropout included."""
    same = tokenizer is teacher.tokenizer
    pad = find_special(str(teacher.tokenizer.id_to_token(teacher.config.pad_id)), tokenizer)
    settings = {
        "vocab_size": teacher.config.vocab_size if same else tokenizer.get_vocab_size(),
        "max_position_embeddings": shape.max_position_embeddings,
        "pad_token_id": teacher.config.pad_id if same else pad or 0,
        "bos_token_id": tokenizer.token_to_id("[CLS]"),
        "eos_token_id": tokenizer.token_to_id("[SEP]"),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": ("multi" if teacher.multi_label else "single") + "_label_classification",
        **SETTINGS[shape.family](shape, ACTIVATIONS[teacher.config.activation], options.chosen_dropout),
    }
    transformers = import_transformers()
    config = transformers.AutoConfig.for_model(shape.family, **settings)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def _distilbert_settings(shape: Shape, activation: str, dropout: float) -> Mapping[str, Any]:
    return {
        "dim": shape.hidden_size,
        "n_layers": shape.num_layers,
        "n_heads": shape.num_attention_heads,
        "hidden_dim": shape.intermediate_size,
        "activation": activation,
        "dropout": dropout,
        "attention_dropout": dropout,
        "seq_classif_dropout": dropout,
    }


def _albert_settings(shape: Shape, activation: str, dropout: float) -> Mapping[str, Any]:
    return {
        "embedding_size": shape.embedding_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_attention_heads,
        "intermediate_size": shape.intermediate_size,
        "hidden_act": activation,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "classifier_dropout_prob": dropout,
    }


SETTINGS = {"distilbert": _distilbert_settings, "albert": _albert_settings}


def _copy_tensors(student: Any, initial: Tensors) -> None:
    """Copies tensors by canonical name; ALBERT's token types, folded into the positions, become 0."""
    state = student.state_dict()
    names, _ = canonical_names(read_config(student.config.to_dict()), state)
    for canonical, stored in names.items():
        if canonical == "embeddings.token_type.weight":
            state[stored].zero_()
        elif canonical in initial:
            state[stored].copy_(initial[canonical])
