"""Readers refuse damaged files in one short line and do nothing else; `make fuzz` looks for longer.

Here each reader gets a few hundred mutants, always the same, in a process with bounds; FuzzTest.kt does so for Kotlin.
What fuzzing has found is below, each as the smallest file that shows it.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketbert.runtime import manifest, self_check
from pocketbert.runtime.engines.coreml.mil import package
from pocketbert.runtime.engines.coreml.mil.protobuf import UnreadableProgram
from pocketbert.runtime.errors import LONGEST_MESSAGE, BundleError
from pocketbert.runtime.tokenizer import Tokenizer

FUZZ = Path(__file__).parent / "fuzz"
CASES = {"manifest": 500, "golden": 150, "tokenizer": 200, "package": 40, "package_manifest": 300, "weights": 500}
LIMIT = 120  # seconds for all cases of a target, which take one or two


@pytest.mark.parametrize("target", CASES)
def test_a_damaged_file_is_refused_in_one_line(bundles: dict[str, Path], target: str) -> None:
    command = [sys.executable, FUZZ / "loop.py", target, str(CASES[target]), *bundles.values()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{target}: {CASES[target]} cases, 0 finds\n"


def test_the_loop_reports_what_a_reader_should_not_raise(bundles: dict[str, Path], tmp_path: Path) -> None:
    """A reader that lets a KeyError through is found."""
    code = f"""import sys; sys.path.insert(0, {str(FUZZ)!r}); import loop, targets; from pathlib import Path
targets.manifest._check = lambda manifest: {{}}["missing"]
sys.exit(loop.main("manifest", 20, [Path({str(bundles["albert"])!r})]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 1 and "KeyError" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def mutation(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FUZZ)
    import mutation

    return mutation


def test_mutants_are_the_same_each_time_and_most_keep_the_format(mutation: Any, bundles: dict[str, Path]) -> None:
    program = (bundles["albert"] / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel").read_bytes()
    values = json.dumps({"a": [1, {"b": "c"}], "d": 0.5}).encode()
    for mutate, seed, holds in (
        (mutation.mutate_json, values, json.loads),
        (mutation.mutate_protobuf, program, lambda data: mutation._fields(data)[0]),
    ):
        mutants = [mutate(seed, random.Random(i)) for i in range(50)]
        assert mutants == [mutate(seed, random.Random(i)) for i in range(50)]
        assert len(set(mutants)) > 40
        assert sum(_holds(holds, mutant) for mutant in mutants) > 35


def _holds(read: Callable[[bytes], Any], data: bytes) -> bool:
    try:
        read(data)
    except (ValueError, RecursionError):
        return False
    return True


# What was found.


def edited(bundle: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Why a bundle's manifest is refused after a change."""
    content = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    content.pop("sha256", None)
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError) as refusal:
        manifest.read_manifest(folder)
    return str(refusal.value)


def test_a_message_is_one_short_line_whatever_it_quotes(bundles: dict[str, Path], tmp_path: Path) -> None:
    message = edited(bundles["albert"], tmp_path, lambda content: content.update(task="x\n\ud800" * 5000))
    assert message.isprintable() and len(message) <= LONGEST_MESSAGE
    assert "[...]" in message and message.endswith(
        "is unknown here: sequence-classification, token-classification, question-answering"
    )


@pytest.mark.parametrize("version", [True, 1.0])
def test_a_version_that_only_equals_1_is_refused(bundles: dict[str, Path], tmp_path: Path, version: Any) -> None:
    assert "format_version" in edited(
        bundles["albert"], tmp_path, lambda content: content.update(format_version=version)
    )


@pytest.mark.parametrize("size", [True, 1.0])
def test_a_size_that_only_equals_1_is_refused(bundles: dict[str, Path], tmp_path: Path, size: Any) -> None:
    assert "shape" in edited(bundles["albert"], tmp_path, lambda content: content["input"].update(shape=[size, None]))


def test_a_path_that_no_file_can_have_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    assert "leaves the bundle" in edited(
        bundles["albert"], tmp_path, lambda content: content["golden"].update(path="\udc80.json")
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_ids", [2, 1.5]),
        ("input_ids", ["2", "3"]),
        ("input_ids", [2**31]),
        ("logits", ["0", "1", "2"]),
        ("logits", [True] * 3),
    ],
)
def test_golden_numbers_are_numbers(bundles: dict[str, Path], tmp_path: Path, field: str, value: Any) -> None:
    own = manifest.read_manifest(bundles["albert"])
    content = json.loads((bundles["albert"] / own.golden.path).read_text(encoding="utf-8"))
    content["cases"][0][field] = value
    (tmp_path / own.golden.path).write_text(json.dumps(content), encoding="utf-8")
    sealed = dataclasses.replace(own, golden=manifest.describe_file(tmp_path, own.golden.path))
    with pytest.raises(BundleError, match=r"cannot read .*golden\.json"):
        self_check.read_golden(tmp_path, sealed)


def tokenizer_with(
    bundle: Path, folder: Path, change: Callable[[dict[str, Any]], None], max_length: int = 8
) -> Tokenizer:
    content = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return Tokenizer(folder / "tokenizer.json", max_length)


def test_a_tokenizer_that_panics_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    panic = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    with pytest.raises(BundleError, match="cannot read"):
        tokenizer_with(bundles["albert"], tmp_path, lambda content: content.update(panic))


def test_a_text_that_a_tokenizer_cannot_take_is_an_error_of_the_bundle(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = tokenizer_with(bundles["albert"], tmp_path, lambda content: content["model"].update(unk_id=None))
    with pytest.raises(BundleError, match="cannot tokenize with"):
        tokenizer("日本")


def test_a_maximum_below_the_special_tokens_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    assert tokenizer_with(bundles["albert"], tmp_path, lambda content: None, max_length=2)("film").shape == (2,)
    with pytest.raises(BundleError, match="max_length 1 has no room for the 2 special tokens"):
        tokenizer_with(bundles["albert"], tmp_path, lambda content: None, max_length=1)


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 2**62, 2**62)])
def test_a_constant_that_numpy_cannot_shape_is_refused(shape: tuple[int, ...]) -> None:
    data = b"" if 0 in shape else b"\0\0\0\0"
    value = package.Value(package.TensorType(np.dtype("<f4"), shape), data)
    with pytest.raises(UnreadableProgram, match="is no array"):
        value.read()


def test_a_package_whose_model_has_no_possible_name_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["albert"] / "model.mlpackage", tmp_path / "model.mlpackage")
    content = json.loads((folder / "Manifest.json").read_text())
    content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = "\ud800"
    (folder / "Manifest.json").write_text(json.dumps(content))
    with pytest.raises(UnreadableProgram, match="lies outside the package"):
        package.read(folder)


def test_a_package_whose_model_is_a_circle_of_links_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["albert"] / "model.mlpackage", tmp_path / "model.mlpackage")
    model = folder / "Data/com.apple.CoreML/model.mlmodel"
    model.unlink()
    model.symlink_to(model)
    with pytest.raises(UnreadableProgram):
        package.read(folder)
