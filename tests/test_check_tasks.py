"""`pocketbert check` of the other tasks: counts tokens and questions, scores as the field does, catches what is wrong.

The engine is a few lines (test_model.py): "film" is a place, and the answer to every question.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from test_model import FakeEngine, write_bundle

from pocketbert.runtime import engines
from pocketbert.runtime.check import gates, parity, report
from pocketbert.runtime.check.tasks.choice import find
from pocketbert.runtime.check.tasks.token_classification import first_tokens
from pocketbert.runtime.manifest import describe_file, read_manifest, write_manifest
from pocketbert.runtime.tokenizer import Tokenizer

SCHEMA = json.loads(Path(report.__file__).with_name("check.schema.json").read_text())
OUTPUTS = ("start_logits", "end_logits")
Change = Callable[[Any], Any]  # of what the engine's outputs are


def judge(folder: Path, file: Path | None = None, page: Path | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gates by name, and the figures."""
    manifest = read_manifest(folder)
    data = find(manifest.task).read(manifest, file, None, ()) if file else None
    engine = FakeEngine(manifest.task, OUTPUTS)  # the checkpoint: the same rule, never damaged

    def reference(ids: Any, advance: Any) -> dict[str, Any]:
        logits = [engine.run(row[None])[0] for row in ids]
        return {"fp32": logits, "int8": logits}

    found = parity.check_bundle(folder, ["tflite"], data, reference, "checkpoint")
    judged = gates.judge(found, gates.Limits())
    figures = report.describe(found, judged)
    jsonschema.validate(json.loads(json.dumps(figures)), SCHEMA)
    if page:
        report.write_html(figures, found, page)
    return {gate.name: gate for gate in judged}, figures


def damage(task: str, monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """The engine of this host runs with `change` behind it."""

    class Damaged(FakeEngine):
        def _run(self, ids: Any) -> Any:
            return [change(output) for output in super()._run(ids)]

    module = SimpleNamespace(is_installed=lambda: True, open_artifact=lambda *arguments: Damaged(task, arguments[-1]))
    monkeypatch.setattr(engines, "load_module", lambda name: module)


# Token classification

WORDS = "a O\nfilm B-place\nit I-place\ngood O\n\ngood O\nfilm B-place\n\nfilm O\n\n" * 4


@pytest.fixture
def entities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_bundle(tmp_path / "bundle", "token-classification", monkeypatch)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "words.conll"
    file.write_text(WORDS)
    return file


def test_a_healthy_token_classifier_passes_and_is_counted_by_entities(entities: Path, words: Path) -> None:
    judged, figures = judge(entities, words)
    assert {gate.name for gate in judged.values() if gate.passed is not True} == set()
    assert (figures["unit"], figures["measures"]) == ("tokens", ["entity F1"])
    # Two of three entities that are found are right, and both that there are
    assert (
        figures["checkpoint_scores"]["entity F1"] == figures["engines"][0]["scores"]["entity F1"] == pytest.approx(0.8)
    )
    assert figures["checkpoint_accuracy"] is None
    assert figures["engines"][0]["confusion"] == [[12, 4, 0], [0, 8, 0], [0, 0, 4]]


def test_tokens_that_flip_are_caught_and_shown_as_entities(
    entities: Path, words: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damage("token-classification", monkeypatch, lambda logits: logits[..., [0, 2, 1]])
    judged, figures = judge(entities, words, tmp_path / "r.html")
    missed = {name for name, gate in judged.items() if gate.passed is False}
    assert missed >= {"agreement", "lowering gap", "lowering peak", "lengths"}
    # 28 words, of which the 12 "film" and 4 "it" are answered otherwise
    assert judged["agreement"].value == pytest.approx(1 - 16 / 28)
    flip = figures["engines"][0]["flips"][0]
    assert (flip["text"], flip["label"]) == ("a film it good", ["film it: place"])
    assert flip["checkpoint"]["labels"] == ["film it: place"]
    assert "film it: place" in (tmp_path / "r.html").read_text()


def test_entities_that_are_lost_cost_f1(entities: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage("token-classification", monkeypatch, lambda logits: logits * np.float32([1, 0, 1]))
    judged, figures = judge(entities, words)
    assert figures["engines"][0]["scores"]["entity F1"] == pytest.approx(0)
    assert (judged["entity F1 drop"].passed, judged["entity F1 drop"].value) == (False, pytest.approx(80))


def test_labels_in_the_wrong_order_are_caught_by_what_words_are_tagged(
    entities: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "words.conll"
    file.write_text("film B-place\nit I-place\n\n" * 12)
    damage("token-classification", monkeypatch, lambda logits: logits[..., [0, 2, 1]])
    judged, _ = judge(entities, file)
    assert (judged["label order"].passed, judged["label order"].note) == (False, "B-place and I-place")


def test_special_tokens_never_agree(entities: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One word among three tokens: where it flips, nothing is left that agrees."""
    file = tmp_path / "words.conll"
    file.write_text("film B-place\n\n" * 200)
    damage("token-classification", monkeypatch, lambda logits: logits[..., [0, 2, 1]])
    assert judge(entities, file)[0]["agreement"].value == 0


def test_a_word_has_its_first_token_and_one_that_was_cut_off_has_none(entities: Path) -> None:
    tokenizer = Tokenizer(entities / "tokenizer.json", 6)
    text, words = "it filmxy film good", [(0, 2), (3, 9), (10, 14), (15, 19)]
    encoding = tokenizer.encode(text)  # of "filmxy" each letter is a token: [CLS] it f i l m ... is cut to six
    assert list(first_tokens(encoding, words)) == [1, 2, None, None]
    assert list(first_tokens(Tokenizer(entities / "tokenizer.json", 24).encode("it good"), [(0, 2), (3, 7)])) == [1, 2]


# Question answering

CONTEXT = "it was a lovely film and it was good "


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_bundle(tmp_path / "bundle", "question-answering", monkeypatch)


def write_questions(file: Path, *rows: tuple[str, list[str]], copies: int = 1) -> Path:
    lines = [{"question": "what is it", "context": context, "answers": right} for context, right in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines * copies))
    return file


def test_a_healthy_answerer_passes_and_is_counted_as_squads_script_counts(answers: Path, tmp_path: Path) -> None:
    file = write_questions(tmp_path / "q.jsonl", (CONTEXT, ["film"]), (CONTEXT * 4, ["lovely film"]))
    judged, figures = judge(answers, file)
    assert {gate.name: gate.note for gate in judged.values() if gate.passed is not True} == {}
    assert "label order" not in judged
    assert (figures["unit"], figures["data"]["label_rule"]) == ("questions", None)
    assert figures["checkpoint_scores"] == {"exact match": 0.5, "answer F1": pytest.approx((1 + 2 / 3) / 2)}


def test_answers_that_move_are_caught_whatever_window_they_are_in(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_questions(
        tmp_path / "q.jsonl", (CONTEXT, ["film"]), ("it was good " * 9 + "film", ["film"]), copies=100
    )
    damage("question-answering", monkeypatch, lambda logits: np.roll(logits, 1, axis=-1))
    judged, figures = judge(answers, file, tmp_path / "r.html")
    missed = {name for name, gate in judged.items() if gate.passed is False}
    assert missed >= {"agreement", "exact match drop", "answer F1 drop", "lowering gap", "lowering peak"}
    assert judged["agreement"].value < 0.6
    flip = figures["engines"][0]["flips"][0]
    assert (flip["text"], flip["text_pair"], flip["label"]) == ("what is it", CONTEXT, ["film"])
    assert flip["checkpoint"]["labels"] == ["film"] and flip["artifact"]["labels"] == ["and"]
    assert "what is it" in (tmp_path / "r.html").read_text()


def test_a_question_without_an_answer_may_have_none(answers: Path, tmp_path: Path) -> None:
    rows = ((CONTEXT, ["film"]), ("it was good ", []))
    _, figures = judge(answers, write_questions(tmp_path / "q.jsonl", *rows))
    assert figures["checkpoint_scores"]["exact match"] in (0.5, 1.0)  # "film" is found in any case
    _, always = judge(answers, write_questions(tmp_path / "q.jsonl", rows[0]))
    assert always["checkpoint_scores"]["exact match"] == 1


# Pairs


def test_pairs_are_judged_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "bundle", "sequence-classification", monkeypatch, pairs=True)
    file = tmp_path / "d.tsv"
    file.write_text("text\ttext_pair\tlabel\n" + "good\ta film\tyes\ngood\tit\tno\nfilm\tit\tyes\n" * 40)
    judged, figures = judge(folder, file)
    assert {gate.name for gate in judged.values() if gate.passed is not True} == set()
    assert figures["engines"][0]["accuracy"] == figures["engines"][0]["scores"]["accuracy"] == 1


# All of them


@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_padding_that_moves_an_answer_is_measured(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "bundle", task, monkeypatch)
    assert judge(folder)[0]["padding drift"].value == 0
    damage(
        task,
        monkeypatch,
        lambda logits: (
            logits
            + 0.5
            * np.arange(logits.shape[1]).reshape(1, -1, *[1] * (logits.ndim - 2))
            * (logits.shape[1] > 8)
            * np.float32(logits > 0)
        ),
    )
    assert judge(folder)[0]["padding drift"].passed is False


@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_golden_ids_that_the_tokenizer_does_not_give_are_told_not_crashed_over(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path / "bundle", task, monkeypatch)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    tokenizer["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    tokenizer["model"]["vocab"] = {k.replace("film", "filn"): v for k, v in tokenizer["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    file = describe_file(folder, "tokenizer.json")
    write_manifest(replace(read_manifest(folder), tokenizer=file, tokenizer_tables=file), folder)
    judged, _ = judge(folder)
    assert judged["tokenizer"].passed is False and judged["lowering peak"].passed is True
