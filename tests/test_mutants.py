"""`make mutants` by itself: it asks about the modules that decide whether a bundle is right, and counts honestly."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("mutants")))

import run as mutants


def test_every_module_that_judges_is_mutated_and_every_test_file_is_there() -> None:
    asked = {module for group in mutants.GROUPS.values() for module in group.modules}
    checking = (mutants.REPOSITORY / "runtime/check").rglob("*.py")
    judging = {file.relative_to(mutants.REPOSITORY).as_posix() for file in checking}
    judging |= {f"runtime/{name}.py" for name in ("self_check", "manifest", "tokenizer", "classifier")}
    judging |= {f"export/{name}.py" for name in ("quantize", "golden", "steadiness", "bundle")}
    assert asked == judging - {"runtime/check/__init__.py"}
    files = {test for group in mutants.GROUPS.values() for test in group.tests if test.startswith("tests/")}
    assert [file for file in files if not (mutants.REPOSITORY / file).is_file()] == []


def test_a_module_is_asked_about_with_the_tests_of_its_name() -> None:
    """But for those that need bundles of real converters: an export takes minutes."""
    for group in mutants.GROUPS.values():
        for module in group.modules:
            named = mutants.REPOSITORY / f"tests/test_{Path(module).stem}.py"
            if named.is_file() and "bundles: dict[str, Path]" not in named.read_text(encoding="utf-8"):
                assert f"tests/{named.name}" in group.tests, module


@pytest.mark.parametrize(("lived", "status"), [(1, 0), (2, 1)])
def test_more_than_a_tenth_of_survivors_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lived: int, status: int
) -> None:
    codes = [*[0] * lived, *[1] * (8 - lived), -9, 36, None]  # the last was not asked
    meta = tmp_path / "data/mutants/pocketbert/runtime/check/datasets.py.meta"
    meta.parent.mkdir(parents=True)
    meta.write_text(
        json.dumps({"exit_code_by_key": {f"pocketbert.x__mutmut_{i}": code for i, code in enumerate(codes)}})
    )
    monkeypatch.setattr(mutants, "BUILD", tmp_path)
    monkeypatch.setattr(mutants, "REPOSITORY", tmp_path)
    monkeypatch.setattr(mutants, "SURVIVORS", tmp_path / "survivors.txt")
    monkeypatch.setattr(mutants, "describe", lambda name, module, alive: alive)
    assert mutants.report(["data"]) == status
    assert (tmp_path / "survivors.txt").read_text().split() == [f"pocketbert.x__mutmut_{i}" for i in range(lived)]
    *_, last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("all")]
    assert last.split() == ["all", "11", "10", str(8 - lived), "1", "1", "0", str(lived), f"{(10 - lived) / 10:.1%}"]


def test_nothing_asked_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "BUILD", tmp_path)
    monkeypatch.setattr(mutants, "REPOSITORY", tmp_path)
    monkeypatch.setattr(mutants, "SURVIVORS", tmp_path / "survivors.txt")
    assert mutants.report(["data"]) == 1
