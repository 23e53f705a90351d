"""The gates, figures and page of a check in detail: what each says word for word, and where each limit lies."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_check import (
    LABELS,
    LENGTHS,
    TEXTS,
    Model,
    edit_manifest,
    flipped,
    folder,
    ids_of,
    install,
    judge,
    labelled,
    moved,
    reference,
    texts,
)

from pocketbert.runtime.check import evaluation, evidence, gates, metrics, parity, report
from pocketbert.runtime.check.datasets import read_dataset
from pocketbert.runtime.check.gates import Gate, Limits
from pocketbert.runtime.check.metrics import Comparison
from pocketbert.runtime.check.tasks import Task
from pocketbert.runtime.check.tasks.choice import choose
from pocketbert.runtime.cli.check import check
from pocketbert.runtime.errors import BundleError
from pocketbert.runtime.manifest import (
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    Manifest,
    read_manifest,
)
from pocketbert.runtime.progress import Progress

__all__ = ["folder", "install", "labelled"]  # fixtures


@pytest.fixture
def checked(folder: Path, labelled: Path, install: Any) -> parity.Check:
    """A whole check of a healthy bundle, with data and checkpoint."""
    rows = read_dataset(labelled, LABELS)
    return parity.check_bundle(folder, ["tflite"], rows, reference, checkpoint="the checkpoint")


def task_of(manifest: Manifest) -> Task:
    """Its task, for what needs no tokenizer."""
    return choose(manifest, None)  # type: ignore[arg-type]


# Evidence and figures


def test_the_tail_ends_where_all_or_none_go_wrong() -> None:
    assert [evidence.tail(wrong, 5, 0.5) for wrong in (-1, 0)] == [1.0, 1.0]
    assert [evidence.tail(1, 5, share) for share in (0.0, 1.0, 1.5)] == [0.0, 1.0, 1.0]
    assert evidence.tail(5, 5, 0.5) == pytest.approx(0.5**5)
    assert evidence.tail(2, 3, 0.25) == pytest.approx(3 * 0.25**2 * 0.75 + 0.25**3)
    assert evidence.tail(6, 5, 0.5) == 0


def test_what_is_less_likely_than_one_in_a_thousand_is_implausible() -> None:
    assert not evidence.is_implausible(1, 1, 0.001)
    assert evidence.is_implausible(1, 1, 0.000999)


def test_answers_of_one_label_and_of_several() -> None:
    logits = np.float32([[1, 2, 0], [0, 0, -1], [-1, -2, -3]])
    assert metrics.answers(logits, False).tolist() == [[False, True, False], [True, False, False], [True, False, False]]
    assert metrics.answers(logits, True).tolist() == [[True, True, False], [False] * 3, [False] * 3]


def test_accuracy_counts_texts_whose_whole_answer_is_right() -> None:
    logits = np.float32([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    labels = np.array([[True, True], [True, True], [False, False], [False, True]])
    assert metrics.accuracy(logits, labels, True) == 0.75
    assert metrics.accuracy(logits, np.eye(2, dtype=bool)[[0, 0, 0, 0]], False) == 0.75


def test_drift_is_a_texts_most_moved_probability() -> None:
    found, expected = np.log(np.float32([[0.5, 0.5], [0.9, 0.1]])), np.log(np.float32([[0.25, 0.75], [0.9, 0.1]]))
    np.testing.assert_allclose(metrics.drift(found, expected, False), [0.25, 0], atol=1e-6)
    several = metrics.drift(np.float32([[0, np.log(3)]]), np.float32([[0, 0]]), True)
    np.testing.assert_allclose(several, [0.25], atol=1e-6)


def test_a_cosine_with_nothing_is_one() -> None:
    zero, one = np.float32([[0, 0], [3, 4]]), np.float32([[1, 0], [3, 4]])
    assert metrics._cosine(zero, one) == 1
    assert metrics._cosine(np.float32([[0.5, 0]]), np.float32([[0, 0.5]])) == 0


# Gates


def test_limits_are_those_that_the_readme_names() -> None:
    assert vars(Limits()) == {
        "min_agreement": 0.99,
        "max_accuracy_drop": 0.5,
        "max_quantization_gap": 0.01,
        "max_lowering_gap": 0.003,
        "max_lowering_peak": 0.15,
        "max_padding_drift": 1e-5,
        "max_repeat_drift": 0.0,
    }


@pytest.mark.parametrize("task", [SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING])
def test_four_bits_have_limits_of_their_own_where_rounding_is_what_differs(task: str) -> None:
    eight, four = (vars(gates.default_limits(task, f"dynamic_wi{bits}_afp32")) for bits in (8, 4))
    changed = {name for name in four if four[name] != eight[name]}
    assert changed == {"min_agreement", "max_quantization_gap"}
    assert four["min_agreement"] == 0.985
    assert gates.default_limits(task, "float_wf32_afp32") == gates.default_limits(task, "dynamic_wi8_afp32")
    assert four["max_quantization_gap"] == (0.2 if task == QUESTION_ANSWERING else 0.03)


@pytest.mark.parametrize(
    ("scheme", "gap", "agreement"), [("dynamic_wi8_afp32", 0.01, 0.99), ("dynamic_wi4_afp32", 0.03, 0.985)]
)
def test_the_command_judges_by_the_limits_of_the_bundles_scheme(
    folder: Path, install: Any, capsys: pytest.CaptureFixture[str], scheme: str, gap: float, agreement: float
) -> None:
    edit_manifest(folder, scheme=scheme)
    check(folder, as_json=folder / "c.json", max_lowering_gap=0.5)
    found = {gate["name"]: gate["limit"] for gate in json.loads((folder / "c.json").read_text())["gates"]}
    assert (found["quantization gap"], found["agreement"], found["lowering gap"]) == (gap, agreement, 0.5)
    assert f"Gates of {scheme}: " in capsys.readouterr().out


def test_gates_come_in_order_with_their_limits(checked: parity.Check) -> None:
    judged = gates.judge(checked, Limits())
    assert [(gate.name, gate.engine, gate.limit) for gate in judged] == [
        ("tokenizer", "", 0),
        ("golden cases", "", 1e-3),
        ("answers", "tflite", 0),
        ("agreement", "tflite", 0.99),
        ("accuracy drop", "tflite", 0.5),
        ("label order", "tflite", 0),
        ("quantization gap", "tflite", 0.01),
        ("lowering gap", "tflite", 0.003),
        ("lowering peak", "tflite", 0.15),
        ("lengths", "tflite", 0.15),
        ("padding drift", "tflite", 1e-5),
        ("repeated runs", "tflite", 0.0),
        ("concurrent threads", "tflite", 0.0),
    ]
    assert {gate.name: gate.note for gate in judged if gate.note} == {"lengths": judged[9].note}
    assert judged[2].value is None and judged[0].value == 0


@pytest.mark.parametrize(
    ("gate", "line"),
    [
        (Gate("agreement", "tflite", True, 1.0, 0.99), "tflite: agreement passed: 1, limit 0.99"),
        (Gate("tokenizer", "", False, 2, 0, "why"), "tokenizer missed: 2, limit 0: why"),
        (Gate("answers", "coreml", None, None, 0, "no engine"), "coreml: answers not evaluated: no engine"),
        (Gate("answers", "coreml", True, None, 0), "coreml: answers passed"),
        (Gate("x", "", True, 1 / 3, 2e-7), "x passed: 0.333333, limit 2e-07"),
    ],
)
def test_a_gate_is_a_line(gate: Gate, line: str) -> None:
    assert str(gate) == line


def test_missed_gates_are_those_that_fail_and_the_open_ones_if_asked() -> None:
    passed, failed, open_ = (Gate(str(state), "", state, 1.0, 0) for state in (True, False, None))
    assert gates.missed([passed, failed, open_]) == [failed]
    assert gates.missed([open_, passed, failed], require_all=True) == [open_, failed]


def test_ids_that_differ_are_counted_and_the_first_text_named(checked: parity.Check) -> None:
    found = gates.judge(replace(checked, wrong_ids=["a" * 50, "b"]), Limits())[0]
    assert str(found) == f"tokenizer missed: 2, limit 0: golden texts get other ids than at export, first {'a' * 40!r}"


@pytest.mark.parametrize(
    ("drift", "passed"), [(0.0, True), (1e-3, True), (1.001e-3, False), (math.nan, False), (None, None)]
)
def test_golden_logits_may_be_off_by_a_thousandth(checked: parity.Check, drift: Any, passed: Any) -> None:
    gate = gates.judge(replace(checked, evaluation=replace(checked.evaluation, golden_drift=drift)), Limits())[1]
    assert (gate.passed, gate.note) == (passed, "needs --checkpoint" if drift is None else "")


def test_an_engine_that_failed_has_one_gate(checked: parity.Check) -> None:
    broken = replace(checked.engines[0], result=None, error="no kernel")
    judged = gates.judge(replace(checked, engines=[broken]), Limits())[2:]
    assert [str(gate) for gate in judged] == ["tflite: answers missed: no kernel"]
    assert judged[0].limit == 0


def test_what_is_missing_for_shares_is_named(folder: Path, labelled: Path, install: Any) -> None:
    few = "15 golden texts show too little: pass "
    for data, with_checkpoint, needs in (
        (None, False, "--checkpoint and --data"),
        (labelled, False, "--checkpoint"),
        (None, True, "--data"),
    ):
        judged = judge(folder, data, with_checkpoint)
        assert {judged[name].note for name in ("agreement", "quantization gap", "lowering gap")} == {few + needs}


def test_an_artifact_of_any_length_has_no_padding_to_judge(folder: Path, labelled: Path, install: Any) -> None:
    artifact = read_manifest(folder).artifacts[0]
    edit_manifest(folder, artifacts=(replace(artifact, any_length=True),))
    judged = judge(folder, labelled)
    assert "padding drift" not in judged and judged["repeated runs"].passed


@pytest.mark.parametrize(
    ("texts", "share", "resolves"), [(100, 0.01, True), (99, 0.01, False), (300, 1 / 300, True), (0, 0.5, False)]
)
def test_a_share_is_resolved_by_as_many_texts(texts: int, share: float, resolves: bool) -> None:
    assert gates._resolves(texts, share) is resolves


def test_a_flip_among_few_texts_is_counted_in_the_note() -> None:
    open_ = gates._agreement("tflite", flipped(1, 25), Limits(), needs="")
    assert str(open_) == (
        "tflite: agreement not evaluated: 0.96, limit 0.99: "
        "1 of 25 texts flipped, which shows too little: pass more --data"
    )
    failed = gates._agreement("tflite", flipped(9, 25), Limits(), needs="pass --data")
    assert str(failed) == "tflite: agreement missed: 0.64, limit 0.99: 9 of 25 texts flipped"


def test_a_mean_over_data_is_judged_as_it_is() -> None:
    limit = moved(5).divergence.mean_drift
    assert gates._mean_drift("gap", "tflite", moved(5), limit, "").passed
    assert gates._mean_drift("gap", "tflite", moved(5), limit * 0.99, "").passed is False
    open_ = gates._mean_drift("gap", "tflite", moved(1), 0.003, "needs more")
    assert (open_.name, open_.engine, open_.limit, open_.note) == ("gap", "tflite", 0.003, "needs more")


def test_the_peak_has_the_smaller_limit_on_golden_texts() -> None:
    gate = gates._lowering_peak("tflite", moved(1), Limits(), golden=True)
    assert (gate.name, gate.engine, gate.limit) == ("lowering peak", "tflite", 0.05)
    assert gate.value == pytest.approx(0.0399, rel=0.01)
    assert gates._lowering_peak("tflite", moved(1), Limits(max_lowering_peak=0.01), golden=True).limit == 0.01
    assert gates._lowering_peak("tflite", moved(1), Limits(), golden=False).limit == 0.15


def test_accuracy_that_cannot_be_compared_says_what_it_needs(checked: parity.Check) -> None:
    one, data = checked.engines[0], checked.evaluation.data
    assert data is not None and one.result is not None
    unknown = replace(checked, evaluation=replace(checked.evaluation, data=replace(data, reference=None)))
    none = replace(checked, evaluation=replace(checked.evaluation, data=None))
    for found, engine, needs in (
        (unknown, one, "needs --checkpoint"),
        (none, one, "needs --data with labels"),
        (checked, replace(one, result=None), "needs --data with labels"),
        (checked, replace(one, result=replace(one.result, data=None)), "needs --data with labels"),
    ):
        (gate,) = gates._drops(found, engine, Limits())
        assert (gate.name, gate.engine, gate.passed, gate.value) == ("accuracy drop", "tflite", None, None)
        assert (gate.limit, gate.note) == (0.5, needs)


def test_few_lost_texts_are_judged_by_chance(checked: parity.Check) -> None:
    """Of 300 texts one may be lost under half a point; a limit that one text would break needs evidence."""
    one, data = checked.engines[0], checked.evaluation.data
    assert data is not None and data.reference is not None and one.result is not None
    expected = data.reference["fp32"]
    right = np.flatnonzero(np.argmax(expected, axis=1) == data.data.labels.argmax(axis=1))

    def lost(count: int, limit: float) -> Gate:
        turned = [logits[::-1] if text in right[:count] else logits for text, logits in enumerate(expected)]
        engine = replace(one, result=replace(one.result, data=turned))
        (gate,) = gates._drops(checked, engine, Limits(max_accuracy_drop=limit))
        return gate

    assert str(lost(1, 0.5)) == "tflite: accuracy drop passed: 0.333333, limit 0.5"
    assert str(lost(2, 0.5)) == "tflite: accuracy drop missed: 0.666667, limit 0.5"
    shown = "tflite: accuracy drop not evaluated: 0.333333, limit 0.1: 1 of 300 lost, which shows too little"
    assert str(lost(1, 0.1)).startswith(shown)
    assert str(lost(9, 0.1)) == "tflite: accuracy drop missed: 3, limit 0.1: 9 of 300 lost"


def test_label_order_says_what_it_needs(checked: parity.Check) -> None:
    (one,) = checked.engines
    assert one.result is not None
    manifest = replace(checked.manifest, multi_label=True)
    several = replace(checked, manifest=manifest, task=task_of(manifest))
    unlabelled = replace(checked, evaluation=replace(checked.evaluation, data=None))
    for found, engine, needs in (
        (several, one, "several labels at a time"),
        (unlabelled, one, "needs --data with labels"),
        (checked, replace(one, result=None), "needs --data with labels"),
        (checked, replace(one, result=replace(one.result, data=None)), "needs --data with labels"),
    ):
        (gate,) = gates._label_order(found, engine)
        assert (str(gate), gate.limit) == (f"tflite: label order not evaluated: {needs}", 0)
    without = replace(unlabelled, manifest=replace(checked.manifest, labels=()))
    assert list(gates._label_order(without, one)) == []


def test_swapped_labels_are_a_pair_answered_with_each_others() -> None:
    assert gates._swapped(np.array([[0, 5, 0], [5, 0, 0], [0, 0, 9]])) == [(0, 1)]
    assert gates._swapped(np.array([[0, 5, 0], [4, 0, 0], [0, 0, 9]])) == []  # nine are too few
    assert gates._swapped(np.array([[6, 6], [6, 6]])) == []  # not more than their own
    assert gates._swapped(np.array([[9, 0, 0], [0, 1, 20], [0, 0, 2]])) == [(1, 2)]
    counts = np.array([[0, 20], [20, 0]])
    gates._swapped(counts)
    assert counts.tolist() == [[0, 20], [20, 0]]


def test_the_length_that_drifts_most_is_named(checked: parity.Check) -> None:
    class Swept:
        evaluation = checked.evaluation

        def __init__(self, *drifts: tuple[int, float | None]) -> None:
            self.sweep_drift = lambda engine: iter(drifts)

    one = checked.engines[0]
    found = gates._lengths(Swept((3, 0.1), (8, 0.2), (16, 0.0)), one, Limits())  # type: ignore[arg-type]
    assert str(found) == "tflite: lengths missed: 0.2, limit 0.15: at 8 tokens"
    unknown = gates._lengths(Swept((3, None)), one, Limits())  # type: ignore[arg-type]
    assert (str(unknown), unknown.limit) == ("tflite: lengths not evaluated: needs --checkpoint", 0.15)


def test_formats_without_an_engine_say_how_to_get_one(checked: parity.Check) -> None:
    gate = gates.judge(replace(checked, absent=["coreml"]), Limits())[-1]
    assert str(gate) == "coreml: answers not evaluated: no engine for it here: pip install 'pocketbert[coreml]'"
    assert gate.limit == 0


def test_two_engines_are_compared_on_golden_texts_where_there_is_no_data(folder: Path, install: Any) -> None:
    found = parity.check_bundle(folder, ["tflite"], None, reference)
    two = replace(found, engines=[found.engines[0], replace(found.engines[0], name="other")])
    gate = gates.judge(two, Limits())[-1]
    assert (gate.name, gate.engine, gate.value) == ("agreement", "tflite and other", 1)
    assert gate.note == "15 golden texts show too little: pass --data"


# What is evaluated


def test_sets_have_names_texts_ids_and_logits(checked: parity.Check, labelled: Path) -> None:
    asked = checked.evaluation
    assert (asked.golden.name, asked.sweep.name) == ("15 golden cases", "lengths")
    assert asked.data is not None and asked.data.name == f"{TEXTS} texts of data.tsv"
    assert (asked.comparison_set, asked.tolerance) == (asked.data, 0.05)
    assert list(asked.data.texts) == texts(TEXTS)
    for each in (asked.golden, asked.sweep, asked.data):
        assert each.reference is not None
        exact = np.stack([Model(exact=True)(ids) for ids in each.ids])
        np.testing.assert_array_equal(each.reference["fp32"], exact)
        np.testing.assert_array_equal(each.reference["int8"], np.stack([Model()(ids) for ids in each.ids]))
    for text, ids in zip([*asked.golden.texts, *asked.data.texts], [*asked.golden.ids, *asked.data.ids], strict=True):
        np.testing.assert_array_equal(ids, ids_of(text))
    assert asked.golden_drift == 0


def test_without_a_checkpoint_the_golden_cases_have_their_own_logits(folder: Path, install: Any) -> None:
    asked = parity.check_bundle(folder, ["tflite"]).evaluation
    assert asked.golden.reference is not None and set(asked.golden.reference) == {"fp32", "int8"}
    assert np.any(np.stack(asked.golden.reference["fp32"]) != np.stack(asked.golden.reference["int8"]))
    assert (asked.data, asked.golden_drift, asked.sweep.reference) == (None, None, None)
    assert asked.comparison_set is asked.golden


def test_golden_drift_is_the_largest_change_of_a_logit() -> None:
    def of(logits: Any) -> evaluation.EvaluationSet:
        return evaluation.EvaluationSet("", [], [], None if logits is None else {"fp32": np.float32(logits)})

    assert evaluation._golden_drift(of([[1, 2]]), of([[1.5, -1]])) == 3
    for one, other in ((None, [[1]]), ([[1]], None)):
        with pytest.raises(ValueError, match=r"^both need logits$"):
            evaluation._golden_drift(of(one), of(other))


def test_the_sweep_has_one_and_two_words_both_sides_of_each_edge_and_a_cut_text(tmp_path: Path) -> None:
    manifest = SimpleNamespace(lengths=(4, 8), max_length=8)
    seen: list[str] = []

    def encode(text: str) -> np.ndarray:
        seen.append(text)
        return np.int32([2, *range(10, 10 + min(6, len(text.split()))), 3])

    def sweep_of(*golden: tuple[str, str | None]) -> evaluation.EvaluationSet:
        seen.clear()
        cases = [SimpleNamespace(text=text, text_pair=pair) for text, pair in golden]
        task = SimpleNamespace(manifest=manifest, tokenizer=encode)
        return evaluation._length_sweep(task, cases)  # type: ignore[arg-type]

    sweep = sweep_of(("a", None), ("bb cc", None), ("", None))
    assert seen == [" ".join(["bb cc"] * 8), "bb", "bb cc"]
    assert [ids.tolist() for ids in sweep.ids] == [
        [2, 10, 3],
        [2, 10, 11, 3],
        [2, 10, 11, 12, 3],
        [2, 10, 11, 12, 13, 14, 15, 3],
    ]
    sweep_of(("", None), (" ", None))
    assert seen == [" ".join(["word"] * 8), "word", "word"]
    sweep_of(("a question", "b c"), ("dd", None))  # the longest is sought among the texts that answer
    assert seen == [" ".join(["b c"] * 8), "b", "b c"]


class Steps(Progress):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.totals: dict[str, Any] = {}
        self.steps: dict[str, int] = {}

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        self.totals[stage] = total

    def advance(self, stage: str) -> None:
        self.steps[stage] = self.steps.get(stage, 0) + 1


def test_progress_promises_as_many_steps_as_it_makes(folder: Path, labelled: Path, install: Any) -> None:
    progress = Steps()
    manifest = read_manifest(folder)
    edit_manifest(
        folder, artifacts=(*manifest.artifacts, replace(manifest.artifacts[0], format="x", activations="fp16"))
    )
    rows = read_dataset(labelled, LABELS, limit=30)
    parity.check_bundle(folder, ["tflite"], rows, reference, progress=progress)
    assert list(progress.totals) == ["checkpoint", "tflite"]
    assert progress.steps == progress.totals


# What was measured


def test_a_check_keeps_what_it_was_asked(checked: parity.Check, folder: Path, labelled: Path) -> None:
    assert (checked.folder, checked.manifest, checked.checkpoint) == (folder, read_manifest(folder), "the checkpoint")
    assert checked.data is not None and checked.data.name == "data.tsv"
    assert (checked.wrong_ids, checked.absent) == ([], ())
    (one,) = checked.engines
    assert (one.name, one.version, one.error, one.artifact) == (
        "tflite",
        "numpy model",
        "",
        checked.manifest.artifacts[0],
    )
    assert one.result is not None and one.result.data is not None
    asked = checked.evaluation
    for logits, each in (
        (one.result.golden, asked.golden),
        (one.result.sweep, asked.sweep),
        (one.result.data, asked.data),
    ):
        np.testing.assert_array_equal(logits, np.stack([Model()(ids) for ids in each.ids]))  # type: ignore[union-attr]
    assert checked.logits(one.result) is one.result.data


def test_comparisons_are_of_the_right_logits(checked: parity.Check) -> None:
    (one,) = checked.engines
    assert one.result is not None and one.result.data is not None
    moved_ = [logits + 1 for logits in one.result.data]
    found = checked.comparisons(replace(one, result=replace(one.result, data=moved_)))
    exact, oracle = (checked.evaluation.data.reference[kind] for kind in ("fp32", "int8"))  # type: ignore[index, union-attr]
    assert list(found) == ["checkpoint_to_oracle", "oracle_to_artifact", "checkpoint_to_artifact"]
    for name, (logits, expected) in {
        "checkpoint_to_oracle": (oracle, exact),
        "oracle_to_artifact": (moved_, oracle),
        "checkpoint_to_artifact": (moved_, exact),
    }.items():
        np.testing.assert_array_equal(found[name].found, logits)
        np.testing.assert_array_equal(found[name].expected, expected)
        assert (found[name].multi_label, found[name].tolerance) == (False, 0.05)
    assert checked.comparisons(replace(one, result=None)) == {}


def test_engines_are_compared_two_by_two_the_first_as_expected(checked: parity.Check) -> None:
    (one,) = checked.engines
    assert one.result is not None and one.result.data is not None
    golden = [logits + 1 for logits in one.result.golden]
    other = replace(one, name="other", result=replace(one.result, data=None, golden=golden))
    last = replace(one, name="last")
    found = list(replace(checked, engines=[one, other, replace(one, result=None), last]).between())
    assert [(a.name, b.name) for a, b, _ in found] == [("tflite", "other"), ("tflite", "last"), ("other", "last")]
    np.testing.assert_array_equal(found[0][2].expected, one.result.data)
    np.testing.assert_array_equal(found[0][2].found, golden)


def test_an_engine_that_fails_is_kept_with_the_first_line_of_its_error(folder: Path, install: Any) -> None:
    for problem, shown in ((RuntimeError(" a\nb"), "a"), (RuntimeError(""), "RuntimeError")):

        def broken(ids: np.ndarray, problem: Exception = problem) -> np.ndarray:
            raise problem

        install(broken)
        (one,) = parity.check_bundle(folder, ["tflite"]).engines
        assert (one.error, one.result, one.version) == (shown, None, "numpy model")

    def damaged(ids: np.ndarray) -> np.ndarray:
        raise BundleError("damaged")

    install(damaged)
    with pytest.raises(BundleError, match="damaged"):
        parity.check_bundle(folder, ["tflite"])


def test_every_file_of_the_bundle_is_compared_with_its_hash(folder: Path, install: Any) -> None:
    (folder / "model.tflite").write_bytes(b"weight")
    with pytest.raises(BundleError, match=r"model\.tflite is not the file that was exported"):
        parity.check_bundle(folder, [])


def test_texts_are_padded_to_larger_lengths_only(folder: Path, install: Any) -> None:
    manifest = read_manifest(folder)
    artifact = manifest.artifacts[0]
    for any_length, tokens, larger in (
        (False, 3, [8, 16]),
        (False, 4, [8, 16]),
        (True, 3, [4, 8, 16]),
        (True, 4, [8, 16]),
    ):
        opened = SimpleNamespace(manifest=manifest, artifact=replace(artifact, any_length=any_length))
        run = parity._Run(opened, task_of(manifest), "tflite", Progress())  # type: ignore[arg-type]
        assert run.larger_lengths(np.zeros(tokens, np.int32)) == larger
        assert len(run.paddable([np.zeros(tokens, np.int32), np.zeros(16, np.int32)])) == 1


def test_padding_drift_is_the_largest_over_all_larger_lengths(folder: Path) -> None:
    asked: list[list[int]] = []

    def run(ids: np.ndarray) -> np.ndarray:
        asked.append(ids.tolist())
        return np.float32([np.log(3) if len(ids) == 8 else 0, 0])

    manifest = replace(read_manifest(folder), pad_id=7)
    opened = SimpleNamespace(manifest=manifest, artifact=manifest.artifacts[0], run=run)
    progress = Steps()
    one = parity._Run(opened, task_of(manifest), "tflite", progress)  # type: ignore[arg-type]
    assert one.padding_drift(np.int32([2, 5, 3])) == pytest.approx(0.25)
    assert asked == [[2, 5, 3, *[7] * 5], [2, 5, 3, *[7] * 13], [2, 5, 3]]
    assert progress.steps == {"tflite": 1}


def test_spread_is_even_and_holds_both_ends() -> None:
    ids = [np.zeros(length, np.int32) for length in range(20, 0, -1)]
    assert [len(row) for row in parity.spread(ids, 5)] == [1, 6, 11, 15, 20]
    assert [len(row) for row in parity.spread(ids[:3], 5)] == [18, 19, 20]


def test_sweep_drift_is_that_from_the_oracle(checked: parity.Check) -> None:
    (one,) = checked.engines
    assert one.result is not None
    by = np.float32([0.2, 0])
    moved_ = replace(one, result=replace(one.result, sweep=[logits + by for logits in one.result.sweep]))
    oracle = checked.evaluation.sweep.reference["int8"]  # type: ignore[index]
    expected = metrics.drift(np.stack(oracle) + by, np.stack(oracle), False)
    found = list(checked.sweep_drift(moved_))
    assert [tokens for tokens, _ in found] == [len(ids) for ids in checked.evaluation.sweep.ids]
    assert [drift for _, drift in found] == pytest.approx(expected.tolist())
    assert list(checked.sweep_drift(replace(one, result=None))) == []
    unknown = replace(checked.evaluation, sweep=replace(checked.evaluation.sweep, reference=None))
    assert {drift for _, drift in replace(checked, evaluation=unknown).sweep_drift(one)} == {None}


# What is reported


def test_the_figures_are_plain_data_with_these_names(checked: parity.Check, folder: Path) -> None:
    judged = gates.judge(checked, Limits())
    content = report.describe(checked, judged)
    assert (content["report_version"], content["verdict"], content["basis"]) == (1, "passed", "300 texts of data.tsv")
    assert content["bundle"] == {
        "folder": str(folder),
        "task": "sequence-classification",
        "architecture": "bert",
        "scheme": "dynamic_wi8_afp32",
        "labels": ["bad", "good"],
        "multi_label": False,
        "source": "model",
        "weights_sha256": "0" * 64,
    }
    assert (content["checkpoint"], content["checkpoint_accuracy"]) == ("the checkpoint", 0.9)
    assert content["checkpoint_scores"] == {"accuracy": 0.9}
    assert (content["unit"], content["measures"]) == ("texts", ["accuracy"])
    assert content["data"] == {"file": "data.tsv", "texts": 300, "rows": 300, "label_rule": "exact", "skipped": {}}
    assert content["gates"][0] == {
        **{"name": "tokenizer", "engine": "", "passed": True, "value": 0, "limit": 0, "note": ""},
        **{"status": "passed", "line": "tokenizer passed: 0, limit 0"},
    }
    (one,) = content["engines"]
    assert (one["name"], one["version"], one["error"]) == ("tflite", "numpy model", None)
    parts = {"embeddings": 1, "layers": 2, "head": 3, "graph": 1}
    assert one["artifact"] == {"path": "model.tflite", "bytes": 7, "parts": parts, "activations": "int8"}
    assert one["texts_per_second"] > 0
    assert (one["padding_drift"], one["repeat_drift"], one["concurrent_drift"]) == (0, 0, 0)
    accuracy = checked.scores(checked.engines[0].result.data)["accuracy"].value  # type: ignore[union-attr]
    assert (one["accuracy"], one["scores"]) == (accuracy, {"accuracy": accuracy})
    assert list(one["gaps"]) == ["checkpoint_to_oracle", "oracle_to_artifact", "checkpoint_to_artifact"]
    assert one["gaps"]["oracle_to_artifact"] == {
        **{"texts": 300, "agreement": 1, "max_drift": 0, "mean_drift": 0, "psnr": None},
        **{"cosine": pytest.approx(1)},
    }
    assert one["gaps"]["checkpoint_to_oracle"]["psnr"] > 20
    assert [length["tokens"] for length in one["lengths"]] == [len(ids) for ids in checked.evaluation.sweep.ids]
    assert {length["drift"] for length in one["lengths"]} == {0}
    assert np.sum(one["confusion"]) == 300
    assert content["between"] == []


def test_what_is_unknown_is_null(folder: Path, install: Any) -> None:
    found = parity.check_bundle(folder, ["tflite"])
    broken = replace(found.engines[0], name="coreml", version="", result=None, error="broken")
    found = replace(found, engines=[found.engines[0], broken])
    content = report.describe(found, gates.judge(found, Limits()))
    assert (content["checkpoint"], content["checkpoint_accuracy"], content["data"]) == (None, None, None)
    assert (content["verdict"], content["basis"]) == ("missed", "15 golden cases")
    one, other = content["engines"]
    assert content["checkpoint_scores"] == one["scores"] == other["scores"] == {}
    assert (one["accuracy"], one["confusion"], {length["drift"] for length in one["lengths"]}) == (None, None, {None})
    assert (other["version"], other["error"], other["gaps"], other["lengths"], other["flips"]) == (
        None,
        "broken",
        {},
        [],
        [],
    )
    unknown = ("texts_per_second", "padding_drift", "repeat_drift", "concurrent_drift", "accuracy", "confusion")
    assert {other[figure] for figure in unknown} == {None}
    assert report.describe(found, [Gate("a", "", None, None, 0)])["verdict"] == "passed"
    assert report.describe(found, [Gate("a", "", None, None, 0)], require_all=True)["verdict"] == "missed"


def test_texts_that_flip_are_shown_with_both_answers(checked: parity.Check) -> None:
    (one,) = checked.engines
    assert one.result is not None and one.result.data is not None and checked.evaluation.data is not None
    turned = [*one.result.data]
    turned[7] = turned[7][::-1].copy()
    turned[7][turned[7].argmax()] = 9
    long, seconds = [*checked.evaluation.data.texts], [*checked.evaluation.data.seconds]
    long[7], seconds[7] = "x" * 400, "y" * 400
    asked = replace(checked.evaluation, data=replace(checked.evaluation.data, texts=long, seconds=seconds))
    found = replace(checked, evaluation=asked)
    content = report._engine(found, replace(one, result=replace(one.result, data=turned)))
    flip = next(one for one in content["flips"] if one["text"].startswith("x"))
    exact = checked.evaluation.data.reference["fp32"][7]  # type: ignore[index]
    said, answer = (LABELS[int(logits.argmax())] for logits in (exact, turned[7]))
    assert (flip["text"], flip["text_pair"]) == ("x" * 300, "y" * 300)
    assert {other["text_pair"] for other in content["flips"] if other is not flip} <= {None}
    assert flip["label"] == [LABELS[int(checked.evaluation.data.data.labels[7].argmax())]]
    assert (flip["checkpoint"]["labels"], flip["artifact"]["labels"]) == ([said], [answer])
    best = 1 / (1 + np.exp(-abs(float(exact[0] - exact[1]))))
    assert flip["checkpoint"]["probability"] == pytest.approx(best, abs=1e-5)
    other = checked.comparisons(replace(one, result=replace(one.result, data=turned)))["oracle_to_artifact"]
    assert len(content["flips"]) == np.count_nonzero(
        checked.comparisons(replace(one, result=replace(one.result, data=turned)))["checkpoint_to_artifact"].flipped
    )
    assert content["gaps"]["oracle_to_artifact"]["agreement"] == other.divergence.agreement == 299 / 300


def test_engines_are_reported_two_by_two(checked: parity.Check) -> None:
    two = replace(checked, engines=[checked.engines[0], replace(checked.engines[0], name="other")])
    (between,) = report.describe(two, [])["between"]
    assert (between["engines"], between["agreement"], between["psnr"]) == (["tflite", "other"], 1, None)


def gate_of(name: str, engine: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "engine": engine, "limit": 0.5, "status": "passed", "note": "", **changes}


def test_gates_of_engines_are_rows_with_a_cell_for_each() -> None:
    shared = [gate_of("agreement", "a", limit=0.99), gate_of("agreement", "b", limit=0.99)]
    alone, of_bundle = gate_of("lengths", "b", limit=0.15), gate_of("tokenizer", "", limit=0)
    between, absent = gate_of("agreement", "a and b", limit=0.99), gate_of("answers", "c")
    result = {"engines": [{"name": "a"}, {"name": "b"}], "gates": [of_bundle, *shared, alone, between, absent]}
    assert report._engine_gates(result) == [
        {"title": "agreement", "limit": "≥ 99.00%", "cells": {"a": shared[0], "b": shared[1]}},
        {"title": "lengths", "limit": "≤ 0.15", "cells": {"b": alone}},
    ]
    assert report._other_gates(result) == [
        {"title": "tokenizer", "limit": "≤ 0", "gate": of_bundle},
        {"title": "agreement, a and b", "limit": "≥ 99.00%", "gate": between},
        {"title": "answers, c", "limit": "", "gate": absent},
    ]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("agreement", 0.98765, "98.77%"),
        ("accuracy drop", 0.456, "0.46"),
        ("lengths", 0.01234, "0.012"),
        ("agreement", None, ""),
    ],
)
def test_a_value_is_shown_in_its_unit(name: str, value: float | None, shown: str) -> None:
    assert report._show(name, value) == shown
    if name == "accuracy drop":
        assert report._limit(gate_of(name, "a")) == "≤ 0.50 points"


def test_the_most_frequent_confusions_are_listed() -> None:
    counts = [[5, 2, 0], [7, 5, 2], [0, 1, 5]]
    assert report._confusions(counts, "abc") == [(7, "b", "a"), (2, "a", "b"), (2, "b", "c"), (1, "c", "b")]
    many = [[0 if i == j else i * 20 + j + 1 for j in range(20)] for i in range(20)]
    listed = report._confusions(many, [str(i) for i in range(20)])
    assert len(listed) == 12
    assert listed[0] == (399, "19", "18")


def test_a_plot_draws_every_flip_and_thins_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DOTS", 4)
    for count, dots in ((4, 4), (5, 3), (8, 4), (9, 3), (0, 0)):
        compared = flipped(count + 6, count + 6) if not count else flipped(6, count + 6)
        drawn = report._scatter(compared)
        assert (drawn["dots"].count("M"), drawn["flips"].count("M")) == (dots, 6)


def test_of_more_labels_the_checkpoints_answer_is_followed() -> None:
    def followed(expected: Any, found: Any) -> Any:
        return Comparison(np.log(np.float32(found)), np.log(np.float32(expected)), False, 0.05).followed

    three = followed([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3]], [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    np.testing.assert_allclose(three, [[0.8, 0.5], [0.1, 0.3]], rtol=1e-5)
    two = followed([[0.9, 0.1], [0.4, 0.6]], [[0.8, 0.2], [0.7, 0.3]])
    np.testing.assert_allclose(two, [[0.1, 0.6], [0.2, 0.3]], rtol=1e-5)
    several = Comparison(np.log(np.float32([[3, 1]])), np.float32([[0, 0]]), True, 0.05)
    assert report._scatter(several)["dots"] == "" and report._scatter(several)["flips"] == "M100.0 100.0h0"


def test_only_engines_that_answered_are_drawn(checked: parity.Check) -> None:
    broken = replace(checked.engines[0], name="broken", result=None)
    drawn = report._drawings(replace(checked, engines=[checked.engines[0], broken]))
    assert list(drawn) == ["tflite"]
    assert list(drawn["tflite"]) == ["scatter", "histogram"]
    assert sum(one["count"] for one in drawn["tflite"]["histogram"]) == 300


def test_the_page_is_given_what_it_draws(checked: parity.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        report, "write_page", lambda target, template, **values: given.update(values, to=(target, template))
    )
    monkeypatch.setattr(report, "latency_plots", lambda measured: ["plot", measured])
    result = report.describe(checked, gates.judge(checked, Limits()))
    report.write_html(result, checked, Path("r.html"), {"a": 1})
    assert given["to"] == (Path("r.html"), report.TEMPLATE)
    assert given["result"] is result
    assert given["counts"] == {"passed": 13}
    assert given["engine_gates"] == report._engine_gates(result)
    assert given["other_gates"] == report._other_gates(result)
    assert given["open_lines"] == []
    assert given["drawings"] == report._drawings(checked)
    assert (given["show"], given["confusions"]) == (report._show, report._confusions)
    assert (given["matrix"], given["flips_listed"], given["side"], given["dots"]) == (8, 100, 200, 2000)
    assert (given["measured"], given["latency"]) == ({"a": 1}, ["plot", {"a": 1}])
    report.write_html(result, checked, Path("r.html"))
    assert (given["measured"], given["latency"]) == (None, [])


def test_one_length_pads_nothing(folder: Path, install: Any) -> None:
    edit_manifest(folder, lengths=(LENGTHS[-1],))
    assert parity.check_bundle(folder, ["tflite"]).engines[0].result.padding_drift == 0.0  # type: ignore[union-attr]


def test_each_thread_starts_at_another_text() -> None:
    ids = [np.int32([i]) for i in range(16)]
    opened = SimpleNamespace(run=lambda row: np.float32(row))
    run = parity._Run(opened, SimpleNamespace(), "tflite", Progress())  # type: ignore[arg-type]
    firsts: list[int] = []
    whole = run.run

    def record(rows: Any) -> Any:
        firsts.append(int(rows[0][0]))
        return whole(rows)

    run.run = record  # type: ignore[method-assign]
    assert run.concurrent_drift(ids) == 0
    assert sorted(firsts) == [0, 4, 8, 12]
