"""Each artifact answers like the int8 oracle, holds the oracle's weights bit for bit, and holds them once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketbert.export import quantize
from pocketbert.export.backends import Graph, import_backend
from pocketbert.export.bundle import ExportOptions, export_bundle
from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder
from pocketbert.export.quantize import DEFAULT_SCHEME, SCHEMES
from pocketbert.runtime import Classifier
from pocketbert.runtime.manifest import FORMATS, read_manifest

# An int8 rounding that falls the other way moves these small random models by up to this many logits.
LOWERED = 0.02
ENGINES = ("executorch", "tflite")
PADDING_DRIFT = 1e-5  # in probability: what the product promises


@pytest.fixture(scope="module", params=["bert", "distilbert", "albert"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def oracle(family: str, checkpoints: dict[str, Path]) -> Encoder:
    loaded = load_checkpoint(checkpoints[family])
    return quantize.quantize(build_encoder(loaded.config, loaded.tensors), SCHEMES[DEFAULT_SCHEME])


@pytest.fixture(scope="module", params=ENGINES)
def classifier(request: pytest.FixtureRequest, family: str, bundles: dict[str, Path]) -> Classifier:
    return Classifier.open(bundles[family], request.param, self_check=False)


def int8_weights(oracle: Encoder) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in oracle.state_dict().values() if tensor.dtype == torch.int8]


def test_every_length_answers_like_the_oracle(classifier: Classifier, oracle: Encoder) -> None:
    for length in range(1, classifier.manifest.max_length + 1):
        ids = np.random.default_rng(length).integers(1, 30, length).astype(np.int32)
        expected = oracle(torch.from_numpy(ids)[None])[0].numpy()
        np.testing.assert_allclose(classifier.run(ids), expected, atol=LOWERED, rtol=0, err_msg=f"{length} tokens")


def test_padding_to_any_length_moves_no_probability(classifier: Classifier) -> None:
    ids = np.arange(1, 7, dtype=np.int32)
    bare = classifier.probabilities(classifier.run(ids))
    for length in classifier.manifest.lengths:
        padded = classifier.engine.run(np.pad(ids, (0, length - len(ids)))[None]) if length >= len(ids) else None
        if padded is not None:
            assert np.abs(classifier.probabilities(padded[0]) - bare).max() <= PADDING_DRIFT


def test_golden_cases_are_met(classifier: Classifier, family: str, bundles: dict[str, Path]) -> None:
    cases = json.loads((bundles[family] / "golden.json").read_text())["cases"]
    assert len(cases) >= 16
    for case in cases:
        assert classifier.tokenizer(case["text"]).tolist() == case["input_ids"]
        logits = classifier.run(np.array(case["input_ids"], np.int32))
        np.testing.assert_allclose(logits, case["oracle"]["int8"], atol=LOWERED, rtol=0)


def test_tflite_holds_the_oracles_weights_once(oracle: Encoder, family: str, bundles: dict[str, Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((bundles[family] / "model.tflite").read_bytes(), 0)
    stored = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None]
    for weight in int8_weights(oracle):
        assert stored.count(weight.tobytes()) == 1
    assert len(model.subgraphs) == len(read_manifest(bundles[family]).lengths)


def test_executorch_holds_the_oracles_word_table_once(oracle: Encoder, family: str, bundles: dict[str, Path]) -> None:
    """The one weight that XNNPACK does not pack; the others are bound by the size of the whole program."""
    program = (bundles[family] / "model.pte").read_bytes()
    assert program.count(oracle.embeddings.word.weight.numpy().tobytes()) == 1


def test_executorch_runs_every_layer_whole_in_one_delegate_that_all_its_uses_share(bundles: dict[str, Path]) -> None:
    """Three depths of ALBERT's one layer: two calls of one delegate, and the last depth, which answers [CLS] only."""
    calls, operators = read_program(bundles["albert"] / "model.pte")
    embeddings_end, layer, again, last_layer, head = calls
    assert layer == again
    assert len({embeddings_end, layer, last_layer, head}) == 4
    look_ups = {"aten::embedding", "aten::slice_copy", "aten::select_copy", "aten::mul", "aten::add"}
    assert operators <= look_ups | {"aten::eq", "aten::_to_copy", "aten::sym_size"}


def read_program(file: Path) -> tuple[list[int], set[str]]:
    """The delegates that a program calls, in order, and the operators that it runs itself."""
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import DelegateCall, KernelCall

    plan = deserialize_pte_binary(file.read_bytes()).program.execution_plan[0]
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    operators = {plan.operators[call.op_index].name for call in calls if isinstance(call, KernelCall)}
    return [call.delegate_index for call in calls if isinstance(call, DelegateCall)], operators


def test_an_op_of_a_layer_that_xnnpack_does_not_take_is_refused_by_name() -> None:
    from pocketbert.export.backends.executorch import delegate

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x, dim=1)

    with pytest.raises(NotImplementedError, match=r"XNNPACK does not take aten\.cumsum"):
        delegate(Odd(), (torch.zeros(1, 4),), (None,))


def test_core_ml_holds_the_oracles_weights(oracle: Encoder, family: str, bundles: dict[str, Path]) -> None:
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    package = bundles[family] / "model.mlpackage"
    spec = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec()
    program = load(spec, spec.specificationVersion, str(package / "Data/com.apple.CoreML/weights"))
    operations = program.functions["main"].operations
    stored = [op.quantized_data.val for op in operations if op.op_type == "constexpr_affine_dequantize"]
    # Core ML keeps a small constant where it is used, so a shared one may be there again; weight.bin has it once.
    for weight in int8_weights(oracle):
        assert any(np.array_equal(weight, values) for values in stored)
    assert spec.description.input[0].type.multiArrayType.enumeratedShapes.shapes


def test_tanh_gelu_is_lowered_as_tanh_gelu(bundles: dict[str, Path]) -> None:
    """Converters that read it as exact GELU move logits too little for a tolerance to notice."""
    from pocketbert.runtime.engines.coreml.mil.package import read

    operations = read(bundles["albert"] / "model.mlpackage").operations
    values = {op.outputs[0][0]: op for op in operations}
    modes = [str(values[str(op.inputs["mode"][0])].attributes["val"].read()) for op in operations if op.type == "gelu"]
    assert modes == ["TANH_APPROXIMATION"] * 3
    classifier = Classifier.open(bundles["albert"], "executorch", self_check=False)
    drifts = [
        np.abs(classifier.run(np.array(case["input_ids"], np.int32)) - case["oracle"]["int8"]).max()
        for case in json.loads((bundles["albert"] / "golden.json").read_text())["cases"]
    ]
    assert np.median(drifts) < 1e-5  # equal but for a rounding here and there; exact GELU moves every text


def test_albert_keeps_one_copy_of_its_layer_whatever_the_depth(tmp_path: Path) -> None:
    from conftest import write_checkpoint

    sizes = {}
    for depth in (1, 4):
        folder = write_checkpoint(tmp_path / str(depth), "albert", num_hidden_layers=depth, hidden_size=128)
        loaded = load_checkpoint(folder)
        oracle = quantize.quantize(build_encoder(loaded.config, loaded.tensors), SCHEMES[DEFAULT_SCHEME])
        layer = sum(t.numel() for name, t in oracle.state_dict().items() if name.startswith("layers") and t.dim() == 2)
        for name in FORMATS:
            out = tmp_path / f"{depth}-{name}"
            out.mkdir()
            import_backend(name).lower(oracle, [8], out)
            sizes[name, depth] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    for name in FORMATS:
        assert sizes[name, 4] - sizes[name, 1] < layer, name


def test_an_op_without_a_rule_is_refused_by_name(oracle: Encoder, tmp_path: Path) -> None:
    class Odd(nn.Module):
        config = oracle.config

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return torch.cumprod(input_ids.float(), dim=1)

    with pytest.raises(NotImplementedError, match=r"no TFLite rule for aten\.cumprod"):
        import_backend("tflite").lower(Odd(), [8], tmp_path)  # type: ignore[arg-type]


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="onnx"):
        import_backend("onnx")


def test_one_export_serves_every_length(oracle: Encoder) -> None:
    graph = Graph.export(oracle, max_length=24)
    node = next(node for node in graph.nodes if node.target is torch.ops.aten.bmm.default)
    assert graph.shape(node, 8)[1:] == (8, 8)
    assert graph.shape(node, 24)[1:] == (24, 24)


def test_equal_biases_are_no_obstacle(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Freshly initialized models have them all zero, and converters merge equal constants."""
    loaded = load_checkpoint(checkpoints["distilbert"])
    tensors = {name: t if t.dim() > 1 or "norm" in name else torch.zeros_like(t) for name, t in loaded.tensors.items()}
    tensors |= {name: torch.zeros_like(t) for name, t in tensors.items() if name.endswith("norm.bias")}
    oracle = quantize.quantize(build_encoder(loaded.config, tensors), SCHEMES[DEFAULT_SCHEME])
    for name in FORMATS:
        import_backend(name).lower(oracle, [8, 16], tmp_path)


@pytest.mark.parametrize("settings", [{"activation": "relu"}, {"activation": "gelu_new"}], ids=str)
def test_other_activations_lower_too(tmp_path: Path, settings: dict[str, str]) -> None:
    from conftest import write_checkpoint

    folder = write_checkpoint(tmp_path / "checkpoint", "distilbert", **settings)
    export_bundle(str(folder), tmp_path / "out", ExportOptions(formats=("tflite",), max_length=16))
    Classifier.open(tmp_path / "out", "tflite")  # checks itself on the golden cases


def test_the_float_scheme_answers_like_the_checkpoint(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    options = ExportOptions(formats=("tflite",), max_length=16, scheme="float_wf32_afp32")
    export_bundle(str(checkpoints["distilbert"]), tmp_path / "out", options)
    classifier = Classifier.open(tmp_path / "out", "tflite")
    for case in json.loads((tmp_path / "out" / "golden.json").read_text())["cases"]:
        logits = classifier.run(np.array(case["input_ids"], np.int32))
        np.testing.assert_allclose(logits, case["logits"], atol=1e-4, rtol=0)


def test_the_compatible_tflite_stores_one_scale_per_weight_and_answers_like_its_own_oracle(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    options = ExportOptions(formats=("tflite",), max_length=16, tflite_compat="2.14")
    export_bundle(str(checkpoints["albert"]), tmp_path / "out", options)
    assert read_manifest(tmp_path / "out").artifact("tflite").requires["tflite-runtime"] == ">=2.14"
    model = schema.ModelT.InitFromPackedBuf((tmp_path / "out" / "model.tflite").read_bytes(), 0)
    int8 = [t for graph in model.subgraphs for t in graph.tensors if t.type == schema.TensorType.INT8]
    assert {len(tensor.quantization.scale) for tensor in int8} == {1}
    classifier = Classifier.open(tmp_path / "out", "tflite", self_check=False)
    for case in json.loads((tmp_path / "out" / "golden.json").read_text())["cases"]:
        logits = classifier.run(np.array(case["input_ids"], np.int32))
        np.testing.assert_allclose(logits, case["oracle"]["int8_per_tensor"], atol=LOWERED, rtol=0)
