"""`pocketbert bench`: what the terminal shows of engines measured side by side.

Takes the command's arguments. Prints tables, writes JSON with every sample, and an HTML page with plots if asked for.
Leaves out: measuring and the page (runtime/bench), and ONNX export, which comes from the export half.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pocketbert.runtime import engines
from pocketbert.runtime.bench.measure import Input, Subject, group_texts, make_texts, measure
from pocketbert.runtime.bench.page import write_html
from pocketbert.runtime.check.datasets import split_columns
from pocketbert.runtime.check.tasks.choice import find
from pocketbert.runtime.cli.arguments import Bundle, Columns
from pocketbert.runtime.cli.output import STDOUT, check_writable, make_table, plain_console, print_in_parts, write_json
from pocketbert.runtime.cli.progress import Bars
from pocketbert.runtime.engines import MAX_THREADS
from pocketbert.runtime.errors import EngineError, PocketbertError
from pocketbert.runtime.manifest import read_manifest

if TYPE_CHECKING:
    from rich.table import Table

    from pocketbert.runtime.bench.measure import Bench, Measurement
    from pocketbert.runtime.manifest import Manifest

BASELINES = "pocketbert.baselines"  # the entry point group of functions that write a checkpoint for another runtime
LABEL = "text to label"
MILLISECONDS = 1000
MB = 1_000_000


def bench(
    bundle: Bundle,
    engine: Annotated[list[str] | None, typer.Option(help="Repeatable; by default tflite and executorch.")] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, max=MAX_THREADS, help="Repeatable; by default 1 and 2.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="onnxruntime: its dynamic int8, in the same run.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="What --against exports: folder or hub id.")] = None,
    data: Annotated[Path | None, typer.Option(help=".tsv, .csv or .jsonl: lengths and texts come from it.")] = None,
    columns: Columns = None,
    lengths: Annotated[str | None, typer.Option(help="Tokens, comma-separated; by default the bundle's.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine, each in a process of its own.")] = 10,
    soak: Annotated[int, typer.Option(min=0, help="Texts of mixed length to watch memory over.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots: b.html.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every sample: b.json, or - for stdout.")] = None,
) -> None:
    """Measure latency, start and memory of each engine, side by side."""
    check_writable(report, as_json)
    manifest = read_manifest(bundle)
    texts = _texts(bundle, manifest, data, split_columns(columns), lengths)
    with ExitStack() as stack:
        models = dict.fromkeys(_engines(manifest, engine or ()), "")
        if against:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pocketbert-baseline-")))
            with Console(stderr=True).status(f"exporting to {against}"):
                models[against] = str(_export_baseline(against, checkpoint, folder, manifest))
        subjects = [
            Subject(name, count, str(bundle), model) for count in threads or (1, 2) for name, model in models.items()
        ]
        progress = stack.enter_context(Bars(Console(stderr=True)))
        result = measure(subjects, {str(bundle): texts}, rounds, soak, progress=progress)
    if as_json:
        write_json(result.as_json(), as_json, indent=1 if as_json == STDOUT else None)
    if report:
        write_html(result.as_json(), report)
    if as_json != STDOUT:
        _print(result, against, plain_console())


def _texts(
    bundle: Path, manifest: Manifest, data: Path | None, columns: Sequence[str], lengths: str | None
) -> dict[int, list[Input]]:
    try:
        chosen = [int(length) for length in lengths.split(",")] if lengths else list(manifest.lengths)
    except ValueError:
        raise PocketbertError(f"--lengths {lengths!r}: give whole numbers, 16,32,64") from None
    if data:
        task = find(manifest.task)
        read = task.read(manifest, data, None, columns)
        pairs = zip(read.texts, task.seconds(read), strict=True)
        found = group_texts(bundle, manifest, [(text,) if second is None else (text, second) for text, second in pairs])
        return {length: texts for length, texts in found.items() if not lengths or length in chosen}
    outside = [length for length in chosen if not manifest.lengths[0] <= length <= manifest.max_length]
    if outside:
        raise PocketbertError(
            f"--lengths {outside[0]}: this bundle takes {manifest.lengths[0]} to {manifest.max_length}"
        )
    return make_texts(bundle, manifest, chosen)


def _engines(manifest: Manifest, asked: Sequence[str]) -> list[str]:
    """The engines to measure. Raises EngineError, BundleError."""
    for name in asked:
        engines.check_installed(manifest.artifact(engines.kind(name)).format)
    found = list(dict.fromkeys(asked)) or engines.timed([artifact.format for artifact in manifest.artifacts])
    if not found:
        raise EngineError("no engine to measure is installed: pip install 'pocketbert[tflite]'")
    return found


def _export_baseline(name: str, checkpoint: str | None, folder: Path, manifest: Manifest) -> Path:
    if checkpoint is None:
        raise PocketbertError(f"--against {name} needs --checkpoint, the one that the bundle was exported from")
    found = {entry.name: entry for entry in entry_points(group=BASELINES)}
    if name not in found:
        raise PocketbertError(
            f"unknown --against {name!r}: use {', '.join(found) or 'it after: pip install pocketbert'}"
        )
    try:
        return found[name].load()(checkpoint, folder, manifest.task, manifest.pairs)  # type: ignore[no-any-return]
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


def _print_latency(lengths: Sequence[int], shown: Sequence[Measurement], base: Measurement, console: Console) -> None:
    threads = base.subject.threads
    title = f"{threads} thread{'s' if threads > 1 else ''}: ms by tokens"

    def build(part: Sequence[int]) -> Table:
        table = make_table(title, ("", *map(str, part)))
        for one in shown:
            table.add_row(one.subject.engine, style="bold")
            for name, figures in _figures(one, base, part).items():
                table.add_row(f"  {name}", *figures)
        return table

    print_in_parts(console, lengths, build)


def _figures(one: Measurement, base: Measurement, lengths: Sequence[int]) -> dict[str, list[str]]:
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
    columns = ("cold\nopen", "\nlabel", "warm\nopen", "\nlabel", "\nresident", "\npeak", "\nsoak")
    rows: dict[str, list[str]] = {}
    for one in result.results:
        starts = [_median(found, part) for found in (one.cold, one.warm) for part in ("open", "first_label")]
        soak = f"{one.soak['drift']:+.2%}" if one.soak else ""
        memory = [f"{found / MB:.0f}" for found in (one.resident_bytes, one.peak_bytes)]
        rows[f"{one.subject.engine}, {one.subject.threads}"] = [*starts, *memory, soak]

    def build(part: Sequence[int]) -> Table:
        title = "By threads: start, ms; memory over an idle interpreter, MB"
        table = make_table(title, ("", *(columns[place] for place in part)))
        for name, cells in rows.items():
            table.add_row(name, *(cells[place] for place in part))
        return table

    print_in_parts(console, range(len(columns)), build)


def _median(starts: Sequence[Any], part: str) -> str:
    return f"{median(getattr(start, part) for start in starts) * MILLISECONDS:.0f}" if starts else ""
