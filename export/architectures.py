"""What the three checkpoint families call things: config keys and tensor names, and nothing else.

Takes a Hugging Face `config.json` (a dict) and the names of a checkpoint's tensors.
Gives one frozen `EncoderConfig` and a map from canonical names to checkpoint names.
Leaves out: reading files (checkpoint.py) and arithmetic (encoder.py). Pure Python, no torch.

Canonical names: `embeddings.{word,position,token_type,norm,project}`,
`layers.N.{query,key,value,attention_out,attention_norm,up,down,output_norm}`, `head.{pool,classifier}`,
each with `.weight` and, but for the three tables, `.bias`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pocketbert.runtime.errors import PocketbertError

# Hugging Face's names for the activations, and the three functions behind them.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
DISTILBERT_LAYER_NORM_EPS = 1e-12  # fixed in modeling_distilbert.py, absent from its config


class UnsupportedCheckpoint(PocketbertError):
    """The checkpoint asks for something the encoder does not compute; the message names it."""


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of a classifier, whichever family it comes from."""

    architecture: str  # bert, distilbert, albert
    vocab_size: int
    embedding_size: int  # width of the word table; smaller than hidden_size in ALBERT
    hidden_size: int
    intermediate_size: int
    heads: int
    positions: int  # longest input in tokens, [CLS] and [SEP] included
    schedule: tuple[int, ...]  # the stored layer that runs at each depth; ALBERT repeats one
    inner_layers: int  # stored layers in one of ALBERT's groups; 1 elsewhere
    activation: str  # gelu, gelu_tanh, relu
    pool_activation: str  # between the pooling linear and the classifier: tanh, relu
    layer_norm_eps: float
    pad_id: int
    label_count: int

    @property
    def stored_layers(self) -> int:
        """How many layers the checkpoint holds; ALBERT runs each of them several times."""
        return max(self.schedule) + 1

    @property
    def projects(self) -> bool:
        """Whether a linear takes the embedding to the hidden width (ALBERT always has one)."""
        return self.architecture == "albert"


@dataclass(frozen=True)
class Names:
    """Where one family keeps each canonical part; `layer` is below `layers.format(...)`."""

    prefix: str
    embeddings: Mapping[str, str]
    layers: str
    layer: Mapping[str, str]
    head: Mapping[str, str]


BERT_EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "token_type": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}

NAMES = {
    "bert": Names(
        prefix="bert.",
        embeddings=BERT_EMBEDDINGS,
        layers="encoder.layer.{layer}.",
        layer={
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "attention_out": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "output_norm": "output.LayerNorm",
        },
        head={"pool": "bert.pooler.dense", "classifier": "classifier"},
    ),
    "distilbert": Names(
        prefix="distilbert.",
        embeddings={part: name for part, name in BERT_EMBEDDINGS.items() if part != "token_type"},
        layers="transformer.layer.{layer}.",
        layer={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_out": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
            "output_norm": "output_layer_norm",
        },
        head={"pool": "pre_classifier", "classifier": "classifier"},
    ),
    "albert": Names(
        prefix="albert.",
        embeddings={**BERT_EMBEDDINGS, "project": "encoder.embedding_hidden_mapping_in"},
        layers="encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
        layer={
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "attention_out": "attention.dense",
            "attention_norm": "attention.LayerNorm",
            "up": "ffn",
            "down": "ffn_output",
            "output_norm": "full_layer_layer_norm",
        },
        head={"pool": "albert.pooler", "classifier": "classifier"},
    ),
}

# Tensors that real classifiers carry and no classifier computes with: index buffers, pretraining heads.
IGNORED = re.compile(r"(^|\.)position_ids$|^cls\.|^predictions\.|^sop_classifier\.|^vocab_|^loss_")
TABLES = ("word", "position", "token_type")


def read_config(hf: Mapping[str, Any]) -> EncoderConfig:
    """Reads a Hugging Face config. Raises UnsupportedCheckpoint naming the key it cannot honour."""
    family = hf.get("model_type")
    if family not in NAMES:
        raise UnsupportedCheckpoint(f"model_type {family!r} is not supported: use {', '.join(sorted(NAMES))}")
    _refuse_variants(hf)
    try:
        config = _read_distilbert(hf) if family == "distilbert" else _read_bert(family, hf)
    except KeyError as missing:
        raise UnsupportedCheckpoint(f"config.json has no {missing.args[0]!r}, which {family} needs") from None
    if config.hidden_size % config.heads:
        raise UnsupportedCheckpoint(f"{config.heads} heads do not divide the hidden size {config.hidden_size}")
    return config


def canonical_names(config: EncoderConfig, stored: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Maps every canonical tensor name to the checkpoint's.

    Gives the map and the names that no classifier uses. Raises UnsupportedCheckpoint for a tensor that is
    missing and for one that is neither needed nor known to be unused: it might change the answers.
    """
    names = NAMES[config.architecture]
    known = {_modern(name): name for name in stored}
    wanted = dict(_expected(config, names))
    missing = [name for name in wanted.values() if name not in known]
    if missing:
        raise UnsupportedCheckpoint(_describe_missing(missing))
    spare = [stored_as for name, stored_as in known.items() if name not in set(wanted.values())]
    unknown = [name for name in spare if not IGNORED.search(name)]
    if unknown:
        raise UnsupportedCheckpoint(
            f"{len(unknown)} tensors are not part of a {config.architecture} classifier, first {unknown[0]!r}: "
            "merge adapters into the weights, or pass --ignore PATTERN if they do not change the answers"
        )
    return {canonical: known[name] for canonical, name in wanted.items()}, sorted(spare)


def _read_distilbert(hf: Mapping[str, Any]) -> EncoderConfig:
    return EncoderConfig(
        architecture="distilbert",
        vocab_size=hf["vocab_size"],
        embedding_size=hf["dim"],
        hidden_size=hf["dim"],
        intermediate_size=hf["hidden_dim"],
        heads=hf["n_heads"],
        positions=hf["max_position_embeddings"],
        schedule=tuple(range(hf["n_layers"])),
        inner_layers=1,
        activation=_activation(hf.get("activation", "gelu")),
        pool_activation="relu",
        layer_norm_eps=DISTILBERT_LAYER_NORM_EPS,
        pad_id=_pad_id(hf),
        label_count=_label_count(hf),
    )


def _read_bert(family: str, hf: Mapping[str, Any]) -> EncoderConfig:
    albert = family == "albert"
    return EncoderConfig(
        architecture=family,
        vocab_size=hf["vocab_size"],
        embedding_size=hf["embedding_size"] if albert else hf["hidden_size"],
        hidden_size=hf["hidden_size"],
        intermediate_size=hf["intermediate_size"],
        heads=hf["num_attention_heads"],
        positions=hf["max_position_embeddings"],
        schedule=_albert_schedule(hf) if albert else tuple(range(hf["num_hidden_layers"])),
        inner_layers=hf.get("inner_group_num", 1) if albert else 1,
        activation=_activation(hf.get("hidden_act", "gelu_new" if albert else "gelu")),
        pool_activation="tanh",
        layer_norm_eps=hf.get("layer_norm_eps", 1e-12),
        pad_id=_pad_id(hf),
        label_count=_label_count(hf),
    )


def _albert_schedule(hf: Mapping[str, Any]) -> tuple[int, ...]:
    """Depth by depth, as AlbertTransformer.forward picks groups and AlbertLayerGroup runs inner layers."""
    depth, groups, inner = hf["num_hidden_layers"], hf.get("num_hidden_groups", 1), hf.get("inner_group_num", 1)
    group_at = [int(level / (depth / groups)) for level in range(depth)]
    return tuple(group * inner + step for group in group_at for step in range(inner))


def _activation(name: Any) -> str:
    if name not in ACTIVATIONS:
        raise UnsupportedCheckpoint(f"activation {name!r} is not supported: use {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _pad_id(hf: Mapping[str, Any]) -> int:
    pad_id = hf.get("pad_token_id", 0)
    if not isinstance(pad_id, int) or not 0 <= pad_id < hf["vocab_size"]:
        raise UnsupportedCheckpoint(f"pad_token_id {pad_id!r} is not an id of the vocabulary: set it in config.json")
    return pad_id


def _label_count(hf: Mapping[str, Any]) -> int:
    return len(hf["id2label"]) if hf.get("id2label") else int(hf.get("num_labels", 2))  # 2: Hugging Face's own default


def _refuse_variants(hf: Mapping[str, Any]) -> None:
    position = hf.get("position_embedding_type") or "absolute"
    if position != "absolute":
        raise UnsupportedCheckpoint(f"position_embedding_type {position!r} is not supported: only absolute")
    for key in ("is_decoder", "add_cross_attention"):
        if hf.get(key):
            raise UnsupportedCheckpoint(f"{key} is set: only encoders are supported")
    if hf.get("quantization_config"):
        raise UnsupportedCheckpoint("the checkpoint is already quantized: export the fp32, fp16 or bf16 original")


def _modern(name: str) -> str:
    """The first BERT checkpoints call a layer norm's weight and bias gamma and beta."""
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))


def _expected(config: EncoderConfig, names: Names) -> Iterable[tuple[str, str]]:
    for part, name in names.embeddings.items():
        yield from _tensors(f"embeddings.{part}", names.prefix + name, table=part in TABLES)
    for layer in range(config.stored_layers):
        group, inner = divmod(layer, config.inner_layers)
        place = names.layers.format(layer=layer, group=group, inner=inner)
        for part, name in names.layer.items():
            yield from _tensors(f"layers.{layer}.{part}", names.prefix + place + name)
    for part, name in names.head.items():
        yield from _tensors(f"head.{part}", name)


def _tensors(canonical: str, stored: str, table: bool = False) -> Iterable[tuple[str, str]]:
    yield f"{canonical}.weight", f"{stored}.weight"
    if not table:
        yield f"{canonical}.bias", f"{stored}.bias"


def _describe_missing(missing: list[str]) -> str:
    if any(name.startswith(("classifier", "pre_classifier")) for name in missing):
        return f"tensor {missing[-1]!r} is missing: this is not a fine-tuned sequence classifier; fine-tune it first"
    return f"tensor {missing[0]!r} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
