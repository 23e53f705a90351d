"""`pocketbert distill`: what the terminal shows while a student learns.

Takes the command's arguments. Gives a progress bar, a closing table, and what to do next.
Leaves out: the work (job.py). Imports no torch until the command runs.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.export.distill.options import DROPOUT, LEARNING_RATE, Options
from pocketbert.runtime.data import split_columns
from pocketbert.runtime.errors import PocketbertError

if TYPE_CHECKING:
    from rich.console import Console

    from pocketbert.export.distill.job import Job, Result
    from pocketbert.export.distill.train import Look, Run

DEFAULT = Options("", "", (), Path())
INTERRUPTED = 130  # 128 + SIGINT, what shells expect
SMOOTH = 0.98  # weight of the past in the loss that is shown


def distill(
    teacher: Annotated[str, typer.Option(help="Folder or hub id of a BERT, DistilBERT or ALBERT classifier.")],
    student: Annotated[str, typer.Option(help="distilbert or albert.")],
    data: Annotated[
        list[Path], typer.Option(help=".tsv, .csv, .jsonl with text and label, .txt with texts; repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; the report goes to OUT-training beside it.")],
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
    epochs: Annotated[float, typer.Option(min=0, help="Times that each text is shown.")] = DEFAULT.epochs,
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
        int, typer.Option(min=1, help="Stop after this many looks (4 an epoch) without a better one.")
    ] = DEFAULT.patience,
    seed: Annotated[int, typer.Option(help="Same seed, threads and machine: same bits.")] = DEFAULT.seed,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes all cores.")] = DEFAULT.threads,
    precision: Annotated[
        str, typer.Option(help="auto, bf16 or fp32; auto is bf16 where the hardware has it.")
    ] = "auto",
    dtype: Annotated[str, typer.Option(help="fp32 or fp16: how the weights are saved.")] = DEFAULT.dtype,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, bit for bit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at --out.")] = False,
) -> None:
    """Distil a classifier into a smaller DistilBERT or ALBERT with the same labels."""
    values = {name: value for name, value in locals().items() if value is not None}
    options = Options(**{**values, "data": tuple(data), "columns": split_columns(columns)})
    try:
        from pocketbert.export.distill import job
    except ImportError as problem:
        raise PocketbertError(f"distill needs more packages: pip install 'pocketbert[train]' ({problem})") from problem
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("Reading the teacher and the texts") if console.is_terminal else _Silence():
        ready = job.prepare(options, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    for note in ready.source.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    with _Bar(ready, console) as watch:
        result = job.distill(ready, watch)
    _conclude(result, Console())


class _Silence:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class _Bar:
    """A bar with loss, accuracy, texts per second and time left; without a terminal a line for each look."""

    def __init__(self, job: Job, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.job, self.console, self.stopped, self.loss, self.rate = job, console, False, 0.0, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Progress(
            *columns, TextColumn("{task.fields[doing]}"), console=console, disable=not console.is_terminal
        )
        self.task = self.bars.add_task(job.options.student, total=job.plan.steps, doing="", start=False)
        self.accuracy = ""

    def __enter__(self) -> Any:
        self.bars.start()
        self.before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)
        self.bars.stop()

    def _interrupt(self, *signal_and_frame: object) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        self.console.print("Stopping after this step; Ctrl-C again stops at once.")

    def stepped(self, run: Run, losses: Mapping[str, float], texts: int) -> None:
        if not self.rate:
            self.bars.start_task(self.task)
        self.loss = SMOOTH * self.loss + (1 - SMOOTH) * losses["loss"] if self.loss else losses["loss"]
        self.rate = run.step * self.job.options.batch_size / max(run.seconds, 1e-9)
        doing = f"loss {self.loss:.3f}  {self.accuracy}{self.rate:,.0f} texts/s"
        self.bars.update(self.task, completed=run.step, doing=doing)

    def looked(self, run: Run, look: Look) -> None:
        self.accuracy = f"held out {look.accuracy:.2%}  "
        if not self.console.is_terminal:
            print(
                f"step {run.step} of {self.job.plan.steps}: loss {self.loss:.3f}, held out {look.accuracy:.2%}, "
                f"{self.rate:,.0f} texts/s, {(self.job.plan.steps - run.step) * run.seconds / run.step:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def _conclude(result: Result, console: Console) -> None:
    job = result.job
    _print_table(result, console)
    out, work = job.options.out, job.options.work
    console.print(f"Curves: {work / 'report.html'}", highlight=False, soft_wrap=True)
    if result.outcome == "stopped":
        console.print(
            f"Interrupted: {out} holds the best so far; the same command with --resume goes on.", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED)
    console.print(f"Try: pocketbert export {out} --out {out}-bundle", highlight=False, soft_wrap=True)


def _print_table(result: Result, console: Console) -> None:
    from rich import box
    from rich.table import Table

    job, facts = result.job, result.job.facts
    title = f"{job.options.out}: {facts['student']} from {facts['teacher']}, {job.run.seconds / 60:.1f} min"
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    table = Table("", "teacher", "student", box=box.SIMPLE_HEAD)
    for name, (teacher, student) in facts["sizes"].items():
        table.add_row(name, f"{teacher:,}", f"{student:,}")
    table.add_row("held-out accuracy", _percent(result.teacher_accuracy), _percent(result.accuracy))
    if result.teacher_accuracy and result.accuracy is not None:
        table.add_row("kept", "", _percent(result.accuracy / result.teacher_accuracy))
    console.print(table)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
