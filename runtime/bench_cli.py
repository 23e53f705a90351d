"""`pocketbert bench`: what the terminal shows of engines measured side by side.

Takes the command's arguments. Gives tables, JSON with every sample, and an HTML page with plots if asked for.
Leaves out: measuring (bench.py), the page (bench_page.py), ONNX export, which comes from the export half.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.runtime.errors import EngineError, PocketbertError

if TYPE_CHECKING:
    from rich.console import Console

    from pocketbert.runtime.bench import Bench, Result
    from pocketbert.runtime.manifest import Manifest

RIVALS = "pocketbert.rivals"  # the entry point group of functions that write a checkpoint for another runtime
PHONE_ENGINES = ("tflite", "executorch")  # the evaluator of Core ML programs is no runtime: its time says nothing
STDOUT = Path("-")
LABEL = "text to label"
MILLISECONDS = 1000
MB = 1_000_000


def bench(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by `pocketbert export`.")],
    engine: Annotated[list[str] | None, typer.Option(help="Repeatable; by default tflite and executorch.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable; by default 1 and 2.")] = None,
    against: Annotated[str | None, typer.Option(help="onnxruntime: its dynamic int8, in the same run.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="What --against exports: folder or hub id.")] = None,
    data: Annotated[Path | None, typer.Option(help=".tsv, .csv or .jsonl: lengths and texts come from it.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Tokens, comma-separated; by default the bundle's.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each engine gets at each length.")] = 10,
    soak: Annotated[int, typer.Option(min=0, help="Texts of mixed length to watch memory over.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots: b.html.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every sample: b.json, or - for stdout.")] = None,
) -> None:
    """Measure latency, start and memory of each engine, side by side."""
    from rich.console import Console

    from pocketbert.runtime import bench as measuring
    from pocketbert.runtime import manifest as format
    from pocketbert.runtime.bench_page import write_html
    from pocketbert.runtime.page import write_whole

    manifest = format.read(bundle)
    texts = _texts(bundle, manifest, data, lengths)
    console = Console(stderr=True)
    with ExitStack() as stack:
        status = stack.enter_context(console.status("reading"))
        models = dict.fromkeys(_engines(manifest, engine or ()), "")
        if against:
            status.update(f"exporting to {against}")
            models[against] = str(_export_rival(against, checkpoint, Path(stack.enter_context(_folder()))))
        subjects = [
            measuring.Subject(name, count, str(bundle), model)
            for count in threads or (1, 2)
            for name, model in models.items()
        ]
        result = measuring.measure(subjects, {str(bundle): texts}, rounds, soak, tell=status.update)
    if as_json == STDOUT:
        print(json.dumps(result.as_json(), indent=1))
        return
    if as_json:
        write_whole(as_json, json.dumps(result.as_json()) + "\n")
    if report:
        write_html(result.as_json(), report)
    _print(result, against, Console(emoji=False))


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pocketbert-rival-")


def _texts(bundle: Path, manifest: Manifest, data: Path | None, lengths: str | None) -> dict[int, list[str]]:
    from pocketbert.runtime import bench as measuring
    from pocketbert.runtime import data as labelled

    try:
        chosen = [int(length) for length in lengths.split(",")] if lengths else list(manifest.lengths)
    except ValueError:
        raise PocketbertError(f"--lengths {lengths!r}: give whole numbers, 16,32,64") from None
    if data:
        found = measuring.group_texts(
            bundle, manifest, labelled.read(data, manifest.labels, manifest.multi_label).texts
        )
        return {length: texts for length, texts in found.items() if not lengths or length in chosen}
    outside = [length for length in chosen if not manifest.lengths[0] <= length <= manifest.max_length]
    if outside:
        raise PocketbertError(
            f"--lengths {outside[0]}: this bundle takes {manifest.lengths[0]} to {manifest.max_length}"
        )
    return measuring.make_texts(bundle, manifest, chosen)


def _engines(manifest: Manifest, asked: Sequence[str]) -> list[str]:
    """The engines to measure. Raises EngineError, BundleError."""
    from pocketbert.runtime import engines

    for name in asked:
        engines.check_installed(manifest.artifact(name.partition(":")[0]).format)
    found = list(dict.fromkeys(asked)) or [
        name
        for name in engines.installed([artifact.format for artifact in manifest.artifacts])
        if name in PHONE_ENGINES
    ]
    if not found:
        raise EngineError("no engine to measure is installed: pip install 'pocketbert[tflite]'")
    return found


def _export_rival(name: str, checkpoint: str | None, folder: Path) -> Path:
    if checkpoint is None:
        raise PocketbertError(f"--against {name} needs --checkpoint, the one that the bundle was exported from")
    found = {entry.name: entry for entry in entry_points(group=RIVALS)}
    if name not in found:
        raise PocketbertError(
            f"unknown --against {name!r}: use {', '.join(found) or 'it after: pip install pocketbert'}"
        )
    try:
        return found[name].load()(checkpoint, folder)  # type: ignore[no-any-return]
    except ImportError as problem:
        raise PocketbertError(
            f"--against needs more packages: pip install 'pocketbert[bench]' ({problem})"
        ) from problem


def _print(result: Bench, against: str | None, console: Console) -> None:
    for count in dict.fromkeys(one.subject.threads for one in result.results):
        shown = [one for one in result.results if one.subject.threads == count]
        base = next((one for one in shown if one.subject.engine == against), shown[0])
        _print_latency(result.lengths, shown, base, console)
    _print_starts(result, console)
    console.print(
        f"Medians; ratio: the model alone to {against or result.results[0].subject.engine}. "
        "Compare ratios, and only those of one run.",
        style="dim",
    )


def _print_latency(lengths: Sequence[int], shown: Sequence[Result], base: Result, console: Console) -> None:
    from rich import box
    from rich.table import Table

    threads = base.subject.threads
    table = Table(title=f"{threads} thread{'s' if threads > 1 else ''}: ms by tokens", title_justify="left")
    table.box = box.SIMPLE_HEAD
    for column in ("engine", "", *map(str, lengths)):
        table.add_column(column, justify="left" if column in ("engine", "") else "right")
    for one in shown:
        for name, figures in _figures(one, base, lengths).items():
            table.add_row(one.subject.engine if name == LABEL else "", name, *figures)
        table.add_section()
    console.print(table)


def _figures(one: Result, base: Result, lengths: Sequence[int]) -> dict[str, list[str]]:
    """What a table says of one engine: name -> a cell for each length."""
    median, late, alone, other = (
        [found.quantile(length, measure, share) for length in lengths]
        for found, measure, share in (
            (one, "text_to_label", 0.5),
            (one, "text_to_label", 0.95),
            (one, "model", 0.5),
            (base, "model", 0.5),
        )
    )
    times = {LABEL: median, "95 % below": late, "model alone": alone}
    return {
        **{name: [f"{seconds * MILLISECONDS:.2f}" for seconds in found] for name, found in times.items()},
        "ratio": [f"{own / its:.2f}" for own, its in zip(alone, other, strict=True)],
        "texts/s": [f"{one.throughput(length):.0f}" for length in lengths],
    }


def _print_starts(result: Bench, console: Console) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title="By threads: start, ms; memory over an idle interpreter, MB", title_justify="left")
    table.box = box.SIMPLE_HEAD
    for column in ("", "cold open", "label", "warm open", "label", "resident", "peak", "soak"):
        table.add_column(column, justify="right" if column else "left")
    for one in result.results:
        starts = [_median(found, part) for found in (one.cold, one.warm) for part in ("open", "first_label")]
        soak = f"{one.soak['drift']:+.2%}" if one.soak else ""
        memory = [f"{found / MB:.0f}" for found in (one.resident_bytes, one.peak_bytes)]
        table.add_row(f"{one.subject.engine}, {one.subject.threads}", *starts, *memory, soak)
    console.print(table)


def _median(starts: Sequence[Any], part: str) -> str:
    from statistics import median

    return f"{median(getattr(start, part) for start in starts) * MILLISECONDS:.0f}" if starts else ""
