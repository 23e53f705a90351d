"""What the three checkpoint families call things: config keys and tensor names, and nothing else.

Takes a Hugging Face `config.json` (a dict) and the names of a checkpoint's tensors.
Returns the task, one frozen `EncoderConfig`, the labels, and a map from canonical names to checkpoint names.
Leaves out: reading files (checkpoint.py) and arithmetic (encoder.py, heads.py). Pure Python, no torch.

Every value of a config is read through `JsonObject`, within bounds that no real checkpoint reaches: sizes are known to
be sane before a tensor is read.

Canonical names: `embeddings.{word,position,token_type,norm,project}`,
`layers.N.{query,key,value,attention_out,attention_norm,up,down,output_norm}`, and by the task
`head.{pool,classifier,span}`, each with `.weight` and, but for the three tables, `.bias`.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pocketbert.export.json_values import JsonError, JsonObject
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION

CONFIG = "config.json"
# Hugging Face's names for the activations, and the three functions behind them.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
# How the classes end that `architectures` names, and the tasks that they do.
TASKS_OF_CLASSES = {
    "ForSequenceClassification": SEQUENCE_CLASSIFICATION,
    "ForTokenClassification": TOKEN_CLASSIFICATION,
    "ForQuestionAnswering": QUESTION_ANSWERING,
}
DOERS = {
    SEQUENCE_CLASSIFICATION: "sequence classifier",
    TOKEN_CLASSIFICATION: "token classifier",
    QUESTION_ANSWERING: "question answerer",
}
DISTILBERT_LAYER_NORM_EPS = 1e-12  # fixed in modeling_distilbert.py, absent from its config
DEFAULT_LAYER_NORM_EPS = 1e-12  # configuration_bert.py, configuration_albert.py
DEFAULT_NUM_LABELS = 2  # configuration_utils.py
# Bounds of what a config may ask for, each more than ten times what the largest of these families ever had.
MOST_PIECES = 1 << 24  # of a vocabulary
MOST_POSITIONS = 1 << 20
MOST_UNITS = 1 << 18  # of a width
MOST_HEADS = 1 << 10
MOST_LAYERS = 1 << 10  # that run; so many may be stored too
MOST_LABELS = 1 << 17  # a manifest of more would be refused
SHOWN = 60  # characters of a name in a message
START_AND_END = 2  # logits that a question answerer gives for each token
SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"


class UnsupportedCheckpoint(PocketbertError):
    """The checkpoint asks for something the encoder does not compute; the message names it."""


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of a model, whichever family it comes from."""

    architecture: str  # bert, distilbert, albert
    task: str  # with the architecture it decides the head
    vocab_size: int
    embedding_size: int  # width of the word table; smaller than hidden_size in ALBERT
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    max_position_embeddings: int  # longest input in tokens, [CLS] and [SEP] included
    layer_schedule: tuple[int, ...]  # the stored layer that runs at each depth; ALBERT repeats one
    inner_layers: int  # stored layers in one of ALBERT's groups; 1 elsewhere
    activation: str  # gelu, gelu_tanh, relu
    layer_norm_eps: float
    pad_id: int
    num_labels: int  # logits for each text or token
    separator_id: int | None = None  # behind the first of it token type 1 holds; None: type 0 everywhere

    @property
    def stored_layers(self) -> int:
        """How many layers the checkpoint holds; ALBERT runs each of them several times."""
        return max(self.layer_schedule) + 1

    @property
    def projects(self) -> bool:
        """Whether a linear takes the embedding to the hidden width (ALBERT always has one)."""
        return self.architecture == "albert"


@dataclass(frozen=True)
class Names:
    """Where one family keeps each canonical part; `layer` is below `layers.format(...)`, heads go by their task."""

    prefix: str
    embeddings: Mapping[str, str]
    layers: str
    layer: Mapping[str, str]
    heads: Mapping[str, Mapping[str, str]]


BERT_EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "token_type": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}

# The heads that read every token: all three families keep them alike.
TOKEN_HEADS = {TOKEN_CLASSIFICATION: {"classifier": "classifier"}, QUESTION_ANSWERING: {"span": "qa_outputs"}}

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
        heads={SEQUENCE_CLASSIFICATION: {"pool": "bert.pooler.dense", "classifier": "classifier"}, **TOKEN_HEADS},
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
        heads={SEQUENCE_CLASSIFICATION: {"pool": "pre_classifier", "classifier": "classifier"}, **TOKEN_HEADS},
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
        heads={SEQUENCE_CLASSIFICATION: {"pool": "albert.pooler", "classifier": "classifier"}, **TOKEN_HEADS},
    ),
}

# Tensors that real checkpoints carry and do not compute with: index buffers, pretraining heads.
IGNORED = re.compile(r"(^|\.)position_ids$|^cls\.|^predictions\.|^sop_classifier\.|^vocab_|^loss_")
POOLER = re.compile(r"^(bert|albert)\.pooler\.")  # spare where every token is read
TABLES = ("word", "position", "token_type")


def read_config(hf: Mapping[str, Any], task: str = SEQUENCE_CLASSIFICATION) -> EncoderConfig:
    """Reads a Hugging Face config. Raises UnsupportedCheckpoint or JsonError naming the key it cannot honour."""
    values = JsonObject(hf, CONFIG)
    family = values.choice("model_type", sorted(NAMES))
    if task not in NAMES[family].heads:
        raise UnsupportedCheckpoint(
            f"task {task!r} is not supported for {family}: use {', '.join(NAMES[family].heads)}"
        )
    _refuse_variants(values)
    config = _read_distilbert(values, task) if family == "distilbert" else _read_bert(family, values, task)
    if config.hidden_size % config.num_attention_heads:
        raise UnsupportedCheckpoint(
            f"{config.num_attention_heads} heads do not divide the hidden size {config.hidden_size}"
        )
    return config


def read_task(hf: Mapping[str, Any], asked: str | None = None) -> str | None:
    """The task that the config's `architectures` name, or else the one `asked` for, or None where neither says it.

    Raises JsonError, and UnsupportedCheckpoint where the two contradict each other.
    """
    classes = [] if hf.get("architectures") is None else hf["architectures"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise JsonError(f"architectures {reprlib.repr(classes)} in {CONFIG} is not a list of names")
    named = {task: name for name in classes for end, task in TASKS_OF_CLASSES.items() if name.endswith(end)}
    if len(named) != 1:  # a pretrained encoder, someone's own class, or several
        return asked
    ((task, name),) = named.items()
    if asked not in (None, task):
        raise UnsupportedCheckpoint(f"architectures in {CONFIG} say {task} ({name[:SHOWN]!r}), not {asked}")
    return task


def guess_task(hf: Mapping[str, Any], stored: Iterable[str]) -> str:
    """The task by the names of a checkpoint's tensors, for a config that does not say it.

    BERT's and ALBERT's pooler may be spare in a token classifier too; then it is taken for a sequence classifier.
    Raises UnsupportedCheckpoint where the tensors are those of several heads.
    """
    heads = NAMES[JsonObject(hf, CONFIG).choice("model_type", sorted(NAMES))].heads
    there = set(stored)
    fitting = [task for task, head in heads.items() if all(f"{name}.weight" in there for name in head.values())]
    if SEQUENCE_CLASSIFICATION in fitting and TOKEN_CLASSIFICATION in fitting:
        fitting.remove(TOKEN_CLASSIFICATION)
    if len(fitting) > 1:
        raise UnsupportedCheckpoint(f"its tensors are those of {' and '.join(fitting)}: pass --task with one of them")
    return fitting[0] if fitting else SEQUENCE_CLASSIFICATION  # whose tensors are then missing, by name


def read_labels(hf: Mapping[str, Any], task: str = SEQUENCE_CLASSIFICATION) -> tuple[tuple[str, ...], bool]:
    """The labels in the order of the logits, none for question answering, and whether several may be true at once.

    Raises JsonError, and UnsupportedCheckpoint for a single label, by which Hugging Face means a regression too.
    """
    if task == QUESTION_ANSWERING:
        return (), False
    values = JsonObject(hf, CONFIG)
    count = _num_labels(values)
    labels = values.names("id2label") or tuple(f"LABEL_{index}" for index in range(count))
    if task == TOKEN_CLASSIFICATION:
        if count == 1:
            raise UnsupportedCheckpoint(f"there is one label, {labels[0]!r}, which every token would have")
        return labels, False
    multi_label = values.choice("problem_type", (SINGLE_LABEL, MULTI_LABEL), SINGLE_LABEL) == MULTI_LABEL
    if count == 1 and not multi_label:
        raise UnsupportedCheckpoint(
            f"there is one label, {labels[0]!r}, which makes a regression: only classifiers are supported; "
            f"set problem_type to {MULTI_LABEL} if its score is a sigmoid"
        )
    return labels, multi_label


def canonical_names(config: EncoderConfig, stored: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Maps every canonical tensor name to the checkpoint's.

    Returns the map and the names that the task does not use. Raises UnsupportedCheckpoint for a tensor that is
    missing and for one that is neither needed nor known to be unused: it might change the answers.
    """
    names = NAMES[config.architecture]
    known = {_modern(name): name for name in stored}
    wanted = dict(_expected(config, names))
    missing = [name for name in wanted.values() if name not in known]
    spare = [stored_as for name, stored_as in known.items() if name not in set(wanted.values())]
    pooled = config.task == SEQUENCE_CLASSIFICATION
    unknown = [name for name in spare if not IGNORED.search(name) and (pooled or not POOLER.search(name))]
    if missing:
        raise UnsupportedCheckpoint(_describe_missing(missing, unknown, config))
    if unknown:
        whole = f"{config.architecture} {DOERS[config.task]}"
        raise UnsupportedCheckpoint(
            f"{len(unknown)} tensors are not part of a {whole}, first {min(unknown)!r}: "
            "merge adapters into the weights, or pass --ignore PATTERN if they do not change the answers"
        )
    return {canonical: known[name] for canonical, name in wanted.items()}, sorted(spare)


def _read_distilbert(values: JsonObject, task: str) -> EncoderConfig:
    hidden = values.integer("dim", 1, MOST_UNITS)
    return EncoderConfig(
        architecture="distilbert",
        task=task,
        vocab_size=values.integer("vocab_size", 1, MOST_PIECES),
        embedding_size=hidden,
        hidden_size=hidden,
        intermediate_size=values.integer("hidden_dim", 1, MOST_UNITS),
        num_attention_heads=values.integer("n_heads", 1, MOST_HEADS),
        max_position_embeddings=values.integer("max_position_embeddings", 1, MOST_POSITIONS),
        layer_schedule=tuple(range(values.integer("n_layers", 1, MOST_LAYERS))),
        inner_layers=1,
        activation=ACTIVATIONS[values.choice("activation", ACTIVATIONS, "gelu")],
        layer_norm_eps=DISTILBERT_LAYER_NORM_EPS,
        pad_id=_pad_id(values),
        num_labels=START_AND_END if task == QUESTION_ANSWERING else _num_labels(values),
    )


def _read_bert(family: str, values: JsonObject, task: str) -> EncoderConfig:
    albert = family == "albert"
    hidden = values.integer("hidden_size", 1, MOST_UNITS)
    activation = values.choice("hidden_act", ACTIVATIONS, "gelu_new" if albert else "gelu")
    layers = values.integer("num_hidden_layers", 1, MOST_LAYERS)
    return EncoderConfig(
        architecture=family,
        task=task,
        vocab_size=values.integer("vocab_size", 1, MOST_PIECES),
        embedding_size=values.integer("embedding_size", 1, MOST_UNITS) if albert else hidden,
        hidden_size=hidden,
        intermediate_size=values.integer("intermediate_size", 1, MOST_UNITS),
        num_attention_heads=values.integer("num_attention_heads", 1, MOST_HEADS),
        max_position_embeddings=values.integer("max_position_embeddings", 1, MOST_POSITIONS),
        layer_schedule=_albert_schedule(values, layers) if albert else tuple(range(layers)),
        inner_layers=values.integer("inner_group_num", 1, MOST_LAYERS, 1) if albert else 1,
        activation=ACTIVATIONS[activation],
        layer_norm_eps=values.share("layer_norm_eps", DEFAULT_LAYER_NORM_EPS),
        pad_id=_pad_id(values),
        num_labels=START_AND_END if task == QUESTION_ANSWERING else _num_labels(values),
    )


def _albert_schedule(values: JsonObject, depth: int) -> tuple[int, ...]:
    """Depth by depth, as AlbertTransformer.forward picks groups and AlbertLayerGroup runs inner layers."""
    groups = values.integer("num_hidden_groups", 1, depth, 1)
    inner = values.integer("inner_group_num", 1, MOST_LAYERS // depth, 1)
    group_at = [int(level / (depth / groups)) for level in range(depth)]
    return tuple(group * inner + step for group in group_at for step in range(inner))


def _pad_id(values: JsonObject) -> int:
    """An absent one is 0 in these families; null is none, and then no text can be padded."""
    if "pad_token_id" in values.content and values.content["pad_token_id"] is None:
        raise UnsupportedCheckpoint(f"pad_token_id in {CONFIG} is null: set it to the id of the padding token")
    return values.integer("pad_token_id", 0, values.integer("vocab_size", 1, MOST_PIECES) - 1, 0)


def _num_labels(values: JsonObject) -> int:
    names = values.names("id2label")
    count = values.integer("num_labels", 1, MOST_LABELS, len(names) if names else DEFAULT_NUM_LABELS)
    if names and count != len(names):
        raise UnsupportedCheckpoint(f"num_labels is {count}, id2label has {len(names)}: correct the wrong one")
    return count


def _refuse_variants(values: JsonObject) -> None:
    values.choice("position_embedding_type", ("absolute",), "absolute")
    for key in ("is_decoder", "add_cross_attention"):
        if values.flag(key):
            raise UnsupportedCheckpoint(f"{key} is set: only encoders are supported")
    if values.content.get("quantization_config") is not None:
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
    for part, name in names.heads[config.task].items():
        yield from _tensors(f"head.{part}", name)


def _tensors(canonical: str, stored: str, table: bool = False) -> Iterable[tuple[str, str]]:
    yield f"{canonical}.weight", f"{stored}.weight"
    if not table:
        yield f"{canonical}.bias", f"{stored}.bias"


def _describe_missing(missing: list[str], unknown: list[str], config: EncoderConfig) -> str:
    names = NAMES[config.architecture]
    of_head = [name for name in missing if not name.startswith(names.prefix)]
    others = {name for head in names.heads.values() for name in head.values()}
    instead = [name for name in unknown if name.rpartition(".")[0] in others]
    if of_head and instead:
        return f"tensor {of_head[-1]!r} of a {DOERS[config.task]} is missing, there is {min(instead)!r}: another task?"
    if of_head:
        return f"tensor {of_head[-1]!r} is missing: this is not a fine-tuned {DOERS[config.task]}; fine-tune it first"
    return f"tensor {missing[0]!r} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
