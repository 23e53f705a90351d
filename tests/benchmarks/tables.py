"""Writes the tables of BENCHMARKS.md from results/*.json, between its markers.

    python tests/benchmarks/tables.py

Takes what measure.py wrote. Writes BENCHMARKS.md with new tables; the text around them is left as it is. Every figure
and version is a recorded one: nothing is asked of the machine that writes the tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pocketbert.runtime.manifest import FORMATS

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "BENCHMARKS.md"
FAMILIES = {"distilbert": "DistilBERT-base", "albert": "ALBERT-base"}
SHOWN = (16, 32, 64, 128)  # tokens
FILES = {"tflite": "model.tflite", "executorch": "model.pte"}
FOUR_BITS = "four-bits"  # how results are named that are of 4 bits
MS, MB = 1000, 1_000_000
Row = Sequence[str]


def read(name: str) -> Any:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def _measured(kind: str) -> list[tuple[str, str]]:
    """The families, and their names, of which this was measured."""
    return [each for each in FAMILIES.items() if (HERE / "results" / f"{kind}-{each[0]}.json").exists()]


def machine() -> list[Row]:
    measured = read("bench-distilbert")
    found, versions = measured["machine"], dict.fromkeys(one["version"] for one in measured["results"])
    rows = [["processor", found["processor"]], ["cores", str(found["cores"])], ["system", found["system"]]]
    return [["", ""], *rows, ["Python", found["python"]], ["engines", ", ".join(versions)]]


def latency(family: str) -> list[Row]:
    results = read(f"bench-{family}")["results"]
    rows: list[Row] = [["engine", "threads", *(f"{length} tokens" for length in SHOWN)]]
    for threads in (2, 1):
        group = [one for one in results if one["subject"]["threads"] == threads]
        base = next(one for one in group if one["subject"]["engine"] == "onnxruntime")
        for one in group:
            cells = [_cell(one, base, length) for length in SHOWN]
            rows.append([one["subject"]["engine"], str(threads), *cells])
    return rows


def order() -> list[Row]:
    """Ratios to onnxruntime of the same run, or, alone, of its own; of the families that were measured."""
    rows: list[Row] = [["", "engine", "turns", *(f"{length} tokens" for length in SHOWN)]]
    for family, name in _measured("order"):
        runs = {kind: _results(found) for kind, found in read(f"order-{family}").items()}
        for engine in runs["forward"]:
            for kind, found in runs.items():
                cells = [_cell(found[engine], found["onnxruntime"], length) for length in SHOWN]
                rows.append([name, engine, _say_order(kind, found), *cells])
    return rows


def _results(runs: Any) -> dict[str, Any]:
    """By engine, in the order in which they were measured."""
    return {one["subject"]["engine"]: one for run in runs for one in run["results"]}


def _say_order(kind: str, found: dict[str, Any]) -> str:
    return "each engine alone" if kind == "alone" else ", ".join(found)


def _cell(one: Any, base: Any, length: int) -> str:
    return _say(*(found["summary"]["latency"][str(length)]["model_p50"] for found in (one, base)))


def _say(own: float, other: float) -> str:
    """Seconds, and their ratio to others."""
    return f"{own * MS:.2f} ms, {own / other:.2f}"


def schemes() -> list[Row]:
    """int8, 4 bits and onnxruntime's int8 in one run: ratios to the last."""
    rows: list[Row] = [["", "engine", "weights", "file", *(f"{length} tokens" for length in SHOWN), "resident"]]
    for family, name in _measured("schemes"):
        found = read(f"schemes-{family}")
        base = found["results"][-1]
        for one in found["results"]:
            engine, bundle = one["subject"]["engine"], one["subject"]["bundle"]
            stored = found["bytes"].get(f"{bundle}/{FILES.get(engine)}", found["bytes"]["onnxruntime"])
            bits = "int4" if FOUR_BITS in bundle else "int8"
            cells = [_cell(one, base, length) for length in SHOWN]
            rows.append([name, engine, bits, f"{stored / MB:.1f} MB", *cells, f"{one['resident_bytes'] / MB:.0f} MB"])
    return rows


def litert_versions() -> list[Row]:
    """Both schemes by several versions of LiteRT: ratios to onnxruntime."""
    found = read("litert-versions")
    lengths = list(found["distilbert"]["onnxruntime, int8"][0])
    rows: list[Row] = [["", "engine, weights", *(f"{length} tokens" for length in lengths)]]
    for family, name in FAMILIES.items():
        base = _medians(found[family]["onnxruntime, int8"])
        for engine, rounds in found[family].items():
            own = _medians(rounds)
            rows.append([name, engine, *(_say(own[length], base[length]) for length in lengths)])
    return rows


def _medians(rounds: list[dict[str, list[float]]]) -> dict[str, float]:
    """Of all rounds together, by length."""
    return {length: median(sample for one in rounds for sample in one[length]) for length in rounds[0]}


def memory() -> list[Row]:
    rows: list[Row] = [["", "engine", "cold open", "cold label", "warm open", "warm label", "resident", "peak"]]
    for family, name in FAMILIES.items():
        for one in read(f"bench-{family}")["results"]:
            if one["subject"]["threads"] == 2:
                rows.append([name, one["subject"]["engine"], *_starts(one["summary"]), *_bytes(one)])
    return rows


def _starts(summary: Any) -> Iterator[str]:
    for kind in ("cold", "warm"):
        for part in ("open", "first_label"):
            yield f"{summary[kind][part] * MS:.0f} ms"


def _bytes(one: Any) -> list[str]:
    return [f"{one[part] / MB:.0f} MB" for part in ("resident_bytes", "peak_bytes")]


def real() -> list[Row]:
    rows: list[Row] = [["engine", "tokens", "text to label, median", "95th percentile", "model alone", "soak drift"]]
    for one in read("bench-real")["results"]:
        for length, found in one["summary"]["latency"].items():
            times = [f"{found[part] * MS:.2f} ms" for part in ("text_to_label_p50", "text_to_label_p95", "model_p50")]
            rows.append([one["subject"]["engine"], length, *times, f"{one['soak']['drift']:+.2%}"])
    return rows


def export() -> list[Row]:
    rows: list[Row] = [["", "all", *FORMATS, "peak memory"]]
    for family, name in FAMILIES.items():
        for scheme, bits in (("", "int8"), (f"-{FOUR_BITS}", "int4")):
            found = read(f"export-{family}{scheme}")
            seconds = {artifact["format"]: artifact["seconds"] for artifact in found["artifacts"]}
            parts = [f"{seconds[each]:.0f} s" for each in FORMATS]
            peak = f"{found['peak_bytes'] / MB / 1000:.1f} GB"
            rows.append([f"{name}, {bits}", f"{found['seconds']:.0f} s", *parts, peak])
    return rows


def overhead() -> list[Row]:
    rows: list[Row] = [["", *(f"{length} tokens" for length in SHOWN)]]
    for family, name in FAMILIES.items():
        samples = read(f"overhead-{family}")["samples"]
        cells = [_overhead(samples[str(length)]) for length in SHOWN]
        rows.append([name, *(f"{cell:.3f}" for cell in cells)])
    return rows


def _overhead(found: Any) -> float:
    """The whole program over its delegates, which are all but what runs outside."""
    return float(found["program"] / (found["program"] - found["outside"]))


def arm() -> list[Row]:
    rows: list[Row] = [["", "engine", "16 tokens", "32 tokens"]]
    for family, name in FAMILIES.items():
        found = read(f"arm-{family}")
        for engine, seconds in found.items():
            cells = [f"{seconds[n] / found['onnxruntime'][n]:.2f}" for n in ("16", "32")]
            rows.append([name, engine, *cells])
    return rows


def four_bits() -> list[Row]:
    rows: list[Row] = [["", "layers at 8 bits", "weights", "agreement", "accuracy (fp32)", "mean drift"]]
    for name, found in read("four-bits").items():
        for row in found:
            layers = "all, as int8" if row["eight_bit_layers"] is None else str(row["eight_bit_layers"])
            right = f"{row['accuracy']:.2%} ({row['exact_accuracy']:.2%})"
            rows.append(
                [
                    name,
                    layers,
                    f"{row['bytes'] / MB:.2f} MB",
                    f"{row['agreement']:.2%}",
                    right,
                    f"{row['mean_drift']:.4f}",
                ]
            )
    return rows


TABLES: dict[str, Callable[[], list[Row]]] = {
    "machine": machine,
    "latency-distilbert": lambda: latency("distilbert"),
    "latency-albert": lambda: latency("albert"),
    "order": order,
    "schemes": schemes,
    "litert-versions": litert_versions,
    "memory": memory,
    "real": real,
    "export": export,
    "overhead": overhead,
    "arm": arm,
    "four-bits": four_bits,
}


def markdown(rows: list[Row]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = block.subn(lambda match, make=make: match[1] + markdown(make()) + "\n" + match[2], page)
        assert count == 1, f"BENCHMARKS.md has no place for {name}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
