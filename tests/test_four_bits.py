"""A bundle of 4 bits: each artifact answers like the oracle, and all three hold the same whole numbers and scales."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from test_bundle import pocketbert
from test_manifest import SCHEMA
from test_tasks import OPENERS, golden_cases, load_encoder, ours, probabilities, random_ids, write_task
from typer.testing import CliRunner

from pocketbert.export.bundle import ExportError, ExportOptions, export_bundle
from pocketbert.export.calibration_texts import read_calibration_texts
from pocketbert.export.checkpoint import CheckpointError, load_checkpoint
from pocketbert.export.encoder import Encoder
from pocketbert.export.quantize import (
    FOUR_BIT_SCHEME,
    SCHEMES,
    DynamicLinear,
    QuantizedEmbedding,
    hash_weights,
    quantize,
)
from pocketbert.export.reference import compute
from pocketbert.export.rounding import FOUR_BITS
from pocketbert.runtime import Classifier
from pocketbert.runtime.cli.app import app
from pocketbert.runtime.manifest import (
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    Manifest,
    read_manifest,
)

pytestmark = pytest.mark.slow  # exports of three formats take a minute

LOWERED = 0.05  # an int8 rounding of an activation that falls the other way moves one of all logits by up to this
HALF = 0.02  # what fp16 rounds off the logits of these small random models
PADDING_DRIFT = 1e-5  # in probability: what the product promises
OPTIONS = ExportOptions(max_length=24, scheme=FOUR_BIT_SCHEME)
CASES = {
    "distilbert": ("distilbert", SEQUENCE_CLASSIFICATION, False),
    "albert": ("albert", SEQUENCE_CLASSIFICATION, False),
    "bert, pairs": ("bert", SEQUENCE_CLASSIFICATION, True),
    "entities": ("distilbert", TOKEN_CLASSIFICATION, False),
    "answers": ("albert", QUESTION_ANSWERING, False),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A case's checkpoint and bundle, exported once in whatever order tests come."""

    @functools.cache
    def export(case: str) -> tuple[Path, Path]:
        family, task, pairs = CASES[case]
        folder = tmp_path_factory.mktemp("exported")
        checkpoint = write_task(folder / "checkpoint", family, task)
        export_bundle(str(checkpoint), folder / "bundle", replace(OPTIONS, pairs=pairs))
        return checkpoint, folder / "bundle"

    return export


@pytest.fixture(scope="module")
def checkpoint(case: str, exported: Callable[[str], tuple[Path, Path]]) -> Path:
    return exported(case)[0]


@pytest.fixture(scope="module")
def bundle(case: str, exported: Callable[[str], tuple[Path, Path]]) -> Path:
    return exported(case)[1]


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> Manifest:
    return read_manifest(bundle)


@pytest.fixture(scope="module")
def oracle(case: str, checkpoint: Path) -> Encoder:
    pairs = CASES[case][2]
    texts = read_calibration_texts(load_checkpoint(checkpoint, pairs=pairs), None, 24)
    encoder = load_encoder(checkpoint, pairs)
    encoder.embeddings.position = torch.nn.Parameter(encoder.embeddings.position[:24], requires_grad=False)
    return quantize(encoder, SCHEMES[FOUR_BIT_SCHEME], texts.ids)


@pytest.fixture(scope="module", params=OPENERS)
def artifact(request: pytest.FixtureRequest, bundle: Path, manifest: Manifest) -> Callable[..., np.ndarray]:
    """artifact(ids, padded=16): the logits of ids, in the shapes of `compute_logits`."""
    described = manifest.artifact(request.param)
    run = OPENERS[request.param](bundle / described.path, [output.name for output in manifest.outputs])

    def answer(ids: list[int], padded: int | None = None) -> np.ndarray:
        length = padded or (len(ids) if described.any_length else manifest.padded_length(len(ids)))
        outputs = run(np.array([ids + [manifest.pad_id] * (length - len(ids))], np.int32))
        logits = np.stack(outputs, -1)[0] if len(outputs) > 1 else outputs[0][0]
        return logits if logits.ndim == 1 else logits[: len(ids)]

    answer.described = described  # type: ignore[attr-defined]
    return answer


def whole_numbers(oracle: Encoder) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Of each weight: name, bits, int8 (rows, width), float32 scale (rows,)."""
    for name, part in oracle.named_modules():
        if isinstance(part, DynamicLinear | QuantizedEmbedding):
            yield name, part.bits, part.weight.numpy(), part.scale.flatten().numpy()


# What the artifacts answer


def test_artifacts_meet_the_golden_logits_of_their_oracle(artifact: Any, bundle: Path) -> None:
    kind = artifact.described.activations
    for each in golden_cases(bundle):
        expected = np.array(each["oracle"][kind])
        atol = HALF if kind == "fp16" else LOWERED
        np.testing.assert_allclose(artifact(each["input_ids"]), expected, atol=atol, rtol=0)


def test_artifacts_answer_like_the_oracle_at_every_length(artifact: Any, oracle: Encoder, manifest: Manifest) -> None:
    if artifact.described.format == "coreml":
        pytest.skip("Core ML computes in fp16: its golden logits are another oracle's")
    for length in range(1, manifest.max_length + 1):
        ids = random_ids(length)
        ids[length // 2] = 3  # a separator somewhere
        np.testing.assert_allclose(artifact(ids), ours(oracle, ids), atol=LOWERED, rtol=0, err_msg=str(length))


def test_padding_moves_no_probability(artifact: Any, manifest: Manifest) -> None:
    for length in (1, 7, 12):
        ids = random_ids(length)
        ids[length // 3] = 3
        alone = probabilities(artifact(ids), manifest.task)
        for padded in (each for each in manifest.lengths if each >= length):
            assert np.abs(probabilities(artifact(ids, padded), manifest.task) - alone).max() <= PADDING_DRIFT


def test_every_row_of_both_word_tables_is_read_where_it_is(artifact: Any, oracle: Encoder) -> None:
    """The ids where one table ends and the other begins, and the last of all."""
    if artifact.described.format == "coreml":
        pytest.skip("Core ML computes in fp16: its golden logits are another oracle's")
    first, rows = len(oracle.embeddings.word.first.weight) - 1, oracle.config.vocab_size
    assert rows // 8 == first
    for ids in ([1, first - 1], [1, first], [1, first + 1], [1, rows - 1], [rows - 1, first, first - 1, 5]):
        np.testing.assert_allclose(artifact(ids), ours(oracle, ids), atol=LOWERED, rtol=0, err_msg=str(ids))


# What the artifacts hold


def test_the_oracle_has_4_bits_in_the_layers_and_most_of_the_word_table_and_8_elsewhere(oracle: Encoder) -> None:
    for name, bits, weight, scale in whole_numbers(oracle):
        four = name.startswith("layers.") or name == "embeddings.word.others"
        assert bits == (FOUR_BITS if four else 8), name
        assert not four or (weight.min() >= -8 and weight.max() <= 7)
        assert np.array_equal(scale, scale.astype(np.float16).astype(np.float32))
    word = oracle.embeddings.word
    assert len(word.others.weight) - 1 + len(word.first.weight) - 1 == oracle.config.vocab_size


def test_tflite_holds_these_numbers_and_scales_once(bundle: Path, oracle: Encoder) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((bundle / "model.tflite").read_bytes(), 0)
    types = {schema.TensorType.INT4: FOUR_BITS, schema.TensorType.INT8: 8}
    stored = [
        (types[tensor.type], unpack(model.buffers[tensor.buffer].data, types[tensor.type], tensor.shape), tensor)
        for tensor in model.subgraphs[0].tensors
        if tensor.type in types and model.buffers[tensor.buffer].data is not None
    ]
    for name, bits, weight, scale in whole_numbers(oracle):
        found = [each for each in stored if each[0] == bits and np.array_equal(each[1], weight)]
        assert len(found) == 1, name
        assert np.array_equal(np.array(found[0][2].quantization.scale, np.float32), scale), name
    shared = {tensor.buffer for _, _, tensor in stored}
    for graph in model.subgraphs[1:]:
        assert {tensor.buffer for tensor in graph.tensors if tensor.type in types} == shared


def unpack(data: Any, bits: int, shape: Any) -> np.ndarray:
    """TFLite's order: the first number is in the lower half of a byte."""
    numbers = np.asarray(data, np.uint8).view(np.int8)
    if bits == FOUR_BITS:
        numbers = np.stack([(numbers << 4) >> 4, numbers >> 4], axis=1).ravel()
    return numbers.reshape(shape)


def test_core_ml_holds_these_numbers_and_scales(bundle: Path, oracle: Encoder) -> None:
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    package = bundle / "model.mlpackage"
    spec = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec()
    program = load(spec, spec.specificationVersion, str(package / "Data/com.apple.CoreML/weights"))
    stored = [
        (op.data.dtype.get_bitwidth(), np.asarray(op.data.val).astype(np.int8), np.asarray(op.scale.val))
        for op in program.functions["main"].operations
        if op.op_type == "constexpr_blockwise_shift_scale"
    ]
    for name, bits, weight, scale in whole_numbers(oracle):
        found = [each for each in stored if each[0] == bits and np.array_equal(each[1], weight)]
        assert found, name
        assert all(np.array_equal(each[2], scale.astype(np.float16)[:, None]) for each in found), name
    assert not [op for op in program.functions["main"].operations if op.op_type == "constexpr_affine_dequantize"]


def test_executorch_holds_these_numbers_and_scales(bundle: Path, oracle: Encoder) -> None:
    """Linears as XNNPACK packs them, the table of 4 bits two in a byte, the other as it is."""
    from executorch.backends.xnnpack.operators.node_visitor import NodeVisitor

    program = (bundle / "model.pte").read_bytes()
    for name, bits, weight, scale in whole_numbers(oracle):
        if name == "embeddings.word.others":
            half = weight.shape[1] // 2
            data = (16 * weight[:, :half] + weight[:, half:]).astype(np.int8)
        elif bits == FOUR_BITS:
            data = NodeVisitor.convert_to_qc4w(torch.from_numpy(weight).clone()).numpy()
        else:
            data = weight
        assert program.count(data.tobytes()) >= 1, name
        assert program.count(scale.tobytes()) >= 1, name
        if name.startswith("embeddings.word"):
            assert program.count(data.tobytes()) == 1, name


def test_a_scale_too_many_or_a_number_too_many_is_seen(bundle: Path, oracle: Encoder) -> None:
    """That the tests above can fail: one number of one weight more or less, and nothing is found."""
    name, _, weight, scale = next(each for each in whole_numbers(oracle) if each[0].endswith("up"))
    assert name == "layers.0.up" and weight.dtype == np.int8
    changed = weight.copy()
    changed[0, 0] = 7 if weight[0, 0] != 7 else 6
    assert scale.tobytes() in (bundle / "model.pte").read_bytes()
    assert (scale * np.float32(1.001)).tobytes() not in (bundle / "model.pte").read_bytes()
    from executorch.backends.xnnpack.operators.node_visitor import NodeVisitor

    packed = NodeVisitor.convert_to_qc4w(torch.from_numpy(changed)).numpy()
    assert packed.tobytes() not in (bundle / "model.pte").read_bytes()


# What the manifest says


def test_the_manifest_says_by_what_it_was_calibrated_and_what_it_needs(
    bundle: Path, manifest: Manifest, checkpoint: Path, case: str, oracle: Encoder
) -> None:
    jsonschema.validate(json.loads((bundle / "manifest.json").read_text()), SCHEMA)
    texts = read_calibration_texts(load_checkpoint(checkpoint, pairs=CASES[case][2]), None, 24)
    assert manifest.scheme == FOUR_BIT_SCHEME
    calibration = manifest.calibration
    assert calibration is not None and (calibration.texts, calibration.texts_sha256) == (len(texts.ids), texts.sha256)
    assert calibration.weights_sha256 == hash_weights(oracle)
    assert manifest.artifact("coreml").requires == {"ios": ">=18.0", "macos": ">=15.0"}
    assert [each.activations for each in manifest.artifacts] == ["int8", "int8", "fp16"]


def test_parts_add_up_and_layers_are_half_as_large_as_with_8_bits(manifest: Manifest, oracle: Encoder) -> None:
    numbers = sum(weight.size for name, _, weight, _ in whole_numbers(oracle) if name.startswith("layers."))
    for artifact in manifest.artifacts:
        assert sum(artifact.parts.values()) == artifact.bytes
        assert all(size > 0 for size in artifact.parts.values())
        floats = sum(t.numel() for n, t in oracle.state_dict().items() if n[:6] == "layers" and t.is_floating_point())
        width = 2 if artifact.format == "coreml" else 4
        assert artifact.parts["layers"] == numbers // 2 + width * floats


def test_8_bits_say_nothing_of_calibration_and_run_where_they_did(bundles: dict[str, Path]) -> None:
    for folder in bundles.values():
        assert "calibration" not in json.loads((folder / "manifest.json").read_text())
        assert read_manifest(folder).calibration is None
        assert read_manifest(folder).artifact("coreml").requires == {"ios": ">=16.0", "macos": ">=13.0"}


# Export and check


@pytest.fixture(scope="module")
def tflite(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier calibrated by a file."""
    folder = tmp_path_factory.mktemp("tflite")
    (folder / "mine.txt").write_text("\n".join(f"it was a very good film {number}" for number in range(30)))
    options = replace(OPTIONS, formats=("tflite",), calibrate=folder / "mine.txt")
    export_bundle(str(checkpoints["distilbert"]), folder / "bundle", options)
    return folder


def test_an_engine_checks_itself_on_the_golden_cases(tflite: Path) -> None:
    Classifier.open(tflite / "bundle", "tflite")


def test_options_that_do_not_fit_are_refused(checkpoints: dict[str, Path], tmp_path: Path, tflite: Path) -> None:
    source, out, mine = str(checkpoints["distilbert"]), tmp_path / "out", tflite / "mine.txt"
    for options, said in (
        (ExportOptions(calibrate=mine), "dynamic_wi8_afp32 needs no calibration: .* --scheme dynamic_wi4_afp32"),
        (ExportOptions(calibrate=mine, scheme="float_wf32_afp32"), "float_wf32_afp32 needs no calibration"),
        (replace(OPTIONS, tflite_compat="2.14"), "tflite-runtime 2.14 cannot compute dynamic_wi4_afp32"),
        (replace(OPTIONS, scheme="dynamic_wi2_afp32"), "unknown scheme .*dynamic_wi4_afp32"),
    ):
        with pytest.raises(ExportError, match=said):
            export_bundle(source, out, options)
    assert not out.exists()


def test_the_command_names_a_file_that_it_cannot_read_in_one_line(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "out", "--max-length", 24, "--scheme", FOUR_BIT_SCHEME)
    result = pocketbert("export", checkpoints["distilbert"], *arguments, "--calibrate", tmp_path / "absent.txt")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "absent.txt" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_checkpoint_is_rounded_again_by_the_same_texts(tflite: Path, checkpoints: dict[str, Path]) -> None:
    manifest, ids = read_manifest(tflite / "bundle"), [np.array(random_ids(9), np.int32)]
    source = str(checkpoints["distilbert"])
    found = compute(source, manifest, ids, calibrate=tflite / "mine.txt")
    artifact = Classifier.open(tflite / "bundle", "tflite", self_check=False)
    np.testing.assert_allclose(artifact.run(ids[0]), found["int8"][0], atol=LOWERED, rtol=0)
    with pytest.raises(CheckpointError, match=r"calibrated by other texts than calibration\.txt: pass --calibrate"):
        compute(source, manifest, ids)
    other = tflite / "other.txt"
    other.write_text((tflite / "mine.txt").read_text() + "!")
    with pytest.raises(CheckpointError, match=r"other texts than other\.txt"):
        compute(source, manifest, ids, calibrate=other)


def test_texts_for_a_bundle_that_was_calibrated_by_none_are_refused(
    bundles: dict[str, Path], tflite: Path, checkpoints: dict[str, Path]
) -> None:
    manifest = read_manifest(bundles["distilbert"])
    with pytest.raises(CheckpointError, match="calibrated by no texts: leave --calibrate out"):
        compute(str(checkpoints["distilbert"]), manifest, [], calibrate=tflite / "mine.txt")


def test_another_rounding_than_the_bundles_is_said(tflite: Path, checkpoints: dict[str, Path]) -> None:
    manifest = read_manifest(tflite / "bundle")
    assert manifest.calibration is not None
    changed = replace(manifest, calibration=replace(manifest.calibration, weights_sha256="0" * 64))
    with pytest.raises(CheckpointError, match="this computer rounds the checkpoint to other weights than the bundle"):
        compute(str(checkpoints["distilbert"]), changed, [], calibrate=tflite / "mine.txt")


@pytest.mark.slow
def test_check_passes_with_the_texts_and_says_in_one_line_that_it_lacks_them(
    tflite: Path, checkpoints: dict[str, Path]
) -> None:
    command = ("check", tflite / "bundle", "--checkpoint", checkpoints["distilbert"], "--engine", "tflite")
    passed = pocketbert(*command, "--calibrate", tflite / "mine.txt")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    refused = pocketbert(*command)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "calibrated by other texts than calibration.txt" in " ".join(refused.stderr.split())


def test_texts_are_of_no_use_to_check_without_a_checkpoint(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(tmp_path), "--calibrate", "mine.txt"])
    assert "pass --checkpoint too" in str(done.exception)
