"""A classifier around an engine in numpy: what it hands to the engine, what it makes of the answer, what it refuses.

The same on real engines: test_classifier.py.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_check import LABELS, LENGTHS, Engine, Model, edit_manifest, ids_of, write_bundle

from pocketbert.runtime import engines
from pocketbert.runtime import model as model_module
from pocketbert.runtime.classifier import Classifier, Prediction
from pocketbert.runtime.errors import BundleError, EngineError
from pocketbert.runtime.manifest import read_manifest
from pocketbert.runtime.tokenizer import Tokenizer

SEVERAL = r"^logits and classify_batch take a list of texts: pass \[text\], or call classifier\(text\)$"


class Recorder(Engine):
    """Keeps the ids that it is asked, and answers `logits`."""

    def __init__(self, logits: Any = (1.0, 2.0)) -> None:
        super().__init__(None)
        self.logits, self.asked, self.closed = np.float32(logits), [], 0

    def run(self, ids: np.ndarray) -> np.ndarray:
        self.asked.append(ids)
        return self.logits[None]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path / "cache"))
    return write_bundle(tmp_path / "bundle", LABELS)


def around(folder: Path, engine: Engine) -> Classifier:
    manifest = read_manifest(folder)
    return Classifier(manifest, Tokenizer(folder / "tokenizer.json", manifest.max_length), engine)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the TFLite engine of this host was opened with; it computes the model."""
    calls: list[dict[str, Any]] = []

    class Module:
        is_installed = staticmethod(lambda: True)

        @staticmethod
        def open_artifact(
            path: Path, artifact: Any, threads: int, implementation: Any, verified: Any, outputs: Any
        ) -> Engine:
            engine = Recorder()
            engine.run = lambda ids: Model()(ids[0])[None]  # type: ignore[method-assign]
            verified()
            asked = {"path": path, "threads": threads, "implementation": implementation, "outputs": outputs}
            calls.append({**asked, "engine": engine})
            return engine

    monkeypatch.setattr(engines, "load_module", lambda name: Module)
    return calls


@pytest.mark.parametrize(("tokens", "length"), [(1, 4), (4, 4), (5, 8), (16, 16)])
def test_ids_are_padded_to_the_next_length_with_the_pad_id(folder: Path, tokens: int, length: int) -> None:
    edit_manifest(folder, pad_id=7)
    engine = Recorder()
    around(folder, engine).run(np.arange(20, 20 + tokens, dtype=np.int32))
    (asked,) = engine.asked
    assert asked.tolist() == [[*range(20, 20 + tokens), *[7] * (length - tokens)]]
    assert asked.dtype == np.int32


def test_an_artifact_of_any_length_gets_no_padding(folder: Path) -> None:
    artifact = read_manifest(folder).artifacts[0]
    edit_manifest(folder, artifacts=(replace(artifact, any_length=True),))
    engine = Recorder()
    around(folder, engine).run(np.int32([1, 2, 3]))
    assert engine.asked[0].tolist() == [[1, 2, 3]]


def test_more_ids_than_the_bundle_takes_are_refused(folder: Path) -> None:
    engine = Recorder()
    opened = around(folder, engine)
    opened.run(np.zeros(LENGTHS[-1], np.int32))
    with pytest.raises(EngineError, match="17 ids are more than the bundle's 16: cut the text"):
        opened.run(np.zeros(LENGTHS[-1] + 1, np.int32))
    assert len(engine.asked) == 1


@pytest.mark.parametrize("answer", [(1, np.nan), (-np.inf, 0)])
def test_an_answer_of_no_numbers_is_shown(folder: Path, answer: Any) -> None:
    shown = r"numpy model computed \[(1.0, nan|-inf, 0.0)\]: the artifact or the runtime is broken"
    with pytest.raises(EngineError, match=shown):
        around(folder, Recorder(answer))("w1")


def test_labels_come_best_first_with_their_probabilities(folder: Path) -> None:
    assert around(folder, Recorder((0, np.log(3))))("w1") == [
        Prediction("good", pytest.approx(0.75)),
        Prediction("bad", pytest.approx(0.25)),
    ]


def test_equal_scores_keep_the_order_of_the_labels(tmp_path: Path) -> None:
    labels = tuple(f"label {i}" for i in range(40))
    folder = write_bundle(tmp_path / "bundle", labels)
    answers = around(folder, Recorder([0.0] * 39 + [1.0]))("w1")
    assert [answer.label for answer in answers] == [labels[-1], *labels[:-1]]


def test_several_labels_have_probabilities_of_their_own(folder: Path) -> None:
    edit_manifest(folder, multi_label=True)
    opened = around(folder, Recorder((0, np.log(3))))
    assert {answer.label: answer.score for answer in opened("w1")} == pytest.approx({"bad": 0.5, "good": 0.75})
    np.testing.assert_allclose(opened.probabilities(np.float32([[0, np.log(3)]])), [[0.5, 0.75]], rtol=1e-6)


def test_texts_are_answered_one_by_one(folder: Path) -> None:
    engine = Recorder()
    opened = around(folder, engine)
    assert opened.classify_batch(iter(["w1", "w2 w3"])) == [opened("w1"), opened("w2 w3")]
    logits = opened.logits(["w1", "w2", "w3"])
    assert (logits.tolist(), logits.dtype) == ([[1, 2]] * 3, np.float32)
    assert [row[row > 0].tolist() for row in engine.asked[:2]] == [ids_of("w1").tolist(), ids_of("w2 w3").tolist()]
    empty = opened.logits([])
    assert (empty.shape, empty.dtype) == ((0, 2), np.float32)


def test_one_text_and_several_are_not_taken_for_each_other(folder: Path) -> None:
    opened = around(folder, Recorder())
    for several in (opened.logits, opened.classify_batch):
        with pytest.raises(TypeError, match=SEVERAL):
            several("w1")
    with pytest.raises(TypeError, match="a text is a str, not list: pass several to classify_batch or logits"):
        opened(["w1"])  # type: ignore[arg-type]


def test_leaving_closes_the_engine_once(folder: Path) -> None:
    engine = Recorder()
    with around(folder, engine) as opened:
        assert (opened.engine, engine.closed) == (engine, 0)
    assert engine.closed == 1


def test_the_artifact_is_the_engines(folder: Path) -> None:
    manifest = read_manifest(folder)
    other = replace(manifest.artifacts[0], format="coreml")
    edit_manifest(folder, artifacts=(other, *manifest.artifacts))
    assert around(folder, Recorder()).artifact.format == "tflite"


def test_opening_reads_the_folder_with_the_best_engine_and_checks_it(folder: Path, opened: list[Any]) -> None:
    with Classifier.open(str(folder)) as found:
        assert found("w1")[0].label in LABELS
    (call,) = opened
    assert (call["path"], call["threads"], call["implementation"]) == (folder / "model.tflite", 2, None)
    assert call["outputs"] == ["logits"]
    assert call["engine"].closed == 1
    assert list((folder.parent / "cache").iterdir())  # the mark of a passed self-check


def test_an_engine_its_implementation_and_its_threads_can_be_named(folder: Path, opened: list[Any]) -> None:
    Classifier.open(folder, "tflite:tensorflow", threads=3, self_check=False)
    assert (opened[0]["implementation"], opened[0]["threads"]) == ("tensorflow", 3)
    assert not (folder.parent / "cache").exists()


def test_an_unknown_engine_and_an_absent_artifact_are_named(folder: Path, opened: list[Any]) -> None:
    with pytest.raises(EngineError, match="unknown engine 'onnx'"):
        Classifier.open(folder, "onnx")
    with pytest.raises(BundleError, match="no coreml artifact: it has tflite"):
        Classifier.open(folder, "coreml:x")
    assert opened == []


def test_the_best_engine_is_one_of_the_bundles_formats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda formats: [])
    with pytest.raises(EngineError, match="no engine for tflite is installed"):
        Classifier.open(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "golden.json", "model.tflite"])
def test_an_altered_file_is_refused_without_the_self_check_too(folder: Path, opened: list[Any], name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(BundleError, match=f"{name} is not the file that was exported"):
        Classifier.open(folder, self_check=False)
    assert opened == []  # no engine has read it


def test_an_engine_that_does_not_wait_for_the_hash_is_closed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Recorder()
    monkeypatch.setattr(engines, "open_engine", lambda *arguments: engine)
    (folder / "model.tflite").write_bytes(b"weight")
    with pytest.raises(BundleError, match=r"model\.tflite is not the file that was exported"):
        Classifier.open(folder, "tflite")
    assert engine.closed == 1


def test_an_engine_that_misses_the_golden_cases_is_closed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Recorder((9, -9))
    monkeypatch.setattr(engines, "open_engine", lambda *arguments: engine)
    with pytest.raises(EngineError, match="wrongly"):
        Classifier.open(folder, "tflite")
    assert engine.closed == 1


def test_artifacts_are_hashed_in_one_thread_beside(
    folder: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bool] = {}

    def verify(place: Path, files: Any) -> None:
        seen[files[0].path] = threading.current_thread() is threading.main_thread()

    monkeypatch.setattr(model_module, "verify_files", verify)
    Classifier.open(folder, self_check=False)
    assert seen == {"model.tflite": False, "tokenizer.json": True}


# The tokenizer


def test_ids_are_cut_to_the_maximum_with_both_special_tokens(folder: Path) -> None:
    ids = Tokenizer(folder / "tokenizer.json", 4)("w1 w2 w3 w4")
    assert (ids.tolist(), ids.dtype) == ([2, 5, 6, 3], np.int32)


@pytest.mark.parametrize("length", [0, 1])
def test_a_maximum_without_room_for_the_special_tokens_is_refused(folder: Path, length: int) -> None:
    said = f"max_length {length} has no room for the 2 special tokens of .*tokenizer.json"
    with pytest.raises(BundleError, match=said):
        Tokenizer(folder / "tokenizer.json", length)
    assert Tokenizer(folder / "tokenizer.json", 2)("w1 w2").tolist() == [2, 3]


def test_padding_in_the_tokenizers_file_is_not_done(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer(folder / "tokenizer.json", 16)("w1").tolist() == [2, 5, 3]


def test_a_file_that_is_no_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"cannot read .*tokenizer\.json: ") as found:
        Tokenizer(folder / "tokenizer.json", 16)
    assert found.value.__cause__ is not None


@pytest.mark.parametrize("kind", ["Exception", "PanicException"])
def test_a_tokenizer_that_fails_or_panics_is_an_error_of_the_bundle(folder: Path, kind: str) -> None:
    tokenizer = Tokenizer(folder / "tokenizer.json", 16)
    raised = type(kind, (Exception if kind == "Exception" else BaseException,), {})

    class Broken:
        def encode(self, text: str, text_pair: str | None) -> None:
            raise raised("no piece")

    tokenizer._tokenizer = Broken()  # type: ignore[assignment]
    with pytest.raises(BundleError, match=r"cannot tokenize with .*tokenizer\.json: no piece"):
        tokenizer("w1")


def test_an_interrupt_is_no_error_of_the_bundle(folder: Path) -> None:
    tokenizer = Tokenizer(folder / "tokenizer.json", 16)

    class Interrupted:
        def encode(self, text: str, text_pair: str | None) -> None:
            raise KeyboardInterrupt

    tokenizer._tokenizer = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        tokenizer("w1")


@pytest.mark.parametrize(
    ("text", "given"), [("é😍", "é😍"), ("a\ud83d\ude0db", "a😍b"), ("a\ud83d", "a\ufffd"), ("\udc00b", "\ufffdb")]
)
def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_a_character(folder: Path, text: str, given: str) -> None:
    tokenizer, seen = Tokenizer(folder / "tokenizer.json", 16), []

    class Listening:
        def encode(self, text: str, text_pair: str | None) -> Any:
            seen.append(text)
            return type("Encoding", (), {"ids": [1]})

    tokenizer._tokenizer = Listening()  # type: ignore[assignment]
    tokenizer(text)
    assert seen == [given]
