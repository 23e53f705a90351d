"""The gates of `pocketbert check`: a healthy bundle passes every one, and each kind of damage is caught by name.

Most tests run a small model in numpy behind the TFLite engine's name, so that one thing at a time can be wrong
with it. Those at the end check a real bundle with its real checkpoint through the command.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
import typer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from typer.testing import CliRunner

from pocketbert.runtime import engines
from pocketbert.runtime.check import gates, parity, report
from pocketbert.runtime.check.datasets import read_dataset
from pocketbert.runtime.check.evidence import tail
from pocketbert.runtime.check.metrics import Comparison, Divergence, confusion
from pocketbert.runtime.cli import check as check_command
from pocketbert.runtime.errors import BundleError, EngineError, PocketbertError
from pocketbert.runtime.manifest import (
    Artifact,
    Manifest,
    Tensor,
    describe_file,
    make_outputs,
    read_manifest,
    write_manifest,
)
from pocketbert.runtime.progress import Progress

WORDS = [f"w{i}" for i in range(60)]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
LABELS = ("bad", "good")
LENGTHS = (4, 8, 16)
WIDTH = 16
# One value of [CLS] towers over all others, as in trained encoders: it ruins a scale shared by all tokens.
OUTLIER = 80.0
TEXTS = 300
SCHEMA = json.loads(Path(report.__file__).with_name("check.schema.json").read_text())


@dataclass(frozen=True)
class Model:
    """Words to logits in numpy: a table, a layer with int8 activations per token, a masked mean, a head."""

    exact: bool = False  # float activations: the checkpoint
    per_tensor: bool = False
    leaks: bool = False  # padding counts in the mean
    swapped: bool = False  # logits in the wrong order
    labels: int = len(LABELS)

    def __call__(self, ids: np.ndarray) -> np.ndarray:  # (tokens,) -> (labels,)
        random = np.random.default_rng(7)
        table, layer, head = (
            random.normal(size=size) for size in ((len(PIECES), WIDTH), (WIDTH, WIDTH), (WIDTH, self.labels))
        )
        table[PIECES.index("[CLS]"), 0] = OUTLIER
        x = table[ids]  # (tokens, width)
        hidden = np.tanh((x if self.exact else self.quantize(x)) @ layer / 4)
        kept = (ids != 0)[:, None] | self.leaks
        logits = (hidden * kept).sum(0) / kept.sum() @ head * 4
        return (logits[::-1] if self.swapped else logits).astype(np.float32)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        axis = None if self.per_tensor else 1
        low, high = np.minimum(x.min(axis, keepdims=True), 0), np.maximum(x.max(axis, keepdims=True), 0)
        scale = (high - low) / 255
        return np.round(x / scale) * scale


class Engine:
    """A `Model` behind an engine's name."""

    name, version = "tflite", "numpy model"

    def __init__(self, model: Any) -> None:
        self.model = model

    def run(self, ids: np.ndarray) -> np.ndarray:
        return self.model(ids[0])[None]

    def close(self) -> None:
        pass


def tokenizer(pieces: list[str]) -> Tokenizer:
    made = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = [(name, pieces.index(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=specials)
    return made


def texts(count: int) -> list[str]:
    random = np.random.default_rng(1)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 12))) for _ in range(count)]


def ids_of(text: str) -> np.ndarray:
    made = tokenizer(PIECES)
    made.enable_truncation(LENGTHS[-1])
    return np.array(made.encode(text).ids, np.int32)


def write_golden(folder: Path, labels: int) -> None:
    cases = []
    for text in ["", "w1", "w1 w2", "w3 unknown", *texts(10), " ".join(WORDS)]:
        ids = ids_of(text)
        exact, oracle = Model(exact=True, labels=labels)(ids).tolist(), Model(labels=labels)(ids).tolist()
        oracles = {"int8": oracle, "fp16": exact, "fp32": exact}
        cases.append({"text": text, "input_ids": ids.tolist(), "logits": exact, "oracle": oracles})
    (folder / "golden.json").write_text(json.dumps({"cases": cases}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle around the model."""
    return write_bundle(tmp_path / "bundle", LABELS)


def write_bundle(folder: Path, labels: tuple[str, ...], multi_label: bool = False) -> Path:
    folder.mkdir()
    tokenizer(PIECES).save(str(folder / "tokenizer.json"))
    write_golden(folder, len(labels))
    (folder / "model.tflite").write_bytes(b"weights")
    file = partial(describe_file, folder)
    parts = {"embeddings": 1, "layers": 2, "head": 3, "graph": 1}
    artifact = Artifact("tflite", "model.tflite", "seq_{length}", False, "int8", {}, parts, (file("model.tflite"),))
    manifest = Manifest(
        task="sequence-classification",
        architecture="bert",
        labels=labels,
        multi_label=multi_label,
        lengths=LENGTHS,
        max_length=LENGTHS[-1],
        pad_id=0,
        scheme="dynamic_wi8_afp32",
        input=Tensor("input_ids", "int32", (1, None)),
        outputs=make_outputs("sequence-classification", len(labels)),
        tokenizer=file("tokenizer.json"),
        tokenizer_tables=file("tokenizer.json"),  # no phone opens this bundle
        golden=file("golden.json"),
        artifacts=(artifact,),
        source={"name": "model", "weights_sha256": "0" * 64, "ignored_tensors": []},
        tools={},
    )
    write_manifest(manifest, folder)
    return folder


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Texts with the labels that the checkpoint gives them, every tenth one wrong."""
    rows = []
    for index, text in enumerate(texts(TEXTS)):
        answer = int(Model(exact=True)(ids_of(text)).argmax())
        rows.append(f"{text}\t{LABELS[answer if index % 10 else 1 - answer]}\n")
    file = tmp_path / "data.tsv"
    file.write_text("text\tlabel\n" + "".join(rows))
    return file


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """install(model): the TFLite engine of this host runs `model`."""

    def put(model: Any) -> None:
        class Module:
            is_installed = staticmethod(lambda: True)
            open_artifact = staticmethod(lambda *arguments: Engine(model))

        monkeypatch.setattr(engines, "load_module", lambda name: Module)

    put(Model())
    return put


def reference(ids: Any, advance: Any) -> dict[str, np.ndarray]:
    exact, oracle = (np.stack([model(row) for row in ids]) for model in (Model(exact=True), Model()))
    for _ in range(3 * len(ids)):
        advance()
    return {"fp32": exact, "int8": oracle, "fp16": exact}


def judge(folder: Path, labelled: Path | None = None, with_checkpoint: bool = True, **limits: Any) -> dict[str, Any]:
    """Gate name -> gate."""
    manifest = read_manifest(folder)
    rows = read_dataset(labelled, manifest.labels) if labelled else None
    found = parity.check_bundle(folder, ["tflite"], rows, reference if with_checkpoint else None)
    judged = gates.judge(found, gates.Limits(**limits))
    jsonschema.validate(report.describe(found, judged), SCHEMA)
    return {gate.name: gate for gate in judged}


def missed(judged: dict[str, Any]) -> set[str]:
    return {name for name, gate in judged.items() if gate.passed is False}


def edit_manifest(folder: Path, **changes: Any) -> None:
    write_manifest(replace(read_manifest(folder), **changes), folder)


def test_healthy_bundle_passes_every_gate(folder, labelled, install):
    judged = judge(folder, labelled)
    assert {gate.status for gate in judged.values()} == {"passed"}
    assert judged["quantization gap"].value > judged["lowering gap"].value == 0
    assert judged["padding drift"].value == judged["repeated runs"].value == 0


def test_without_checkpoint_golden_cases_serve(folder, labelled, install):
    judged = judge(folder, labelled, with_checkpoint=False)
    open_gates = {name for name, gate in judged.items() if gate.passed is None}
    averages = {"agreement", "quantization gap", "lowering gap"}
    assert open_gates == {"golden cases", "accuracy drop", "lengths"} | averages
    assert not missed(judged)
    assert {judged[name].note for name in open_gates - averages} == {"needs --checkpoint"}
    assert {judged[name].note for name in averages} == {"15 golden texts show too little: pass --checkpoint"}


def test_without_data_labels_are_missing(folder, install):
    judged = judge(folder, with_checkpoint=False)
    assert judged["accuracy drop"].note == judged["label order"].note == "needs --data with labels"


# Mutations: what can go wrong between a checkpoint and a phone.


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_activations_per_tensor_are_caught(folder, labelled, install, with_checkpoint):
    install(Model(per_tensor=True))
    by = {"lowering gap", "lowering peak"} if with_checkpoint else {"lowering peak"}
    assert missed(judge(folder, labelled, with_checkpoint)) & by == by


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_swapped_logits_are_caught(folder, labelled, install, with_checkpoint):
    install(Model(swapped=True))
    judged = judge(folder, labelled, with_checkpoint)
    assert {"agreement", "lowering gap", "lowering peak", "label order"} <= missed(judged)
    assert judged["label order"].note == "bad and good"


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_swapped_labels_of_the_manifest_are_caught(folder, labelled, install, with_checkpoint):
    edit_manifest(folder, labels=LABELS[::-1])  # the checkpoint's answers are read by the same wrong names
    assert missed(judge(folder, labelled, with_checkpoint)) == {"label order"}


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_mask_that_leaks_padding_is_caught(folder, labelled, install, with_checkpoint):
    install(Model(leaks=True))
    assert "padding drift" in missed(judge(folder, labelled, with_checkpoint))


def test_mask_that_leaks_at_one_length_only_is_caught(folder, labelled, install):
    install(lambda ids: Model(leaks=len(ids) == LENGTHS[1])(ids))
    assert "padding drift" in missed(judge(folder, labelled))


def test_wrong_vocabulary_is_caught(folder, labelled, install):
    pieces = [*PIECES[:4], *WORDS[1:], WORDS[0]]  # every word has moved by one
    tokenizer(pieces).save(str(folder / "tokenizer.json"))
    moved = describe_file(folder, "tokenizer.json")
    edit_manifest(folder, tokenizer=moved, tokenizer_tables=moved)
    judged = judge(folder, labelled)
    assert "tokenizer" in missed(judged)
    assert "'w1'" in judged["tokenizer"].note


@pytest.mark.parametrize("name", ["tokenizer.json", "golden.json", "model.tflite"])
def test_one_flipped_byte_is_refused(folder, install, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        judge(folder)


def test_answers_that_change_are_caught(folder, labelled, install):
    calls = iter(range(1_000_000))
    install(lambda ids: Model()(ids) + np.float32(1e-6) * next(calls))
    assert {"repeated runs", "concurrent threads"} <= missed(judge(folder, labelled))


def test_engine_that_threads_cannot_share_is_caught(folder, labelled, install):
    shared: dict[str, np.ndarray] = {}

    def unlocked(ids: np.ndarray) -> np.ndarray:
        shared["ids"] = ids
        if threading.active_count() > 2:
            time.sleep(0.001)  # another thread's ids arrive meanwhile
        return Model()(shared["ids"])

    install(unlocked)
    assert missed(judge(folder, labelled)) == {"concurrent threads"}


@pytest.mark.parametrize("answer", [np.nan, np.inf])
def test_numbers_that_are_none_are_caught(folder, install, answer):
    install(lambda ids: np.full(2, answer, np.float32))
    judged = judge(folder)
    assert missed(judged) == {"answers"}
    assert "broken" in judged["answers"].note


def test_engine_that_raises_is_caught_and_named(folder, install):
    def broken(ids: np.ndarray) -> np.ndarray:
        raise RuntimeError("no kernel for op 99\nat 0xdeadbeef")

    install(broken)
    judged = judge(folder)
    assert (missed(judged), judged["answers"].note) == ({"answers"}, "no kernel for op 99")


def test_stale_golden_cases_are_caught(folder, install):
    content = json.loads((folder / "golden.json").read_text())
    content["cases"][0]["logits"][0] += 0.1
    (folder / "golden.json").write_text(json.dumps(content))
    edit_manifest(folder, golden=describe_file(folder, "golden.json"))
    assert missed(judge(folder)) == {"golden cases"}


@pytest.mark.parametrize("cases", [[], [{"text": "", "input_ids": [2, 3], "logits": [0, 0], "oracle": {}}]])
def test_golden_cases_that_say_nothing_are_refused(folder, install, cases):
    (folder / "golden.json").write_text(json.dumps({"cases": cases}))
    edit_manifest(folder, golden=describe_file(folder, "golden.json"))
    with pytest.raises(BundleError, match=r"golden\.json.*(has 0 cases|lacks the oracle's logits for int8)"):
        judge(folder)


# Gates and metrics by themselves.


def test_limits_are_adjustable(folder, labelled, install):
    assert missed(judge(folder, labelled, max_quantization_gap=0.0)) == {"quantization gap"}


def flipped(flips: int, texts: int, by: float = 4.0) -> Comparison:
    """Logits of which the first `flips` texts are answered otherwise, `by` so much."""
    expected = np.tile(np.float32([0, by]), (texts, 1))
    found = expected.copy()
    found[:flips] = found[:flips, ::-1]
    return Comparison(found, expected, False, 0.05)


@pytest.mark.parametrize(("flips", "passed"), [(0, True), (1, None), (2, None), (3, None), (4, False)])
def test_flips_among_few_texts_decide_only_where_they_are_implausible(flips, passed):
    """Where 1 % of all texts flip, 3 of 25 do with a probability of 0.002, 4 with one of 0.0001."""
    gate = gates._agreement("tflite", flipped(flips, 25), gates.Limits(), needs="")
    assert gate.passed is passed
    assert gate.value == 1 - flips / 25
    if flips:
        assert gate.note.startswith(f"{flips} of 25 texts flipped")


@pytest.mark.parametrize(("flips", "passed"), [(0, True), (1, True), (2, False)])
def test_a_hundred_texts_resolve_one_per_cent(flips, passed):
    assert gates._agreement("tflite", flipped(flips, 100), gates.Limits(), needs="").passed is passed


def test_golden_texts_never_pass_a_share():
    gate = gates._agreement("tflite", flipped(0, 25), gates.Limits(), needs="pass --data")
    assert (gate.passed, gate.note) == (None, "pass --data")
    assert gates._agreement("tflite", flipped(4, 25), gates.Limits(), needs="pass --data").passed is False


def test_golden_texts_whose_answers_are_close_may_flip():
    within, beyond = (flipped(25, 25, by) for by in (0.09, 0.11))  # probabilities move by 0.045 and by 0.055
    assert gates._agreement("tflite", within, gates.Limits(), needs="pass --data").passed is None
    assert gates._agreement("tflite", beyond, gates.Limits(), needs="pass --data").passed is False


def moved(far: int, texts: int = 25) -> Comparison:
    """Logits of which `far` texts move by 0.04 in probability."""
    expected = np.zeros((texts, 2), np.float32)
    found = expected.copy()
    found[:far, 1] = 0.16
    return Comparison(found, expected, False, 0.05)


@pytest.mark.parametrize(("far", "passed"), [(0, None), (8, None), (9, False)])
def test_means_over_golden_texts_decide_only_where_they_are_implausible(far, passed):
    """Where the mean drift is 0.003, at most a tenth of the texts drift by 0.03; 9 of 25 then do with 0.0005."""
    gate = gates._mean_drift("lowering gap", "tflite", moved(far), 0.003, "pass --data")
    assert (gate.passed, gate.value) == (passed, pytest.approx(far * 0.0399 / 25, rel=0.01))
    note = "pass --data" if passed is None else "9 of 25 texts moved by more than 0.03"
    assert gate.note == note
    assert gates._mean_drift("lowering gap", "tflite", moved(far), 0.003, "").passed is (gate.value <= 0.003)


def test_a_limit_of_zero_needs_no_evidence():
    assert gates._mean_drift("lowering gap", "tflite", moved(1), 0.0, "pass --data").passed is False
    assert gates._mean_drift("lowering gap", "tflite", moved(0), 0.0, "pass --data").passed is None


def test_golden_texts_keep_the_tolerance_of_the_bundle():
    peak = partial(gates._lowering_peak, "tflite")
    within, beyond = flipped(1, 25, 0.09), flipped(1, 25, 0.11)
    assert peak(within, gates.Limits(), golden=True).passed
    assert peak(beyond, gates.Limits(), golden=True).passed is False
    assert peak(beyond, gates.Limits(), golden=False).passed
    assert peak(within, gates.Limits(max_lowering_peak=0.04), golden=True).passed is False


@pytest.mark.parametrize(
    ("wrong", "texts", "share", "expected"),
    [(1, 1, 0.3, 0.3), (2, 2, 0.5, 0.25), (1, 2, 0.5, 0.75), (3, 25, 0.01, 0.00195), (0, 9, 0.0, 1), (1, 9, 0.0, 0)],
)
def test_tail_is_the_binomial_distributions(wrong, texts, share, expected):
    assert tail(wrong, texts, share) == pytest.approx(expected, rel=0.01)


def test_tail_of_many_texts_is_a_probability():
    assert 0.4 < tail(5_000, 500_000, 0.01) < 0.6


def test_lines_say_what_where_and_how_far():
    gate = gates.Gate("lengths", "tflite", False, 0.25, 0.15, "at 7 tokens")
    assert str(gate) == "tflite: lengths missed: 0.25, limit 0.15: at 7 tokens"
    assert str(gates.Gate("golden cases", "", None, None, 0, "why")) == "golden cases not evaluated: why"


def test_accuracy_at_the_limit_passes(folder, labelled, install):
    """One text of 300 is 0.333... points: a limit of as much holds, whatever floats make of it."""
    wrong = ids_of(texts(TEXTS)[1])
    install(lambda ids: Model(exact=True, swapped=np.array_equal(ids[: len(wrong)], wrong))(ids))
    assert judge(folder, labelled, max_accuracy_drop=100 / TEXTS)["accuracy drop"].passed
    assert judge(folder, labelled, max_accuracy_drop=0.3)["accuracy drop"].passed is None


def test_equal_logits_do_not_diverge():
    logits = np.array([[1, 2], [0, 0]], np.float32)
    assert Comparison(logits, logits, False, 0).divergence == Divergence(2, 1, 0, 0, float("inf"), 1)


def test_divergence_of_known_logits():
    found, expected = np.array([[3, 0]], np.float32), np.array([[0, 4]], np.float32)
    measured = Comparison(found, expected, True, 0).divergence
    assert (measured.agreement, measured.cosine) == (0, 0)
    assert measured.psnr == pytest.approx(10 * np.log10(16 / 12.5))
    assert measured.max_drift == pytest.approx(0.9820138 - 0.5)


def test_swaps_need_enough_texts():
    few, many = np.array([[0, 4], [4, 0]]), np.array([[0, 9], [9, 0]])
    assert (gates._swapped(few), gates._swapped(many)) == ([], [(0, 1)])


def test_spread_takes_shortest_and_longest():
    ids = [np.zeros(length, np.int32) for length in (5, 1, 9, 3, 7)]
    assert [len(row) for row in parity.spread(ids, 3)] == [1, 5, 9]
    assert parity.spread([], 3) == []


def test_sweep_holds_every_edge_and_a_text_that_is_cut(folder, install):
    found = parity.check_bundle(folder, ["tflite"])
    lengths = [tokens for tokens, _ in found.sweep_drift(found.engines[0])]
    assert lengths == [3, 4, 5, 8, 9, 16] or lengths == [3, 4, 4, 5, 8, 9, 16]


# Each gate by itself: one thing is wrong, and it alone is missed.


def test_a_length_that_is_wrong_is_caught_by_its_tokens(folder, install, monkeypatch):
    """The sweep has a text of every length; the golden cases and the data need not."""
    found = parity.check_bundle(folder, ["tflite"], None, reference)
    sweep = found.engines[0].result.sweep.copy()
    sweep[-1] = sweep[-1][::-1]
    tokens = [length for length, _ in found.sweep_drift(found.engines[0])]
    broken = replace(found.engines[0], result=replace(found.engines[0].result, sweep=sweep))
    gate = gates._lengths(found, broken, gates.Limits())
    assert (gate.passed, gate.note) == (False, f"at {tokens[-1]} tokens")
    assert gate.value == pytest.approx(max(drift for _, drift in found.sweep_drift(broken)))
    assert gates._lengths(found, found.engines[0], gates.Limits()).passed


def test_engines_that_disagree_are_caught(folder, labelled, install):
    """Both may keep within the limits of the checkpoint and yet be further from each other."""
    manifest = read_manifest(folder)
    found = parity.check_bundle(folder, ["tflite"], read_dataset(labelled, manifest.labels), reference)
    one, answered = found.engines[0], found.engines[0].result.data
    turned = [*(row[::-1] for row in answered[:4]), *answered[4:]]  # 4 of 300 texts: over one per cent
    other = replace(one, name="other", result=replace(one.result, data=turned))
    judged = gates.judge(replace(found, engines=[one, other]), gates.Limits(min_agreement=0.99))
    assert [str(gate) for gate in judged if gate.engine == "tflite and other"] == [
        f"tflite and other: agreement missed: {296 / 300:.6g}, limit 0.99"
    ]
    same = gates.judge(replace(found, engines=[one, replace(one, name="other")]), gates.Limits())
    assert [gate.passed for gate in same if gate.engine == "tflite and other"] == [True]


def test_accuracy_lost_and_won(folder, labelled, install):
    """Answers turned against the truth cost accuracy, those turned towards it win some."""
    manifest = read_manifest(folder)
    found = parity.check_bundle(folder, ["tflite"], read_dataset(labelled, manifest.labels), reference)
    one, expected = found.engines[0], found.evaluation.data.reference["fp32"]
    right = expected.argmax(axis=1) == found.data.labels.argmax(axis=1)
    for texts_of, drop, passed in ((right, 1.0, False), (~right, -1.0, True)):
        turned = expected.copy()
        rows = np.flatnonzero(texts_of)[:3]
        turned[rows] = turned[rows, ::-1]
        (gate,) = gates._drops(found, replace(one, result=replace(one.result, data=turned)), gates.Limits())
        assert (gate.value, gate.passed) == (pytest.approx(drop), passed)
        before, after = (found.scores(logits)["accuracy"].value for logits in (expected, turned))
        assert after == pytest.approx(before - drop / 100)


def test_label_order_is_judged_by_the_answers(folder, labelled, install):
    manifest = read_manifest(folder)
    found = parity.check_bundle(folder, ["tflite"], read_dataset(labelled, manifest.labels), reference)
    one = found.engines[0]
    swapped = replace(one, result=replace(one.result, data=[row[::-1] for row in one.result.data]))
    judged = [gate for engine in (one, swapped) for gate in gates._label_order(found, engine)]
    assert [(gate.passed, gate.value) for gate in judged] == [(True, 0), (False, 1)]


def test_padding_that_moves_an_answer_is_measured(folder, labelled, install):
    """0.02 in a logit, by what a probability moves with it."""
    install(lambda ids: Model()(ids) + np.float32([0.02 if not ids[-8:].any() else 0, 0]))
    judged = judge(folder, labelled)
    assert missed(judged) == {"padding drift"}
    assert 0.001 < judged["padding drift"].value <= 0.005


def test_threads_that_move_an_answer_are_measured(folder, labelled, install):
    main = threading.main_thread()
    install(lambda ids: Model()(ids) + np.float32([0 if threading.current_thread() is main else 0.02, 0]))
    judged = judge(folder, labelled)
    assert missed(judged) == {"concurrent threads"}
    assert judged["concurrent threads"].value == pytest.approx(0.02, abs=1e-5)


@pytest.mark.parametrize("change", [0.02, -0.02, 0.0])
def test_runs_that_move_an_answer_are_measured(change):
    ids = [np.zeros(length, np.int32) for length in (3, 4, 5)]
    calls = iter(range(100))
    model = SimpleNamespace(run=lambda row: np.float32([1, change if next(calls) >= 2 * len(ids) else 0]))
    run = parity._Run(model, None, "tflite", Progress())  # type: ignore[arg-type]
    assert run.repeat_drift(ids) == pytest.approx(0.02 if change else 0)


def test_texts_per_second_are_texts_over_seconds(folder, install, monkeypatch):
    clock = iter(np.arange(0, 1e6, 2.0))  # two seconds between any two looks
    monkeypatch.setattr(parity.time, "perf_counter", lambda: float(next(clock)))
    found = parity.check_bundle(folder, ["tflite"]).engines[0].result
    assert found.texts_per_second == len(found.golden) / 2


def test_metrics_of_known_logits():
    expected = np.array([[4, 0], [0, 4], [3, 4]], np.float32)
    found = np.array([[0, 4], [0, 2], [4, 3]], np.float32)
    measured = Comparison(found, expected, False, 0).divergence
    assert measured.psnr == pytest.approx(10 * np.log10(4**2 / (38 / 6)))
    assert measured.cosine == pytest.approx((0 + 1 + 24 / 25) / 3)
    assert measured.agreement == pytest.approx(1 / 3)
    near = Comparison(found / 2 + expected / 2, expected, False, 0).divergence
    assert near.psnr > measured.psnr and near.cosine > measured.cosine
    twice = Comparison(-expected, expected, False, 0).divergence
    assert (twice.cosine, twice.psnr < 0) == (pytest.approx(-1), True)


def test_logits_that_are_all_zero_have_a_psnr():
    zero = np.zeros((2, 2), np.float32)
    assert Comparison(zero + 1, zero, False, 0).divergence.psnr < -700


def test_confusion_has_a_row_for_each_truth():
    labels = np.array([[True, False, False], [True, False, False], [False, True, False], [False, False, True]])
    logits = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    counts = confusion(logits, labels)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert report._confusions(counts.tolist(), "abc") == [(1, "a", "b"), (1, "c", "b")]


# The page.


def test_the_histogram_has_each_texts_share():
    bins = report._histogram(np.float32([0, 0, 0.00005, 0.0005, 0.002, 0.5, 0.5, 1]))
    assert [(one["name"], one["count"]) for one in bins] == [
        *(("< 0.0001", 3), ("≥ 0.0001", 1), ("≥ 0.001", 1), ("≥ 0.003", 0), ("≥ 0.01", 0), ("≥ 0.03", 0), ("≥ 0.1", 3))
    ]
    assert [one["share"] for one in bins] == [one["count"] / 8 for one in bins]


def test_the_scatter_has_the_checkpoint_across_and_the_engine_up():
    """SVG's y points down: a probability of 0.9 by the engine is near the top."""
    expected = np.log(np.float32([[0.9, 0.1], [0.4, 0.6]]))
    found = np.log(np.float32([[0.7, 0.3], [0.6, 0.4]]))
    drawn = report._scatter(Comparison(found, expected, multi_label=False, tolerance=0.05))
    assert drawn == {"dots": "M20.0 140.0h0", "flips": "M120.0 120.0h0"}


def test_the_page_shows_each_limit_and_each_gate_where_it_belongs(folder, labelled, install, tmp_path):
    page = report_of(folder, labelled, tmp_path / "r.html")
    rows = {
        re.sub("<[^>]+>", "", cells[0]): [re.sub("<[^>]+>|\\s+", " ", cell).split() for cell in cells[1:]]
        for cells in (row.split("</th>")[0:1] + row.split("</td>")[:-1] for row in page.split("<tr>") if "limit" in row)
    }
    limits = {name: " ".join(cells[0][-2:]) for name, cells in rows.items() if cells}
    assert limits["agreement"] == "≥ 99.00%"
    assert (limits["lengths"], limits["lowering gap"]) == ("≤ 0.15", "≤ 0.003")
    assert " ".join(rows["accuracy drop"][0][-3:]) == "≤ 0.50 points"
    of_engines, of_bundle = page.index("of each engine"), page.index("of the bundle")
    assert of_engines < page.index("<th>lengths</th>") < of_bundle
    assert of_bundle < page.index("<th>tokenizer</th>") < page.index("<th>golden cases</th>")


def test_open_gates_share_a_line_for_each_reason(folder, install):
    found = parity.check_bundle(folder, ["tflite"])
    other = replace(found.engines[0], name="coreml")
    judged = gates.judge(replace(found, engines=[*found.engines, other], absent=["executorch"]), gates.Limits())
    few = "15 golden texts show too little: pass"
    assert report.describe_open([{**vars(gate), "status": gate.status} for gate in judged]) == [
        "golden cases; tflite, coreml: lengths not evaluated: needs --checkpoint",
        f"tflite, coreml: agreement, quantization gap, lowering gap not evaluated: {few} --checkpoint and --data",
        "tflite, coreml: accuracy drop, label order not evaluated: needs --data with labels",
        f"tflite and coreml: agreement not evaluated: {few} --data",
        "executorch: answers not evaluated: no engine for it here: pip install 'pocketbert[executorch]'",
    ]


# The command.


def check(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(check_command.check)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_passes_and_writes_both_reports(folder, labelled, install, tmp_path):
    result = check(folder, "--data", labelled, "--json", tmp_path / "r.json", "--report", tmp_path / "r.html")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "300 of 300 rows; labels matched: exact; rows skipped: none" in result.stdout
    jsonschema.validate(json.loads((tmp_path / "r.json").read_text()), SCHEMA)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Passed:" in page
    assert not any(outside in page for outside in ("http:", "https:", "<script", "<link", "@import"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bundle", "data.tsv", "r.html", "r.json"]


def test_command_names_every_missed_gate(folder, labelled, install):
    install(Model(swapped=True))
    result = check(folder, "--data", labelled)
    lines = result.stderr.splitlines()
    assert result.exit_code == 1
    assert [line.split(" missed: ")[0] for line in lines] == [
        f"pocketbert: tflite: {gate}" for gate in ("agreement", "label order", "lowering gap", "lowering peak")
    ]


def test_command_counts_open_gates_only_if_told(folder, install):
    assert check(folder).exit_code == 0
    result = check(folder, "--require-all")
    assert result.exit_code == 1
    assert "pocketbert: tflite: accuracy drop not evaluated: needs --data with labels" in result.stderr


def test_command_prints_json_alone(folder, install):
    result = check(folder, "--json", "-")
    jsonschema.validate(json.loads(result.stdout), SCHEMA)


def test_page_shows_hostile_texts_and_labels_as_text(folder, install, tmp_path):
    edit_manifest(folder, labels=("<script>", "a&b"))
    file = tmp_path / "d.jsonl"
    text = "<img src=x> w1 \ud800 \0 " + "w2 " * 400
    file.write_text(json.dumps({"text": text, "label": "a&b"}) + "\n")
    install(Model(swapped=True))
    page = report_of(folder, file, tmp_path / "r.html")
    assert "<img" not in page and "&lt;img src=x&gt;" in page
    assert "<script>" not in page and "a&amp;b" in page


def report_of(folder: Path, file: Path, target: Path) -> str:
    manifest = read_manifest(folder)
    found = parity.check_bundle(folder, ["tflite"], read_dataset(file, manifest.labels), reference)
    judged = gates.judge(found, gates.Limits())
    report.write_html(report.describe(found, judged), found, target)
    return target.read_text(encoding="utf-8")


@pytest.mark.parametrize("multi_label", [False, True])
def test_many_labels_and_several_at_a_time(install, tmp_path, multi_label):
    labels = tuple(f"label {i}" for i in range(20))
    folder = write_bundle(tmp_path / "many", labels, multi_label)
    install(Model(labels=20))
    file = tmp_path / "d.tsv"
    file.write_text("text\tlabel\n" + "".join(f"{text}\tlabel {i % 20}\n" for i, text in enumerate(texts(40))))
    result = check(folder, "--data", file, "--json", tmp_path / "r.json", "--report", tmp_path / "r.html")
    assert (result.exit_code, result.stderr) == (0, "")
    content = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(content, SCHEMA)
    assert (content["engines"][0]["confusion"] is None) == multi_label
    assert (" answered label " in (tmp_path / "r.html").read_text()) != multi_label


def test_page_of_a_failed_engine(folder, install, tmp_path):
    install(lambda ids: np.full(2, np.nan, np.float32))
    assert check(folder, "--report", tmp_path / "r.html").exit_code == 1
    assert "Missed:" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "onnx"], "the bundle has no onnx artifact"),
        (["--data", "missing.tsv"], "cannot read missing.tsv"),
        (["--report", "nowhere/r.html"], "cannot write nowhere/r.html"),
        (["--json", "nowhere/r.json"], "cannot write nowhere/r.json"),
    ],
)
def test_bad_usage_is_one_line(folder, install, arguments, message):
    result = check(folder, *arguments)
    assert isinstance(result.exception, PocketbertError)
    assert str(result.exception).startswith(message)


def test_missing_export_half_is_one_line(folder, install, monkeypatch):
    class Plug:
        def load(self) -> Any:
            raise ModuleNotFoundError("No module named 'torch'")

    for plugs in ([], [Plug()]):
        monkeypatch.setattr(check_command, "entry_points", lambda group, plugs=plugs: plugs)
        result = check(folder, "--checkpoint", "anything")
        assert isinstance(result.exception, EngineError)
        assert "pip install 'pocketbert[export]'" in str(result.exception)


def test_host_without_engines_is_one_line(folder, install, monkeypatch):
    monkeypatch.setattr(engines, "installed", lambda formats: [])
    assert "no engine for tflite is installed" in str(check(folder).exception)


def test_formats_without_engine_are_open_gates(folder, labelled, install, monkeypatch):
    manifest = read_manifest(folder)
    other = replace(manifest.artifacts[0], format="coreml")
    edit_manifest(folder, artifacts=(*manifest.artifacts, other))
    monkeypatch.setattr(engines, "installed", lambda formats: ["tflite"])
    result = check(folder, "--data", labelled)
    assert result.exit_code == 0
    assert "coreml: answers not evaluated: no engine for it here" in result.stdout


# A real bundle and its real checkpoint.


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference as the entry point gives it, without asking how the package was installed."""
    from pocketbert.export.reference import compute

    class Plug:
        load = staticmethod(lambda: compute)

    monkeypatch.setattr(check_command, "entry_points", lambda group: [Plug()])


def test_real_bundle_passes_against_its_checkpoint(bundles, checkpoints, plugged, tmp_path):
    file = tmp_path / "d.csv"
    rows = ["the film was lovely", "i hate it", "very bad app", "not good", "love"] * 8
    file.write_text("text,label\n" + "".join(f"{row},{i % 3}\n" for i, row in enumerate(rows)))
    result = check(
        *(bundles["distilbert"], "--checkpoint", checkpoints["distilbert"], "--data", file),
        *("--json", tmp_path / "r.json", "--report", tmp_path / "r.html"),
    )
    content = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(content, SCHEMA)
    assert content["data"]["label_rule"] == "index"
    steady = ("tokenizer", "golden cases", "answers", "padding drift", "repeated runs", "concurrent threads")
    assert [gate["line"] for gate in content["gates"] if gate["name"] in steady and not gate["passed"]] == []
    missed_gates = [gate for gate in content["gates"] if gate["status"] == "missed"]  # of random weights some may be
    assert result.exit_code == (1 if missed_gates else 0)
    assert result.stderr.splitlines() == [f"pocketbert: {gate['line']}" for gate in missed_gates]
    assert content["verdict"] == ("missed" if missed_gates else "passed")


def test_checkpoint_of_another_bundle_is_refused(bundles, checkpoints, plugged):
    result = check(bundles["distilbert"], "--checkpoint", checkpoints["albert"])
    assert isinstance(result.exception, PocketbertError)
    assert "pass the checkpoint it was exported from" in str(result.exception)


def test_swapped_labels_are_refused_against_the_checkpoint(bundles, checkpoints, plugged, tmp_path):
    folder = shutil.copytree(bundles["distilbert"], tmp_path / "bundle")
    edit_manifest(folder, labels=read_manifest(folder).labels[::-1])
    result = check(folder, "--checkpoint", checkpoints["distilbert"])
    assert "the bundle has calm, joy, anger: export again" in str(result.exception)
