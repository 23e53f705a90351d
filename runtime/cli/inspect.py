"""`pocketbert inspect`: what a bundle says of itself, once all its files are known to be whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketbert.runtime.cli.arguments import Bundle
from pocketbert.runtime.cli.output import make_table, plain_console
from pocketbert.runtime.manifest import (
    FOUR_BIT_SCHEME,
    PARTS,
    QUESTION_ANSWERING,
    describe,
    read_manifest,
    verify_files,
)

if TYPE_CHECKING:
    from pocketbert.runtime.manifest import Artifact, Manifest

MB = 1_000_000
TWO_TEXTS = " (two texts)"
# Of each scheme, what weights are stored as: a manifest has but its name.
WEIGHTS = {
    "dynamic_wi8_afp32": "8 bits",
    FOUR_BIT_SCHEME: "4 bits in the layers and seven of eight rows of the word table, 8 in what is left",
    "float_wf32_afp32": "floats",
}
ARTIFACT_ROWS = ("needs", "entry", "lengths", "activations", "size", *PARTS)


def inspect(
    bundle: Bundle, as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False
) -> None:
    """Show what is in a bundle and where its bytes go; every file is compared with its hash."""
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest.files)
    if as_json:
        print(json.dumps(describe(manifest), indent=1, ensure_ascii=False))
    else:
        _print_manifest(bundle, manifest)


def _print_manifest(folder: Path, manifest: Manifest) -> None:
    console, names = plain_console(), [artifact.path for artifact in manifest.artifacts]
    rows = {
        "model": f"{manifest.architecture}, {manifest.task}{TWO_TEXTS * manifest.pairs}, {manifest.scheme}",
        "weights": _describe_weights(manifest),
        "source": f"{manifest.source['name']} (weights {manifest.source['weights_sha256'][:12]}…)",
        "labels": _describe_labels(manifest),
        "lengths": f"{', '.join(map(str, manifest.lengths))} tokens, pad id {manifest.pad_id}",
        "made by": ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()),
    }
    for name, value in rows.items():
        console.print(f"{name:<8}", style="bold", end=" ")
        console.print(value, soft_wrap=True)
    console.print(f"{folder}: all hashes match", soft_wrap=True)
    table = make_table("", ("", *names), left=names)
    for row in zip(ARTIFACT_ROWS, *(_artifact_column(artifact) for artifact in manifest.artifacts), strict=True):
        table.add_row(*row)
    console.print(table)


def _describe_weights(manifest: Manifest) -> str:
    stored = WEIGHTS.get(manifest.scheme, manifest.scheme)
    calibration = manifest.calibration
    if calibration is None:
        return stored
    layers = calibration.eight_bit_layers
    first = f", and in the first {layers} layer{'s' if layers > 1 else ''}" if layers else ""
    return f"{stored}{first}; calibrated by {calibration.texts} texts"


def _describe_labels(manifest: Manifest) -> str:
    if manifest.task == QUESTION_ANSWERING:
        return "none: where an answer starts and ends"
    return f"{', '.join(manifest.labels)} ({'several' if manifest.multi_label else 'one'} at a time)"


def _artifact_column(artifact: Artifact) -> list[str]:
    needs = "\n".join(f"{runtime} {version}" for runtime, version in artifact.requires.items())
    sizes = [_share(artifact.parts[part], artifact.bytes) for part in PARTS]
    lengths = "any" if artifact.any_length else "those listed"
    return [needs, artifact.entry, lengths, artifact.activations, f"{artifact.bytes / MB:.2f} MB", *sizes]


def _share(part: int, total: int) -> str:
    return f"{part / MB:6.2f} MB {part / total:6.1%}"
