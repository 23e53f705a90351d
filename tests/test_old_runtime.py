"""tflite-runtime 2.14 computes the usual artifact wrongly and says nothing, ai-edge-litert 1.0 one of 4 bits; we do.

Leaves out: other versions, which runtime_versions.py measures. Skips where pip cannot install it: it has no wheel
for Python 3.12, and a package index is needed.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema
from runtime_versions import RUNTIMES, Runtime, install, make_environment, run_python

from pocketbert.export.backends.tflite import FOUR_BIT_VERSIONS, REQUIRES_FOUR_BITS, VERSIONS
from pocketbert.export.bundle import ExportOptions, export_bundle
from pocketbert.runtime import manifest

OLD = next(runtime for runtime in RUNTIMES if runtime.distribution == "tflite-runtime")
CLOSED = re.compile(r"tflite-runtime 2\.14\.0 cannot open .*model\.tflite: Didn't find op for builtin opcode")
LITERT_1_0 = next(runtime for runtime in RUNTIMES if runtime.requirement == "ai-edge-litert==1.0.1")
LITERT_CLOSED = re.compile(r"cannot open .*model\.tflite: Didn't find op for builtin opcode 'CAST' version '7'")
LITERT_WRONG = re.compile(r"ai-edge-litert 1\.0\.1 computes model\.tflite wrongly: probabilities are off by 0\.\d+ for")
WRONG = re.compile(r"tflite-runtime 2\.14\.0 computes model\.tflite wrongly: probabilities are off by 0\.\d+ for")
DEMO = Path(__file__).parents[1] / "export/demo/distilbert"
BAD_INPUT = 2  # exit status
VERSION_FIELD = 8  # vtable offset of OperatorCode.version in schema.fbs
Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """old_python("-c", code) runs where tflite-runtime 2.14 and our runtime are all there is."""
    return _make_python(tmp_path_factory.mktemp("old"), OLD)


@pytest.fixture(scope="module")
def litert_python(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with ai-edge-litert 1.0."""
    return _make_python(tmp_path_factory.mktemp("litert"), LITERT_1_0)


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo checkpoint with weights of 4 bits: random ones answer too alike to be answered wrongly."""
    folder = tmp_path_factory.mktemp("four") / "bundle"
    options = ExportOptions(formats=("tflite",), scheme=manifest.FOUR_BIT_SCHEME)
    export_bundle(str(DEMO), folder, options)
    return folder


def _make_python(folder: Path, runtime: Runtime) -> Run:
    make_environment(folder)
    problem = install(folder, runtime)
    if problem:
        pytest.skip(f"cannot install {runtime.requirement} here: {problem}")
    return lambda *arguments: run_python(folder, *map(str, arguments))


@pytest.fixture
def understated(bundles: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """understated("albert"): the bundle, its ops claiming the versions that converters write."""

    def copy(family: str) -> Path:
        folder = Path(shutil.copytree(bundles[family], tmp_path / family))
        model = bytearray((folder / "model.tflite").read_bytes())
        _lower_versions(model, {op: plain for op, (plain, _) in VERSIONS.items()})
        (folder / "model.tflite").write_bytes(model)
        _seal(folder)
        return folder

    return copy


def _lower_versions(model: bytearray, versions: Mapping[str, int]) -> None:
    root = schema.Model.GetRootAs(model, 0)
    for code in (root.OperatorCodes(index) for index in range(root.OperatorCodesLength())):
        for op, version in versions.items():
            if code.BuiltinCode() == getattr(schema.BuiltinOperator, op):
                struct.pack_into("<i", model, code._tab.Pos + code._tab.Offset(VERSION_FIELD), version)


def _seal(folder: Path) -> None:
    """Makes the manifest agree with a changed model.tflite."""
    entry = manifest.read_manifest(folder)
    artifacts = tuple(
        replace(a, files=(manifest.describe_file(folder, a.path),)) if a.format == "tflite" else a
        for a in entry.artifacts
    )
    manifest.write_manifest(replace(entry, artifacts=artifacts), folder)


def test_it_refuses_to_open_what_it_would_compute_wrongly(old_python: Run, bundles: dict[str, Path]) -> None:
    done = _classify(old_python, bundles["distilbert"])
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert CLOSED.search(done.stderr)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_golden_cases_refuse_it_where_the_file_does_not(
    old_python: Run, understated: Callable[[str], Path], family: str
) -> None:
    code = "import sys; from pocketbert.runtime import Classifier; Classifier.open(*sys.argv[1:])"
    done = old_python("-c", code, understated(family), OLD.engine)
    last = done.stderr.strip().splitlines()[-1]
    assert "EngineError" in last
    assert WRONG.search(last)


def test_the_command_refuses_it_in_one_line(old_python: Run, understated: Callable[[str], Path]) -> None:
    done = _classify(old_python, understated("distilbert"))
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert len(done.stderr.splitlines()) == 1
    assert WRONG.search(done.stderr)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_an_artifact_made_for_it_is_right(
    old_python: Run, checkpoints: dict[str, Path], tmp_path: Path, family: str
) -> None:
    options = ExportOptions(formats=("tflite",), max_length=24, tflite_compat="2.14")
    export_bundle(str(checkpoints[family]), tmp_path / "bundle", options)
    done = _classify(old_python, tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\tlovely film\n")


def test_litert_1_0_refuses_to_open_four_bits(litert_python: Run, four_bits: Path) -> None:
    assert manifest.read_manifest(four_bits).artifact("tflite").requires == REQUIRES_FOUR_BITS
    done = _classify(litert_python, four_bits, LITERT_1_0)
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert LITERT_CLOSED.search(done.stderr)


def test_golden_cases_refuse_four_bits_on_litert_1_0_where_the_file_does_not(
    litert_python: Run, four_bits: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(four_bits, tmp_path / "understated"))
    model = bytearray((folder / "model.tflite").read_bytes())
    _lower_versions(model, dict.fromkeys(FOUR_BIT_VERSIONS, 1))
    (folder / "model.tflite").write_bytes(model)
    _seal(folder)
    done = _classify(litert_python, folder, LITERT_1_0)
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert LITERT_WRONG.search(done.stderr)


def _classify(python: Run, folder: Path, runtime: Runtime = OLD) -> subprocess.CompletedProcess[str]:
    return python("-m", "pocketbert.runtime.cli", "classify", folder, "lovely film", "--engine", runtime.engine)
