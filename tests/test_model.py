"""What all tasks share: the class that a bundle's task asks for, padding, outputs of an engine, and the self-check.

The bundles here are small and their engine is a few lines of numpy, so that what is looked at is the runtime alone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import edit_json, wordpiece

from pocketbert.runtime import (
    BundleError,
    Classifier,
    EngineError,
    QuestionAnswerer,
    TokenClassifier,
    engines,
    open_model,
)
from pocketbert.runtime.engines import Engine
from pocketbert.runtime.manifest import (
    PAIRS,
    TASKS,
    Artifact,
    Manifest,
    Tensor,
    describe_file,
    make_outputs,
    read_manifest,
    write_manifest,
)
from pocketbert.runtime.self_check import check_golden_cases
from pocketbert.runtime.tokenizer import Tokenizer

CLASSES = {
    "sequence-classification": Classifier,
    "token-classification": TokenClassifier,
    "question-answering": QuestionAnswerer,
}
LABELS = {"sequence-classification": ("no", "yes"), "token-classification": ("O", "B-place", "I-place")}
LENGTHS = (8, 16, 24)
TOKENIZER = wordpiece()
PLACE, GOES_ON = TOKENIZER.token_to_id("film"), TOKENIZER.token_to_id("it")
SURE = 6.0  # a logit far above the others' zero


class FakeEngine(Engine):
    """Logits that ids alone decide: the answer begins and ends at "film", which is a place; behind "it" it goes on."""

    name, version, threads = "tflite", "fake 1", None

    def __init__(self, task: str, outputs: Any) -> None:
        super().__init__()
        self.task, self.outputs, self.lengths = task, outputs, []

    def _run(self, ids: Any) -> list[Any]:
        self.lengths.append(ids.shape[1])
        place, goes_on = SURE * (ids == PLACE), SURE * (ids == GOES_ON)
        if self.task == "question-answering":
            answers = {"start_logits": place, "end_logits": place * 2}
            return [answers[name].astype(np.float32) for name in self.outputs]
        if self.task == "token-classification":
            return [np.stack([np.ones_like(place), place, goes_on], axis=-1).astype(np.float32)]
        return [np.array([[1.0, place.sum()]], np.float32)]

    def _release(self) -> None: ...


def write_bundle(folder: Path, task: str, monkeypatch: pytest.MonkeyPatch, pairs: bool | None = None) -> Path:
    """A bundle of `task` whose TFLite engine is a FakeEngine, with two golden cases."""
    folder.mkdir()
    TOKENIZER.save(str(folder / "tokenizer.json"))
    (folder / "model.tflite").write_bytes(b"weights")
    pairs = PAIRS[task][0] if pairs is None else pairs
    outputs = make_outputs(task, len(LABELS.get(task, ())))
    (folder / "golden.json").write_text(json.dumps({"cases": golden(folder, task, pairs, outputs)}))
    file = describe_file(folder, "model.tflite")
    parts = {"embeddings": 1, "layers": 2, "head": 3, "graph": 1}
    manifest = Manifest(
        task=task,
        architecture="bert",
        labels=LABELS.get(task, ()),
        multi_label=False,
        lengths=LENGTHS,
        max_length=LENGTHS[-1],
        pad_id=0,
        scheme="dynamic_wi8_afp32",
        input=Tensor("input_ids", "int32", (1, None)),
        outputs=outputs,
        tokenizer=describe_file(folder, "tokenizer.json"),
        tokenizer_tables=describe_file(folder, "tokenizer.json"),  # no phone opens this bundle
        golden=describe_file(folder, "golden.json"),
        artifacts=(Artifact("tflite", "model.tflite", "seq_{length}", False, "int8", {}, parts, (file,)),),
        source={"name": "model", "weights_sha256": "0" * 64, "ignored_tensors": []},
        tools={},
        pairs=pairs,
    )
    write_manifest(manifest, folder)
    install(task, monkeypatch)
    return folder


def install(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TFLite engine of this host answers as a model of `task`."""
    module = SimpleNamespace(
        is_installed=lambda: True,
        open_artifact=lambda path, artifact, threads, implementation, verified, outputs: FakeEngine(task, outputs),
    )
    monkeypatch.setattr(engines, "load_module", lambda name: module)


def golden(folder: Path, task: str, pairs: bool, outputs: Any) -> list[dict[str, Any]]:
    """A short text and a long one; pairs where there must be two, one of each where there may be."""
    tokenizer = Tokenizer(folder / "tokenizer.json", LENGTHS[-1])
    engine = FakeEngine(task, [output.name for output in outputs])
    texts = [("a film", "it was a lovely film" if pairs else None), ("it was good " * 9, "film" if pairs else None)]
    if pairs and task == "sequence-classification":
        texts.append(("alone", None))
    cases = []
    for text, text_pair in texts:
        ids = tokenizer(text, text_pair)
        logits = engine.run(ids[None])[0].tolist()
        case = {"text": text, "text_pair": text_pair, "input_ids": ids.tolist(), "logits": logits}
        cases.append({**{k: v for k, v in case.items() if v is not None}, "oracle": {"int8": logits}})
    return cases


def reseal(folder: Path, **changes: Any) -> None:
    manifest = read_manifest(folder)
    write_manifest(replace(manifest, golden=describe_file(folder, "golden.json"), **changes), folder)


@pytest.fixture(params=TASKS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path / "cache"))  # nothing has passed a self-check
    return write_bundle(tmp_path / "bundle", request.param, monkeypatch)


def test_a_bundle_opens_as_what_its_task_asks_for(bundle: Path) -> None:
    with open_model(bundle, "tflite") as model:
        assert type(model) is CLASSES[model.manifest.task]


def test_the_class_of_another_task_names_the_right_one(bundle: Path) -> None:
    task = read_manifest(bundle).task
    for other, opener in CLASSES.items():
        if other != task:
            with pytest.raises(BundleError, match=f"is for {task}: open it with {CLASSES[task].__name__}$"):
                opener.open(bundle)


def test_ids_are_padded_and_what_is_said_of_padding_is_left_out(bundle: Path) -> None:
    with open_model(bundle, "tflite") as model:
        ids = model.tokenizer("a film it")
        task, logits = model.manifest.task, model.run(ids)
        assert model.engine.lengths[-1] == 8  # type: ignore[attr-defined]
    shapes = {"sequence-classification": (2,), "token-classification": (5, 3), "question-answering": (5, 2)}
    assert (logits.shape, logits.dtype) == (shapes[task], np.float32)
    if task == "question-answering":  # start and end, in this order
        assert logits.tolist() == [[0, 0], [0, 0], [SURE, 2 * SURE], [0, 0], [0, 0]]


def test_logits_of_padding_may_be_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "bundle", "token-classification", monkeypatch)
    with open_model(folder, "tflite", self_check=False) as model:
        ids, right = model.tokenizer("a film"), model.engine.run
        monkeypatch.setattr(model.engine, "run", lambda ids: np.where(ids[..., None] == 0, np.nan, right(ids)))
        assert np.isfinite(model.run(ids)).all()
        monkeypatch.setattr(model.engine, "run", lambda ids: np.where(ids[..., None] == PLACE, np.nan, right(ids)))
        with pytest.raises(EngineError, match="nan"):
            model.run(ids)


# The self-check


def test_golden_cases_of_every_task_are_passed(bundle: Path) -> None:
    with open_model(bundle, "tflite", self_check=False) as model:
        check_golden_cases(model, bundle)
        assert len(model.engine.lengths) == 2  # type: ignore[attr-defined]


def move_together(task: str, outputs: list[Any]) -> list[Any]:
    """Adds the same to all logits that one softmax goes over: to a token's, or to a start's or an end's."""
    if task == "token-classification":
        return [outputs[0] + np.arange(outputs[0].shape[1], dtype=np.float32)[:, None]]
    return [output + 3 * i + 1 for i, output in enumerate(outputs)]


def move_one(task: str, outputs: list[Any]) -> list[Any]:
    """Adds to one logit alone."""
    outputs[0][(0, 1, 1) if task == "token-classification" else (0, 1)] += SURE
    return outputs


def test_probabilities_are_compared_as_the_task_reads_them(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, right = read_manifest(bundle).task, FakeEngine._run
    monkeypatch.setattr(FakeEngine, "_run", lambda self, ids: move_one(task, right(self, ids)))
    with pytest.raises(EngineError, match=r"computes model.tflite wrongly: probabilities are off by 0\.\d+"):
        open_model(bundle, "tflite")
    monkeypatch.setattr(FakeEngine, "_run", lambda self, ids: move_together(task, right(self, ids)))
    open_model(bundle, "tflite").close()


def test_logits_of_another_shape_are_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy would compare one number with many."""
    right = FakeEngine._run
    monkeypatch.setattr(FakeEngine, "_run", lambda self, ids: [output[..., :1] for output in right(self, ids)])
    with pytest.raises(EngineError, match=r"model.tflite gives logits of shape \(\d.*\), not \(\d"):
        open_model(bundle, "tflite")


def test_a_second_text_of_golden_cases_must_be_one_that_the_bundle_takes(bundle: Path) -> None:
    cases = json.loads((bundle / "golden.json").read_text())["cases"]
    for wrong in (["film"], 1, "film" if not read_manifest(bundle).pairs else {}):
        edit_json(bundle / "golden.json", cases=[{**cases[0], "text_pair": wrong}])
        reseal(bundle)
        with pytest.raises(BundleError, match="text_pair is no second text, or the bundle takes one"):
            open_model(bundle, "tflite")


def test_golden_logits_are_nested_as_the_task_has_them(bundle: Path) -> None:
    cases = json.loads((bundle / "golden.json").read_text())["cases"]
    shape = {"sequence-classification": "2", "token-classification": "4 x 3", "question-answering": "10 x 2"}
    for wrong in ([], [cases[0]["logits"]], cases[0]["logits"][:-1]):
        edit_json(bundle / "golden.json", cases=[{**cases[0], "logits": wrong}])
        reseal(bundle)
        with pytest.raises(BundleError, match=f"are not {shape[read_manifest(bundle).task]} numbers"):
            open_model(bundle, "tflite")


# Pairs


def test_a_bundle_of_pairs_takes_one_text_or_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "bundle", "sequence-classification", monkeypatch, pairs=True)
    with Classifier.open(folder, "tflite") as classifier:
        assert classifier("good")[0].label == "no" and classifier("good", "film")[0].label == "yes"
        texts = ["good", ("good", "film"), ("film", "film")]
        assert classifier.logits(texts).tolist() == [[1, 0], [1, SURE], [1, 2 * SURE]]
        assert [each[0].label for each in classifier.classify_batch(texts)] == ["no", "yes", "yes"]
        assert classifier("it " * 90, "film")[0].label == "yes"  # the longer is cut, not the second


def test_a_second_text_that_the_bundle_does_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path / "bundle", "sequence-classification", monkeypatch, pairs=False)
    with Classifier.open(folder, "tflite") as classifier:
        for call in (lambda: classifier("a", "b"), lambda: classifier.logits([("a", "b")])):
            with pytest.raises(BundleError, match="takes one text at a time: export its checkpoint with --pairs"):
                call()


@pytest.mark.parametrize("wrong", [["a", "b"], 1, b"a"])
def test_what_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    folder = write_bundle(tmp_path / "bundle", "sequence-classification", monkeypatch, pairs=True)
    with Classifier.open(folder, "tflite") as classifier:
        for call in (lambda: classifier(wrong), lambda: classifier.logits([wrong]), lambda: classifier("a", wrong)):
            with pytest.raises(TypeError, match="a text is a str, not"):
                call()
