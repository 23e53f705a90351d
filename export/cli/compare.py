"""`pocketbert compare`: what the terminal shows of checkpoints and schemes side by side.

Takes the command's arguments. Prints a table, writes JSON and a page.
Leaves out: the work (compare/job.py) and the page (compare/report.py). Imports no torch until the command runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.runtime.check.datasets import split_columns
from pocketbert.runtime.cli.arguments import Columns, Data, Limit
from pocketbert.runtime.cli.output import STDOUT, check_writable, make_table, plain_console, print_in_parts, write_json
from pocketbert.runtime.cli.progress import Bars
from pocketbert.runtime.engines import MAX_THREADS
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import FORMATS

if TYPE_CHECKING:
    from rich.table import Table

MB = MILLION = 1_000_000
NAME_WIDTH = 17  # characters of a name in a line: a scheme's has as many
DEFAULT_SCHEME = "dynamic_wi8_afp32"  # of export, which imports torch


def compare(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Folders or hub ids; none: BERT, DistilBERT and ALBERT base, random.")
    ] = None,
    data: Data = None,
    columns: Columns = None,
    limit: Limit = None,
    formats: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(FORMATS),
    scheme: Annotated[
        list[str] | None,
        typer.Option(help=f"As `export` takes it; repeatable, each checkpoint in each. {DEFAULT_SCHEME} by default."),
    ] = None,
    calibrate: Annotated[Path | None, typer.Option(help="Texts for 4 bits, as `export` takes them.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Threads of each engine.")] = 2,
    pairs: Annotated[bool, typer.Option("--pairs", help="The checkpoints are classifiers of pairs of texts.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots: c.html.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write all figures: c.json, or - for stdout.")] = None,
) -> None:
    """Set checkpoints or schemes side by side: sizes, work, speed, memory, accuracy, relative to the first."""
    check_writable(report, as_json)
    try:
        from pocketbert.export.compare import job
        from pocketbert.export.compare.report import describe, typical, write_html
    except ImportError as problem:
        raise PocketbertError(f"compare needs more packages: pip install 'pocketbert[export]' ({problem})") from problem
    chosen = tuple(name.strip() for name in formats.split(",") if name.strip())
    options = job.CompareOptions(
        checkpoints=tuple(checkpoints or ()),
        data=data,
        columns=split_columns(columns),
        limit=limit,
        formats=chosen,
        threads=threads,
        pairs=pairs,
        schemes=tuple(scheme or (DEFAULT_SCHEME,)),
        calibrate=calibrate,
    )
    with Bars(plain_console(stderr=True), lines=True) as progress:
        result = describe(job.compare(options, progress))
    if report:
        write_html(result, report)
    if as_json:
        write_json(result, as_json)
    if as_json != STDOUT:
        _print(result, str(typical(result)))


def _print(result: Mapping[str, Any], length: str) -> None:
    rows = result["checkpoints"]
    judged = f", {result['texts']} texts of {result['data']}" if result["data"] else ""
    title = f"{length} tokens, {result['threads']} threads{judged}"

    def build(part: Sequence[Mapping[str, Any]]) -> Table:
        table = make_table(title, ("", *(fill(row["name"], NAME_WIDTH) for row in part)))
        for line in _lines(part, length, result["measure"]):
            table.add_row(*line)
        return table

    print_in_parts(plain_console(), rows, build)


def _lines(rows: Sequence[Mapping[str, Any]], length: str, measure: str) -> Iterator[list[str]]:
    yield ["scheme", *(row["scheme"] for row in rows)]
    yield ["compression", *(fill(row["method"], NAME_WIDTH) for row in rows)]
    yield ["layers run, stored", *(f"{row['layers']}, {row['layers_stored']}" for row in rows)]
    yield ["parameters", *(f"{row['parameters'] / MILLION:.1f} M ({row['relative_parameters']:.0%})" for row in rows)]
    yield ["executed", *(f"{row['parameters_executed'] / MILLION:.1f} M" for row in rows)]
    yield ["fp32 size", *(f"{row['fp32_bytes'] / MB:.1f} MB" for row in rows)]
    yield ["multiply-adds", *(f"{row['multiply_adds'][length] / MILLION:,.0f} M" for row in rows)]
    if rows[0]["accuracy"] is not None:
        yield [f"{measure}, fp32 (kept)", *(_kept(row) for row in rows)]
    for name in rows[0]["formats"]:
        yield from _format_lines(name, [row["formats"][name] for row in rows], length, measure)


def _format_lines(name: str, found: Sequence[Mapping[str, Any]], length: str, measure: str) -> Iterator[list[str]]:
    yield [f"{name}: size", *(f"{one['bytes'] / MB:.1f} MB (×{one['relative_bytes']:.2f})" for one in found)]
    if not all(one["milliseconds"] for one in found):
        return
    times = [(one["milliseconds"][length], one["relative_time"][length]) for one in found]
    yield [f"{name}: latency", *(f"{ms:.2f} ms (×{relative:.2f})" for ms, relative in times)]
    yield [f"{name}: memory", *(f"{one['resident_mb']:.0f} MB" for one in found)]
    if found[0]["accuracy"] is not None:
        yield [f"{name}: {measure} (kept)", *map(_kept, found)]
        yield [f"{name}: agreement", *(f"{one['agreement']:.2%}" for one in found)]


def _kept(found: Mapping[str, Any]) -> str:
    return f"{found['accuracy']:.2%} ({found['accuracy_kept']:.1%})"
