"""Where a command's words and figures go: the terminal, a file, or stdout for `-`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.html.page import write_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STDOUT = Path("-")
UNBOUNDED = 10_000  # columns: wider than any table
Item = TypeVar("Item")


def plain_console(stderr: bool = False) -> Console:
    """Stdout or stderr, on which text is text: labels and paths may hold what rich would take for markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def make_table(title: str, columns: Sequence[str], left: Sequence[str] = ()) -> Table:
    """A table in which nothing is cut on a narrow terminal: the first column keeps its names, others break."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for index, column in enumerate(columns):
        side: Literal["left", "right"] = "left" if index == 0 or column in left else "right"
        table.add_column(column, justify=side, no_wrap=index == 0, overflow="fold")
    return table


def print_in_parts(console: Console, items: Sequence[Item], build: Callable[[Sequence[Item]], Table]) -> None:
    """Prints `build(items)`, or where it is wider than the terminal tables of as many `items` as fit."""
    from rich.measure import Measurement

    def fits(table: Table) -> bool:
        return Measurement.get(console, console.options.update(width=UNBOUNDED), table).maximum <= console.width

    start = 0
    while start < len(items):
        tables = {end: build(items[start:end]) for end in range(len(items), start, -1)}
        start = next((end for end, table in tables.items() if fits(table)), start + 1)
        console.print(tables[start])


def check_writable(*targets: Path | None) -> None:
    """Minutes of work should not end in a folder that does not exist. Raises PocketbertError."""
    for target in targets:
        if target not in (None, STDOUT) and not os.access(target.parent, os.W_OK):
            raise PocketbertError(f"cannot write {target}: {target.parent} is not a folder that can be written to")


def write_json(result: Mapping[str, Any], target: Path, indent: int | None = 1) -> None:
    """Writes `result` to a file, or to stdout for `-`. Raises PocketbertError."""
    content = json.dumps(result, indent=indent, allow_nan=False) + "\n"  # ASCII: a lone surrogate has no UTF-8
    if target == STDOUT:
        sys.stdout.write(content)
    else:
        write_whole(target, content)
