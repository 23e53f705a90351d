"""The recipe of the two embedded demo checkpoints: `pocketbert distill`, twice, on SST-2 and invented sentences.

Takes a folder with SST-2's train.tsv (columns text, label) and a DistilBERT classifier of NEGATIVE and POSITIVE.
Leaves WORK/distilbert and WORK/albert, as transformers and PocketBERT read them, to be copied here.
Leaves out judging them: `pocketbert compare`, with SST-2's dev.tsv and with casual.tsv and unseen.tsv beside this file.

The road: hold out whole sentences with their phrases, invent more, train a vocabulary for each student, distill.

    python -m pocketbert.export.demo.train --data ../shared/data/sst2 \\
        --teacher ../shared/models/distilbert-l6-h384-sst2 --work demo-training
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tokenizers import Tokenizer

from pocketbert.export.atomic_directory import publish, stage
from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.demo import CHECKPOINTS, sentences, vocabularies
from pocketbert.export.distill import job
from pocketbert.export.distill.options import DistillOptions
from pocketbert.export.distill.splits import Split, hold_out
from pocketbert.runtime.check.datasets import read_dataset, read_rows
from pocketbert.runtime.cli.output import plain_console
from pocketbert.runtime.cli.progress import Bars

LABELS = ("NEGATIVE", "POSITIVE")
HELD_OUT = 0.03  # of train's rows: 2,020 choose the weights, so that dev is only reported
TEACHER_WORDS = 9000  # the teacher's most frequent words, for words no film review holds ("app", "phone")
POSITIONS = 128  # longest text the demo reads, [CLS] and [SEP] included
COMMON = {"match": "every", "positions": POSITIONS, "dtype": "fp16", "dropout": 0.0, "force": True}
Vocabulary = Callable[[Sequence[str]], Tokenizer]
STUDENTS: dict[str, tuple[Vocabulary, dict[str, Any]]] = {
    "distilbert": (vocabularies.wordpiece, {"layers": 4, "hidden": 128, "learning_rate": 1e-3, "epochs": 2.0}),
    "albert": (
        vocabularies.unigram,
        {"layers": 4, "hidden": 256, "embedding_size": 64, "learning_rate": 5e-4, "epochs": 1.0},
    ),
}


def main(
    data: Annotated[Path, typer.Option(help="Folder with train.tsv.")],
    teacher: Annotated[Path, typer.Option(help="Folder of the DistilBERT classifier to learn from.")],
    work: Annotated[Path, typer.Option(help="Folder for texts, vocabularies and the trained students.")],
    only: Annotated[str | None, typer.Option(help="distilbert or albert: train this one alone.")] = None,
    keep_vocabulary: Annotated[bool, typer.Option(help="Use the embedded checkpoints' tokenizers.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, threads and machine: same bytes.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 takes all cores.")] = 0,
) -> None:
    """Train the embedded demo checkpoints anew."""
    files = write_texts(data / "train.tsv", teacher, work, seed)
    for name in [only] if only else STUDENTS:
        train_vocabulary, shape = STUDENTS[name]
        tokenizer = CHECKPOINTS[name] / "tokenizer.json"
        if not keep_vocabulary:
            tokenizer = write_tokenizer(train_vocabulary, files, work / "vocabularies" / name)
        options = DistillOptions(
            teacher=str(teacher),
            student=name,
            data=(files["train"], files["invented"]),
            dev=files["held_out"],
            out=work / name,
            tokenizer=tokenizer,
            seed=seed,
            threads=threads,
            **{**COMMON, **shape},
        )
        with Bars(plain_console(stderr=True), lines=True) as progress:
            result = job.distill(job.prepare(options, progress), progress)
        print(f"{options.out}: {result.accuracy:.2%} of the held-out texts, curves in {options.work}")


def write_texts(source: Path, teacher: Path, work: Path, seed: int) -> dict[str, Path]:
    """The files that distill reads: SST-2 to learn from, SST-2 held out, and the invented sentences."""
    found = read_dataset(source, LABELS)
    whole = Split(found.texts, found.labels, np.ones(len(found.texts), np.bool_))
    train, held_out = hold_out(whole, HELD_OUT, seed)
    rng = random.Random(seed)
    invented = sentences.invent(list(train.texts), frequent_words(teacher), rng)
    with stage(work / "texts") as staging:
        for name, part in (("train", train), ("held_out", held_out)):
            rows = zip(part.texts, part.labels.argmax(axis=1), strict=True)
            lines = [f"{either(text, rng)}\t{LABELS[label]}" for text, label in rows]
            (staging / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
        (staging / "invented.txt").write_text("\n".join(either(text, rng) for text in invented), encoding="utf-8")
        publish(staging, work / "texts", replace=True)
    return {file.stem: file for file in (work / "texts").iterdir()}


def either(text: str, rng: random.Random) -> str:
    """The text as SST-2 spells it, or as a phone user types it."""
    return rng.choice([text, sentences.typed(text) or text])


def frequent_words(teacher: Path) -> list[str]:
    """bert-base-uncased lists its vocabulary by frequency."""
    tokenizer = load_checkpoint(teacher).tokenizer
    pieces = (str(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size()))
    return [piece for piece in pieces if re.fullmatch("[a-z]{3,}", piece)][:TEACHER_WORDS]


def write_tokenizer(train_vocabulary: Vocabulary, files: dict[str, Path], folder: Path) -> Path:
    """Trains a vocabulary on what the student will learn from, in both spellings."""
    lines = [row.text for name in ("train", "invented") for row in read_rows(files[name], unlabelled=True)[0]]
    folder.mkdir(parents=True, exist_ok=True)
    train_vocabulary([*lines, *map(sentences.typed, lines)]).save(str(folder / "tokenizer.json"), pretty=False)
    return folder / "tokenizer.json"


if __name__ == "__main__":
    typer.run(main)
