"""The demo: exports the two embedded checkpoints to every format and classifies with every engine of this host.

    python -m pocketbert.export.demo --out demo-bundles

Takes nothing else. Leaves two bundles, prints a table of answers. Leaves out: training (train.py).
"""

from __future__ import annotations

import atexit
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pocketbert.export.bundle import ExportOptions, ExportResult, export_bundle
from pocketbert.export.demo import CHECKPOINTS
from pocketbert.runtime import Classifier, engines
from pocketbert.runtime.cli.output import plain_console
from pocketbert.runtime.cli.progress import StageLines
from pocketbert.runtime.engines.native_logging import silence_farewells
from pocketbert.runtime.manifest import FORMATS, read_manifest

SENTENCES = (
    "what a lovely film",
    "worst app ever!!",
    "not bad at all",
    "i would not watch it again",
    "it works great, thank you",
    "slow, ugly and full of ads",
)


MB = 1_000_000


def demo(out: Annotated[Path, typer.Option(help="Folder for the bundles.")] = Path("demo-bundles")) -> None:
    """Export the embedded checkpoints and classify a handful of sentences with every engine."""
    console = plain_console()
    for name, checkpoint in CHECKPOINTS.items():
        with StageLines(plain_console(stderr=True)) as progress:
            exported = export_bundle(str(checkpoint), out / name, ExportOptions(force=True), progress)
        console.print(_sizes(exported), soft_wrap=True)
    for name in CHECKPOINTS:
        console.print(_answers(out / name))
    missing = [name for name in FORMATS if not engines.installed([name])]
    if missing:
        console.print(f"Not run here: {', '.join(missing)}")
    console.print(f'Try: .venv/bin/pocketbert classify {out / "distilbert"} "your own text"')


def _sizes(exported: ExportResult) -> str:
    """demo-bundles/albert: model.pte 1.82 MB, ... in 32.1 s"""
    sizes = ", ".join(f"{artifact.path} {artifact.bytes / MB:.2f} MB" for artifact in exported.manifest.artifacts)
    return f"{exported.folder}: {sizes} in {exported.seconds['total']:.1f} s"


def _answers(bundle: Path) -> Table:
    """A row per sentence, a column per engine that this host can run."""
    names = engines.installed([artifact.format for artifact in read_manifest(bundle).artifacts])
    table = Table("sentence", *names, title=f"{bundle}", width=min(100, shutil.get_terminal_size().columns))
    columns = []
    for name in names:
        with Classifier.open(bundle, name) as classifier:
            columns.append([f"{best.label} {best.score:.2f}" for best, *_ in map(classifier, SENTENCES)])
    for row in zip(SENTENCES, *columns, strict=True):
        table.add_row(*row)
    return table


if __name__ == "__main__":
    atexit.register(silence_farewells)
    typer.run(demo)
