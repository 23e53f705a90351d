"""A manifest is read as its schema describes it; what is damaged, foreign or dangerous is refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pocketbert.runtime import manifest
from pocketbert.runtime.errors import BundleError

SCHEMA = json.loads((Path(manifest.__file__).parent / "manifest.schema.json").read_text())
HASH = "0" * 64
FILE = {"path": "tokenizer.json", "bytes": 2, "sha256": HASH}
VALID: dict[str, Any] = {
    "format_version": 1,
    "task": "sequence-classification",
    "architecture": "albert",
    "labels": ["ham", "spam"],
    "multi_label": False,
    "lengths": [8, 16],
    "max_length": 16,
    "pad_id": 0,
    "scheme": "dynamic_wi8_afp32",
    "input": {"name": "input_ids", "dtype": "int32", "shape": [1, None]},
    "output": {"name": "logits", "dtype": "float32", "shape": [1, 2]},
    "tokenizer": FILE,
    "tokenizer_tables": {**FILE, "path": "tokenizer.safetensors"},
    "golden": {**FILE, "path": "golden.json"},
    "artifacts": [
        {
            "format": "tflite",
            "path": "model.tflite",
            "entry": "seq_{length}",
            "any_length": False,
            "activations": "int8",
            "requires": {"ai-edge-litert": ">=2.3"},
            "parts": {"embeddings": 1, "layers": 1, "head": 1, "graph": 1},
            "files": [{**FILE, "path": "model.tflite"}],
        }
    ],
    "source": {"name": "x", "weights_sha256": HASH, "ignored_tensors": []},
    "tools": {"torch": "2.13.0"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """VALID with the value at a dotted path replaced, or removed where it is None."""
    content = copy.deepcopy(VALID)
    place: Any = content
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def read(content: Any, folder: Path) -> manifest.Manifest:
    (folder / "manifest.json").write_text(json.dumps(content))
    return manifest.read(folder)


def test_the_valid_example_is_valid_for_reader_and_schema(tmp_path: Path) -> None:
    jsonschema.validate(VALID, SCHEMA)
    assert read(VALID, tmp_path).labels == ("ham", "spam")


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    loaded = read(VALID, tmp_path)
    manifest.write(loaded, tmp_path)
    assert manifest.read(tmp_path) == loaded
    jsonschema.validate(json.loads((tmp_path / "manifest.json").read_text()), SCHEMA)


@pytest.mark.parametrize("family", ["distilbert", "albert"])
def test_exported_manifests_match_the_schema(bundles: dict[str, Path], family: str) -> None:
    jsonschema.validate(json.loads((bundles[family] / "manifest.json").read_text()), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format_version", 2, "format_version is 2"),
        ("format_version", None, "format_version is None"),
        ("task", "translation", "task 'translation'"),
        ("labels", [], "labels"),
        ("labels", ["a", "a"], "labels"),
        ("labels", ["a", 1], "labels"),
        ("multi_label", "no", "multi_label"),
        ("lengths", [], "lengths"),
        ("lengths", [0, 16], "lengths"),
        ("lengths", [8, "16"], "lengths"),
        ("max_length", True, "max_length"),
        ("pad_id", -1, "pad_id"),
        ("tokenizer", None, "tokenizer"),
        ("tokenizer_tables", None, "tokenizer_tables"),
        ("tokenizer.path", "../secret", "leaves the bundle"),
        ("tokenizer.path", "/etc/passwd", "leaves the bundle"),
        ("tokenizer.path", "a/../../b", "leaves the bundle"),
        ("tokenizer.path", "..\\secret", "leaves the bundle"),
        ("tokenizer.path", "C:/secret", "leaves the bundle"),
        ("artifacts.0.files.0.path", "../x", "leaves the bundle"),
        ("artifacts.0.path", "/x", "leaves the bundle"),
        ("artifacts.0.activations", "int4", "int4"),
        ("artifacts.0.entry", None, r"artifacts\[0\]\.entry"),
        ("artifacts", {}, "artifacts"),
    ],
)
def test_reader_and_schema_refuse_the_same(tmp_path: Path, path: str, value: Any, message: str) -> None:
    content = changed(path, value)
    with pytest.raises(BundleError, match=message):
        read(content, tmp_path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMA)


@pytest.mark.parametrize("value", [[16, 8], [8, 8, 16], [8, 32]], ids=str)
def test_lengths_ascend_to_the_maximum(tmp_path: Path, value: list[int]) -> None:
    with pytest.raises(BundleError, match="length"):
        read(changed("lengths", value), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "\x00"])
def test_a_manifest_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        manifest.read(tmp_path)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is it a bundle"):
        manifest.read(tmp_path)
    with pytest.raises(BundleError, match="is it a bundle"):
        manifest.read(tmp_path / "nowhere")


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    entry = manifest.describe_file(tmp_path, "a")
    manifest.verify(tmp_path, [entry])
    (tmp_path / "a").write_bytes(b"abb")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        manifest.verify(tmp_path, [entry])
    (tmp_path / "a").write_bytes(b"ab")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        manifest.verify(tmp_path, [entry])
    (tmp_path / "a").unlink()
    with pytest.raises(BundleError, match="is missing"):
        manifest.verify(tmp_path, [entry])


def test_a_text_is_padded_to_the_next_length(tmp_path: Path) -> None:
    loaded = read(VALID, tmp_path)
    assert [loaded.padded_length(tokens) for tokens in (1, 8, 9, 16)] == [8, 8, 16, 16]


def test_a_format_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no coreml artifact: it has tflite"):
        read(VALID, tmp_path).artifact("coreml")
