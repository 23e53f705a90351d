"""A manifest is read as its schema describes it; what is damaged, foreign or dangerous is refused by name."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pocketbert.runtime import manifest
from pocketbert.runtime.errors import BundleError

SCHEMA = json.loads((Path(manifest.__file__).parent / "contract/manifest.schema.json").read_text())
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

ENTITIES = {
    **VALID,
    "task": "token-classification",
    "output": {"name": "logits", "dtype": "float32", "shape": [1, None, 2]},
}
ANSWERS = {
    **{key: value for key, value in VALID.items() if key != "output"},
    "task": "question-answering",
    "labels": [],
    "pairs": True,
    "outputs": [{"name": name, "dtype": "float32", "shape": [1, None]} for name in ("start_logits", "end_logits")],
}
FOUR_BITS = {
    **VALID,
    "scheme": "dynamic_wi4_afp32",
    "calibration": {"texts": 400, "texts_sha256": HASH, "weights_sha256": HASH, "eight_bit_layers": 0},
}
EXAMPLES = {
    "four bits": FOUR_BITS,
    "label": VALID,
    "pair": {**VALID, "pairs": True},
    "entities": ENTITIES,
    "answer": ANSWERS,
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
    return manifest.read_manifest(folder)


def test_the_valid_example_is_valid_for_reader_and_schema(tmp_path: Path) -> None:
    jsonschema.validate(VALID, SCHEMA)
    assert read(VALID, tmp_path).labels == ("ham", "spam")


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_what_is_written_is_what_is_read(tmp_path: Path, example: dict[str, Any]) -> None:
    loaded = read(example, tmp_path)
    manifest.write_manifest(loaded, tmp_path)
    assert manifest.read_manifest(tmp_path) == loaded
    written = json.loads((tmp_path / "manifest.json").read_text())
    jsonschema.validate(written, SCHEMA)
    assert written.keys() == example.keys() | {"sha256"}  # what an older reader does not know is not there


@pytest.mark.parametrize(
    ("example", "change"),
    [
        (VALID, {"pairs": 1}),
        (VALID, {"outputs": ANSWERS["outputs"]}),
        (ENTITIES, {"multi_label": True}),
        (ENTITIES, {"pairs": True}),
        (ANSWERS, {"pairs": False}),
        (ANSWERS, {"labels": ["start", "end"]}),
        (ANSWERS, {"outputs": ANSWERS["outputs"][::-1]}),
        (ANSWERS, {"output": VALID["output"]}),
    ],
)
def test_reader_and_schema_refuse_what_belongs_to_another_task(
    tmp_path: Path, example: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match=r"output|task|cannot be|pairs"):
        read({**example, **change}, tmp_path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**example, **change}, SCHEMA)


@pytest.mark.parametrize(
    "calibration",
    [
        None,
        [400, HASH, HASH],
        {"texts": 400, "texts_sha256": HASH},
        {"texts": -1, "texts_sha256": HASH, "weights_sha256": HASH, "eight_bit_layers": 0},
        {"texts": "400", "texts_sha256": HASH, "weights_sha256": HASH, "eight_bit_layers": 0},
        {"texts": 400, "texts_sha256": HASH[1:], "weights_sha256": HASH, "eight_bit_layers": 0},
        {"texts": 400, "texts_sha256": HASH, "weights_sha256": "G" * 64, "eight_bit_layers": 0},
    ],
    ids=str,
)
def test_reader_and_schema_refuse_a_damaged_calibration(tmp_path: Path, calibration: Any) -> None:
    with pytest.raises(BundleError, match="calibration"):
        read({**VALID, "calibration": calibration}, tmp_path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALID, "calibration": calibration}, SCHEMA)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
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
        ("artifacts", [], "artifacts are none"),
        ("artifacts.0.files", [], "its files are"),
        ("artifacts.0.entry", "", "is no name"),
        ("artifacts.0.entry", "seq_{0.__class__}", "is no name"),
        ("artifacts.0.parts.head", -1, "negative"),
        ("artifacts.0.parts.graph", None, "graph"),
        ("artifacts.0.requires", {"ios": 16}, "requires"),
        ("tokenizer.bytes", -1, "negative"),
        ("tokenizer.sha256", "0" * 63, "no sha256"),
        ("tokenizer.sha256", "A" * 64, "no sha256"),
        ("tokenizer.path", "a\0b", "leaves the bundle"),
        ("input.name", "ids", "input is not"),
        ("input.shape", [1, 8], "input is not"),
        ("output.dtype", "float16", "output is not"),
        ("pad_id", 2**31, "pad_id"),
        ("source.name", None, "source"),
        ("source.ignored_tensors", [1], "ignored_tensors"),
        ("tools", {"torch": 2}, "tools"),
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
        manifest.read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is it a bundle"):
        manifest.read_manifest(tmp_path)
    with pytest.raises(BundleError, match="is it a bundle"):
        manifest.read_manifest(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("output.shape", [1, 3], "with 2 labels gives"),
        ("artifacts.0.path", "other.tflite", "'other.tflite', its files are model.tflite"),
        ("artifacts.0.files.0.path", "model.tflite.bak", "its files are model.tflite.bak"),
        ("artifacts", [VALID["artifacts"][0]] * 2, "two of a format"),
        ("task", "token-classification", "output is not"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(changed(path, value), tmp_path)


def test_a_bit_that_flips_anywhere_in_a_manifest_is_found(tmp_path: Path) -> None:
    manifest.write_manifest(read(VALID, tmp_path), tmp_path)
    whole = (tmp_path / "manifest.json").read_bytes()
    seal = len(whole) - len(',\n "sha256": ""\n}\n') - 64
    flips = [(place, place % 8) for place in range(seal)] + [
        (p, bit) for p in range(seal, len(whole)) for bit in range(8)
    ]
    for place, bit in flips:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        (tmp_path / "manifest.json").write_bytes(flipped)
        with pytest.raises(BundleError):
            manifest.read_manifest(tmp_path)


def test_a_manifest_without_seal_opens_if_it_has_the_first_fields_only(tmp_path: Path) -> None:
    assert read(VALID, tmp_path).pad_id == 0
    with pytest.raises(BundleError, match="'hidden' is unknown and no seal vouches for it"):
        read({**VALID, "hidden": 1}, tmp_path)


def test_a_sealed_manifest_may_say_more_than_this_reader_knows(tmp_path: Path) -> None:
    manifest.write_manifest(read(VALID, tmp_path), tmp_path)
    body = (tmp_path / "manifest.json").read_bytes()[: -len(',\n "sha256": ""\n}\n') - 64] + b',\n "later": true'
    seal = f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'
    (tmp_path / "manifest.json").write_bytes(body + seal.encode())
    assert manifest.read_manifest(tmp_path).pad_id == 0


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000])
def test_a_manifest_that_is_too_deep_or_too_long_a_number_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        manifest.read_manifest(tmp_path)


def test_a_fifo_is_no_manifest_and_no_file_of_a_bundle(tmp_path: Path) -> None:
    entry = manifest.File("pipe", 0, hashlib.sha256(b"").hexdigest())
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="not a regular file"):
        manifest.verify_files(tmp_path, [entry])
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(BundleError, match="not a regular file"):
        manifest.read_manifest(tmp_path)


def test_a_link_out_of_the_bundle_is_no_file_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"abc")
    (tmp_path / "bundle/inner").mkdir(parents=True)
    entry = manifest.File("a", 3, hashlib.sha256(b"abc").hexdigest())
    (tmp_path / "bundle/a").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="not a regular file of the bundle"):
        manifest.verify_files(tmp_path / "bundle", [entry])
    (tmp_path / "bundle/a").unlink()
    (tmp_path / "bundle/inner/a").write_bytes(b"abc")
    (tmp_path / "bundle/a").symlink_to("inner/a")
    manifest.verify_files(tmp_path / "bundle", [entry])


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    entry = manifest.describe_file(tmp_path, "a")
    manifest.verify_files(tmp_path, [entry])
    (tmp_path / "a").write_bytes(b"abb")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        manifest.verify_files(tmp_path, [entry])
    (tmp_path / "a").write_bytes(b"ab")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        manifest.verify_files(tmp_path, [entry])
    (tmp_path / "a").unlink()
    with pytest.raises(BundleError, match="is missing"):
        manifest.verify_files(tmp_path, [entry])


def test_a_text_is_padded_to_the_next_length(tmp_path: Path) -> None:
    loaded = read(VALID, tmp_path)
    assert [loaded.padded_length(tokens) for tokens in (1, 8, 9, 16)] == [8, 8, 16, 16]


def test_a_format_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no coreml artifact: it has tflite"):
        read(VALID, tmp_path).artifact("coreml")
