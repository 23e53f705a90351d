"""The package as a user installs it: what the wheel holds, and the types that a checker sees in a user's project."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import pocketbert

REPOSITORY = Path(__file__).resolve().parents[1]
WHEEL_BYTES = 1_000_000  # code, pages and the contract: the demo's checkpoints alone are seven times that

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True
    )
    for name in files.stdout.split("\n"):
        if (
            name.startswith(("export/", "runtime/", "pyproject.toml", "README.md", "LICENSE"))
            and (REPOSITORY / name).exists()
        ):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(folder / "source"),
    ]
    done = subprocess.run([sys.executable, "-m", "pip", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_code_and_contract_and_no_demo(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < WHEEL_BYTES
    assert {"pocketbert/__init__.py", "pocketbert/py.typed", "pocketbert/runtime/contract/BUNDLE.md"} <= set(names)
    assert not [name for name in names if "demo" in name or name.endswith((".safetensors", ".jsonl"))]


def test_every_module_of_the_clone_but_the_demo_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = [
        file.relative_to(REPOSITORY) for half in ("export", "runtime") for file in (REPOSITORY / half).rglob("*.py")
    ]
    missing = [
        str(file) for file in sources if f"pocketbert/{file}" not in names and file.parts[1] not in ("demo", "root")
    ]
    assert missing == []


def test_the_version_is_readable() -> None:
    assert pocketbert.__version__.count(".") == 2


def test_a_type_checker_in_a_users_project_sees_the_types(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "environment", with_pip=False)
    site = next((tmp_path / "environment").glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / "app.py").write_text(
        "from pocketbert.runtime import Classifier\n"
        'reveal_type(Classifier.open("bundle")("a text"))\n'
        'wrong: int = Classifier.open("bundle")("a text")[0].label\n'
    )
    python = tmp_path / "environment/bin/python"
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "app.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert 'Revealed type is "list[pocketbert.runtime.classifier.Prediction]"' in said
    assert 'expression has type "str", variable has type "int"' in said
    assert "missing library stubs or py.typed" not in said
