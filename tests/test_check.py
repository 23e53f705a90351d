"""The gates of `pocketbert check`: a healthy bundle passes every one, and each kind of damage is caught by name.

Most tests run a small model in numpy behind the TFLite engine's name, so that one thing at a time can be wrong
with it. Those at the end check a real bundle with its real checkpoint through the command.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import typer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from typer.testing import CliRunner

from pocketbert.runtime import check_cli, data, engines, gap, gates, parity, report
from pocketbert.runtime import manifest as bundle
from pocketbert.runtime.errors import BundleError, EngineError, PocketbertError

WORDS = [f"w{i}" for i in range(60)]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
LABELS = ("bad", "good")
LENGTHS = (4, 8, 16)
WIDTH = 16
# One value of [CLS] towers over all others, as in trained encoders: it ruins a scale shared by all tokens.
OUTLIER = 80.0
TEXTS = 300
SCHEMA = json.loads((Path(report.__file__).parent / "check.schema.json").read_text())


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
    file = partial(bundle.describe_file, folder)
    parts = {"embeddings": 1, "layers": 2, "head": 3, "graph": 1}
    artifact = bundle.Artifact("tflite", "model.tflite", "", False, "int8", {}, parts, (file("model.tflite"),))
    manifest = bundle.Manifest(
        task="sequence-classification",
        architecture="bert",
        labels=labels,
        multi_label=multi_label,
        lengths=LENGTHS,
        max_length=LENGTHS[-1],
        pad_id=0,
        scheme="dynamic_wi8_afp32",
        input=bundle.Tensor("input_ids", "int32", (1, None)),
        output=bundle.Tensor("logits", "float32", (1, len(labels))),
        tokenizer=file("tokenizer.json"),
        tokenizer_tables=file("tokenizer.json"),  # no phone opens this bundle
        golden=file("golden.json"),
        artifacts=(artifact,),
        source={"name": "model", "weights_sha256": "0" * 64, "ignored_tensors": []},
        tools={},
    )
    bundle.write(manifest, folder)
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
            open = staticmethod(lambda *arguments: Engine(model))

        monkeypatch.setattr(engines, "_module", lambda name: Module)

    put(Model())
    return put


def reference(ids: Any, advance: Any) -> dict[str, np.ndarray]:
    exact, oracle = (np.stack([model(row) for row in ids]) for model in (Model(exact=True), Model()))
    for _ in range(3 * len(ids)):
        advance()
    return {"fp32": exact, "int8": oracle, "fp16": exact}


def judge(folder: Path, labelled: Path | None = None, with_checkpoint: bool = True, **limits: Any) -> dict[str, Any]:
    """Gate name -> gate."""
    manifest = bundle.read(folder)
    rows = data.read(labelled, manifest.labels) if labelled else None
    found = parity.check(folder, ["tflite"], rows, reference if with_checkpoint else None)
    judged = gates.judge(found, gates.Limits(**limits))
    jsonschema.validate(report.describe(found, judged), SCHEMA)
    return {gate.name: gate for gate in judged}


def missed(judged: dict[str, Any]) -> set[str]:
    return {name for name, gate in judged.items() if gate.passed is False}


def edit_manifest(folder: Path, **changes: Any) -> None:
    bundle.write(replace(bundle.read(folder), **changes), folder)


def test_healthy_bundle_passes_every_gate(folder, labelled, install):
    judged = judge(folder, labelled)
    assert {gate.status for gate in judged.values()} == {"passed"}
    assert judged["quantization gap"].value > judged["lowering gap"].value == 0
    assert judged["padding drift"].value == judged["repeated runs"].value == 0


def test_without_checkpoint_golden_cases_serve(folder, labelled, install):
    judged = judge(folder, labelled, with_checkpoint=False)
    open_gates = {name for name, gate in judged.items() if gate.passed is None}
    assert open_gates == {"golden cases", "accuracy drop", "lengths"}
    assert not missed(judged)
    assert {judged[name].note for name in open_gates} == {"needs --checkpoint"}


def test_without_data_labels_are_missing(folder, install):
    judged = judge(folder, with_checkpoint=False)
    assert judged["accuracy drop"].note == judged["label order"].note == "needs --data with labels"


# Mutations: what can go wrong between a checkpoint and a phone.


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_activations_per_tensor_are_caught(folder, labelled, install, with_checkpoint):
    install(Model(per_tensor=True))
    assert "lowering gap" in missed(judge(folder, labelled, with_checkpoint))


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
    edit_manifest(folder, tokenizer=bundle.describe_file(folder, "tokenizer.json"))
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
    edit_manifest(folder, golden=bundle.describe_file(folder, "golden.json"))
    assert missed(judge(folder)) == {"golden cases"}


@pytest.mark.parametrize("cases", [[], [{"text": "", "input_ids": [2, 3], "logits": [0, 0], "oracle": {}}]])
def test_golden_cases_that_say_nothing_are_refused(folder, install, cases):
    (folder / "golden.json").write_text(json.dumps({"cases": cases}))
    edit_manifest(folder, golden=bundle.describe_file(folder, "golden.json"))
    with pytest.raises(BundleError, match=r"golden\.json lacks logits for int8: export the bundle again"):
        judge(folder)


# Gates and gaps by themselves.


def test_limits_are_adjustable(folder, labelled, install):
    assert missed(judge(folder, labelled, max_quantization_gap=0.0)) == {"quantization gap"}


def test_one_flip_among_few_texts_decides_nothing():
    one, two = (gap.Gap(25, 1 - flips / 25, 0, 0, 0, 1) for flips in (1, 2))
    assert gates._agreement("tflite", one, gates.Limits()).passed is None
    assert gates._agreement("tflite", two, gates.Limits()).passed is False


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


def test_gap_of_equal_logits_is_none():
    logits = np.array([[1, 2], [0, 0]], np.float32)
    assert gap.measure(logits, logits, False) == gap.Gap(2, 1, 0, 0, float("inf"), 1)


def test_gap_of_known_logits():
    found, expected = np.array([[3, 0]], np.float32), np.array([[0, 4]], np.float32)
    measured = gap.measure(found, expected, True)
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
    found = parity.check(folder, ["tflite"])
    lengths = [tokens for tokens, _ in found.sweep_drift(found.engines[0])]
    assert lengths == [3, 4, 5, 8, 9, 16] or lengths == [3, 4, 4, 5, 8, 9, 16]


# The command.


def check(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(check_cli.check)
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
    manifest = bundle.read(folder)
    found = parity.check(folder, ["tflite"], data.read(file, manifest.labels), reference)
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
        monkeypatch.setattr(check_cli, "entry_points", lambda group, plugs=plugs: plugs)
        result = check(folder, "--checkpoint", "anything")
        assert isinstance(result.exception, EngineError)
        assert "pip install 'pocketbert[export]'" in str(result.exception)


def test_host_without_engines_is_one_line(folder, install, monkeypatch):
    monkeypatch.setattr(engines, "installed", lambda formats: [])
    assert "no engine for tflite is installed" in str(check(folder).exception)


def test_formats_without_engine_are_open_gates(folder, labelled, install, monkeypatch):
    manifest = bundle.read(folder)
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

    monkeypatch.setattr(check_cli, "entry_points", lambda group: [Plug()])


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
    assert result.exit_code in (0, 1)  # random weights may cost accuracy; what must hold of any is above


def test_checkpoint_of_another_bundle_is_refused(bundles, checkpoints, plugged):
    result = check(bundles["distilbert"], "--checkpoint", checkpoints["albert"])
    assert isinstance(result.exception, PocketbertError)
    assert "pass the checkpoint it was exported from" in str(result.exception)


def test_swapped_labels_are_refused_against_the_checkpoint(bundles, checkpoints, plugged, tmp_path):
    folder = shutil.copytree(bundles["distilbert"], tmp_path / "bundle")
    edit_manifest(folder, labels=bundle.read(folder).labels[::-1])
    result = check(folder, "--checkpoint", checkpoints["distilbert"])
    assert "the bundle has calm, joy, anger: export again" in str(result.exception)
