"""Reads a fine-tuned checkpoint as people have them: a Hugging Face folder, or a hub id.

Takes a path or an id. Returns a `Checkpoint`: config, tensors under canonical names, tokenizer, labels.
Leaves out: running it (encoder.py). Nothing in a checkpoint is ever executed: safetensors are plain data and
pytorch_model.bin is read with `weights_only=True`.
"""

from __future__ import annotations

import fnmatch
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.export.architectures import (
    CONFIG,
    START_AND_END,
    EncoderConfig,
    canonical_names,
    guess_task,
    read_config,
    read_labels,
    read_task,
)
from pocketbert.export.json_values import JsonObject, read_object
from pocketbert.export.tokenizer.load import check_pad_id, find_separator, largest_id, load_tokenizer
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import PAIRS, TOKEN_CLASSIFICATION, hash_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
POSITIONS, TOKEN_TYPES = "embeddings.position.weight", "embeddings.token_type.weight"
SPAN = ("head.span.weight", "head.span.bias")
TEXT_FILES = ("*.json", "vocab.txt", "spiece.model")  # all that a checkpoint needs beside its weights
HUB_SECONDS = 10  # a hub that does not answer by then is not there


class CheckpointError(PocketbertError):
    """The checkpoint cannot be read or exported; the message names the file, key or tensor."""


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned model, family differences gone."""

    name: str  # the folder's name or the hub id
    folder: Path
    config: EncoderConfig
    tensors: Mapping[str, Tensor]  # canonical name -> tensor, as stored (fp32, fp16 or bf16)
    ignored: Sequence[str]  # stored tensors that the task does not use
    tokenizer: Tokenizer  # without truncation or padding
    labels: tuple[str, ...]  # none for question answering
    multi_label: bool
    weights_sha256: str
    pairs: bool = False  # whether it takes two texts as well


def load_checkpoint(
    source: str | Path, ignore: Sequence[str] = (), task: str | None = None, pairs: bool = False
) -> Checkpoint:
    """Loads the checkpoint in folder `source`, or the hub's if there is no such folder.

    `ignore`: patterns (fnmatch) of stored tensors to leave out. `task`: one of the manifest's TASKS, for a checkpoint
    that does not say what it does. `pairs`: a classifier of two texts, which no checkpoint says; answers always come
    out of two. Raises CheckpointError, also for a task that the checkpoint is not of.
    """
    folder = locate(source)
    name = folder.resolve().name if Path(source).exists() else str(source)
    try:
        return _load(folder, ignore, name, task, pairs)
    except CheckpointError:
        raise
    except PocketbertError as problem:
        raise CheckpointError(f"{folder}: {problem}") from problem


def _load(folder: Path, ignore: Sequence[str], name: str, asked: str | None, pairs: bool) -> Checkpoint:
    """Reads what is small first: weights only for a config, labels and a tokenizer that can be exported."""
    hf = _read_json(folder / CONFIG).content
    task, stored = read_task(hf, asked), None
    if task is None:  # the names of its tensors tell
        stored = _read_tensors(weight_files(folder))
        task = guess_task(hf, stored)
    config, (labels, multi_label) = read_config(hf, task), read_labels(hf, task)
    pairs = _decide_pairs(task, pairs)
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(tokenizer, config)
    files = weight_files(folder)
    stored = stored or _read_tensors(files)
    left_out = {each for each in stored for pattern in ignore if fnmatch.fnmatchcase(each, pattern)}
    names, spare = canonical_names(config, stored.keys() - left_out)
    for stored_as in names.values():
        _check_tensor(stored_as, stored[stored_as])
    _check_positions(stored[names[POSITIONS]], config)
    _check_span(names, stored)
    types = stored[names[TOKEN_TYPES]].shape[:1] if TOKEN_TYPES in names else (1,)
    separator = find_separator(tokenizer, typed=types > (1,)) if pairs else None
    return Checkpoint(
        name=name,
        folder=folder,
        config=replace(config, separator_id=separator if types > (1,) else None),
        tensors={canonical: stored[stored_as] for canonical, stored_as in names.items()},
        ignored=sorted({*spare, *left_out}),
        tokenizer=tokenizer,
        labels=labels,
        multi_label=multi_label,
        weights_sha256=hash_file(*files),
        pairs=pairs,
    )


def read_stored(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a checkpoint under its own name, and those names by the canonical ones.

    Raises CheckpointError.
    """
    stored = _read_tensors(weight_files(checkpoint.folder))
    names, _ = canonical_names(checkpoint.config, stored.keys() - set(checkpoint.ignored))
    return stored, names


def _decide_pairs(task: str, asked: bool) -> bool:
    if asked and task == TOKEN_CLASSIFICATION:
        raise CheckpointError(f"{task} takes one text: leave --pairs out")
    return asked or PAIRS[task] == (True,)


def locate(source: str | Path) -> Path:
    """The folder of a checkpoint: `source` itself, or the hub's files in the local cache."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{source} is a file: pass the folder that holds config.json")
    if not HUB_ID.fullmatch(str(source)):
        raise CheckpointError(f"no such folder: {source}")
    return _download(str(source))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, safetensors before pickles, single file before shards."""
    for name in (SAFETENSORS, PICKLED):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return _shards(index)
    raise CheckpointError(f"no weights in {folder}: expected {SAFETENSORS} or {PICKLED}, sharded or not")


def _shards(index: Path) -> list[Path]:
    """The files that an index names, all beside it."""
    named = sorted(set(_read_json(index).texts("weight_map").values()))
    strange = [name for name in named if name in (".", "..") or re.search(r"[/\\]", name)]
    if strange:
        raise CheckpointError(f"{index} lists {strange[0]!r}: shards lie beside it")
    missing = [name for name in named if not (index.parent / name).is_file()]
    if missing or not named:
        raise CheckpointError(f"{index} lists {missing[0] if missing else 'no weights'}: not in the folder")
    return [index.parent / name for name in named]


def _download(repository: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = HfApi().model_info(repository, timeout=HUB_SECONDS).siblings or []
        weights = "*.safetensors" if any(file.rfilename.endswith(".safetensors") for file in files) else "*.bin"
        return Path(snapshot_download(repository, allow_patterns=[*TEXT_FILES, weights]))
    except Exception as problem:  # the hub, the network, the proxy: each has errors of its own
        cached = _cached(repository)
        if cached:
            return cached
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise CheckpointError(
            f"no folder {repository!r} here, and the hub did not give it: download it and pass the folder ({reason})"
        ) from problem


def _cached(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except Exception:  # not in the cache, which is what was asked
        return None


def _read_json(file: Path) -> JsonObject:
    try:
        return read_object(file)
    except FileNotFoundError:
        raise CheckpointError(f"no {file.name} in {file.parent}: is it a Hugging Face checkpoint?") from None


def _read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        shard = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
        twice = tensors.keys() & shard.keys()
        if twice:
            raise CheckpointError(f"tensor {sorted(twice)[0]!r} is stored in two shards, the second {file.name}")
        tensors |= shard
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(f"cannot read {file}: {problem}") from problem


def _read_pickle(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(f"{file} holds more than tensors and was not opened: save it as safetensors") from problem
    except (OSError, RuntimeError, EOFError) as problem:
        raise CheckpointError(f"cannot read {file}: {str(problem).splitlines()[0]}") from problem
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a state dict")
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}


def _check_tensor(name: str, tensor: Tensor) -> None:
    """A weight is a finite float in fp32; a tensor of another kind, or of another scheme, is no weight."""
    import torch

    if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"tensor {name!r} is {kind}: weights are fp32, fp16 or bf16; export the original")
    extremes = torch.stack(torch.aminmax(tensor.float())) if tensor.numel() else torch.zeros(2)  # NaN is both
    if not torch.isfinite(extremes).all():
        raise CheckpointError(f"tensor {name!r} holds NaN or infinity: the training that wrote it went wrong")


def _check_positions(table: Tensor, config: EncoderConfig) -> None:
    """The one size that an encoder may be built without: an export for shorter texts takes the first rows."""
    if table.shape[:1] != (config.max_position_embeddings,):
        raise CheckpointError(
            f"tensor {POSITIONS!r} has the shape {tuple(table.shape)}, config.json asks for "
            f"{(config.max_position_embeddings, config.embedding_size)}"
        )


def _check_span(names: Mapping[str, str], stored: Mapping[str, Tensor]) -> None:
    """The one size of a head that no config says."""
    for name in SPAN:
        if name in names and stored[names[name]].shape[:1] != (START_AND_END,):
            raise CheckpointError(
                f"tensor {names[name]!r} has the shape {tuple(stored[names[name]].shape)}: a question answerer has "
                f"{START_AND_END} rows, start and end"
            )


def _check_vocabulary(tokenizer: Tokenizer, config: EncoderConfig) -> None:
    largest = largest_id(tokenizer)
    if largest >= config.vocab_size:
        raise CheckpointError(
            f"the tokenizer gives ids up to {largest}, the model has {config.vocab_size} embeddings: "
            "the tokenizer belongs to another model"
        )
    check_pad_id(tokenizer, config.pad_id)
