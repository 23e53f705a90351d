"""`pocketbert check`: what the terminal shows while a bundle is compared with its checkpoint.

Takes the command's arguments. Gives a table, JSON and an HTML page if asked for, and exit status 1 with a line
for each gate that was missed. Leaves out: measuring (parity.py), judging (gates.py), the page (report.py).
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.runtime import report as pages
from pocketbert.runtime.errors import EngineError, PocketbertError
from pocketbert.runtime.gates import PERCENT, Gate, Limits, judge, missed

if TYPE_CHECKING:
    from rich.console import Console

    from pocketbert.runtime import parity
    from pocketbert.runtime.manifest import Manifest

REFERENCE = "pocketbert.reference"  # the entry point group through which the export half gives the checkpoint's logits
MISSED = 1  # exit status
DEFAULT = Limits()
MB = 1_000_000
ENGINE_COLUMNS = ("engine", "MB", "texts/s", "accuracy", "padding drift")
GAP_COLUMNS = ("engine", "gap", "agree", "drift", "max", "PSNR dB", "cosine")
# What costs the way from the checkpoint to the oracle, from there to the artifact, and all of the way.
GAP_NAMES = {
    "checkpoint_to_oracle": "quantizing",
    "oracle_to_artifact": "lowering",
    "checkpoint_to_artifact": "together",
}
TEXT_COLUMNS = ("engine", "gap")
STATUSES = ("passed", "missed", "not evaluated")


def check(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by `pocketbert export`.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="The checkpoint it was exported from: folder or hub id. Needs the export extra.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help=".tsv, .csv or .jsonl with the columns text and label.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="The columns of a file without header, in order: label,text.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N rows of the data.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Repeatable; by default all installed.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page for people: r.html.")] = None,
    bench: Annotated[Path | None, typer.Option(help="Show what `bench --json` wrote on the page too.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write all figures: r.json, or - for stdout.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine.")] = 1,
    require_all: Annotated[bool, typer.Option(help="Count a gate that cannot be evaluated as missed.")] = False,
    min_agreement: Annotated[float, typer.Option(min=0, max=1)] = DEFAULT.min_agreement,
    max_accuracy_drop: Annotated[float, typer.Option(help="Percentage points.")] = DEFAULT.max_accuracy_drop,
    max_quantization_gap: Annotated[
        float, typer.Option(help="Mean drift of probabilities, checkpoint to oracle.")
    ] = DEFAULT.max_quantization_gap,
    max_lowering_gap: Annotated[float, typer.Option(help="Mean drift, oracle to artifact.")] = DEFAULT.max_lowering_gap,
    max_lowering_peak: Annotated[float, typer.Option(help="Drift of the most moved text.")] = DEFAULT.max_lowering_peak,
    max_padding_drift: Annotated[
        float, typer.Option(help="Drift of the most moved text when padded.")
    ] = DEFAULT.max_padding_drift,
    max_repeat_drift: Annotated[
        float, typer.Option(help="Change of a logit when run again, or from several threads.")
    ] = DEFAULT.max_repeat_drift,
) -> None:
    """Prove that every artifact of a bundle still answers like the checkpoint."""
    from rich.console import Console

    from pocketbert.runtime import bench_page, parity
    from pocketbert.runtime import data as labelled
    from pocketbert.runtime import manifest as format

    limits = Limits(
        min_agreement,
        max_accuracy_drop,
        max_quantization_gap,
        max_lowering_gap,
        max_lowering_peak,
        max_padding_drift,
        max_repeat_drift,
    )
    for target in filter(None, (report, as_json)):
        _check_writable(target)
    measured = bench_page.read(bench) if bench else None
    manifest = format.read(bundle)
    names, absent = _choose(manifest, engine or ())
    named = labelled.split_columns(columns)
    texts = labelled.read(data, manifest.labels, manifest.multi_label, limit, named) if data else None
    reference = _reference(checkpoint, manifest) if checkpoint else None
    with _Bars(Console(stderr=True)) as bars:
        found = parity.check(bundle, names, texts, reference, checkpoint, threads, bars)
    found = replace(found, absent=absent)
    gates = judge(found, limits)
    result = pages.describe(found, gates, require_all)
    if as_json:
        pages.write_json(result, as_json)
    if report:
        pages.write_html(result, found, report, measured)
    if as_json != pages.STDOUT:
        _print(result, Console(emoji=False))
    _exit(missed(gates, require_all))


def _choose(manifest: Manifest, asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """The engines to run, and the formats that none was found for. Raises EngineError, BundleError."""
    from pocketbert.runtime import engines

    for name in asked:
        engines.check_installed(manifest.artifact(name.partition(":")[0]).format)
    if asked:
        return list(dict.fromkeys(asked)), []
    formats = [artifact.format for artifact in manifest.artifacts]
    found = engines.installed(formats)
    if not found:
        raise EngineError(f"no engine for {', '.join(formats)} is installed: pip install 'pocketbert[tflite]'")
    return found, [format for format in formats if format not in found]


def _reference(checkpoint: str, manifest: Manifest) -> parity.Reference:
    """The export half's way to the checkpoint's logits. Raises EngineError where it is not installed."""
    missing = "--checkpoint needs the export half: pip install 'pocketbert[export]'"
    for plug in entry_points(group=REFERENCE):
        try:
            return partial(plug.load(), checkpoint, manifest)
        except ImportError as problem:
            raise EngineError(f"{missing} ({problem})") from problem
    raise EngineError(missing)


def _check_writable(target: Path) -> None:
    """Minutes of work should not end in a folder that does not exist."""
    if target != pages.STDOUT and not os.access(target.parent, os.W_OK):
        raise PocketbertError(f"cannot write {target}: {target.parent} is not a folder that can be written to")


def _exit(gates: Sequence[Gate]) -> None:
    """Status 1 and a line for each gate, or nothing."""
    for gate in gates:
        print(f"pocketbert: {gate}", file=sys.stderr)
    if gates:
        raise typer.Exit(MISSED)


class _Bars:
    """A bar for the checkpoint and for each engine, on stderr while the check runs."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        rate = TextColumn("{task.fields[rate]}")
        self.bars = Progress(*columns, rate, console=console, transient=True, disable=not console.is_terminal)
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> parity.Progress:
        self.bars.start()
        return self  # type: ignore[return-value]

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def start(self, stage: str, steps: int) -> None:
        self.tasks[stage] = self.bars.add_task(stage, total=steps, rate="")

    def advance(self, stage: str, steps: int = 1) -> None:
        task = self.bars.tasks[self.tasks[stage]]
        rate = f"{task.speed:,.0f} texts/s" if task.speed else ""
        self.bars.update(self.tasks[stage], advance=steps, rate=rate)


def _print(result: Mapping[str, Any], console: Console) -> None:
    if result["data"]:
        console.print(_origin(result["data"]), highlight=False, markup=False, soft_wrap=True)
    for engine in result["engines"]:
        console.print(f"{engine['name']}: {engine['version'] or engine['error']}", highlight=False, markup=False)
    console.print(_table("Engines", ENGINE_COLUMNS, _engine_rows(result)))
    gaps = list(_gap_rows(result))
    if gaps:
        console.print(_table(f"Gaps, on {result['basis']}", GAP_COLUMNS, gaps))
    for gate in result["gates"]:
        if gate["status"] == "not evaluated":  # what is missed goes to stderr
            console.print(gate["line"], style="yellow", highlight=False, markup=False, soft_wrap=True)
    counts = Counter(gate["status"] for gate in result["gates"])
    console.print("Gates: " + ", ".join(f"{counts[status]} {status}" for status in STATUSES), highlight=False)


def _origin(data: Mapping[str, Any]) -> str:
    skipped = ", ".join(f"{count} {reason}" for reason, count in data["skipped"].items()) or "none"
    return (
        f"{data['file']}: {data['texts']} of {data['rows']} rows; labels matched: {data['label_rule']}; "
        f"rows skipped: {skipped}"
    )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _engine_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for engine in result["engines"]:
        speed = "–" if engine["texts_per_second"] is None else f"{engine['texts_per_second']:,.0f}"
        size = f"{engine['artifact']['bytes'] / MB:.2f}"
        yield [engine["name"], size, speed, _percent(engine["accuracy"]), _number(engine["padding_drift"])]
    if result["checkpoint_accuracy"] is not None:
        yield ["checkpoint", "", "", _percent(result["checkpoint_accuracy"]), ""]


def _gap_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for engine in result["engines"]:
        for name, gap in engine["gaps"].items():
            psnr = "equal" if gap["psnr"] is None else f"{gap['psnr']:.1f}"
            drift = [_number(gap["mean_drift"]), _number(gap["max_drift"])]
            yield [engine["name"], GAP_NAMES[name], _percent(gap["agreement"]), *drift, psnr, f"{gap['cosine']:.6f}"]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * PERCENT:.2f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
