"""Writes the student as people expect a checkpoint: config.json, model.safetensors and the tokenizer's files.

Takes a transformers model and the teacher's folder. Returns nothing; leaves a folder that is whole or absent.
Leaves out: the training's own files, which lie beside it (state.py, report.py).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.export.atomic_directory import publish, stage
from pocketbert.export.distill.options import DistillError, DistillOptions
from pocketbert.export.json_values import read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pocketbert.export.checkpoint import Checkpoint

# All that a tokenizer may consist of; the weights and config.json are the student's own.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "spiece.model",
)
SETTINGS = "tokenizer_config.json"
# One training's, or lists of the ids that tokenizer.json holds itself.
OF_TRAINING = ("max_length", "pad_to_multiple_of", "stride", "truncation_strategy", "added_tokens_decoder")
SPECIALS = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "mask_token": ("[MASK]",),
}


def write_checkpoint(student: Any, teacher: Checkpoint, tokenizer: Tokenizer, options: DistillOptions) -> None:
    """Writes `options.out`. Raises DistillError where that cannot be written."""
    try:
        with stage(options.out) as staging:
            (student.half() if options.dtype == "fp16" else student).save_pretrained(staging)
            if tokenizer is teacher.tokenizer and _names_class(teacher.folder):
                copy_tokenizer(teacher.folder, staging)
            else:
                beside = options.tokenizer.parent if options.tokenizer else teacher.folder
                _write_tokenizer(tokenizer, beside, student, staging)
            publish(staging, options.out, replace=options.force or options.resume)
    except OSError as problem:
        raise DistillError(f"cannot write {options.out}: {problem.strerror or problem}") from problem


def _names_class(folder: Path) -> bool:
    """Whether the folder says which class reads its tokenizer; else transformers goes by the model's family."""
    file = folder / SETTINGS
    return file.exists() and "tokenizer_class" in read_object(file).content


def copy_tokenizer(source: Path, target: Path) -> None:
    """The tokenizer's files as they are."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def _write_tokenizer(tokenizer: Tokenizer, beside: Path, student: Any, target: Path) -> None:
    """tokenizer.json, and the settings found `beside` it, completed so that transformers asks no family's class.

    A class would rebuild the tokenizer by the family's habits; an ALBERT may have a BERT's tokenizer here.
    """
    tokenizer.save(str(target / "tokenizer.json"), pretty=False)
    settings = read_object(beside / SETTINGS).content if (beside / SETTINGS).exists() else {}
    settings = {name: value for name, value in settings.items() if name not in OF_TRAINING}
    completed = {
        **{role: name for role, names in SPECIALS.items() for name in names if tokenizer.token_to_id(name) is not None},
        **settings,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": student.config.max_position_embeddings,
    }
    (target / SETTINGS).write_text(json.dumps(completed, indent=2) + "\n", encoding="utf-8")
