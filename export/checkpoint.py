"""Reads a fine-tuned checkpoint as people have them: a Hugging Face folder, or a hub id.

Takes a path or an id. Gives a `Checkpoint`: config, tensors under canonical names, tokenizer, labels.
Leaves out: running it (encoder.py). Nothing in a checkpoint is ever executed: safetensors are plain data and
pytorch_model.bin is read with `weights_only=True`.
"""

from __future__ import annotations

import fnmatch
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.export.architectures import EncoderConfig, canonical_names, read_config
from pocketbert.export.tokenizer import load_tokenizer
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import hash_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
TEXT_FILES = ("*.json", "vocab.txt", "spiece.model")  # all that a checkpoint needs beside its weights
HUB_SECONDS = 10  # a hub that does not answer by then is not there


class CheckpointError(PocketbertError):
    """The checkpoint cannot be read or exported; the message names the file, key or tensor."""


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned classifier, family differences gone."""

    name: str  # the folder's name or the hub id
    folder: Path
    config: EncoderConfig
    tensors: Mapping[str, Tensor]  # canonical name -> tensor, as stored (fp32, fp16 or bf16)
    ignored: Sequence[str]  # stored tensors that no classifier uses
    tokenizer: Tokenizer  # without truncation or padding
    labels: Sequence[str]
    multi_label: bool
    weights_sha256: str


def load(source: str | Path, ignore: Sequence[str] = ()) -> Checkpoint:
    """Loads the checkpoint in folder `source`, or the hub's if there is no such folder.

    `ignore`: patterns (fnmatch) of stored tensors to leave out. Raises CheckpointError.
    """
    folder = locate(source)
    hf = _read_json(folder / "config.json")
    try:
        config = read_config(hf)
        files = weight_files(folder)
        stored = _read_tensors(files)
        left_out = {name for name in stored for pattern in ignore if fnmatch.fnmatchcase(name, pattern)}
        names, spare = canonical_names(config, stored.keys() - left_out)
        tokenizer = load_tokenizer(folder)
    except CheckpointError:
        raise
    except PocketbertError as problem:
        raise CheckpointError(f"{folder}: {problem}") from problem
    _check_vocabulary(tokenizer, config, folder)
    return Checkpoint(
        name=str(source) if not Path(source).exists() else folder.resolve().name,
        folder=folder,
        config=config,
        tensors={canonical: stored[name] for canonical, name in names.items()},
        ignored=sorted({*spare, *left_out}),
        tokenizer=tokenizer,
        labels=_labels(hf, config),
        multi_label=_multi_label(hf),
        weights_sha256=hash_file(*files),
    )


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
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            shards = sorted({folder / shard for shard in _read_json(index).get("weight_map", {}).values()})
            missing = [shard.name for shard in shards if not shard.exists()]
            if missing or not shards:
                raise CheckpointError(f"{index} lists {missing[0] if missing else 'no weights'}: not in the folder")
            return shards
    raise CheckpointError(f"no weights in {folder}: expected {SAFETENSORS} or {PICKLED}, sharded or not")


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


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no {file.name} in {file.parent}: is it a Hugging Face checkpoint?") from None
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"cannot read {file}: {problem}") from problem
    if not isinstance(content, dict):
        raise CheckpointError(f"cannot read {file}: not a JSON object")
    return content


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


def _labels(hf: Mapping[str, Any], config: EncoderConfig) -> list[str]:
    named = hf.get("id2label") or {str(index): f"LABEL_{index}" for index in range(config.label_count)}
    try:
        return [str(named[str(index)]) for index in range(config.label_count)]
    except KeyError as missing:
        raise CheckpointError(f"id2label in config.json has no entry for {missing.args[0]}") from None


def _multi_label(hf: Mapping[str, Any]) -> bool:
    kind = hf.get("problem_type") or "single_label_classification"
    if kind not in ("single_label_classification", "multi_label_classification"):
        raise CheckpointError(f"problem_type {kind!r} is not supported: only single- and multi-label classification")
    return kind == "multi_label_classification"


def _check_vocabulary(tokenizer: Tokenizer, config: EncoderConfig, folder: Path) -> None:
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer gives ids up to {largest}, the model has {config.vocab_size} embeddings: "
            "the tokenizer belongs to another model"
        )
