"""An export writes a whole bundle or nothing, and says in one line what a user can mend."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import edit_json

from pocketbert.export import bundle, golden
from pocketbert.export.bundle import ExportError, Options
from pocketbert.runtime import manifest
from pocketbert.runtime.errors import PocketbertError

TFLITE = Options(formats=("tflite",), max_length=16)


def pocketbert(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pocketbert.runtime.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_a_bundle_holds_what_its_manifest_lists(bundles: dict[str, Path]) -> None:
    for folder in bundles.values():
        loaded = manifest.read(folder)
        files = [loaded.tokenizer, loaded.tokenizer_tables, loaded.golden]
        files += [file for a in loaded.artifacts for file in a.files]
        manifest.verify(folder, files)
        found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        assert found == {file.path for file in files} | {"manifest.json"}
        assert [a.format for a in loaded.artifacts] == ["executorch", "tflite", "coreml"]


def test_parts_add_up_to_the_artifact(bundles: dict[str, Path]) -> None:
    for artifact in manifest.read(bundles["albert"]).artifacts:
        assert sum(artifact.parts.values()) == artifact.bytes
        assert all(size > 0 for size in artifact.parts.values())


def test_lengths_end_at_the_maximum(bundles: dict[str, Path]) -> None:
    loaded = manifest.read(bundles["albert"])
    assert (loaded.lengths, loaded.max_length) == ((8, 16, 24), 24)


def test_a_tokenizer_that_phones_do_not_read_is_refused_before_anything_is_written(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    edit_json(checkpoint / "tokenizer.json", normalizer={"type": "NFC"})
    with pytest.raises(PocketbertError, match="normalizer is not one that phones read: NFC"):
        bundle.export(str(checkpoint), tmp_path / "out", TFLITE)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


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
        (Options(formats=("onnx",)), "unknown format 'onnx'"),
        (Options(formats=()), "unknown format ''"),
        (Options(scheme="int2"), "unknown scheme 'int2'"),
        (Options(max_length=2), "--max-length 2 is out of range: 3 to 48"),
        (Options(max_length=49), "--max-length 49 is out of range"),
    ],
    ids=str,
)
def test_wrong_options_are_named(checkpoints: dict[str, Path], tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        bundle.export(str(checkpoints["bert"]), tmp_path / "out", options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="exists: choose another --out, or pass --force"):
        bundle.export(str(checkpoints["bert"]), tmp_path / "out", TFLITE)


def test_force_replaces_a_bundle_but_no_other_folder(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out, force = tmp_path / "out", Options(formats=("tflite",), max_length=16, force=True)
    bundle.export(str(checkpoints["bert"]), out, TFLITE)
    bundle.export(str(checkpoints["albert"]), out, force)
    assert manifest.read(out).architecture == "albert"
    assert [folder.name for folder in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(ExportError, match="is not a bundle and is not replaced"):
        bundle.export(str(checkpoints["bert"]), tmp_path / "mine", force)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ExportError, match="MB free, the export needs"):
        bundle.export(str(checkpoints["bert"]), tmp_path / "out", TFLITE)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_is_one_line_and_leaves_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", fail)
    with pytest.raises(ExportError, match="no space left on the disk"):
        bundle.export(str(checkpoints["bert"]), tmp_path / "out", TFLITE)
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_fails_is_named_with_its_log(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "flatbuffers.py").write_text("raise RuntimeError('out of buffers')")
    arguments = ("export", checkpoints["bert"], "--out", tmp_path / "out", "--formats", "tflite", "--max-length", 16)
    result = pocketbert(*arguments, PYTHONPATH=str(tmp_path), TMPDIR=str(tmp_path))
    assert result.returncode == 2
    assert "lowering to tflite failed: RuntimeError: out of buffers (log: " in result.stderr
    assert list(tmp_path.glob("pocketbert-tflite-*.log"))
    assert not (tmp_path / "out").exists()


def test_a_killed_export_leaves_no_folder_that_looks_done(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pocketbert.runtime.cli", "export", str(checkpoints["bert"]), "--out", str(out)]
    process = subprocess.Popen([*command, "--max-length", "16"], stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob(".out-*")) and process.poll() is None:
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
