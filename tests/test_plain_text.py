"""What a label, a folder or a tensor is called is shown as it is, whatever a terminal library would take it for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from test_manifest import VALID, read

from pocketbert.export.bundle import ExportResult
from pocketbert.export.cli import compare, distill
from pocketbert.export.cli import export as export_command
from pocketbert.runtime.cli.output import plain_console
from pocketbert.runtime.cli.progress import Bars, StageLines

ODD = "[/nope] :smile: [red]"  # markup that closes nothing, an emoji's name, a colour


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_table_of_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read(VALID, tmp_path)
    manifest = replace(manifest, source={**manifest.source, "ignored_tensors": [ODD]})
    seconds = dict.fromkeys(("executorch", "tflite", "coreml", "total"), 1.0)
    export_command._print_table(ExportResult(Path(ODD), manifest, seconds))
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{ODD}: albert" in shown and f"(1 tensors ({ODD})" in f"({shown.split('Not used: ')[1]}"
    assert f"pocketbert classify {ODD}" in shown


def test_the_table_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {
        "name": ODD,
        "method": ODD,
        "scheme": ODD,
        "accuracy": None,
        "formats": {},
        "multiply_adds": {"32": 1},
    }
    row |= dict.fromkeys(("layers", "layers_stored", "parameters", "relative_parameters"), 1)
    row |= dict.fromkeys(("parameters_executed", "fp32_bytes"), 1)
    compare._print({"checkpoints": [row], "data": ODD, "texts": 1, "threads": 1, "measure": ODD}, "32")
    shown = capsys.readouterr().out  # long names break
    assert all(shown.count(word) == 4 for word in ODD.split())


def test_the_table_of_a_distillation(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"student": ODD, "teacher": ODD, "sizes": {ODD: (2, 1)}}
    options = SimpleNamespace(out=Path(ODD), work=Path(ODD))
    job = SimpleNamespace(facts=facts, options=options, state=SimpleNamespace(seconds=1.0))
    result: Any = SimpleNamespace(job=job, accuracy=0.5, teacher_accuracy=0.5, outcome="done")
    distill._conclude(result, plain_console())
    assert " ".join(capsys.readouterr().out.split()).count(ODD) == 7


@pytest.mark.parametrize("terminal", [True, False], ids=["on a terminal", "in a file"])
@pytest.mark.parametrize("drawing", [StageLines, Bars])
def test_progress(drawing: Any, terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=terminal, width=200)
    with drawing(console) if drawing is StageLines else drawing(console, lines=True) as progress:
        progress.start(ODD, 2, ODD)
        progress.advance(ODD, 1, ODD)
        progress.display.refresh()
        progress.log(ODD)
        progress.finish(ODD, ODD, 1.0)
    shown = capsys.readouterr().out
    assert ODD in shown or (drawing is Bars and not terminal and shown == f"{ODD}\n")
