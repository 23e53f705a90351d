"""`pocketbert compare`: what the terminal shows of checkpoints side by side.

Takes the command's arguments. Gives a table, JSON, a page.
Leaves out: the work (job.py) and the page (report.py). Imports no torch until the command runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketbert.runtime.data import split_columns
from pocketbert.runtime.errors import PocketbertError

DEFAULT_FORMATS = "tflite,executorch,coreml"
STDOUT = Path("-")
MB = MILLION = 1_000_000


def compare(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Folders or hub ids; none: BERT, DistilBERT and ALBERT base, random.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help=".tsv, .csv or .jsonl with the columns text and label.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of a file without header, in order: label,text.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N rows of the data.")] = None,
    formats: Annotated[str, typer.Option(help="Comma-separated.")] = DEFAULT_FORMATS,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine.")] = 2,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots: c.html.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write all figures: c.json, or - for stdout.")] = None,
) -> None:
    """Set checkpoints side by side: sizes, work, speed, memory and accuracy, relative to the first."""
    from rich.console import Console

    for target in filter(None, (report, as_json)):
        if target != STDOUT and not os.access(target.parent, os.W_OK):
            raise PocketbertError(f"cannot write {target}: {target.parent} is not a folder that can be written to")
    try:
        from pocketbert.export.compare import job
        from pocketbert.export.compare import report as pages
    except ImportError as problem:
        raise PocketbertError(f"compare needs more packages: pip install 'pocketbert[export]' ({problem})") from problem
    chosen = tuple(name.strip() for name in formats.split(",") if name.strip())
    options = job.Options(tuple(checkpoints or ()), data, split_columns(columns), limit, chosen, threads)
    console = Console(stderr=True)
    with console.status("Reading checkpoints") as status:
        result = pages.describe(job.compare(options, _teller(console, status)))
    if report:
        pages.write_html(result, report)
    if as_json == STDOUT:
        print(json.dumps(result, indent=1))
        return
    if as_json:
        as_json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(result, str(pages.typical(result)))


def _teller(console: Any, status: Any) -> Any:
    """The work at hand: a spinner, or a line where there is no terminal."""
    return status.update if console.is_terminal else lambda doing: console.print(doing, highlight=False, markup=False)


def _print(result: Mapping[str, Any], length: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = result["checkpoints"]
    judged = f", {result['texts']} texts of {result['data']}" if result["data"] else ""
    table = Table(
        title=f"{length} tokens, {result['threads']} threads{judged}", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(row["name"], justify="right", overflow="fold")
    for line in _lines(rows, length):
        table.add_row(*line)
    Console(emoji=False).print(table)


def _lines(rows: list[Mapping[str, Any]], length: str) -> Iterator[list[str]]:
    yield ["compression", *(row["method"] for row in rows)]
    yield ["layers run, stored", *(f"{row['layers']}, {row['layers_stored']}" for row in rows)]
    yield ["parameters", *(f"{row['parameters'] / MILLION:.1f} M ({row['relative_parameters']:.0%})" for row in rows)]
    yield ["executed", *(f"{row['parameters_executed'] / MILLION:.1f} M" for row in rows)]
    yield ["fp32 size", *(f"{row['fp32_bytes'] / MB:.1f} MB" for row in rows)]
    yield ["multiply-adds", *(f"{row['multiply_adds'][length] / MILLION:,.0f} M" for row in rows)]
    if rows[0]["accuracy"] is not None:
        yield ["accuracy, fp32 (kept)", *(_kept(row) for row in rows)]
    for name in rows[0]["formats"]:
        yield from _format_lines(name, [row["formats"][name] for row in rows], length)


def _format_lines(name: str, found: list[Mapping[str, Any]], length: str) -> Iterator[list[str]]:
    yield [f"{name}: int8 size", *(f"{one['bytes'] / MB:.1f} MB" for one in found)]
    if not all(one["milliseconds"] for one in found):
        return
    times = [(one["milliseconds"][length], one["relative_time"][length]) for one in found]
    yield [f"{name}: latency", *(f"{ms:.2f} ms (×{relative:.2f})" for ms, relative in times)]
    yield [f"{name}: memory", *(f"{one['resident_mb']:.0f} MB" for one in found)]
    if found[0]["accuracy"] is not None:
        yield [f"{name}: accuracy, int8 (kept)", *map(_kept, found)]


def _kept(found: Mapping[str, Any]) -> str:
    return f"{found['accuracy']:.2%} ({found['accuracy_kept']:.1%})"
