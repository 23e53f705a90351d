"""What a check found, as JSON and as one HTML page that needs no network.

Takes a `Check` and its gates. Gives `describe`, the figures as plain data (check.schema.json documents them),
and two writers. Leaves out: the terminal's table (check_cli.py).

The page is report.html.jinja: drawings are SVG, placed in it from the numbers that `_drawings` gives.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime import bench_page, gap, page
from pocketbert.runtime.classifier import probabilities
from pocketbert.runtime.gates import Gate, missed
from pocketbert.runtime.parity import CHECKPOINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.parity import Check, Engine

REPORT_VERSION = 1  # of the JSON, as check.schema.json has it
TEXT_SHOWN = 300  # characters of a text in a report; a line more tells nobody more
STDOUT = Path("-")
TEMPLATE = Path(__file__).with_name("report.html.jinja")
AT_LEAST = "agreement"  # the one gate whose limit is a minimum
SIDE = 200  # of a scatter plot, in SVG units
DOTS = 2000  # more in one plot are a smear; the flips among them are always drawn
DRIFT_EDGES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1)  # about three bars to a factor of ten
MATRIX = 8  # labels that a confusion matrix can show on a phone; with more, the worst confusions are listed
CONFUSIONS = 12
FLIPS = 100  # listed on the page for one engine; the JSON has them all


def describe(check: Check, gates: Sequence[Gate], require_all: bool = False) -> dict[str, Any]:
    """The figures as plain data, ready for JSON."""
    data, manifest = check.questions.data, check.manifest
    return {
        "report_version": REPORT_VERSION,
        "verdict": "missed" if missed(gates, require_all) else "passed",
        "bundle": {
            "folder": str(check.folder),
            "architecture": manifest.architecture,
            "scheme": manifest.scheme,
            "labels": list(manifest.labels),
            "multi_label": manifest.multi_label,
            "source": manifest.source["name"],
            "weights_sha256": manifest.source["weights_sha256"],
        },
        "checkpoint": check.checkpoint,
        "checkpoint_accuracy": check.accuracy(data.reference[CHECKPOINT] if data and data.reference else None),
        "data": _data(check),
        "basis": check.questions.basis.name,
        "gates": [{**asdict(gate), "status": gate.status, "line": str(gate)} for gate in gates],
        "engines": [_engine(check, engine) for engine in check.engines],
        "between": [{"engines": [one.name, other.name], **_gap(found)} for one, other, found in check.between()],
    }


def write_json(result: Mapping[str, Any], target: Path) -> None:
    """Writes `result` to a file, or to stdout for `-`."""
    content = json.dumps(result, indent=1, allow_nan=False) + "\n"  # ASCII: a lone surrogate has no UTF-8
    if target == STDOUT:
        sys.stdout.write(content)
    else:
        page.write_whole(target, content)


def write_html(
    result: Mapping[str, Any], check: Check, target: Path, measured: Mapping[str, Any] | None = None
) -> None:
    """Writes the page; `measured` is what `pocketbert bench --json` wrote."""
    page.write(
        target,
        TEMPLATE,
        result=result,
        counts=Counter(gate["status"] for gate in result["gates"]),
        gate_rows=_gate_rows(result),
        drawings=_drawings(check),
        show=_show,
        confusions=_confusions,
        matrix=MATRIX,
        flips_listed=FLIPS,
        side=SIDE,
        dots=DOTS,
        measured=measured,
        latency=bench_page.plots(measured) if measured else [],
    )


def _data(check: Check) -> dict[str, Any] | None:
    if check.data is None:
        return None
    return {
        "file": check.data.name,
        "texts": len(check.data.texts),
        "rows": check.data.rows,
        "label_rule": check.data.rule,
        "skipped": dict(check.data.skipped),
    }


def _engine(check: Check, engine: Engine) -> dict[str, Any]:
    answers, artifact = engine.answers, engine.artifact
    steady = ("texts_per_second", "padding_drift", "repeat_drift", "concurrent_drift")
    return {
        "name": engine.name,
        "version": engine.version or None,
        "error": engine.error or None,
        "artifact": {
            "path": artifact.path,
            "bytes": artifact.bytes,
            "parts": dict(artifact.parts),
            "activations": artifact.activations,
        },
        **{figure: getattr(answers, figure) if answers else None for figure in steady},
        "accuracy": check.accuracy(answers.data if answers else None),
        "gaps": {name: _gap(found) for name, found in check.gaps(engine).items()},
        "lengths": [{"tokens": tokens, "drift": drift} for tokens, drift in check.sweep_drift(engine)],
        "confusion": _confusion(check, engine),
        "flips": list(_flips(check, engine)),
    }


def _gap(found: gap.Gap) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of equal logits is null."""
    return {**asdict(found), "psnr": found.psnr if math.isfinite(found.psnr) else None}


def _confusion(check: Check, engine: Engine) -> list[list[int]] | None:
    data, answers = check.questions.data, engine.answers
    if check.manifest.multi_label or data is None or data.labels is None or answers is None or answers.data is None:
        return None
    return gap.confusion(answers.data, data.labels).tolist()  # type: ignore[no-any-return]


def _flips(check: Check, engine: Engine) -> Iterator[dict[str, Any]]:
    """The texts that the artifact answers otherwise than the checkpoint, with both answers."""
    basis, several = check.questions.basis, check.manifest.multi_label
    if engine.answers is None or basis.reference is None:
        return
    found, expected = check.logits(engine.answers), basis.reference[CHECKPOINT]
    differ = (gap.answers(found, several) != gap.answers(expected, several)).any(axis=1)
    for row in np.flatnonzero(differ).tolist():
        yield {
            "text": basis.texts[row][:TEXT_SHOWN],
            "label": None if basis.labels is None else _names(check, basis.labels[row]),
            "checkpoint": _answer(check, expected[row : row + 1]),
            "artifact": _answer(check, found[row : row + 1]),
        }


def _names(check: Check, holds: NDArray[np.bool_]) -> list[str]:
    return [check.manifest.labels[index] for index in np.flatnonzero(holds)]


def _answer(check: Check, logits: NDArray[np.float32]) -> dict[str, Any]:
    """The answer to one text, and the probability of its best label."""
    several = check.manifest.multi_label
    names = _names(check, gap.answers(logits, several)[0])
    return {"labels": names, "probability": float(probabilities(logits, several).max())}


# The page: gates as a table of engines, and the numbers behind each drawing.


def _gate_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each gate: a cell for each engine, or one cell for what is not an engine's own."""
    engines = [engine["name"] for engine in result["engines"]]
    rows: dict[str, dict[str, Any]] = {}
    for gate in result["gates"]:
        own = gate["engine"] in engines
        title = gate["name"] if own or not gate["engine"] else f"{gate['name']}, {gate['engine']}"
        row = rows.setdefault(title, {"title": title, "limit": _limit(gate), "cells": {}, "whole": None})
        if own:
            row["cells"][gate["engine"]] = gate
        else:
            row["whole"] = gate
    return list(rows.values())


def _limit(gate: Mapping[str, Any]) -> str:
    sign = "≥" if gate["name"] == AT_LEAST else "≤"
    unit = " points" if gate["name"] == "accuracy drop" else ""
    return "" if gate["name"] == "answers" else f"{sign} {_show(gate['name'], gate['limit'])}{unit}"


def _show(gate: str, value: float | None) -> str:
    """A gate's value in its unit."""
    if value is None:
        return ""
    if gate == AT_LEAST:
        return f"{value:.2%}"
    return f"{value:.2f}" if gate == "accuracy drop" else f"{value:.2g}"


def _drawings(check: Check) -> dict[str, dict[str, Any]]:
    """What to draw for each engine that answered."""
    basis, several = check.questions.basis, check.manifest.multi_label
    drawings = {}
    for engine in check.engines:
        if engine.answers is not None and basis.reference is not None:
            found, expected = check.logits(engine.answers), basis.reference[CHECKPOINT]
            drawings[engine.name] = {
                "scatter": _scatter(found, expected, several),
                "histogram": _histogram(gap.drift(found, expected, several)),
            }
    return drawings


def _scatter(found: NDArray[np.float32], expected: NDArray[np.float32], several: bool) -> dict[str, Any]:
    """SVG paths of dots in a unit square: the same label's probability by checkpoint and by artifact."""
    flipped = (gap.answers(found, several) != gap.answers(expected, several)).any(axis=1)
    x, y = (_followed(probabilities(logits, several), expected) for logits in (expected, found))
    kept = np.flatnonzero(~flipped)
    drawn = kept[:: -(-len(kept) // DOTS)] if len(kept) else kept
    return {"dots": _dots(x[drawn], y[drawn]), "flips": _dots(x[flipped], y[flipped])}


def _followed(probabilities: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of two labels the second; of more, whichever the checkpoint answers."""
    if probabilities.shape[1] == 2:
        return probabilities[:, 1]
    return probabilities[np.arange(len(probabilities)), expected.argmax(axis=1)]


def _dots(x: NDArray[np.float32], y: NDArray[np.float32]) -> str:
    """Strokes of no length, which round caps turn into dots; SVG's y points down."""
    return "".join(f"M{a * SIDE:.1f} {(1 - b) * SIDE:.1f}h0" for a, b in zip(x, y, strict=True))


def _histogram(drift: NDArray[np.float32]) -> list[dict[str, Any]]:
    counts, _ = np.histogram(drift, [0, *DRIFT_EDGES, 1])
    names = [f"< {DRIFT_EDGES[0]:g}", *(f"≥ {edge:g}" for edge in DRIFT_EDGES)]
    return [{"name": name, "count": int(n), "share": n / len(drift)} for name, n in zip(names, counts, strict=True)]


def _confusions(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> list[tuple[int, str, str]]:
    """The most frequent wrong answers: how often, the truth, the answer."""
    wrong = [
        (counts[i][j], truth, answer)
        for i, truth in enumerate(labels)
        for j, answer in enumerate(labels)
        if i != j and counts[i][j]
    ]
    return sorted(wrong, key=lambda entry: -entry[0])[:CONFUSIONS]
