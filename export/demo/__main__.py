"""The demo: exports the two embedded checkpoints to every format and classifies with every engine of this host.

Takes nothing but `--out`. Gives two bundles and a table. Leaves out: training (train.py).
"""

from __future__ import annotations

import atexit
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pocketbert.export.cli import export
from pocketbert.runtime import Classifier, engines, manifest
from pocketbert.runtime.engines.quiet import leave_quietly

CHECKPOINTS = {name: Path(__file__).parent / name for name in ("distilbert", "albert")}
SENTENCES = (
    "what a lovely film",
    "worst app ever!!",
    "not bad at all",
    "i would not watch it again",
    "it works great, thank you",
    "slow, ugly and full of ads",
)


def demo(out: Annotated[Path, typer.Option(help="Folder for the bundles.")] = Path("demo-bundles")) -> None:
    """Export the embedded checkpoints and classify a handful of sentences with every engine."""
    for name, checkpoint in CHECKPOINTS.items():
        export(str(checkpoint), out / name, force=True)
    console = Console()
    for name in CHECKPOINTS:
        console.print(_answers(out / name))
    missing = [engine for engine in engines.ENGINES if not engines.installed([engine])]
    if missing:
        console.print(f"Not run here: {', '.join(missing)}")
    console.print(f'Try: .venv/bin/pocketbert classify {out / "distilbert"} "your own text"')


def _answers(bundle: Path) -> Table:
    """A row per sentence, a column per engine that this host can run."""
    formats = [artifact.format for artifact in manifest.read(bundle).artifacts]
    names = engines.installed(formats)
    table = Table("sentence", *names, title=f"{bundle}", width=min(100, shutil.get_terminal_size().columns))
    columns = []
    for name in names:
        with Classifier.open(bundle, name) as classifier:
            columns.append([f"{best.label} {best.score:.2f}" for best, *_ in map(classifier, SENTENCES)])
    for row in zip(SENTENCES, *columns, strict=True):
        table.add_row(*row)
    return table


if __name__ == "__main__":
    atexit.register(leave_quietly)
    typer.run(demo)
