"""What a comparison found, as plain data and as a page with plots.

Takes a `Comparison`. Gives `describe`, ready for JSON, and a writer of HTML.
Leaves out: the terminal's table (cli.py) and drawing (drawing.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketbert.export.compare.job import TYPICAL, Comparison, Format, Row
from pocketbert.runtime import page
from pocketbert.runtime.drawing import Plot, Series, draw

TEMPLATE = Path(__file__).with_name("report.html.jinja")
REPORT_VERSION = 1
MB = 1_000_000


def describe(comparison: Comparison) -> dict[str, Any]:
    """Every figure; `relative` ones are to the first checkpoint."""
    return {
        "report_version": REPORT_VERSION,
        "data": comparison.data,
        "texts": comparison.texts,
        "threads": comparison.threads,
        "lengths": list(comparison.lengths),
        "checkpoints": [_row(row, comparison.rows[0]) for row in comparison.rows],
    }


def _row(row: Row, first: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "architecture": row.architecture,
        "method": row.method,
        "layers": row.layers,
        "layers_stored": row.layers_stored,
        "parameters": row.parameters,
        "parameters_executed": row.parameters_executed,
        "relative_parameters": row.parameters / first.parameters,
        "fp32_bytes": row.fp32_bytes,
        "multiply_adds": {str(length): count for length, count in row.multiply_adds.items()},
        "accuracy": row.accuracy,
        "accuracy_kept": _kept(row.accuracy, first.accuracy),
        "formats": {name: _format(found, first.formats[name], first.accuracy) for name, found in row.formats.items()},
    }


def _format(found: Format, first: Format, accuracy: float | None) -> dict[str, Any]:
    milliseconds = found.measured.milliseconds if found.measured else {}
    of_first = first.measured.milliseconds if first.measured else {}
    return {
        "bytes": found.bytes,
        "milliseconds": {str(length): ms for length, ms in milliseconds.items()},
        "relative_time": {
            str(length): ms / of_first[length] for length, ms in milliseconds.items() if length in of_first
        },
        "resident_mb": found.measured.resident_mb if found.measured else None,
        "accuracy": found.accuracy,
        "accuracy_kept": _kept(found.accuracy, accuracy),
    }


def _kept(accuracy: float | None, first: float | None) -> float | None:
    return accuracy / first if accuracy is not None and first else None


def write_html(result: Mapping[str, Any], target: Path) -> None:
    """Writes the page. Raises PocketbertError."""
    page.write(target, TEMPLATE, result=result, plots=_plots(result), typical=str(typical(result)))


def typical(result: Mapping[str, Any]) -> int:
    """The length of which a table speaks."""
    return TYPICAL if TYPICAL in result["lengths"] else int(max(result["lengths"]))


def _plots(result: Mapping[str, Any]) -> list[Plot]:
    plots = []
    if result["data"]:
        plots.append(draw("Accuracy over size", "MB", "accuracy", _accuracies(result), percent=True))
    engines = {name for row in result["checkpoints"] for name, found in row["formats"].items() if found["milliseconds"]}
    for engine in sorted(engines):
        lines = [
            Series(row["name"], [(int(n), ms) for n, ms in row["formats"][engine]["milliseconds"].items()])
            for row in result["checkpoints"]
        ]
        plots.append(draw(f"Latency over length, {engine}", "tokens", "ms", lines, zero=True))
    return plots


def _accuracies(result: Mapping[str, Any]) -> list[Series]:
    """A line for each checkpoint, from the largest file that holds it to the smallest."""
    series = []
    for row in result["checkpoints"]:
        points = [(row["fp32_bytes"] / MB, row["accuracy"])]
        points += [(f["bytes"] / MB, f["accuracy"]) for f in row["formats"].values() if f["accuracy"] is not None]
        series.append(Series(row["name"], sorted(points, reverse=True)))
    return series
