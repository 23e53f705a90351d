"""`pocketbert bench`: samples are kept, figures follow from them, and a baseline runs the same checkpoint."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_bundle import pocketbert

from pocketbert.runtime.bench import measure as bench
from pocketbert.runtime.bench.measure import Measurement, Start, Subject
from pocketbert.runtime.manifest import read_manifest
from pocketbert.runtime.tokenizer import Tokenizer

RECORDED = Path(__file__).parent / "benchmarks" / "results"
LENGTHS = (8, 16)
ROUNDS = 2
# An engine that never sleeps, after its work least of all; the seconds it tells are those that others like it worked
# in a tenth of a second of its turn. Its arguments: the folder in which they find each other.
SPINNING_WORKER = """
import json, os, pathlib, sys, threading, time
import psutil

def spin():
    while True:
        pass

def work(pid):
    try:
        return sum(psutil.Process(pid).cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0

folder = pathlib.Path(sys.argv[1])
others = [int(file.name) for file in folder.iterdir()]
(folder / str(os.getpid())).touch()
sys.stdin.readline()
print(json.dumps({"version": "0", "idle_bytes": 0, "open": 1.0, "first_label": 1.0}), flush=True)
threading.Thread(target=spin).start()
for line in sys.stdin:
    before = [work(pid) for pid in others]
    time.sleep(0.1)
    theirs = [sum(map(work, others)) - sum(before)]
    answer = {"text_to_label": theirs, "model": theirs, "peak_bytes": 0, "resident_bytes": 0}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def measured(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one run over two engines, and the page it wrote."""
    folder = tmp_path_factory.mktemp("bench")
    options = ["--rounds", ROUNDS, "--lengths", "8,16", "--threads", 1, "--soak", 50]
    files = ["--json", folder / "b.json", "--report", folder / "b.html"]
    done = pocketbert("bench", bundles["albert"], *options, *files)
    assert done.returncode == 0, done.stderr
    return {"json": json.loads((folder / "b.json").read_text()), "page": (folder / "b.html").read_text(), "said": done}


def test_every_engine_is_timed_at_every_length(measured: dict[str, Any]) -> None:
    assert [one["subject"]["engine"] for one in measured["json"]["results"]] == ["tflite", "executorch"]
    for one in measured["json"]["results"]:
        for length in LENGTHS:
            for measure in ("text_to_label", "model"):
                samples = one["samples"][str(length)][measure]
                assert len(samples) == ROUNDS * bench.TEXTS
                assert all(seconds > 0 for seconds in samples)


def test_a_text_takes_longer_than_its_model_alone(measured: dict[str, Any]) -> None:
    for one in measured["json"]["results"]:
        latency = one["summary"]["latency"]["8"]
        assert latency["text_to_label_p50"] > latency["model_p50"]


def test_starts_are_timed_cold_and_warm(measured: dict[str, Any]) -> None:
    for one in measured["json"]["results"]:
        assert len(one["cold"]) == len(one["warm"]) == bench.STARTS
        assert all(start["first_label"] > start["open"] > 0 for start in [*one["cold"], *one["warm"]])


def test_a_cold_start_has_an_empty_cache_and_a_warm_one_what_that_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In which an engine was checked and weights are packed; seconds of a loaded machine could not tell."""
    found: list[tuple[str, int]] = []

    @contextmanager
    def worker(subject: Subject, text: Any, cache: Path, start: bool) -> Iterator[tuple[None, dict[str, float]]]:
        cache.mkdir(exist_ok=True)
        found.append((cache.name, len(list(cache.iterdir()))))
        (cache / str(len(found))).touch()
        yield None, {"open": 1.0, "first_label": 2.0}

    monkeypatch.setattr(bench, "_worker", worker)
    result = Measurement(Subject("tflite", 1, "bundle"))
    bench._time_starts(result, ("a text",), tmp_path, 2)
    assert found == [("tflite-0", 0), ("tflite-0", 1), ("tflite-1", 0), ("tflite-1", 1)]
    assert result.cold == result.warm == [Start(1.0, 2.0)] * 2


def test_a_subject_finds_what_it_packed_itself_and_nothing_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another number of threads, say: else its memory would depend on who came first."""
    found: list[tuple[int, list[str]]] = []
    answer = {"text_to_label": [1.0], "model": [1.0], "peak_bytes": 0, "resident_bytes": 0}

    @contextmanager
    def worker(subject: Subject, text: Any, cache: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
        cache.mkdir(exist_ok=True)
        found.append((subject.threads, [file.name for file in cache.iterdir()]))
        (cache / f"packed-by-{subject.threads}").touch()
        yield lambda task: answer, {"version": "0", "idle_bytes": 0}

    monkeypatch.setattr(bench, "_worker", worker)
    subjects = [Subject("tflite", threads, "bundle") for threads in (1, 2)]
    bench.measure(subjects, {"bundle": {8: [("a text",)]}}, ROUNDS, starts=0)
    assert found == [(1, []), (2, []), (1, ["packed-by-1"]), (2, ["packed-by-2"])]


@pytest.fixture
def spinning_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the real one."""
    met = tmp_path / "met"
    met.mkdir()
    monkeypatch.setattr(bench, "WORKER", (sys.executable, "-c", SPINNING_WORKER, str(met)))


@pytest.mark.usefixtures("spinning_worker")
@pytest.mark.parametrize("order", [("spins", "spins too"), ("spins too", "spins")], ids=", ".join)
def test_nothing_is_measured_beside_an_engine_that_still_spins(order: Sequence[str]) -> None:
    texts = {length: [("a text",)] for length in LENGTHS}
    found = bench.measure([Subject(name, 1, "bundle") for name in order], {"bundle": texts}, ROUNDS, starts=1)
    for result in found.results:
        assert [result.samples[length]["model"] for length in LENGTHS] == [[0.0] * ROUNDS] * len(LENGTHS)


@pytest.mark.usefixtures("spinning_worker")
def test_a_neighbour_that_spins_would_be_seen(tmp_path: Path) -> None:
    """What the test above relies on."""
    subject = Subject("spins", 1, "bundle")
    with bench._worker(subject, ("a text",), tmp_path), bench._worker(subject, ("a text",), tmp_path) as (ask, _):
        worked = [ask({"texts": []})["model"][0] for _ in range(10)]
    assert max(worked) > 0


def test_memory_is_counted_over_the_idle_interpreter(measured: dict[str, Any]) -> None:
    for one in measured["json"]["results"]:
        assert 0 < one["resident_bytes"] <= one["peak_bytes"]
        assert one["soak"]["texts"] == 50


def absolute_paths(found: Any) -> list[str]:
    """Those anywhere in plain data, in the middle of a sentence too."""
    if isinstance(found, dict):
        return absolute_paths([*found, *found.values()])
    if isinstance(found, list):
        return [path for one in found for path in absolute_paths(one)]
    return re.findall(r"(?<![\w.])(?:/|~/|[A-Za-z]:[\\/])\S+", found) if isinstance(found, str) else []


def test_absolute_paths_are_found() -> None:
    odd = {"a": ["/home/me/model", {"/tmp": 0}], "b": "in C:\\me\\model", "c": "~/x: no such file"}
    assert absolute_paths(odd) == ["/home/me/model", "/tmp", "C:\\me\\model", "~/x:"]
    assert absolute_paths({"a": "model.tflite", "b": "km/h", "c": "a/model", "d": 1.0}) == []


def test_what_was_measured_names_no_place_on_the_computer(measured: dict[str, Any], tmp_path: Path) -> None:
    assert absolute_paths(measured["json"]) == []
    assert str(tmp_path.parents[1]) not in measured["page"]
    subject = Subject("onnxruntime", 2, str(tmp_path), str(tmp_path / "model.onnx"))
    found = bench.Bench(str(tmp_path), (), (Measurement(subject),), {}).as_json()
    assert absolute_paths(found) == []
    assert found["bundle"] == found["results"][0]["subject"]["bundle"] == tmp_path.name
    assert found["results"][0]["subject"]["model"] == "model.onnx"


def test_a_bundle_in_the_working_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench.Bench(".", (), (), {}).as_json()["bundle"] == tmp_path.name


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.json")), ids=lambda file: file.stem)
def test_recorded_results_name_no_place_on_a_computer(file: Path) -> None:
    assert absolute_paths(json.loads(file.read_text())) == []


def test_the_page_draws_each_engine_and_needs_no_network(measured: dict[str, Any]) -> None:
    page = measured["page"]
    assert page.count("<svg") == 1
    assert all(f">{name}" in page for name in ("tflite", "executorch"))
    assert "http" not in page.replace("http://www.w3.org", "")


def test_quantiles_and_throughput_follow_from_the_samples() -> None:
    samples = {16: {"text_to_label": [0.001, 0.002, 0.003, 0.010], "model": [0.001] * 4}}
    result = Measurement(Subject("tflite", 1, "bundle"), samples=samples, cold=[Start(0.1, 0.2), Start(0.3, 0.5)])
    assert result.quantile(16, "text_to_label", 0.5) == pytest.approx(0.0025)
    assert result.throughput(16) == pytest.approx(250)  # four texts in 16 ms
    summary = bench.Bench("bundle", (16,), (result,), {}).as_json()["results"][0]["summary"]
    assert summary["cold"] == {"open": pytest.approx(0.2), "first_label": pytest.approx(0.35)}
    assert summary["warm"] is None


def test_invented_texts_have_the_length_that_is_asked_for(bundles: dict[str, Path]) -> None:
    loaded = read_manifest(bundles["distilbert"])
    tokenizer = Tokenizer(bundles["distilbert"] / loaded.tokenizer.path, loaded.max_length)
    for length, texts in bench.make_texts(bundles["distilbert"], loaded, (8, 16, 24)).items():
        assert all(length - 8 < len(tokenizer(*text)) <= length for text in texts)


def test_real_texts_are_grouped_by_the_length_that_they_are_padded_to(bundles: dict[str, Path]) -> None:
    loaded = read_manifest(bundles["distilbert"])
    texts = ["good", "good film"] + [f"it was {'very ' * count}good" for count in range(18)]
    groups = bench.group_texts(bundles["distilbert"], loaded, [(text,) for text in texts])
    tokenizer = Tokenizer(bundles["distilbert"] / loaded.tokenizer.path, loaded.max_length)
    assert list(groups) == [8, 16, 24]
    assert all(loaded.padded_length(len(tokenizer(*text))) == length for length in groups for text in groups[length])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--against", "onnxruntime"], "--against onnxruntime needs --checkpoint"),
        (["--against", "coffee", "--checkpoint", "x"], "unknown --against 'coffee': use onnxruntime"),
        (["--lengths", "8,many"], "--lengths '8,many': give whole numbers"),
        (["--lengths", "4000"], "--lengths 4000: this bundle takes 8 to 24"),
        (["--engine", "abacus"], "the bundle has no abacus artifact"),
    ],
)
def test_bad_usage_is_one_line(bundles: dict[str, Path], arguments: list[str], line: str) -> None:
    done = pocketbert("bench", bundles["albert"], *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"pocketbert: {line}") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_baseline_is_the_same_checkpoint_all_of_it_in_int8(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """ALBERT's shared layer most of all: without preparation only its first use would be quantized."""
    import onnx
    from transformers import AutoModelForSequenceClassification

    from pocketbert.export.onnxruntime_baseline import export_onnxruntime

    model = export_onnxruntime(str(checkpoints["albert"]), tmp_path)
    operators = [node.op_type for node in onnx.load(model).graph.node]
    depth, linears = 3, 6
    assert operators.count("MatMulInteger") == depth * linears + 3  # the projection, the pooler and the classifier
    assert operators.count("MatMul") == depth * 2  # attention has no weights

    import torch
    from onnx.reference import ReferenceEvaluator
    from onnx.version_converter import convert_version

    ids = np.array([[2, 6, 7, 8, 3]])
    # As ONNX defines it: without VNNI onnxruntime adds int8 products in pairs, in 16 bits, and these weights overflow.
    defined = ReferenceEvaluator(convert_version(onnx.load(model), 21))  # the evaluator has no older DequantizeLinear
    found = defined.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    reference = AutoModelForSequenceClassification.from_pretrained(checkpoints["albert"]).eval()
    with torch.inference_mode():
        expected = reference(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=0.5)  # random weights of int8 move these logits by tenths
