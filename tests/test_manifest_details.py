"""A manifest word for word: how it is written, what each refusal says, and the edges of what is allowed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from test_manifest import ANSWERS, ENTITIES, HASH, VALID, changed, read

from pocketbert.runtime import manifest
from pocketbert.runtime.errors import BundleError

ALTERED = "it is not the file that was exported: copy or export the bundle again"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files by their names alone, as errors show them."""
    monkeypatch.chdir(tmp_path)


def refusal(content: Any) -> str:
    with pytest.raises(BundleError) as found:
        read(content, Path())
    return str(found.value).removeprefix("manifest.json: ")


def test_a_manifest_is_indented_by_one_and_shows_every_script() -> None:
    loaded = read(changed("labels", ["schön", "映画"]), Path())
    manifest.write_manifest(loaded, Path())
    written = Path("manifest.json").read_bytes()
    assert written.startswith(
        b'{\n "format_version": 1,\n "task": "sequence-classification",\n "architecture": "albert"'
    )
    assert ' "labels": [\n  "schön",\n  "映画"\n ],\n'.encode() in written
    body = written[: written.rindex(b',\n "sha256": "')]
    assert written[len(body) :].decode() == f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'


def test_a_manifest_that_was_altered_says_so() -> None:
    manifest.write_manifest(read(VALID, Path()), Path())
    file = Path("manifest.json")
    file.write_bytes(file.read_bytes().replace(b'"ham"', b'"jam"'))
    with pytest.raises(BundleError) as found:
        manifest.read_manifest(Path())
    assert str(found.value) == f"manifest.json: {ALTERED}"


def test_the_first_unknown_field_is_named_by_the_alphabet() -> None:
    said = "'beta' is unknown and no seal vouches for it: export the bundle again"
    assert refusal({**VALID, "gamma": 1, "beta": 2}) == said
    assert refusal({**VALID, "sha256": HASH}) == said.replace("beta", "sha256")  # a seal is at the end, or is none


def test_a_manifest_that_cannot_be_read_is_named_with_the_reason() -> None:
    with pytest.raises(BundleError) as found:
        manifest.read_manifest("nowhere")
    assert str(found.value) == "no manifest.json in nowhere: is it a bundle made by `pocketbert export`?"
    Path("manifest.json").write_bytes(b'{"task": "\xff"}')
    with pytest.raises(BundleError, match=r"cannot read manifest\.json: 'utf-8' codec can't decode byte 0xff"):
        manifest.read_manifest(Path())
    assert refusal(["a"]) == "format_version is None, this runtime reads 1: export again"


@pytest.mark.parametrize("version", [True, 1.0, "1", None, 2])
def test_the_version_is_the_whole_number(version: object) -> None:
    said = f"format_version is {version!r}, this runtime reads 1: export again"
    assert refusal({**VALID, "format_version": version}) == said


def test_a_manifest_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    read(VALID, Path())
    size = Path("manifest.json").stat().st_size
    monkeypatch.setattr(manifest, "LARGEST_MANIFEST", size)
    manifest.read_manifest(Path())
    monkeypatch.setattr(manifest, "LARGEST_MANIFEST", size - 1)
    with pytest.raises(BundleError, match=f"cannot read manifest.json: it has more than {size - 1} bytes"):
        manifest.read_manifest(Path())


def test_only_regular_files_are_read_and_only_so_many_bytes_of_them() -> None:
    Path("file").write_bytes(b"abc")
    assert manifest.read_regular(Path("file"), 3) == b"abc"
    with pytest.raises(OSError, match=r"^it has more than 2 bytes$"):
        manifest.read_regular(Path("file"), 2)
    os.mkfifo("pipe")
    with pytest.raises(OSError, match=r"^it is not a regular file$"):
        manifest.read_regular(Path("pipe"), 3)


def test_a_file_that_cannot_be_hashed_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a").write_bytes(b"abc")
    entry = manifest.describe_file(Path(), "a")
    for problem, reason in ((OSError(5, "Input/output error"), "Input/output error"), (OSError("gone"), "gone")):

        def fail(*paths: Path, problem: OSError = problem) -> str:
            raise problem

        monkeypatch.setattr(manifest, "hash_file", fail)
        with pytest.raises(BundleError) as found:
            manifest.verify_files(Path(), [entry])
        assert str(found.value) == f"cannot read a: {reason}"


def test_a_path_that_no_file_can_have_is_missing() -> None:
    with pytest.raises(BundleError) as found:
        manifest.verify_files(Path(), [manifest.File("a\0", 0, HASH)])
    assert str(found.value).endswith("is missing: export the bundle again")


def test_a_folder_is_no_file_of_a_bundle_and_the_other_files_are_looked_at_too() -> None:
    Path("a").write_bytes(b"abc")
    Path("folder").mkdir()
    entry = manifest.describe_file(Path(), "a")
    assert entry == manifest.File("a", 3, hashlib.sha256(b"abc").hexdigest())
    with pytest.raises(BundleError) as found:
        manifest.verify_files(Path(), [entry, manifest.File("folder", 0, HASH)])
    assert str(found.value) == "folder is not a regular file of the bundle: copy the file itself there"
    with pytest.raises(BundleError) as found:
        manifest.verify_files(Path(), [entry, manifest.File("a", 3, HASH)])
    assert str(found.value) == "a is not the file that was exported: copy or export the bundle again"
    with pytest.raises(BundleError):
        manifest.verify_files(Path(), [manifest.File("a", 4, entry.sha256)])


def test_several_files_hash_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "HASH_BLOCK", 2)
    Path("a").write_bytes(b"abcde")
    Path("b").write_bytes(b"fg")
    assert manifest.hash_file(Path("a"), Path("b")) == hashlib.sha256(b"abcdefg").hexdigest()


def test_formats_that_are_there_are_listed() -> None:
    artifact = VALID["artifacts"][0]
    two = {**VALID, "artifacts": [artifact, {**artifact, "format": "coreml", "any_length": True}]}
    loaded = read(two, Path())
    assert [loaded.artifact(name).any_length for name in ("tflite", "coreml")] == [False, True]
    with pytest.raises(BundleError) as found:
        loaded.artifact("executorch")
    assert str(found.value) == "the bundle has no executorch artifact: it has tflite, coreml"


def test_every_field_arrives_where_it_belongs() -> None:
    loaded = read({**VALID, "pad_id": 3, "multi_label": True, "pairs": True}, Path())
    assert (loaded.task, loaded.architecture, loaded.labels) == ("sequence-classification", "albert", ("ham", "spam"))
    assert (loaded.multi_label, loaded.pairs, loaded.pad_id) == (True, True, 3)
    assert (loaded.lengths, loaded.max_length, loaded.scheme) == ((8, 16), 16, "dynamic_wi8_afp32")
    assert loaded.input == manifest.Tensor("input_ids", "int32", (1, None))
    assert loaded.outputs == (manifest.Tensor("logits", "float32", (1, 2)),)
    assert [file.path for file in loaded.files] == [
        *("tokenizer.json", "tokenizer.safetensors", "golden.json", "model.tflite")
    ]
    assert (loaded.tokenizer.bytes, loaded.tokenizer.sha256) == (2, HASH)
    artifact = loaded.artifacts[0]
    assert (artifact.format, artifact.path, artifact.entry) == ("tflite", "model.tflite", "seq_{length}")
    assert (artifact.any_length, artifact.activations, artifact.bytes) == (False, "int8", 2)
    assert artifact.requires == {"ai-edge-litert": ">=2.3"}
    assert artifact.parts == {"embeddings": 1, "layers": 1, "head": 1, "graph": 1}
    assert loaded.source == VALID["source"]
    assert loaded.tools == {"torch": "2.13.0"}


def test_outputs_of_each_task() -> None:
    assert manifest.make_outputs("sequence-classification", 3) == (manifest.Tensor("logits", "float32", (1, 3)),)
    assert manifest.make_outputs("token-classification", 3) == (manifest.Tensor("logits", "float32", (1, None, 3)),)
    assert manifest.make_outputs("question-answering", 0) == (
        manifest.Tensor("start_logits", "float32", (1, None)),
        manifest.Tensor("end_logits", "float32", (1, None)),
    )


LABELS_WRONG = "labels repeat, are empty, or belong to another task"
LENGTHS_WRONG = "lengths are not ascending positive numbers"
LARGE = f"max_length or pad_id is more than {2**31 - 1}"
INPUT_WRONG = 'input is not "input_ids", int32, [1, null]'
OUTPUT_WRONG = 'output is not "logits", float32, [1, 2], which sequence-classification with 2 labels gives'


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("labels", [], LABELS_WRONG),
        ("labels", ["a", "a"], LABELS_WRONG),
        ("labels", ["a", True], "labels holds something else than str"),
        ("labels", "ab", "labels is missing or not a list"),
        ("lengths", [], LENGTHS_WRONG),
        ("lengths", [0, 16], LENGTHS_WRONG),
        ("lengths", [-1, 16], LENGTHS_WRONG),
        ("lengths", [16, 8], LENGTHS_WRONG),
        ("lengths", [8, 8, 16], LENGTHS_WRONG),
        ("lengths", [8, True], "lengths holds something else than int"),
        ("lengths", [8, 32], "the last of lengths is 32, max_length is 16"),
        ("max_length", 17, "the last of lengths is 16, max_length is 17"),
        ("max_length", None, "max_length is missing or not a int"),
        ("max_length", True, "max_length is missing or not a int"),
        ("pad_id", 2**31, LARGE),
        ("pad_id", -1, "pad_id is negative"),
        ("task", "x", "task 'x' is unknown here: sequence-classification, token-classification, question-answering"),
        ("multi_label", 1, "multi_label is missing or not a bool"),
        ("input.name", "ids", INPUT_WRONG),
        ("input.dtype", "int64", INPUT_WRONG),
        ("input.shape", [1, 8], INPUT_WRONG),
        ("input.shape", [1, "8"], "input.shape holds something else than int and null"),
        ("input.shape", [True, None], "input.shape holds something else than int and null"),
        ("input", None, "input is missing or not a dict"),
        ("output.shape", [1, 3], OUTPUT_WRONG),
        ("output.name", "x", OUTPUT_WRONG),
        ("output", None, "output is missing or not a dict"),
        ("artifacts", [], "artifacts are none, or two of a format: "),
        ("artifacts", [VALID["artifacts"][0]] * 2, "artifacts are none, or two of a format: tflite, tflite"),
        ("artifacts", [1], "artifacts[0] is not an object"),
        ("artifacts.0.files", [], "the tflite artifact is 'model.tflite', its files are "),
        ("artifacts.0.path", "b", "the tflite artifact is 'b', its files are model.tflite"),
        ("artifacts.0.entry", "", "entry '' of the tflite artifact is no name with {length}"),
        ("artifacts.0.entry", "a{", "entry 'a{' of the tflite artifact is no name with {length}"),
        ("artifacts.0.entry", "a}", "entry 'a}' of the tflite artifact is no name with {length}"),
        ("artifacts.0.format", 1, "artifacts[0].format is missing or not a str"),
        ("artifacts.0.any_length", 1, "artifacts[0].any_length is missing or not a bool"),
        (
            "artifacts.0.activations",
            "int4",
            "artifacts[0].activations 'int4' is unknown here: int8, int8_per_tensor, fp16, fp32",
        ),
        ("artifacts.0.requires", {"ios": 16}, "artifacts[0].requires holds something else than str"),
        ("artifacts.0.parts.head", None, "artifacts[0].parts.head is missing or not a int"),
        ("artifacts.0.files.0.bytes", -1, "artifacts[0].files[0].bytes is negative"),
        ("artifacts.0.files.0.path", "../x", "path '../x' leaves the bundle"),
        ("tokenizer.path", "", "path '' leaves the bundle"),
        ("tokenizer.path", "a:b", "path 'a:b' leaves the bundle"),
        ("tokenizer.path", "a\\..\\b", "path 'a\\\\..\\\\b' leaves the bundle"),
        ("tokenizer.path", "a\ud800", "path 'a\\ud800' leaves the bundle"),
        ("tokenizer.path", "a\udfff", "path 'a\\udfff' leaves the bundle"),
        ("golden.sha256", "0" * 65, "golden.sha256 is no sha256 in lower-case hexadecimal"),
        ("tokenizer_tables", 1, "tokenizer_tables is missing or not a dict"),
        ("source.name", 1, "source.name is missing or not a str"),
        ("source.weights_sha256", "x", "source.weights_sha256 is no sha256 in lower-case hexadecimal"),
        ("source.ignored_tensors", [1], "source.ignored_tensors holds something else than str"),
        ("tools", {"torch": 2}, "tools holds something else than str"),
        ("tools", [], "tools is missing or not a dict"),
        ("scheme", None, "scheme is missing or not a str"),
        ("architecture", 1, "architecture is missing or not a str"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_wrong(path: str, value: Any, said: str) -> None:
    assert refusal(changed(path, value)) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**VALID, "pairs": 1}, "pairs is missing or not a bool"),
        ({**VALID, "outputs": []}, "output or outputs belongs to another task"),
        ({**ANSWERS, "output": {}}, "output or outputs belongs to another task"),
        ({**ENTITIES, "multi_label": True}, "multi_label is true, which token-classification cannot be"),
        ({**ENTITIES, "pairs": True}, "pairs is true, which token-classification cannot be"),
        ({**ANSWERS, "pairs": False}, "pairs is false, which question-answering cannot be"),
        ({**ANSWERS, "labels": ["a"]}, LABELS_WRONG),
        (
            {**ANSWERS, "outputs": []},
            'output is not "start_logits", float32, [1, null], "end_logits", float32, [1, null], '
            "which question-answering with 0 labels gives",
        ),
    ],
)
def test_a_refusal_names_what_belongs_to_another_task(content: Any, said: str) -> None:
    assert refusal(content) == said


def test_the_edges_of_what_is_allowed() -> None:
    most = 2**31 - 1
    loaded = read({**VALID, "lengths": [1, most], "max_length": most, "pad_id": most}, Path())
    assert (loaded.lengths, loaded.pad_id) == ((1, most), most)
    assert refusal({**VALID, "lengths": [most + 1], "max_length": most + 1}) == LARGE
    assert read({**VALID, "lengths": [16]}, Path()).lengths == (16,)
    said = "the last of lengths is 32, max_length is 16"
    assert refusal({**VALID, "lengths": [8, 16, 24, 32]}) == said


@pytest.mark.parametrize("path", ["a/b", "a.b", "..a", "a..", "a/b:c", "a\\b", "a\ue000"])
def test_a_path_inside_the_bundle_is_taken(path: str) -> None:
    assert read(changed("tokenizer.path", path), Path()).tokenizer.path == path


def test_a_folder_is_an_artifact_with_all_its_files() -> None:
    artifact = {**VALID["artifacts"][0], "path": "m", "entry": "main"}
    file = artifact["files"][0]
    inside = {**artifact, "files": [{**file, "path": "m/a"}, {**file, "path": "m/b/c"}]}
    assert read({**VALID, "artifacts": [inside]}, Path()).artifacts[0].bytes == 4
    outside = {**artifact, "files": [{**file, "path": "m/a"}, {**file, "path": "mb"}]}
    assert refusal({**VALID, "artifacts": [outside]}) == "the tflite artifact is 'm', its files are m/a, mb"


def test_a_system_that_never_waits_for_a_file_reads_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no O_NONBLOCK."""
    Path("file").write_bytes(b"abc")
    monkeypatch.delattr(os, "O_NONBLOCK")
    assert manifest.read_regular(Path("file"), 3) == b"abc"
