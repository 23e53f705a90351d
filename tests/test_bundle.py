"""An export writes a whole bundle or nothing, and says in one line what a user can mend."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import edit_json

from pocketbert.export import bundle, golden, quantize
from pocketbert.export.bundle import ExportError, ExportOptions, export_bundle
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.encoder import Encoder
from pocketbert.runtime import manifest
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.progress import Progress

TFLITE = ExportOptions(formats=("tflite",), max_length=16)


def pocketbert(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pocketbert.runtime.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_a_bundle_holds_what_its_manifest_lists(bundles: dict[str, Path]) -> None:
    for folder in bundles.values():
        loaded = manifest.read_manifest(folder)
        files = [loaded.tokenizer, loaded.tokenizer_tables, loaded.golden]
        files += [file for a in loaded.artifacts for file in a.files]
        manifest.verify_files(folder, files)
        found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        assert found == {file.path for file in files} | {"manifest.json"}
        assert [a.format for a in loaded.artifacts] == ["executorch", "tflite", "coreml"]


def test_parts_add_up_to_the_artifact(bundles: dict[str, Path]) -> None:
    for artifact in manifest.read_manifest(bundles["albert"]).artifacts:
        assert sum(artifact.parts.values()) == artifact.bytes
        assert all(size > 0 for size in artifact.parts.values())


def test_lengths_end_at_the_maximum(bundles: dict[str, Path]) -> None:
    loaded = manifest.read_manifest(bundles["albert"])
    assert (loaded.lengths, loaded.max_length) == ((8, 16, 24), 24)


def test_a_tokenizer_that_phones_do_not_read_is_refused_before_anything_is_written(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    edit_json(checkpoint / "tokenizer.json", normalizer={"type": "NFC"})
    with pytest.raises(PocketbertError, match="normalizer is not one that phones read: NFC"):
        export_bundle(str(checkpoint), tmp_path / "out", TFLITE)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_golden_cases_come_with_the_tolerance_of_the_self_check(bundles: dict[str, Path]) -> None:
    content = json.loads((bundles["albert"] / "golden.json").read_text())
    assert content["tolerance"] == golden.TOLERANCE
    assert [case["text"] for case in content["cases"]] == list(golden.TEXTS)
    assert all(list(case["oracle"]) == ["fp16", "int8"] for case in content["cases"])


def test_an_export_reads_and_quantizes_its_checkpoint_once(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers could not read it again: it is gone before they have anything to lower."""
    folder = shutil.copytree(checkpoints["distilbert"], tmp_path / "checkpoint")
    quantized: list[str] = []

    def load_and_delete(source: str, *options: Any) -> Checkpoint:
        loaded = load_checkpoint(source, *options)
        shutil.rmtree(source)
        return loaded

    original = quantize.quantize

    def count(encoder: Encoder, scheme: quantize.Scheme, *options: Any) -> Encoder:
        quantized.append(scheme.name)
        return original(encoder, scheme, *options)

    monkeypatch.setattr(bundle, "load_checkpoint", load_and_delete)
    monkeypatch.setattr(quantize, "quantize", count)
    result = export_bundle(str(folder), tmp_path / "out", ExportOptions(("tflite", "coreml"), max_length=16))
    assert quantized == ["dynamic_wi8_afp32"]
    assert set(result.seconds) == {"checkpoint", "oracle", "golden", "tflite", "coreml", "total"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Recorder(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: dict[str, float | None] = {}

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        self.started.append(stage)

    def finish(self, stage: str, note: str = "", seconds: float | None = None) -> None:
        self.finished[stage] = seconds


def test_progress_is_told_every_stage_and_the_seconds_that_the_result_has(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    progress = Recorder()
    result = export_bundle(str(checkpoints["bert"]), tmp_path / "out", TFLITE, progress)
    assert progress.started == ["checkpoint", "oracle", "tflite", "golden"]
    assert {**progress.finished, "total": result.seconds["total"]} == result.seconds


def test_golden_texts_cover_what_a_keyboard_can_send() -> None:
    assert len(golden.TEXTS) >= 16
    assert "" in golden.TEXTS
    assert any("é" in text for text in golden.TEXTS)
    assert any("😍" in text for text in golden.TEXTS)
    assert any("电影" in text for text in golden.TEXTS)
    assert max(len(text.split()) for text in golden.TEXTS) > bundle.DEFAULT_MAX_LENGTH


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(formats=("onnx",)), "unknown format 'onnx'"),
        (ExportOptions(formats=()), "unknown format ''"),
        (ExportOptions(formats=("tflite", "coreml", "tflite")), "format 'tflite' is named twice"),
        (ExportOptions(scheme="int2"), "unknown scheme 'int2'"),
        (ExportOptions(max_length=2), "--max-length 2 is out of range: 3 to 48"),
        (ExportOptions(max_length=49), "--max-length 49 is out of range"),
    ],
    ids=str,
)
def test_wrong_options_are_named(
    checkpoints: dict[str, Path], tmp_path: Path, options: ExportOptions, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_bundle(str(checkpoints["bert"]), tmp_path / "out", options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="exists: choose another --out, or pass --force"):
        export_bundle(str(checkpoints["bert"]), tmp_path / "out", TFLITE)


def test_force_replaces_a_bundle_but_no_other_folder(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out, force = tmp_path / "out", ExportOptions(formats=("tflite",), max_length=16, force=True)
    export_bundle(str(checkpoints["bert"]), out, TFLITE)
    export_bundle(str(checkpoints["albert"]), out, force)
    assert manifest.read_manifest(out).architecture == "albert"
    assert [folder.name for folder in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(ExportError, match="is not a bundle and is not replaced"):
        export_bundle(str(checkpoints["bert"]), tmp_path / "mine", force)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ExportError, match="MB free, the export needs"):
        export_bundle(str(checkpoints["bert"]), tmp_path / "out", TFLITE)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_is_one_line_and_leaves_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "write_manifest", fail)
    with pytest.raises(ExportError, match="no space left on the disk"):
        export_bundle(str(checkpoints["bert"]), tmp_path / "out", TFLITE)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_no_folder_that_looks_done(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pocketbert.runtime.cli", "export", str(checkpoints["bert"]), "--out", str(out)]
    process = subprocess.Popen([*command, "--max-length", "16"], stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob(".out.*")) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()


# The command


def test_the_command_exports_and_prints_json(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    result = pocketbert(
        "export", checkpoints["albert"], "--out", tmp_path / "out", "--formats", "tflite", "--max-length", 16, "--json"
    )
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert [artifact["format"] for artifact in content["artifacts"]] == ["tflite"]
    assert content["artifacts"][0]["seconds"] > 0
    assert "tflite" in result.stderr  # progress


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "/nowhere/x", "--out", "out"), "no such folder: /nowhere/x"),
        (("export", "{bert}", "--out", "out", "--formats", "onnx"), "unknown format 'onnx'"),
        (("export", "{bert}", "--out", "out", "--formats", "tflite,tflite"), "format 'tflite' is named twice"),
        (("compare", "{bert}", "--formats", "tflite,tflite"), "format 'tflite' is named twice"),
        (("export", "{bert}"), "Missing option '--out'"),
        (("inspect", "/nowhere/x"), "no manifest.json in /nowhere/x"),
        (("classify", "/nowhere/x", "hi"), "no manifest.json in /nowhere/x"),
        (("frobnicate",), "No such command 'frobnicate'"),
    ],
    ids=str,
)
def test_a_users_mistake_is_one_line_and_exit_2(
    checkpoints: dict[str, Path], arguments: tuple[str, ...], message: str
) -> None:
    result = pocketbert(*(argument.format(bert=checkpoints["bert"]) for argument in arguments))
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_inspect_shows_sizes_and_finds_an_altered_file(bundles: dict[str, Path], tmp_path: Path) -> None:
    shown = pocketbert("inspect", bundles["albert"], COLUMNS="120")
    assert shown.returncode == 0
    assert "all hashes match" in shown.stdout and "embeddings" in shown.stdout
    assert re.search(r"^weights +8 bits$", shown.stdout, re.MULTILINE)
    assert json.loads(pocketbert("inspect", bundles["albert"], "--json").stdout)["pad_id"] == 0
    altered = shutil.copytree(bundles["albert"], tmp_path / "altered")
    with open(altered / "model.pte", "r+b") as file:
        file.seek(100)
        file.write(b"\xff\x00")
    found = pocketbert("inspect", altered)
    assert found.returncode == 2
    assert "model.pte is not the file that was exported" in found.stderr


def test_errors_are_all_of_one_family() -> None:
    assert issubclass(ExportError, PocketbertError)
