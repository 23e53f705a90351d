"""One HTML page about a measurement: latency over length, a table, starts and memory.

Takes what `Bench.as_json` returned, so a page can be made of a saved file too. Leaves out: the page's style (html/).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketbert.runtime.bench.measure import BENCH_VERSION
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.html.page import write_page
from pocketbert.runtime.html.svg_plot import Plot, Series, draw_plot

TEMPLATE = Path(__file__).with_name("bench.html.jinja")
MILLISECONDS = 1000


def write_html(found: Mapping[str, Any], target: Path) -> None:
    """Writes the page. Raises PocketbertError if `target` cannot be written."""
    write_page(target, TEMPLATE, found=found, plots=latency_plots(found))


def read_bench(file: Path) -> dict[str, Any]:
    """What `pocketbert bench --json` wrote. Raises PocketbertError for anything else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise PocketbertError(f"cannot read {file}: {problem}") from problem
    if not isinstance(found, dict) or found.get("bench_version") != BENCH_VERSION:
        raise PocketbertError(f"{file} is not what `pocketbert bench --json` of this version writes: measure again")
    return found


def latency_plots(found: Mapping[str, Any]) -> list[Plot]:
    """Text to label over the length, a plot for each number of threads."""
    counts = dict.fromkeys(one["subject"]["threads"] for one in found["results"])
    return [
        draw_plot(
            f"Text to label, {count} thread{'s' if count > 1 else ''}",
            "tokens",
            "ms",
            [_line(one) for one in found["results"] if one["subject"]["threads"] == count],
            zero=True,
        )
        for count in counts
    ]


def _line(one: Mapping[str, Any]) -> Series:
    latency = one["summary"]["latency"]
    points = [(int(length), figures["text_to_label_p50"] * MILLISECONDS) for length, figures in latency.items()]
    return Series(one["subject"]["engine"], points)
