"""What a comparison found, as plain data and as a page with plots.

Takes a `Comparison`. Returns it described for JSON, and writes HTML.
Leaves out: the terminal's table (cli/compare.py) and drawing (runtime/html/).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketbert.export.compare.job import TYPICAL, ArtifactMetrics, CheckpointMetrics, Comparison
from pocketbert.runtime.html.page import write_page
from pocketbert.runtime.html.svg_plot import Plot, Series, draw_plot

TEMPLATE = Path(__file__).with_name("report.html.jinja")
REPORT_VERSION = 1
MB = 1_000_000


def describe(comparison: Comparison) -> dict[str, Any]:
    """Every figure; `relative` ones are to the first checkpoint in the first scheme."""
    return {
        "report_version": REPORT_VERSION,
        "data": comparison.data,
        "texts": comparison.texts,
        "measure": comparison.measure,
        "threads": comparison.threads,
        "lengths": list(comparison.lengths),
        "checkpoints": [_describe_checkpoint(one, comparison) for one in comparison.checkpoints],
    }


def _describe_checkpoint(found: CheckpointMetrics, comparison: Comparison) -> dict[str, Any]:
    first = comparison.checkpoints[0]
    several = len({one.scheme for one in comparison.checkpoints}) > 1
    return {
        "name": found.name,
        "scheme": found.scheme,
        "title": f"{found.name}, {found.scheme}" if several else found.name,
        "architecture": found.architecture,
        "method": found.compression,
        "layers": found.layers,
        "layers_stored": found.layers_stored,
        "parameters": found.parameters,
        "parameters_executed": found.parameters_executed,
        "relative_parameters": found.parameters / first.parameters,
        "fp32_bytes": found.fp32_bytes,
        "multiply_adds": {str(length): count for length, count in found.multiply_adds.items()},
        "accuracy": found.accuracy,
        "accuracy_kept": _kept(found.accuracy, first.accuracy),
        "formats": {
            name: _describe_artifact(one, first.formats[name], first.accuracy) for name, one in found.formats.items()
        },
    }


def _describe_artifact(found: ArtifactMetrics, first: ArtifactMetrics, accuracy: float | None) -> dict[str, Any]:
    milliseconds = found.performance.milliseconds if found.performance else {}
    of_first = first.performance.milliseconds if first.performance else {}
    return {
        "bytes": found.bytes,
        "relative_bytes": found.bytes / first.bytes,
        "milliseconds": {str(length): ms for length, ms in milliseconds.items()},
        "relative_time": {
            str(length): ms / of_first[length] for length, ms in milliseconds.items() if length in of_first
        },
        "resident_mb": found.performance.resident_mb if found.performance else None,
        "accuracy": found.quality.accuracy if found.quality else None,
        "accuracy_kept": _kept(found.quality.accuracy if found.quality else None, accuracy),
        "agreement": found.quality.agreement if found.quality else None,
    }


def _kept(accuracy: float | None, first: float | None) -> float | None:
    return accuracy / first if accuracy is not None and first else None


def write_html(result: Mapping[str, Any], target: Path) -> None:
    """Writes the page. Raises PocketbertError."""
    write_page(
        target, TEMPLATE, result=result, plots=_plots(result), title=_title(result), typical=str(typical(result))
    )


def typical(result: Mapping[str, Any]) -> int:
    """The length of which a table speaks."""
    return TYPICAL if TYPICAL in result["lengths"] else int(max(result["lengths"]))


def _plots(result: Mapping[str, Any]) -> list[Plot]:
    plots = []
    if result["data"]:
        plots.append(
            draw_plot(f"{_title(result)} over size", "MB", result["measure"], _accuracies(result), percent=True)
        )
    engines = {name for row in result["checkpoints"] for name, found in row["formats"].items() if found["milliseconds"]}
    for engine in sorted(engines):
        lines = [
            Series(row["title"], [(int(n), ms) for n, ms in row["formats"][engine]["milliseconds"].items()])
            for row in result["checkpoints"]
        ]
        plots.append(draw_plot(f"Latency over length, {engine}", "tokens", "ms", lines, zero=True))
    return plots


def _title(result: Mapping[str, Any]) -> str:
    measure: str = result["measure"]
    return measure[:1].upper() + measure[1:]


def _accuracies(result: Mapping[str, Any]) -> list[Series]:
    """A line for each column, from the largest file that holds it to the smallest."""
    series = []
    for row in result["checkpoints"]:
        points = [(row["fp32_bytes"] / MB, row["accuracy"])]
        points += [(f["bytes"] / MB, f["accuracy"]) for f in row["formats"].values() if f["accuracy"] is not None]
        series.append(Series(row["title"], sorted(points, reverse=True)))
    return series
