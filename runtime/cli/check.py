"""`pocketbert check`: what the terminal shows while a bundle is compared with its checkpoint.

Takes the command's arguments. Prints a table, writes JSON and an HTML page if asked for; exit status 1 with a line for
each gate that was missed. Leaves out: measuring, judging and the page (runtime/check).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pocketbert.runtime import engines
from pocketbert.runtime.bench.page import read_bench
from pocketbert.runtime.check.datasets import split_columns
from pocketbert.runtime.check.gates import PERCENT, Gate, default_limits, judge, missed
from pocketbert.runtime.check.parity import check_bundle
from pocketbert.runtime.check.report import describe, describe_open, write_html
from pocketbert.runtime.check.tasks.choice import find
from pocketbert.runtime.cli.arguments import Bundle, Columns, Data, Limit
from pocketbert.runtime.cli.exit_status import MISSED
from pocketbert.runtime.cli.output import STDOUT, check_writable, make_table, plain_console, write_json
from pocketbert.runtime.cli.progress import Bars
from pocketbert.runtime.engines import MAX_THREADS
from pocketbert.runtime.errors import EngineError, PocketbertError
from pocketbert.runtime.manifest import (
    FOUR_BIT_SCHEME,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    read_manifest,
)

if TYPE_CHECKING:
    from rich.table import Table

    from pocketbert.runtime.check.evaluation import Reference
    from pocketbert.runtime.manifest import Manifest

REFERENCE = "pocketbert.reference"  # the entry point group through which the export half gives the checkpoint's logits
EIGHT_BIT_SCHEME = "dynamic_wi8_afp32"


def _limit(words: str, name: str, least: float | None = None, most: float | None = None) -> Any:
    """An option for one of the limits, with its defaults in its help."""
    usual, of_four_bits = (_say_default(name, scheme) for scheme in (EIGHT_BIT_SCHEME, FOUR_BIT_SCHEME))
    shown = usual if usual == of_four_bits else f"{usual}; of 4 bits {of_four_bits}"
    return typer.Option(help=f"{words}: {shown} by default.", min=least, max=most)


def _say_default(name: str, scheme: str) -> str:
    tasks = (SEQUENCE_CLASSIFICATION, QUESTION_ANSWERING)
    usual, answers = (getattr(default_limits(task, scheme), name) for task in tasks)
    return f"{usual:g}" if usual == answers else f"{usual:g}, for answers {answers:g}"


MinAgreement = Annotated[
    float | None, _limit("Share of texts, tokens or questions answered alike", "min_agreement", least=0, most=1)
]
MaxDrop = Annotated[
    float | None, _limit("Percentage points of accuracy, or of the task's measures", "max_accuracy_drop")
]
MaxQuantization = Annotated[
    float | None, _limit("Mean drift of probabilities, checkpoint to oracle", "max_quantization_gap")
]
MaxLowering = Annotated[float | None, _limit("Mean drift, oracle to artifact", "max_lowering_gap")]
MaxPeak = Annotated[float | None, _limit("Drift of the most moved text", "max_lowering_peak")]
MaxPadding = Annotated[float | None, _limit("Drift of the most moved text when padded", "max_padding_drift")]
MaxRepeat = Annotated[
    float | None, _limit("Change of a logit when run again, or from several threads", "max_repeat_drift")
]
MB = 1_000_000
ENGINE_COLUMNS = ("engine", "MB", "texts/s", "padding drift")
GAP_COLUMNS = ("engine", "gap", "agree", "drift", "max", "PSNR dB", "cosine")
# What costs the way from the checkpoint to the oracle, from there to the artifact, and all of the way.
GAP_NAMES = {
    "checkpoint_to_oracle": "quantizing",
    "oracle_to_artifact": "lowering",
    "checkpoint_to_artifact": "together",
}
STATUSES = ("passed", "missed", "not evaluated")


def check(
    bundle: Bundle,
    checkpoint: Annotated[
        str | None, typer.Option(help="The checkpoint it was exported from: folder or hub id. Needs the export extra.")
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="The texts that it was exported with, if --calibrate named any.")
    ] = None,
    data: Data = None,
    columns: Columns = None,
    limit: Limit = None,
    engine: Annotated[list[str] | None, typer.Option(help="Repeatable; by default all installed.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page for people: r.html.")] = None,
    bench: Annotated[Path | None, typer.Option(help="Show what `bench --json` wrote on the page too.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write all figures: r.json, or - for stdout.")] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Threads of each engine; coreml chooses its own.")
    ] = 1,
    require_all: Annotated[
        bool, typer.Option("--require-all", help="Count a gate that cannot be evaluated as missed.")
    ] = False,
    min_agreement: MinAgreement = None,
    max_accuracy_drop: MaxDrop = None,
    max_quantization_gap: MaxQuantization = None,
    max_lowering_gap: MaxLowering = None,
    max_lowering_peak: MaxPeak = None,
    max_padding_drift: MaxPadding = None,
    max_repeat_drift: MaxRepeat = None,
) -> None:
    """Prove that every artifact of a bundle still answers like the checkpoint."""
    asked = {
        "min_agreement": min_agreement,
        "max_accuracy_drop": max_accuracy_drop,
        "max_quantization_gap": max_quantization_gap,
        "max_lowering_gap": max_lowering_gap,
        "max_lowering_peak": max_lowering_peak,
        "max_padding_drift": max_padding_drift,
        "max_repeat_drift": max_repeat_drift,
    }
    if calibrate and not checkpoint:
        raise PocketbertError("--calibrate is for rounding the checkpoint again: pass --checkpoint too")
    check_writable(report, as_json)
    measured = read_bench(bench) if bench else None
    manifest = read_manifest(bundle)
    names, absent = _choose(manifest, engine or ())
    named = split_columns(columns)
    texts = find(manifest.task).read(manifest, data, limit, named) if data else None
    reference = _find_reference(checkpoint, manifest, calibrate) if checkpoint else None
    with Bars(Console(stderr=True)) as progress:
        found = check_bundle(bundle, names, texts, reference, checkpoint, threads, progress)
    found = replace(found, absent=absent)
    limits = {name: limit for name, limit in asked.items() if limit is not None}
    gates = judge(found, replace(default_limits(manifest.task, manifest.scheme), **limits))
    result = describe(found, gates, require_all)
    if as_json:
        write_json(result, as_json)
    if report:
        write_html(result, found, report, measured)
    if as_json != STDOUT:
        _print(result, plain_console())
    _exit(missed(gates, require_all))


def _choose(manifest: Manifest, asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """The engines to run, and the formats that none was found for. Raises EngineError, BundleError."""
    for name in asked:
        engines.check_installed(manifest.artifact(engines.kind(name)).format)
    if asked:
        return list(dict.fromkeys(asked)), []
    formats = [artifact.format for artifact in manifest.artifacts]
    engines.best(formats)
    found = engines.installed(formats)
    return found, [name for name in formats if name not in found]


def _find_reference(checkpoint: str, manifest: Manifest, calibrate: Path | None) -> Reference:
    """The export half's way to the checkpoint's logits. Raises EngineError where it is not installed."""
    missing = "--checkpoint needs the export half: pip install 'pocketbert[export]'"
    for plug in entry_points(group=REFERENCE):
        try:
            return partial(plug.load(), checkpoint, manifest, calibrate=calibrate)
        except ImportError as problem:
            raise EngineError(f"{missing} ({problem})") from problem
    raise EngineError(missing)


def _exit(gates: Sequence[Gate]) -> None:
    """Status 1 and a line for each gate, or nothing."""
    for gate in gates:
        print(f"pocketbert: {gate}", file=sys.stderr)
    if gates:
        raise typer.Exit(MISSED)


def _print(result: Mapping[str, Any], console: Console) -> None:
    if result["data"]:
        console.print(_origin(result["data"]), soft_wrap=True)
    for engine in result["engines"]:
        console.print(f"{engine['name']}: {engine['version'] or engine['error']}")
    console.print(_table("Engines", (*ENGINE_COLUMNS, *result["measures"]), _engine_rows(result)))
    gaps = list(_gap_rows(result))
    if gaps:
        console.print(_table(f"Gaps, on {result['basis']}", GAP_COLUMNS, gaps))
    for line in describe_open(result["gates"]):  # what is missed goes to stderr
        console.print(line, style="yellow", soft_wrap=True)
    counts = Counter(gate["status"] for gate in result["gates"])
    console.print(
        f"Gates of {result['bundle']['scheme']}: " + ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    )


def _origin(data: Mapping[str, Any]) -> str:
    skipped = ", ".join(f"{count} {reason}" for reason, count in data["skipped"].items()) or "none"
    matched = f"labels matched: {data['label_rule']}; " if data["label_rule"] else ""
    return f"{data['file']}: {data['texts']} of {data['rows']} rows; {matched}rows skipped: {skipped}"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = make_table(title, columns, left=("gap",))
    for row in rows:
        table.add_row(*row)
    return table


def _engine_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for engine in result["engines"]:
        speed = "–" if engine["texts_per_second"] is None else f"{engine['texts_per_second']:,.0f}"
        size = f"{engine['artifact']['bytes'] / MB:.2f}"
        yield [engine["name"], size, speed, _number(engine["padding_drift"]), *_scores(result, engine["scores"])]
    if result["checkpoint_scores"]:
        yield ["checkpoint", "", "", "", *_scores(result, result["checkpoint_scores"])]


def _scores(result: Mapping[str, Any], scores: Mapping[str, float]) -> list[str]:
    return [_percent(scores.get(measure)) for measure in result["measures"]]


def _gap_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for engine in result["engines"]:
        for name, gap in engine["gaps"].items():
            psnr = "equal" if gap["psnr"] is None else f"{gap['psnr']:.1f}"
            drift = [_number(gap["mean_drift"]), _number(gap["max_drift"])]
            yield [engine["name"], GAP_NAMES[name], _percent(gap["agreement"]), *drift, psnr, f"{gap['cosine']:.6f}"]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * PERCENT:.2f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
