"""`pocketbert export`: what the terminal shows while a checkpoint becomes a bundle.

Takes the command's arguments. Gives progress lines, a closing table or JSON.
Leaves out: the work (bundle.py). Imports no torch until the command runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.export.backends import FORMATS
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import PARTS

if TYPE_CHECKING:
    from pocketbert.export.bundle import Exported

MB = 1_000_000
DEFAULT_FORMATS = ",".join(FORMATS)


def export(
    checkpoint: Annotated[str, typer.Argument(help="Hugging Face folder or hub id of a fine-tuned classifier.")],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to.")],
    formats: Annotated[str, typer.Option(help="Comma-separated.")] = DEFAULT_FORMATS,
    max_length: Annotated[int, typer.Option(help="Longest text in tokens; longer ones are cut.")] = 128,
    scheme: Annotated[str, typer.Option(help="dynamic_wi8_afp32 or float_wf32_afp32.")] = "dynamic_wi8_afp32",
    ignore: Annotated[list[str] | None, typer.Option(help="Tensors to leave out, as a pattern; repeatable.")] = None,
    tflite_compat: Annotated[
        str | None, typer.Option(help="2.14: one scale per weight, for tflite-runtime 2.14.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a fine-tuned BERT, DistilBERT or ALBERT classifier into an int8 bundle for phones."""
    from rich.console import Console

    try:
        from pocketbert.export import bundle
    except ImportError as problem:
        raise PocketbertError(f"export needs more packages: pip install 'pocketbert[export]' ({problem})") from problem

    chosen = tuple(format.strip() for format in formats.split(",") if format.strip())
    options = bundle.Options(chosen, max_length, scheme, tuple(ignore or ()), force, tflite_compat)
    console = Console(stderr=True)
    with _progress(console, bundle.Progress) as progress:
        exported = bundle.export(checkpoint, out, options, progress)
    if as_json:
        print(json.dumps(_as_json(exported), indent=1))
    else:
        _print_table(exported)


def _progress(console: Any, base: type) -> Any:
    """A line per finished stage, and below them the running stages with their elapsed time."""
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    class Lines(base):  # type: ignore[misc]
        def __enter__(self) -> Lines:
            self.rows: dict[str, Any] = {}
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description:<11}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[doing]}"),
            )
            self.bars = Bars(*columns, console=console, transient=True)
            self.bars.start()
            return self

        def __exit__(self, *error: Any) -> None:
            self.bars.stop()

        def start(self, stage: str, doing: str) -> None:
            super().start(stage, doing)
            self.rows[stage] = self.bars.add_task(stage, doing=doing, total=None)

        def done(self, stage: str, result: str, seconds: float | None = None) -> None:
            super().done(stage, result, seconds)
            self.bars.remove_task(self.rows.pop(stage))
            console.print(f"[green]✓[/] {stage:<11} {self.seconds[stage]:6.1f} s  {result}", highlight=False)

    return Lines()


def _print_table(exported: Exported) -> None:
    from rich.console import Console
    from rich.table import Table

    from pocketbert.export import golden
    from pocketbert.export.quantize import PER_TENSOR_ACTIVATIONS

    table = Table(title=f"{exported.folder}: {exported.manifest.architecture}, {exported.manifest.scheme}")
    table.add_column("artifact")
    for column in ("MB", *PARTS, "seconds"):
        table.add_column(column, justify="right")
    for artifact in exported.manifest.artifacts:
        shares = [f"{artifact.parts[part] / artifact.bytes:.1%}" for part in PARTS]
        table.add_row(artifact.path, f"{artifact.bytes / MB:.2f}", *shares, f"{exported.seconds[artifact.format]:.1f}")
    console = Console()
    console.print(table)
    ignored = exported.manifest.source["ignored_tensors"]
    if ignored:
        console.print(f"Not used: {len(ignored)} tensors ({', '.join(ignored[:3])}{', …' if len(ignored) > 3 else ''})")
    if any(artifact.activations == PER_TENSOR_ACTIVATIONS for artifact in exported.manifest.artifacts):
        coarse, fine = (golden.mean_drift(exported.folder, name) for name in (PER_TENSOR_ACTIVATIONS, "int8"))
        console.print(
            f"model.tflite has one scale per weight: its golden logits drift by {coarse:.3f} on average, "
            f"per channel by {fine:.3f}. See what it costs: pocketbert check {exported.folder} --data FILE"
        )
    console.print(f'Done in {exported.seconds["total"]:.1f} s. Try: pocketbert classify {exported.folder} "your text"')


def _as_json(exported: Exported) -> dict[str, Any]:
    artifacts = [
        {"format": a.format, "path": a.path, "bytes": a.bytes, "parts": a.parts, "seconds": exported.seconds[a.format]}
        for a in exported.manifest.artifacts
    ]
    return {"bundle": str(exported.folder), "seconds": exported.seconds["total"], "artifacts": artifacts}
