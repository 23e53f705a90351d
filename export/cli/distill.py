"""`pocketbert distill`: what the terminal shows while a student learns.

Takes the command's arguments. Prints a progress bar, a closing table, and what to do next.
Leaves out: the work (distill/job.py). Imports no torch until the command runs.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pocketbert.export.distill.options import (
    DROPOUT,
    EPOCHS,
    EPOCHS_TO_SCHEME,
    LEARNING_RATE,
    DistillOptions,
    check_scheme,
)
from pocketbert.runtime.check.datasets import split_columns
from pocketbert.runtime.cli.exit_status import INTERRUPTED
from pocketbert.runtime.cli.output import plain_console
from pocketbert.runtime.cli.progress import Bars
from pocketbert.runtime.errors import PocketbertError

if TYPE_CHECKING:
    from pocketbert.export.distill.job import DistillResult

DEFAULT = DistillOptions("", "", (), Path())


def distill(
    teacher: Annotated[str, typer.Option(help="Folder or hub id of a BERT, DistilBERT or ALBERT classifier.")],
    data: Annotated[
        list[Path], typer.Option(help=".tsv, .csv, .jsonl with text and label, .txt with texts; repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; the report goes to OUT-training beside it.")],
    student: Annotated[str | None, typer.Option(help="distilbert or albert.")] = None,
    scheme: Annotated[
        str | None,
        typer.Option(help="dynamic_wi4_afp32: instead of a smaller student, the teacher with 4-bit weights."),
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="With --scheme: the teacher was trained on pairs.")] = False,
    columns: Annotated[str | None, typer.Option(help="Columns of files without header, in order: label,text.")] = None,
    labels: Annotated[
        str, typer.Option(help="teacher, or data: a new head for the labels of the data.")
    ] = DEFAULT.labels,
    dev: Annotated[Path | None, typer.Option(help="Texts that choose the weights; else a share of the data.")] = None,
    held_out: Annotated[float, typer.Option(help="That share.")] = DEFAULT.held_out,
    layers: Annotated[
        int | None, typer.Option(help="Depth; half the teacher's for DistilBERT, all for ALBERT.")
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="Width, if narrower than the teacher's.")] = None,
    embedding_size: Annotated[int, typer.Option(min=2, help="Width of ALBERT's word table.")] = DEFAULT.embedding_size,
    positions: Annotated[
        int | None, typer.Option(help="Longest text that the student can ever read, in tokens.")
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Keep this many pieces of the vocabulary, the most used.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Another tokenizer.json for the student.")] = None,
    alpha_ce: Annotated[float, typer.Option(help="Weight of the teacher's softened answers.")] = DEFAULT.alpha_ce,
    alpha_label: Annotated[float, typer.Option(help="Weight of the labels.")] = DEFAULT.alpha_label,
    alpha_cos: Annotated[float, typer.Option(help="Weight of the hidden states' direction.")] = DEFAULT.alpha_cos,
    temperature: Annotated[float, typer.Option(help="How much answers are softened.")] = DEFAULT.temperature,
    match: Annotated[
        str, typer.Option(help="Hidden states to compare: of the last or of every layer.")
    ] = DEFAULT.match,
    epochs: Annotated[
        float | None,
        typer.Option(min=0, help=f"Times that each text is shown: {EPOCHS:g}, with --scheme {EPOCHS_TO_SCHEME:g}."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULT.batch_size,
    learning_rate: Annotated[
        float | None, typer.Option(help=", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATE.items()))
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(min=0, max=1, help=", ".join(f"{share:g} for {name}" for name, share in DROPOUT.items())),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Longer texts are cut, in tokens.")] = DEFAULT.max_length,
    patience: Annotated[
        int, typer.Option(min=1, help="Stop after this many evaluations (4 an epoch) without a better one.")
    ] = DEFAULT.patience,
    seed: Annotated[int, typer.Option(help="Same seed, threads and machine: same bits.")] = DEFAULT.seed,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes all cores.")] = DEFAULT.threads,
    precision: Annotated[
        str, typer.Option(help="auto, bf16 or fp32; auto is bf16 where the hardware has it.")
    ] = DEFAULT.precision,
    dtype: Annotated[str, typer.Option(help="fp32 or fp16: how the weights are saved.")] = DEFAULT.dtype,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, bit for bit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at --out.")] = False,
) -> None:
    """Distil a classifier into a smaller DistilBERT or ALBERT with the same labels."""
    try:
        from pocketbert.export.distill import job
    except ImportError as problem:
        raise PocketbertError(f"distill needs more packages: pip install 'pocketbert[train]' ({problem})") from problem
    options = DistillOptions(
        teacher=teacher,
        student=student or "",
        data=tuple(data),
        out=out,
        columns=split_columns(columns),
        labels=labels,
        dev=dev,
        held_out=held_out,
        layers=layers,
        hidden=hidden,
        embedding_size=embedding_size,
        positions=positions,
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        alpha_ce=alpha_ce,
        alpha_label=alpha_label,
        alpha_cos=alpha_cos,
        temperature=temperature,
        match=match,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        dropout=dropout,
        max_length=max_length,
        patience=patience,
        seed=seed,
        threads=threads,
        precision=precision,
        dtype=dtype,
        resume=resume,
        force=force,
        scheme=scheme,
        pairs=pairs,
    )
    if scheme:
        _train_to_scheme(options)
        return
    if student is None:
        raise PocketbertError("pass --student distilbert or albert, or --scheme to keep the teacher's shape")
    console = plain_console(stderr=True)
    with Bars(console, lines=True) as progress:
        ready = job.prepare(options, progress)
        for note in ready.splits.notes:
            console.print(note, soft_wrap=True)
        with Interrupt(console) as interrupt:
            result = job.distill(ready, progress, interrupt.is_set)
    _conclude(result, plain_console())


def _train_to_scheme(options: DistillOptions) -> None:
    from pocketbert.export.distill.four_bits import train_to_four_bits

    check_scheme(options)
    with Bars(plain_console(stderr=True), lines=True) as progress:
        trained = train_to_four_bits(options, progress)
    console = plain_console()
    console.print(
        f"{trained.out}: {trained.texts:,} texts, {trained.steps:,} steps, {trained.seconds / 60:.1f} min; held-out "
        f"texts are {trained.after:.4f} from the teacher, {trained.before:.4f} as calibrated",
        soft_wrap=True,
    )
    console.print(
        f"Try: pocketbert export {trained.out} --scheme {options.scheme} --out {trained.out}-bundle", soft_wrap=True
    )


class Interrupt:
    """Ctrl-C as a request to stop; the second one is an exception as ever."""

    def __init__(self, console: Console) -> None:
        self.console, self.asked = console, False

    def is_set(self) -> bool:
        return self.asked

    def __enter__(self) -> Interrupt:
        self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def _ask(self, *signal_and_frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.console.print("Stopping after this step; Ctrl-C again stops at once.")


def _conclude(result: DistillResult, console: Console) -> None:
    job = result.job
    _print_table(result, console)
    out, work = job.options.out, job.options.work
    console.print(f"Curves: {work / 'report.html'}", soft_wrap=True)
    if result.outcome == "stopped":
        console.print(
            f"Interrupted: {out} holds the best so far; the same command with --resume goes on.", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED)
    console.print(f"Try: pocketbert export {out} --out {out}-bundle", soft_wrap=True)


def _print_table(result: DistillResult, console: Console) -> None:
    job, facts = result.job, result.job.facts
    title = f"{job.options.out}: {facts['student']} from {facts['teacher']}, {job.state.seconds / 60:.1f} min"
    console.print(title, soft_wrap=True)
    table = Table("", "teacher", "student", box=box.SIMPLE_HEAD)
    for name, (teacher, student) in facts["sizes"].items():
        table.add_row(name, f"{teacher:,}", f"{student:,}")
    table.add_row("held-out accuracy", _percent(result.teacher_accuracy), _percent(result.accuracy))
    if result.teacher_accuracy and result.accuracy is not None:
        table.add_row("kept", "", _percent(result.accuracy / result.teacher_accuracy))
    console.print(table)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
