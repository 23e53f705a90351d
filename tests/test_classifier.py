"""From a text to labels on every engine of this host, in threads and out of them, on any input a phone can send."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import LABELS, write_checkpoint
from test_bundle import pocketbert

from pocketbert.export.bundle import ExportOptions, export_bundle
from pocketbert.runtime import BundleError, Classifier, EngineError
from pocketbert.runtime.engines.weight_cache import WeightCache
from pocketbert.runtime.manifest import FORMATS
from pocketbert.runtime.scores import sigmoid, softmax

TEXTS = ("the film was lovely", "bad app", "", "not good 😍 at all", "very " * 100)
EVALUATED = ("tflite", "executorch")  # int8 activations; coreml keeps fp16


@pytest.fixture(params=FORMATS)
def classifier(request: pytest.FixtureRequest, bundles: dict[str, Path]) -> Classifier:
    return Classifier.open(bundles["albert"], request.param)


def test_predictions_are_probabilities_best_first(classifier: Classifier) -> None:
    for text in TEXTS:
        predictions = classifier(text)
        scores = [prediction.score for prediction in predictions]
        assert sorted(prediction.label for prediction in predictions) == sorted(LABELS)
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)


def test_logits_come_a_row_per_text(classifier: Classifier) -> None:
    logits = classifier.logits(TEXTS)
    assert (logits.shape, logits.dtype) == ((len(TEXTS), len(LABELS)), np.float32)
    np.testing.assert_array_equal(logits[1], classifier.logits(["bad app"])[0])
    assert classifier.logits([]).shape == (0, len(LABELS))


def test_a_batch_is_its_texts_one_by_one(classifier: Classifier) -> None:
    assert classifier.classify_batch(TEXTS) == [classifier(text) for text in TEXTS]


def test_threads_share_a_classifier(classifier: Classifier) -> None:
    alone = [classifier(text) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(classifier, TEXTS * 20))
    assert together == alone * 20


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_every_engine_meets_the_golden_cases_of_each_family(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, name: str
) -> None:
    """Opening is the self-check, and raises where a case is missed; the cache is empty, so that it is not skipped."""
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path))
    with Classifier.open(bundles[family], name) as classifier:
        assert (classifier.manifest.architecture, classifier.artifact.format) == (family, name)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_engines_agree(bundles: dict[str, Path], family: str) -> None:
    rows = [Classifier.open(bundles[family], name).logits(TEXTS) for name in EVALUATED]
    np.testing.assert_allclose(rows[0], rows[1], atol=0.02)


@pytest.mark.parametrize(
    "text",
    ["\ud800 lone", "low \udc00", "\ud83d\ude0d pair", "nul \x00 byte", "\ufeff", "\u202eright to left"],
    ids=ascii,
)
def test_odd_strings_get_an_answer(bundles: dict[str, Path], text: str) -> None:
    with Classifier.open(bundles["distilbert"], "tflite") as classifier:
        assert len(classifier(text)) == len(LABELS)


def test_a_surrogate_pair_is_its_character(bundles: dict[str, Path]) -> None:
    with Classifier.open(bundles["albert"], "tflite") as classifier:
        assert classifier("\ud83d\ude0d") == classifier("😍")
        assert classifier("\ud83d") == classifier("\ufffd")


def test_ten_megabytes_are_cut_to_the_maximum(bundles: dict[str, Path]) -> None:
    with Classifier.open(bundles["distilbert"], "tflite") as classifier:
        assert classifier("lovely " * 1_500_000) == classifier("lovely " * 100)


def test_several_labels_can_hold_at_once(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", "distilbert", problem_type="multi_label_classification")
    export_bundle(str(folder), tmp_path / "b", ExportOptions(formats=("tflite",), max_length=16))
    with Classifier.open(tmp_path / "b") as classifier:
        expected = sigmoid(classifier.logits(["lovely film"])[0])
        scores = {p.label: p.score for p in classifier("lovely film")}
        assert scores == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)))


def test_softmax_and_sigmoid_do_not_overflow() -> None:
    huge = np.array([1000.0, -1000.0], np.float32)
    np.testing.assert_allclose(softmax(huge), [1, 0])
    np.testing.assert_allclose(sigmoid(huge), [1, 0])
    np.testing.assert_allclose(sigmoid(np.array([0.3], np.float32)), [1 / (1 + np.exp(-0.3))], rtol=1e-6)


# What is refused


def test_an_unknown_engine_is_named(bundles: dict[str, Path]) -> None:
    with pytest.raises(EngineError, match="unknown engine 'onnx': use tflite"):
        Classifier.open(bundles["albert"], "onnx")
    with pytest.raises(EngineError, match="tflite has no implementation 'jax'"):
        Classifier.open(bundles["albert"], "tflite:jax")


def test_an_engine_that_is_not_installed_says_which_extra_installs_it(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketbert.runtime.engines.executorch.is_installed", lambda: False)
    with pytest.raises(EngineError, match=r"pip install 'pocketbert\[executorch\]'"):
        Classifier.open(bundles["albert"], "executorch")


def test_an_engine_that_misses_the_golden_cases_is_closed(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path))
    closed = []
    monkeypatch.setattr(Classifier, "run", lambda self, ids: np.zeros(3, np.float32))
    monkeypatch.setattr(Classifier, "close", lambda self: closed.append(self.engine.close()))
    with pytest.raises(EngineError, match="wrongly"):
        Classifier.open(bundles["albert"], "tflite")
    assert closed == [None]


@pytest.mark.parametrize("name", ["model.tflite", "tokenizer.json"])
def test_an_altered_file_is_refused(bundles: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(bundles["albert"], tmp_path / "b"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is not the file that was exported"):
        Classifier.open(folder, "tflite")


@pytest.mark.parametrize(
    ("engine", "file"), [("tflite", "model.tflite"), ("executorch", "model.pte"), ("coreml", "weight.bin")]
)
def test_an_artifact_cut_short_is_refused_before_native_code_sees_it(
    bundles: dict[str, Path], tmp_path: Path, engine: str, file: str
) -> None:
    folder = Path(shutil.copytree(bundles["albert"], tmp_path / "b"))
    (artifact,) = folder.rglob(file)
    artifact.write_bytes(artifact.read_bytes()[:5000])
    with pytest.raises(BundleError, match=f"{file} is not the file that was exported"):
        Classifier.open(folder, engine)


def test_an_engine_that_misses_the_golden_cases_is_refused_with_the_difference(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path))  # nothing has been checked yet
    right = Classifier.run
    monkeypatch.setattr(Classifier, "run", lambda self, ids: right(self, ids)[::-1].copy())
    with pytest.raises(EngineError, match=r"ai-edge-litert 2\S+ computes model\.tflite wrongly: .* off by 0\.\d+"):
        Classifier.open(bundles["albert"], "tflite")


def test_the_self_check_is_made_once(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path))
    runs: list[int] = []
    right = Classifier.run
    monkeypatch.setattr(Classifier, "run", lambda self, ids: runs.append(1) or right(self, ids))
    Classifier.open(bundles["albert"], "tflite").close()
    assert len(runs) >= 16
    runs.clear()
    Classifier.open(bundles["albert"], "tflite").close()
    assert runs == []


def test_logits_that_are_no_numbers_are_refused(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with Classifier.open(bundles["albert"], "tflite") as classifier:
        monkeypatch.setattr(classifier.engine, "_run", lambda ids: [np.full((1, 3), np.nan, np.float32)])
        with pytest.raises(EngineError, match="nan"):
            classifier("film")


# The weight cache


def test_the_weight_cache_is_shared_and_a_damaged_one_is_made_again(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path))
    expected = Classifier.open(bundles["albert"], "tflite").logits(TEXTS)
    (cache,) = tmp_path.glob("*.xnnpack")
    whole = cache.read_bytes()
    assert np.array_equal(Classifier.open(bundles["albert"], "tflite").logits(TEXTS), expected)
    cache.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert np.array_equal(Classifier.open(bundles["albert"], "tflite").logits(TEXTS), expected)
    assert cache.read_bytes() == whole


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_weight_cache(bundles: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pocketbert.runtime.cli", "classify", str(bundles["albert"]), "good film"]
    environment = {**os.environ, "POCKETBERT_CACHE": str(tmp_path)}
    started = [
        subprocess.Popen([*command, "--engine", "tflite"], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {process.communicate()[0] for process in started}
    assert len(answers) == 1 and "good film" in answers.pop()
    (cache,) = tmp_path.glob("*.xnnpack")
    assert WeightCache(cache.stem).is_intact()
    assert not [file for file in tmp_path.iterdir() if file.suffix not in (".xnnpack", ".sha256", ".checked")]


def test_a_cache_that_cannot_be_written_is_done_without(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path / "file"))
    assert len(Classifier.open(bundles["albert"], "tflite")("film")) == len(LABELS)


# The command


def test_classify_answers_arguments_and_lines_of_stdin_alike(bundles: dict[str, Path]) -> None:
    arguments = pocketbert("classify", bundles["albert"], "lovely film", "bad app", "--engine", "tflite")
    assert arguments.returncode == 0, arguments.stderr
    assert [line.split("\t")[1] for line in arguments.stdout.splitlines()] == ["lovely film", "bad app"]
    command = [sys.executable, "-m", "pocketbert.runtime.cli", "classify", str(bundles["albert"]), "--engine", "tflite"]
    piped = subprocess.run(command, input=b"lovely film\r\nbad app\n", capture_output=True, check=True)
    assert piped.stdout.decode() == arguments.stdout
    assert piped.stderr == b""


def test_classify_streams_a_json_line_per_text(bundles: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "pocketbert.runtime.cli", "classify", str(bundles["albert"]), "--json"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ))
    assert process.stdin and process.stdout
    for text in ("first", "zweite Zeile ä \\"):
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())  # comes before the next line is written
        assert answer["text"] == text
        assert {p["label"] for p in answer["predictions"]} == set(LABELS)
    process.stdin.close()
    assert process.wait(timeout=30) == 0
