"""What `pocketbert distill` can be told, with its defaults and where they come from.

Returns a frozen `DistillOptions`, and the command line that says the same.
Leaves out: reading the command line (cli/distill.py). Imports no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import FOUR_BIT_SCHEME

STUDENTS = ("distilbert", "albert")
LAYERS_MATCHED = ("last", "every")
LABEL_SOURCES = ("teacher", "data")
PRECISIONS = ("auto", "bf16", "fp32")
SAVED_TYPES = ("fp32", "fp16")
# DistilBERT's layers start trained for their place; ALBERT's one layer must learn every place.
EPOCHS, EPOCHS_TO_SCHEME = 3.0, 1.0  # DistilBERT's; a model that is rounded already has less to learn
LEARNING_RATE = {"distilbert": 2e-4, "albert": 3e-4}
DROPOUT = {"distilbert": 0.1, "albert": 0.0}  # ALBERT's second version dropped it (arXiv 1909.11942, section 4.8)


# Options that a training to a scheme has no use for: its student is the teacher, and the loss has no weights.
OF_STUDENTS = (
    "student",
    "labels",
    "dev",
    "layers",
    "hidden",
    "embedding_size",
    "positions",
    "vocab_size",
    "tokenizer",
    "alpha_ce",
    "alpha_label",
    "alpha_cos",
    "temperature",
    "match",
    "batch_size",
    "dropout",
    "patience",
    "precision",
    "dtype",
    "resume",
)


class DistillError(PocketbertError):
    """The distillation cannot start or go on; the message says what to change."""


@dataclass(frozen=True)
class DistillOptions:
    """One distillation. Every field is an option of the command, of the same name.

    The weights of the loss and the temperature are DistilBERT's: alpha_ce 5, alpha_mlm 2 (the true answers, there
    masked words, here labels), alpha_cos 1, temperature 2 (arXiv 1910.01108, section 3; the numbers are those of its
    code, github.com/huggingface/transformers, research_projects/distillation, README.md and train.py).
    """

    teacher: str
    student: str
    data: tuple[Path, ...]
    out: Path
    columns: tuple[str, ...] = ()
    labels: str = "teacher"  # whose labels the student answers with
    dev: Path | None = None  # labelled texts that choose the weights; else a share of the data
    held_out: float = 0.05  # that share
    layers: int | None = None  # half of the teacher's for DistilBERT, all of them for ALBERT
    hidden: int | None = None
    embedding_size: int = 128  # ALBERT's own choice (arXiv 1909.11942, table 1)
    positions: int | None = None
    vocab_size: int | None = None
    tokenizer: Path | None = None
    alpha_ce: float = 5.0
    alpha_label: float = 2.0
    alpha_cos: float = 1.0
    temperature: float = 2.0
    # Which hidden states the cosine compares. DistilBERT compares the last; after half an epoch of SST-2 an ALBERT that
    # met the teacher at every layer had 91.2 % of the held-out texts right, one that met it at the last 90.5 %.
    match: str = "every"
    epochs: float | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    dropout: float | None = None
    max_length: int = 128
    patience: int = 8  # evaluations on the held-out texts without a better one
    seed: int = 0
    threads: int = 0  # 0: as torch decides
    precision: str = "auto"
    dtype: str = "fp32"  # of the saved weights
    force: bool = False
    resume: bool = False
    scheme: str | None = None  # train the teacher itself to these weights, instead of a smaller student
    pairs: bool = False  # with `scheme`: the teacher was trained on pairs

    @property
    def work(self) -> Path:
        """The folder beside `out` that holds the report, the log and what --resume needs."""
        return self.out.with_name(f"{self.out.name}-training")

    @property
    def chosen_epochs(self) -> float:
        return self.epochs or (EPOCHS_TO_SCHEME if self.scheme else EPOCHS)

    @property
    def chosen_learning_rate(self) -> float:
        return self.learning_rate or LEARNING_RATE[self.student]

    @property
    def chosen_dropout(self) -> float:
        return DROPOUT[self.student] if self.dropout is None else self.dropout


def describe_command(options: DistillOptions) -> str:
    """The command line of these options, quoted for a shell: what is needed, and what differs from the defaults."""
    words = ["pocketbert", "distill"]
    for each in fields(options):
        value = getattr(options, each.name)
        if each.default is MISSING or value != each.default:
            words += _as_words(f"--{each.name.replace('_', '-')}", each.name, value)
    return shlex.join(words)


def _as_words(flag: str, name: str, value: Any) -> Iterator[str]:
    if value is True:
        yield flag
    elif name == "columns":
        yield from (flag, ",".join(value))
    else:
        for each in value if isinstance(value, tuple) else (value,):
            yield from (flag, str(each))


def check_scheme(options: DistillOptions) -> None:
    """Raises DistillError for what does not go with a teacher that is trained to a scheme itself."""
    if options.scheme != FOUR_BIT_SCHEME:
        raise DistillError(f"--scheme {options.scheme!r} is unknown here: use {FOUR_BIT_SCHEME}")
    default = DistillOptions(options.teacher, "", options.data, options.out)
    for name in OF_STUDENTS:
        if getattr(options, name) != getattr(default, name):
            raise DistillError(f"--scheme trains the teacher itself: leave --{name.replace('_', '-')} out")
    if not 0 < options.held_out < 1:
        raise DistillError(f"--held-out {options.held_out:g} must be a share between 0 and 1, such as 0.05")
    _check_out(options)


def check_options(options: DistillOptions) -> None:
    """Raises DistillError for a value that no teacher or data could make right."""
    if options.pairs:
        raise DistillError("students read one text: --pairs goes with --scheme")
    for name, allowed in (
        ("student", STUDENTS),
        ("match", LAYERS_MATCHED),
        ("labels", LABEL_SOURCES),
        ("precision", PRECISIONS),
        ("dtype", SAVED_TYPES),
    ):
        value = getattr(options, name)
        if value not in allowed:
            raise DistillError(f"--{name} {value!r} is unknown: use {' or '.join(allowed)}")
    if options.vocab_size and options.tokenizer:
        raise DistillError("--vocab-size prunes the teacher's vocabulary, --tokenizer replaces it: pass one of them")
    if options.temperature <= 0:
        raise DistillError(f"--temperature {options.temperature:g} must be more than 0")
    if min(options.alpha_ce, options.alpha_label, options.alpha_cos) < 0:
        raise DistillError("the weights of the loss cannot be negative")
    if not 0 < options.held_out < 1:
        raise DistillError(f"--held-out {options.held_out:g} must be a share between 0 and 1, such as 0.05")
    _check_out(options)


def _check_out(options: DistillOptions) -> None:
    if options.resume:
        return
    for folder in (options.out, options.work):
        if folder.exists() and not options.force:
            raise DistillError(
                f"{folder} exists: choose another --out, or pass --resume to go on or --force to replace"
            )
    for folder, kind, files in (
        (options.out, "checkpoint", ("config.json",)),
        (options.work, "training", ("training.json", "state.pt")),
    ):
        if folder.exists() and not any((folder / file).exists() for file in files):
            raise DistillError(f"{folder} is not a {kind} and is not replaced: choose another --out")
