"""What a check found, as JSON and as one HTML page that needs no network.

Takes a `Check` and its gates. Returns `describe`, the figures as plain data (check.schema.json documents them),
and a writer of the page. Leaves out: the terminal's table (cli/check.py).

The page is report.html.jinja: drawings are SVG, placed in it from the numbers that `_drawings` returns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime.bench.page import latency_plots
from pocketbert.runtime.check.evaluation_set import CHECKPOINT
from pocketbert.runtime.check.gates import Gate, missed
from pocketbert.runtime.check.metrics import Comparison, Divergence
from pocketbert.runtime.html.page import write_page

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.check.metrics import Logits
    from pocketbert.runtime.check.parity import Check, CheckedEngine

REPORT_VERSION = 1  # of the JSON, as check.schema.json has it
TEXT_SHOWN = 300  # characters of a text in a report; a line more tells nobody more
TEMPLATE = Path(__file__).with_name("report.html.jinja")
WHOLE_WAY = "checkpoint_to_artifact"  # of a check's comparisons
AT_LEAST = "agreement"  # the one gate whose limit is a minimum
DROP = " drop"  # how gates are called that are in percentage points
ACCURACY = "accuracy"  # the measure of sequence classification, which has a place of its own in the JSON
SIDE = 200  # of a scatter plot, in SVG units
DOTS = 2000  # more in one plot are a smear; the flips among them are always drawn
DRIFT_EDGES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1)  # about three bars to a factor of ten
MATRIX = 8  # labels that a confusion matrix can show on a phone; with more, the worst confusions are listed
CONFUSIONS = 12
FLIPS = 100  # listed on the page for one engine; the JSON has them all


def describe(check: Check, gates: Sequence[Gate], require_all: bool = False) -> dict[str, Any]:
    """The figures as plain data, ready for JSON."""
    data, manifest = check.evaluation.data, check.manifest
    scores = _scores(check, data.reference[CHECKPOINT] if data and data.reference else None)
    return {
        "report_version": REPORT_VERSION,
        "verdict": "missed" if missed(gates, require_all) else "passed",
        "bundle": {
            "folder": str(check.folder),
            "task": manifest.task,
            "architecture": manifest.architecture,
            "scheme": manifest.scheme,
            "labels": list(manifest.labels),
            "multi_label": manifest.multi_label,
            "source": manifest.source["name"],
            "weights_sha256": manifest.source["weights_sha256"],
        },
        "checkpoint": check.checkpoint,
        "checkpoint_accuracy": scores.get(ACCURACY),
        "checkpoint_scores": scores,
        "data": _data(check),
        "basis": check.evaluation.comparison_set.name,
        "unit": check.task.unit,
        "measures": list(check.task.measures),
        "gates": [{**asdict(gate), "status": gate.status, "line": str(gate)} for gate in gates],
        "engines": [_engine(check, engine) for engine in check.engines],
        "between": [
            {"engines": [one.name, other.name], **_divergence(found.divergence)}
            for one, other, found in check.between()
        ],
    }


def write_html(
    result: Mapping[str, Any], check: Check, target: Path, measured: Mapping[str, Any] | None = None
) -> None:
    """Writes the page; `measured` is what `pocketbert bench --json` wrote."""
    write_page(
        target,
        TEMPLATE,
        result=result,
        counts=Counter(gate["status"] for gate in result["gates"]),
        engine_gates=_engine_gates(result),
        other_gates=_other_gates(result),
        open_lines=describe_open(result["gates"]),
        drawings=_drawings(check),
        show=_show,
        confusions=_confusions,
        matrix=MATRIX,
        flips_listed=FLIPS,
        side=SIDE,
        dots=DOTS,
        measured=measured,
        latency=latency_plots(measured) if measured else [],
    )


def _data(check: Check) -> dict[str, Any] | None:
    if check.data is None:
        return None
    return {
        "file": check.data.name,
        "texts": len(check.data.texts),
        "rows": check.data.rows,
        "label_rule": getattr(check.data, "rule", None),  # answers are no labels
        "skipped": dict(check.data.skipped),
    }


def _engine(check: Check, engine: CheckedEngine) -> dict[str, Any]:
    result, artifact = engine.result, engine.artifact
    scores = _scores(check, result.data if result else None)
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
        **{figure: getattr(result, figure) if result else None for figure in steady},
        "accuracy": scores.get(ACCURACY),
        "scores": scores,
        "gaps": {name: _divergence(found.divergence) for name, found in check.comparisons(engine).items()},
        "lengths": [{"tokens": tokens, "drift": drift} for tokens, drift in check.sweep_drift(engine)],
        "confusion": _confusion(check, engine),
        "flips": list(_flips(check, engine)),
    }


def _divergence(found: Divergence) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of equal logits is null."""
    return {**asdict(found), "psnr": found.psnr if math.isfinite(found.psnr) else None}


def _scores(check: Check, logits: Logits | None) -> dict[str, float]:
    return {name: score.value for name, score in check.scores(logits).items()}


def _confusion(check: Check, engine: CheckedEngine) -> list[list[int]] | None:
    counts = check.confusion(engine)
    return None if counts is None else counts.tolist()


def _flips(check: Check, engine: CheckedEngine) -> Iterator[dict[str, Any]]:
    """The texts that the artifact answers otherwise than the checkpoint, with both answers."""
    asked, compared = check.evaluation.comparison_set, check.comparisons(engine).get(WHOLE_WAY)
    if compared is None or asked.reference is None or engine.result is None:
        return
    checkpoint, artifact = asked.reference[CHECKPOINT], check.logits(engine.result)
    for text in compared.flipped_texts:
        second = asked.seconds[text]
        yield {
            "text": asked.texts[text][:TEXT_SHOWN],
            "text_pair": None if second is None else second[:TEXT_SHOWN],
            "label": None if asked.data is None else check.task.truth(asked, text),
            "checkpoint": _answer(check, text, checkpoint),
            "artifact": _answer(check, text, artifact),
        }


def _answer(check: Check, text: int, logits: Logits) -> dict[str, Any]:
    """The answer to one text, and its probability."""
    names, probability = check.task.describe(check.evaluation.comparison_set, text, logits)
    return {"labels": names, "probability": probability}


# The page: gates as a table of engines, and the numbers behind each drawing.


def _engine_gates(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each gate that engines have, with a cell for each engine."""
    engines = [engine["name"] for engine in result["engines"]]
    rows: dict[str, dict[str, Any]] = {}
    for gate in result["gates"]:
        if gate["engine"] in engines:
            row = rows.setdefault(gate["name"], {"title": gate["name"], "limit": _limit(gate), "cells": {}})
            row["cells"][gate["engine"]] = gate
    return list(rows.values())


def _other_gates(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each gate of the bundle, of two engines, or of a format that has no engine here."""
    engines = [engine["name"] for engine in result["engines"]]
    return [
        {"title": ", ".join(filter(None, (gate["name"], gate["engine"]))), "limit": _limit(gate), "gate": gate}
        for gate in result["gates"]
        if gate["engine"] not in engines
    ]


def describe_open(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each reason why gates of `describe` are not evaluated, with their names and engines."""
    reasons: dict[str, list[Mapping[str, Any]]] = {}
    for gate in gates:
        if gate["status"] == "not evaluated":
            reasons.setdefault(gate["note"], []).append(gate)
    lines = []
    for note, open_gates in reasons.items():
        by_engines: dict[tuple[str, ...], list[str]] = {}
        for name in dict.fromkeys(gate["name"] for gate in open_gates):
            owners = tuple(gate["engine"] for gate in open_gates if gate["name"] == name)
            by_engines.setdefault(owners, []).append(name)
        parts = [": ".join(filter(None, (", ".join(owners), ", ".join(names)))) for owners, names in by_engines.items()]
        lines.append(f"{'; '.join(parts)} not evaluated: {note}")
    return lines


def _limit(gate: Mapping[str, Any]) -> str:
    sign = "≥" if gate["name"] == AT_LEAST else "≤"
    unit = " points" if gate["name"].endswith(DROP) else ""
    return "" if gate["name"] == "answers" else f"{sign} {_show(gate['name'], gate['limit'])}{unit}"


def _show(gate: str, value: float | None) -> str:
    """A gate's value in its unit."""
    if value is None:
        return ""
    if gate == AT_LEAST:
        return f"{value:.2%}"
    return f"{value:.2f}" if gate.endswith(DROP) else f"{value:.2g}"


def _drawings(check: Check) -> dict[str, dict[str, Any]]:
    """What to draw for each engine that answered."""
    found = {engine.name: check.comparisons(engine).get(WHOLE_WAY) for engine in check.engines}
    return {
        name: {"scatter": _scatter(compared), "histogram": _histogram(compared.drift)}
        for name, compared in found.items()
        if compared is not None
    }


def _scatter(compared: Comparison) -> dict[str, Any]:
    """SVG paths of dots in a unit square: the same label's probability by checkpoint and by artifact."""
    flipped, (x, y) = compared.flipped, compared.followed
    kept = np.flatnonzero(~flipped)
    drawn = kept[:: -(-len(kept) // DOTS)] if len(kept) else kept
    return {"dots": _dots(x[drawn], y[drawn]), "flips": _dots(x[flipped], y[flipped])}


def _dots(x: NDArray[np.float32], y: NDArray[np.float32]) -> str:
    """Strokes of no length, which round caps turn into dots; SVG's y points down."""
    return "".join(f"M{a * SIDE:.1f} {(1 - b) * SIDE:.1f}h0" for a, b in zip(x, y, strict=True))


def _histogram(moved: NDArray[np.float32]) -> list[dict[str, Any]]:
    counts, _ = np.histogram(moved, [0, *DRIFT_EDGES, 1])
    names = [f"< {DRIFT_EDGES[0]:g}", *(f"≥ {edge:g}" for edge in DRIFT_EDGES)]
    return [{"name": name, "count": int(n), "share": n / len(moved)} for name, n in zip(names, counts, strict=True)]


def _confusions(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> list[tuple[int, str, str]]:
    """The most frequent wrong answers: how often, the truth, the answer."""
    wrong = [
        (counts[i][j], truth, answer)
        for i, truth in enumerate(labels)
        for j, answer in enumerate(labels)
        if i != j and counts[i][j]
    ]
    return sorted(wrong, key=lambda entry: -entry[0])[:CONFUSIONS]
