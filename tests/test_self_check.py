"""The self-check: what golden.json must hold, how far an engine may be off, and what the marker of a pass remembers.

The bundle is test_check.py's, around a model in numpy; its golden cases are written anew for each test.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_check import LABELS, LENGTHS, Engine, Model, edit_manifest, ids_of, write_bundle

from pocketbert.runtime import self_check
from pocketbert.runtime.errors import BundleError, EngineError
from pocketbert.runtime.manifest import describe_file, read_manifest
from pocketbert.runtime.scores import probabilities
from pocketbert.runtime.self_check import check_golden_cases, read_golden
from pocketbert.runtime.tokenizer import Tokenizer

CASE: dict[str, Any] = {
    "text": "w1 w2",
    "input_ids": [2, 5, 6, 3],
    "logits": [1, 0.5],
    "oracle": {"int8": [1.5, -2]},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, and a cache in which nothing has been checked."""
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path / "cache"))
    return write_bundle(tmp_path / "bundle", LABELS)


def write_golden(folder: Path, content: Any) -> None:
    (folder / "golden.json").write_text(content if isinstance(content, str) else json.dumps(content))
    edit_manifest(folder, golden=describe_file(folder, "golden.json"))


def opened(folder: Path, model: Any = None) -> Any:
    """What the self-check is made with; `runs` counts the texts that the engine was asked."""
    manifest = read_manifest(folder)
    found = SimpleNamespace(manifest=manifest, artifact=manifest.artifacts[0], engine=Engine(None), runs=0)
    found.tokenizer = Tokenizer(folder / "tokenizer.json", manifest.max_length)

    def run(ids: np.ndarray) -> np.ndarray:
        found.runs += 1
        return (model or Model())(ids)

    found.run = run
    found.probabilities = lambda logits: probabilities(logits, manifest.multi_label)
    return found


def test_golden_cases_are_read_as_arrays(folder: Path) -> None:
    write_golden(folder, {"tolerance": 0.125, "cases": [CASE, {**CASE, "text": ""}]})
    golden = read_golden(folder, read_manifest(folder))
    assert (golden.tolerance, [case.text for case in golden.cases]) == (0.125, ["w1 w2", ""])
    case = golden.cases[0]
    assert (case.ids.tolist(), case.ids.dtype) == ([2, 5, 6, 3], np.int32)
    assert (case.logits.tolist(), case.logits.dtype) == ([1, 0.5], np.float32)
    assert {kind: logits.tolist() for kind, logits in case.oracle.items()} == {"int8": [1.5, -2]}


def test_a_bundle_that_states_no_tolerance_has_the_first_ones(folder: Path) -> None:
    write_golden(folder, {"cases": [CASE]})
    assert read_golden(folder, read_manifest(folder)).tolerance == 0.05


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, 2, float("nan")])
def test_a_tolerance_that_is_no_part_of_one_is_refused(folder: Path, tolerance: float) -> None:
    write_golden(folder, {"tolerance": tolerance, "cases": [CASE]})
    with pytest.raises(
        BundleError, match=f"golden.json has 1 cases and the tolerance {tolerance:g}: export the bundle"
    ):
        read_golden(folder, read_manifest(folder))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "AttributeError"),
        ("{}", "KeyError"),
        ('{"cases": 3}', "TypeError"),
        ("{", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ({"tolerance": "x", "cases": [CASE]}, "ValueError"),
        ({"tolerance": 10**400, "cases": [CASE]}, "OverflowError"),
        ({"cases": [{**CASE, "text": 1}]}, r"a case has no text, or \(4,\) ids"),
        ({"cases": [{**CASE, "input_ids": []}]}, "are not numbers, or no whole ones"),
        ({"cases": [{**CASE, "input_ids": [[2, 3]]}]}, r"a case has no text, or \(1, 2\) ids"),
        ({"cases": [{**CASE, "input_ids": [2] * (LENGTHS[-1] + 1)}]}, r"a case has no text, or \(17,\) ids"),
        ({"cases": [{**CASE, "input_ids": ["2"]}]}, r"ValueError\(.\['2'\] are not numbers"),
        ({"cases": [{**CASE, "input_ids": [True]}]}, "are not numbers"),
        ({"cases": [{**CASE, "input_ids": [1.5]}]}, r"\[1.5\] are not numbers, or no whole ones"),
        ({"cases": [{**CASE, "input_ids": [2**31]}]}, r"\[2147483648\] do not fit 32 bits"),
        ({"cases": [{**CASE, "oracle": {"fp16": [1, 2]}}]}, "a case lacks the oracle's logits for int8"),
        ({"cases": [{**CASE, "oracle": {"int8": [1]}}]}, r"logits \[1\] are not 2 numbers"),
        ({"cases": [{**CASE, "logits": [1, 2, 3]}]}, r"logits \[1, 2, 3\] are not 2 numbers"),
        ({"cases": [{**CASE, "logits": [1, float("nan")]}]}, r"logits \[1, nan\] are not 2 numbers"),
        ({"cases": [{**CASE, "logits": [1, 1e39]}]}, r"logits \[1, 1e\+39\] are not 2 numbers"),
        ({"cases": [{**CASE, "logits": [1, None]}]}, "are not numbers"),
        ({"cases": []}, "has 0 cases and the tolerance 0.05: export the bundle again"),
    ],
    ids=itertools.count(),  # a name of brackets and quotes is none that pytest finds again
)
@pytest.mark.filterwarnings("error")
def test_a_golden_file_that_is_none_is_refused(folder: Path, content: Any, reason: str) -> None:
    write_golden(folder, content)
    with pytest.raises(BundleError, match=rf"golden\.json.*{reason}"):
        read_golden(folder, read_manifest(folder))


def test_a_text_of_the_longest_kind_is_a_case(folder: Path) -> None:
    write_golden(folder, {"cases": [{**CASE, "input_ids": [2] * LENGTHS[-1]}, {**CASE, "input_ids": [2]}]})
    assert [len(case.ids) for case in read_golden(folder, read_manifest(folder)).cases] == [LENGTHS[-1], 1]


def test_the_missing_oracle_is_named(folder: Path) -> None:
    manifest = read_manifest(folder)
    other = replace(manifest.artifacts[0], format="coreml", activations="fp16")
    write_golden(folder, {"cases": [CASE]})
    edit_manifest(folder, artifacts=(*manifest.artifacts, other))
    with pytest.raises(BundleError, match="a case lacks the oracle's logits for fp16"):
        read_golden(folder, read_manifest(folder))


def test_an_altered_golden_file_is_refused_before_it_is_read(folder: Path) -> None:
    (folder / "golden.json").write_text("{")
    with pytest.raises(BundleError, match=r"golden\.json is not the file that was exported"):
        read_golden(folder, read_manifest(folder))


def test_every_case_is_asked_once_and_never_again(folder: Path) -> None:
    first, again = opened(folder), opened(folder)
    check_golden_cases(first, folder)
    check_golden_cases(again, folder)
    assert (first.runs, again.runs) == (len(read_golden(folder, first.manifest).cases), 0)


def moved(by: float) -> Callable[[np.ndarray], np.ndarray]:
    """An engine whose first probability is off by so much where the oracle's is a half."""
    return lambda ids: np.float32([np.log((0.5 + by) / (0.5 - by)), 0])


@pytest.mark.parametrize("by", [0.1, -0.1])
def test_the_last_case_is_judged_by_the_tolerance_of_the_bundle(folder: Path, by: float) -> None:
    right, even = {**CASE, "oracle": {"int8": [np.log(0.6 / 0.4), 0]}}, {**CASE, "oracle": {"int8": [0, 0]}}
    for tolerance, passes in ((0.11, True), (0.09, False)):
        write_golden(folder, {"tolerance": tolerance, "cases": [right if by > 0 else even, even]})
        model = opened(folder, moved(by))
        if passes:
            check_golden_cases(model, folder)
            continue
        said = "numpy model computes model.tflite wrongly: probabilities are off by 0.100 for 'w1 w2': use a version"
        with pytest.raises(EngineError, match=said):
            check_golden_cases(model, folder)


def test_each_label_of_several_counts(folder: Path) -> None:
    """Softmax over two labels that both hold would say one half of each, whatever moves."""
    write_golden(folder, {"tolerance": 0.05, "cases": [{**CASE, "oracle": {"int8": [0, 0]}}]})
    edit_manifest(folder, multi_label=True)
    with pytest.raises(EngineError, match=r"off by 0\.231"):
        check_golden_cases(opened(folder, lambda ids: np.float32([1, 1])), folder)


def test_numbers_that_are_none_are_no_pass(folder: Path) -> None:
    with pytest.raises(EngineError, match="wrongly"):
        check_golden_cases(opened(folder, lambda ids: np.full(2, np.nan, np.float32)), folder)


def test_other_ids_than_at_export_are_named_with_the_text(folder: Path) -> None:
    write_golden(folder, {"cases": [{**CASE, "input_ids": [2, 5, 7, 3]}]})
    with pytest.raises(
        EngineError, match="the tokenizer gives other ids for 'w1 w2' than at export: export the bundle"
    ):
        check_golden_cases(opened(folder), folder)


def test_a_long_text_is_cut_in_the_message(folder: Path) -> None:
    text = " ".join(["w1"] * 40)
    write_golden(folder, {"cases": [{**CASE, "text": text, "input_ids": ids_of(text).tolist()}]})
    with pytest.raises(EngineError, match=f"for '{text[:40]}': use"):
        check_golden_cases(opened(folder, lambda ids: np.float32([-9, 9])), folder)


def test_a_pass_counts_for_this_artifact_these_cases_and_this_version(folder: Path, tmp_path: Path) -> None:
    model = opened(folder)
    model.engine.version = "Engine 2.3-a/b c"
    check_golden_cases(model, folder)
    (marker,) = (tmp_path / "cache").iterdir()
    artifact, golden = model.artifact.files[0].sha256[:16], model.manifest.golden.sha256[:16]
    assert marker.name == f"{artifact}-{golden}-Engine-2.3-a-b-c.checked"


def test_a_failure_is_not_remembered(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        check_golden_cases(opened(folder, lambda ids: np.float32([-9, 9])), folder)
    assert not (tmp_path / "cache").exists()


def test_a_cache_is_made_where_its_folder_is_missing_and_kept_where_it_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path / "deep/er"))
    check_golden_cases(opened(folder), folder)
    edit_manifest(folder, golden=describe_file(folder, "tokenizer.json"))
    write_golden(folder, {"tolerance": 0.9, "cases": [CASE]})
    check_golden_cases(opened(folder), folder)
    assert len(list((tmp_path / "deep/er").iterdir())) == 2


def test_a_check_without_a_cache_is_made_each_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path / "file"))
    models = [opened(folder), opened(folder)]
    for model in models:
        check_golden_cases(model, folder)
    assert models[0].runs == models[1].runs > 0


def test_a_golden_file_has_a_largest_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (folder / "golden.json").stat().st_size
    monkeypatch.setattr(self_check, "LARGEST_GOLDEN", size)
    read_golden(folder, read_manifest(folder))
    monkeypatch.setattr(self_check, "LARGEST_GOLDEN", size - 1)
    with pytest.raises(BundleError, match=f"cannot read .*golden.json.*more than {size - 1} bytes"):
        read_golden(folder, read_manifest(folder))
