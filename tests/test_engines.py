"""The engines' contract is even: each says that it is closed, takes threads alike, and is found by one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketbert.runtime import Classifier, EngineError, engines
from pocketbert.runtime.engines.executorch import POOL
from pocketbert.runtime.manifest import FORMATS, Artifact, read_manifest

IDS = np.array([[2, 5, 6, 7, 8, 9, 10, 3]], np.int32)


@pytest.mark.parametrize("name", engines.ENGINES)
def test_every_engine_of_the_table_has_a_module_with_all_verbs(name: str) -> None:
    module = engines.load_module(name)
    assert module.is_installed() in (True, False) and module.is_timed() in (True, False)
    assert callable(module.open_artifact) and module.LIBRARIES


def test_every_format_has_an_engine_of_its_name() -> None:
    assert set(FORMATS) <= set(engines.ENGINES)


@pytest.mark.parametrize("name", FORMATS)
def test_a_closed_engine_says_so_and_can_be_closed_again(bundles: dict[str, Path], name: str) -> None:
    classifier = Classifier.open(bundles["albert"], name)
    classifier.close()
    classifier.close()
    with pytest.raises(EngineError, match=f"{name} is closed: open the bundle again"):
        classifier("a lovely film")
    with pytest.raises(EngineError, match=f"{name} is closed"):
        classifier.engine.run(IDS)


@pytest.mark.parametrize("threads", [0, -1, engines.MAX_THREADS + 1, 10**11, True, 2.0, "2", None])
@pytest.mark.parametrize("name", FORMATS)
def test_threads_out_of_range_are_refused_alike(bundles: dict[str, Path], name: str, threads: object) -> None:
    with pytest.raises(EngineError, match=r"threads=.*: use 1 to 64"):
        Classifier.open(bundles["albert"], name, threads=threads)  # type: ignore[arg-type]


def test_engines_say_how_many_threads_they_use(bundles: dict[str, Path]) -> None:
    used = {}
    for name in FORMATS:
        with Classifier.open(bundles["albert"], name, threads=3) as classifier:
            used[name] = classifier.engine.threads
    assert used == {"tflite": 3, "executorch": 3, "coreml": None}  # None: the host decides


def test_two_open_executorch_classifiers_share_one_number_of_threads(bundles: dict[str, Path]) -> None:
    with Classifier.open(bundles["albert"], "executorch", threads=1) as first:
        with pytest.raises(EngineError, match=r"one thread pool for a process.*uses 1 of its threads"):
            Classifier.open(bundles["albert"], "executorch", threads=2)
        with Classifier.open(bundles["distilbert"], "executorch", threads=1):
            assert POOL.users == 2
        assert len(first("still open")) == 3
    with Classifier.open(bundles["albert"], "executorch", threads=2) as second:
        assert (second.engine.threads, POOL.threads, POOL.users) == (2, 2, 1)


def test_an_executorch_program_that_does_not_open_leaves_the_pool(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(b"not a program, but long enough to be looked at" * 10)
    artifact = read_manifest(bundles["albert"]).artifact("executorch")
    with pytest.raises(EngineError, match="cannot open"):
        engines.open_engine("executorch", tmp_path, artifact, 1)
    assert POOL.users == 0


@pytest.fixture
def counting_model(tmp_path: Path) -> Artifact:
    """A model with the baseline's two inputs: the sum of the ids by name "ids", and of the mask by name "logits"."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    names = {"logits": "attention_mask", "ids": "input_ids"}
    inputs = [helper.make_tensor_value_info(name, kinds.INT64, [1, "n"]) for name in names.values()]
    nodes = []
    for name, source in names.items():
        nodes.append(helper.make_node("ReduceSum", [source], [f"{name}_sum"], keepdims=1))
        nodes.append(helper.make_node("Cast", [f"{name}_sum"], [name], to=kinds.FLOAT))
    outputs = [helper.make_tensor_value_info(name, kinds.FLOAT, [1, 1]) for name in names]
    graph = helper.make_graph(nodes, "count", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    return Artifact("onnxruntime", "model.onnx", "", True, "", {}, {}, ())


def test_onnxruntime_is_an_engine_like_the_others(counting_model: Artifact, tmp_path: Path) -> None:
    engine = engines.open_engine("onnxruntime", tmp_path, counting_model, 1)
    np.testing.assert_array_equal(engine.run(IDS), [[8.0]])
    engine.close()
    with pytest.raises(EngineError, match="onnxruntime is closed"):
        engine.run(IDS)


def test_several_outputs_are_stacked_in_the_order_of_their_names(counting_model: Artifact, tmp_path: Path) -> None:
    for outputs, expected in ((("ids", "logits"), [50.0, 8.0]), (("logits", "ids"), [8.0, 50.0])):
        engine = engines.open_engine("onnxruntime", tmp_path, counting_model, 1, outputs=outputs)
        np.testing.assert_array_equal(engine.run(IDS), [[expected]])


def test_a_program_with_other_outputs_than_the_manifest_says_is_refused(bundles: dict[str, Path]) -> None:
    artifact = read_manifest(bundles["albert"]).artifact("executorch")
    names = ("start_logits", "end_logits")
    engine = engines.open_engine("executorch", bundles["albert"], artifact, 1, outputs=names)
    with pytest.raises(EngineError, match="the program has 1 outputs, not 2"):
        engine.run(IDS)
    engine.close()
