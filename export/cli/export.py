"""`pocketbert export`: what the terminal shows while a checkpoint becomes a bundle.

Takes the command's arguments. Shows progress lines, a closing table or JSON.
Leaves out: the work (bundle.py). Imports no torch until the command runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.runtime.cli.output import plain_console
from pocketbert.runtime.cli.progress import StageLines
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import FORMATS, FOUR_BIT_SCHEME, PARTS, QUESTION_ANSWERING, TASKS, Manifest

if TYPE_CHECKING:
    from pocketbert.export.bundle import ExportResult

MB = 1_000_000
DEFAULT_FORMATS = ",".join(FORMATS)


def export(
    checkpoint: Annotated[str, typer.Argument(help="Hugging Face folder or hub id of a fine-tuned model.")],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to.")],
    formats: Annotated[str, typer.Option(help="Comma-separated.")] = DEFAULT_FORMATS,
    max_length: Annotated[
        int | None, typer.Option(help="Longest text in tokens; by default 128, for questions 384. Longer ones are cut.")
    ] = None,
    scheme: Annotated[
        str, typer.Option(help="dynamic_wi8_afp32; dynamic_wi4_afp32 for half the size; float_wf32_afp32.")
    ] = "dynamic_wi8_afp32",
    calibrate: Annotated[
        Path | None, typer.Option(help="Texts like those of the app, for 4 bits: .txt or as `check --data` takes them.")
    ] = None,
    eight_bit_layers: Annotated[
        int,
        typer.Option(
            min=0, help="With 4 bits: so many of the first layers keep 8, which costs bytes and saves answers."
        ),
    ] = 0,
    ignore: Annotated[list[str] | None, typer.Option(help="Tensors to leave out, as a pattern; repeatable.")] = None,
    tflite_compat: Annotated[
        str | None, typer.Option(help="2.14: one scale per weight, for tflite-runtime 2.14.")
    ] = None,
    task: Annotated[str | None, typer.Option(help=f"{', '.join(TASKS)}: where config.json does not say it.")] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="The classifier was trained on pairs: take two texts as well as one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a fine-tuned BERT, DistilBERT or ALBERT into an int8 bundle for phones.

    It classifies texts or pairs of texts, finds entities (token classification), or answers questions.
    """

    try:
        from pocketbert.export.bundle import ExportOptions, export_bundle
    except ImportError as problem:
        raise PocketbertError(f"export needs more packages: pip install 'pocketbert[export]' ({problem})") from problem

    chosen = tuple(name.strip() for name in formats.split(",") if name.strip())
    options = ExportOptions(
        chosen, max_length, scheme, tuple(ignore or ()), force, tflite_compat, task, pairs, calibrate, eight_bit_layers
    )
    with StageLines(plain_console(stderr=True)) as progress:
        exported = export_bundle(checkpoint, out, options, progress)
    if as_json:
        print(json.dumps(_as_json(exported), indent=1))
    else:
        _print_table(exported)


def _print_table(exported: ExportResult) -> None:
    from rich.table import Table

    from pocketbert.export import golden
    from pocketbert.export.quantize import PER_TENSOR_ACTIVATIONS

    manifest = exported.manifest
    table = Table(title=f"{exported.folder}: {manifest.architecture}, {manifest.scheme}")
    table.add_column("artifact")
    for column in ("MB", *PARTS, "seconds"):
        table.add_column(column, justify="right")
    for artifact in manifest.artifacts:
        shares = [f"{artifact.parts[part] / artifact.bytes:.1%}" for part in PARTS]
        table.add_row(artifact.path, f"{artifact.bytes / MB:.2f}", *shares, f"{exported.seconds[artifact.format]:.1f}")
    console = plain_console()
    console.print(table)
    ignored = manifest.source["ignored_tensors"]
    if ignored:
        console.print(f"Not used: {len(ignored)} tensors ({', '.join(ignored[:3])}{', …' if len(ignored) > 3 else ''})")
    if manifest.scheme == FOUR_BIT_SCHEME and any(artifact.format == "coreml" for artifact in manifest.artifacts):
        console.print(
            "model.mlpackage needs iOS 18 or macOS 15. Older ones get int8: export once more without --scheme."
        )
    if any(artifact.activations == PER_TENSOR_ACTIVATIONS for artifact in manifest.artifacts):
        coarse, fine = (golden.mean_drift(exported.folder, name) for name in (PER_TENSOR_ACTIVATIONS, "int8"))
        console.print(
            f"model.tflite has one scale per weight: its golden logits drift by {coarse:.3f} on average, "
            f"per channel by {fine:.3f}. See what it costs: pocketbert check {exported.folder} --data FILE"
        )
    console.print(f"Done in {exported.seconds['total']:.1f} s. Try: {_suggest(manifest, exported.folder)}")


def _suggest(manifest: Manifest, folder: Path) -> str:
    """What to run next."""
    text = "your question" if manifest.task == QUESTION_ANSWERING else "your text"
    second = ' --text-pair "the second text"' if manifest.pairs else ""
    return f'pocketbert classify {folder} "{text}"{second}'


def _as_json(exported: ExportResult) -> dict[str, Any]:
    artifacts = [
        {"format": a.format, "path": a.path, "bytes": a.bytes, "parts": a.parts, "seconds": exported.seconds[a.format]}
        for a in exported.manifest.artifacts
    ]
    return {"bundle": str(exported.folder), "seconds": exported.seconds["total"], "artifacts": artifacts}
