"""What a training did, as JSON and as a page with its curves, in the folder beside the checkpoint.

Takes a `TrainState` and what stayed the same. Returns nothing; writes training.json and report.html.
Leaves out: the terminal (cli/distill.py) and drawing (runtime/html/).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pocketbert.export.distill.train import TrainState
from pocketbert.runtime.html.page import write_page
from pocketbert.runtime.html.svg_plot import Plot, Series, draw_plot

TEMPLATE = Path(__file__).with_name("report.html.jinja")
REPORT, LOG = "report.html", "training.json"
PART_NAMES = {"loss": "whole", "soft": "teacher's answers", "label": "labels", "cosine": "hidden states"}


def write_report(state: TrainState, facts: Mapping[str, Any], folder: Path) -> None:
    """Writes both files; `facts` is plain data: command, sizes, teacher's accuracy, texts."""
    folder.mkdir(parents=True, exist_ok=True)
    best = None if state.best is None else asdict(state.best)
    log = {**facts, "best": best, "looks": [asdict(each) for each in state.evaluations], "curve": state.curve}
    log["steps_done"], log["seconds"] = state.step, round(state.seconds, 1)
    (folder / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    write_page(folder / REPORT, TEMPLATE, log=log, plots=_plots(state, facts))


def _plots(state: TrainState, facts: Mapping[str, Any]) -> list[Plot]:
    seen = state.evaluations
    lines = [Series("student", [(each.step, each.accuracy) for each in seen])]
    agreed = [(each.step, each.agreement) for each in seen if each.agreement is not None]
    if agreed:
        lines.append(Series("agrees with the teacher", agreed))
    if facts["teacher_accuracy"] is not None and seen:
        lines.append(Series("teacher", [(each.step, facts["teacher_accuracy"]) for each in (seen[0], seen[-1])]))
    losses = [
        Series(shown, [(point["step"], point[name] * facts["weights"].get(name, 1.0)) for point in state.curve])
        for name, shown in PART_NAMES.items()
    ]
    return [
        draw_plot("Held-out texts", "step", "accuracy", lines, percent=True),
        draw_plot("Loss, and its parts as they are weighted", "step", "loss", losses, zero=True),
    ]
