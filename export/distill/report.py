"""What a training did, as JSON and as a page with its curves, in the folder beside the checkpoint.

Takes a `Run` and what stayed the same. Gives training.json and report.html.
Leaves out: the terminal (cli.py) and drawing (drawing.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pocketbert.export.distill.train import Run
from pocketbert.runtime import page
from pocketbert.runtime.drawing import Plot, Series, draw

TEMPLATE = Path(__file__).with_name("report.html.jinja")
REPORT, LOG = "report.html", "training.json"
PART_NAMES = {"loss": "whole", "soft": "teacher's answers", "label": "labels", "cosine": "hidden states"}


def write(run: Run, facts: Mapping[str, Any], folder: Path) -> None:
    """Writes both files; `facts` is plain data: command, sizes, teacher's accuracy, texts."""
    folder.mkdir(parents=True, exist_ok=True)
    best = None if run.best is None else asdict(run.best)
    log = {**facts, "best": best, "looks": [asdict(look) for look in run.looks], "curve": run.curve}
    log["steps_done"], log["seconds"] = run.step, round(run.seconds, 1)
    (folder / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    page.write(folder / REPORT, TEMPLATE, log=log, plots=_plots(run, facts))


def _plots(run: Run, facts: Mapping[str, Any]) -> list[Plot]:
    seen = [Series("student", [(look.step, look.accuracy) for look in run.looks])]
    agreed = [(look.step, look.agreement) for look in run.looks if look.agreement is not None]
    if agreed:
        seen.append(Series("agrees with the teacher", agreed))
    if facts["teacher_accuracy"] is not None and run.looks:
        ends = (run.looks[0].step, run.looks[-1].step)
        seen.append(Series("teacher", [(step, facts["teacher_accuracy"]) for step in ends]))
    losses = [
        Series(shown, [(point["step"], point[name] * facts["weights"].get(name, 1.0)) for point in run.curve])
        for name, shown in PART_NAMES.items()
    ]
    return [
        draw("Held-out texts", "step", "accuracy", seen, percent=True),
        draw("Loss, and its parts as they are weighted", "step", "loss", losses, zero=True),
    ]
