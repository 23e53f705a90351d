"""Which runtime versions compute a bundle rightly: each one is installed into an environment of its own and asked.

    python3.11 tests/runtime_versions.py BUNDLE... [--only ai-edge-litert] [--json FILE] [--work DIR]

Takes bundles. Returns a JSON line per version and bundle, then all of them as a table and as Markdown, the one in
runtime/ENGINES.md. Leaves out: gates; what is right is the bundle's self-check to say.

The measuring itself happens inside the environment, in a process of its own: a runtime that crashes is a result.
It needs pip's package index, some GB of disk for a moment, and half an hour. The Python that runs it is the Python
that is measured.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

ROOT = Path(__file__).resolve().parents[1]
OURS = ("numpy", "tokenizers", "typer", "rich")  # what pocketbert.runtime is made of
NUMPY_1 = "numpy<2"  # asked of pip where the runtime was built against numpy 1 and does not say so
# The CPU build that pyproject.toml asks for. ExecuTorch is put beside it without its own dependencies: each version
# asks for another torch, most of which come with several GB of CUDA.
TORCH = "torch==2.13.0"
TORCH_PARTS = ("filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions")
EXECUTORCH_PARTS = ("flatbuffers", "pyyaml", "ruamel.yaml", "tabulate", "torchao==0.18.0")
TIME_LIMIT = 900  # seconds for one bundle, or for pip
THREADS = 1  # times are comparable, and a busy host disturbs them least


@dataclass(frozen=True)
class Runtime:
    """A version of a distribution, the engine that opens it, and what pip is told beside it."""

    distribution: str
    version: str
    engine: str
    beside: tuple[str, ...] = ()
    alone: bool = False  # installed without its own dependencies

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True)
class Result:
    """What one runtime made of one bundle; gaps are in probability, the largest over the golden cases."""

    bundle: str
    runtime: str
    version: str
    outcome: str  # ok, refused, cannot open, crashed, not installed
    python: str = platform.python_version()
    numpy: str = ""
    api: str = ""  # the class of runtime/engines that ran it
    oracle_gap: float | None = None
    fp32_gap: float | None = None
    milliseconds: float | None = None  # median over the golden cases
    note: str = ""


def _litert(version: str, *beside: str) -> Runtime:
    return Runtime("ai-edge-litert", version, "tflite:ai_edge_litert", beside)


def _executorch(version: str) -> Runtime:
    return Runtime("executorch", version, "executorch", (TORCH, *TORCH_PARTS, *EXECUTORCH_PARTS), alone=True)


# The newest patch of each minor version, and those patches between which something changed.
RUNTIMES = (
    Runtime("tflite-runtime", "2.14.0", "tflite:tflite_runtime", (NUMPY_1,)),
    _litert("1.0.1", NUMPY_1),
    *map(_litert, ("1.1.2", "1.2.0", "1.3.0", "1.4.0", "2.0.3", "2.1.4")),
    _litert("2.1.6", "ml_dtypes"),  # which it imports and does not ask for
    *map(_litert, ("2.2.0", "2.3.0")),
    *(
        Runtime("tensorflow-cpu", version, "tflite:tensorflow")
        for version in ("2.16.2", "2.17.1", "2.18.1", "2.19.1", "2.20.0", "2.21.0")
    ),
    *map(_executorch, ("1.0.1", "1.1.0", "1.2.0", "1.3.1", "1.4.1", "1.5.1")),
)
FORMATS = {"tflite": "model.tflite", "executorch": "model.pte"}


def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles made by `pocketbert export`.")],
    only: Annotated[str | None, typer.Option(help="One distribution, or distribution==version.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the JSON lines here too.")] = None,
    work: Annotated[Path | None, typer.Option(help="Where environments are made; the cache folder.")] = None,
) -> None:
    """Installs each runtime version by itself and checks bundles on it."""
    chosen = [runtime for runtime in RUNTIMES if only in (None, runtime.distribution, runtime.requirement)]
    if not chosen:
        raise typer.BadParameter(f"unknown runtime {only!r}", param_hint="--only")
    results = []
    for runtime in chosen:
        for result in measure(runtime, [bundle.resolve() for bundle in bundles], (work or _cache_folder()).resolve()):
            results.append(result)
            print(json.dumps(asdict(result)), flush=True)
    if json_file:
        json_file.write_text("".join(f"{json.dumps(asdict(result))}\n" for result in results))
    _print_table(results)
    print(markdown(results))


def measure(runtime: Runtime, bundles: list[Path], work: Path) -> list[Result]:
    """One result per bundle; the environment is gone afterwards."""
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix=f"{runtime.requirement}-") as folder:
        make_environment(Path(folder))
        problem = install(Path(folder), runtime)
        if problem:
            return [_result(runtime, bundle, "not installed", note=problem) for bundle in bundles]
        return [_ask(Path(folder), runtime, bundle) for bundle in bundles if _holds(bundle, runtime)]


def make_environment(folder: Path) -> None:
    """A new virtual environment in `folder`, with our runtime beside it."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    package = folder / "names" / "pocketbert"  # a namespace package: no need to install it
    package.mkdir(parents=True)
    (package / "runtime").symlink_to(ROOT / "runtime")


def install(folder: Path, runtime: Runtime) -> str:
    """Installs `runtime` into the environment in `folder`; gives nothing, or why pip could not."""
    if not runtime.alone:
        return _pip(folder, runtime.requirement, *OURS, *runtime.beside)
    parts = [part for part in runtime.beside if part != TORCH]
    return _pip(folder, *OURS, *parts) or _pip(folder, "--no-deps", TORCH, runtime.requirement)


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in the environment in `folder`: it finds our runtime, and a cache that no other version has filled.

    It starts in `folder`, since Python looks for packages where it starts, and would find the repository's.
    """
    path = os.pathsep.join(map(str, (folder / "names", ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "POCKETBERT_CACHE": str(folder / "cache")}
    command = [str(folder / "bin" / "python"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=TIME_LIMIT, check=False
    )


def probe(bundle: str, engine: str) -> None:
    """Inside the environment: answers the golden cases and prints what a Result needs, as the last line."""
    from pocketbert.runtime import Classifier, EngineError

    found: dict[str, Any] = {"numpy": np.__version__, "note": ""}
    try:
        classifier = Classifier.open(bundle, engine, THREADS, self_check=False)
    except EngineError as problem:
        found |= {"outcome": "cannot open", "note": str(problem).replace(bundle, "")}
    else:
        found |= {"api": type(classifier.engine).__name__, **_check(classifier, Path(bundle))}
    print(f"\n{json.dumps(found)}", flush=True)


def _check(classifier: Any, bundle: Path) -> dict[str, Any]:
    from pocketbert.runtime import EngineError
    from pocketbert.runtime.self_check import read_golden

    golden = read_golden(bundle, classifier.manifest)
    cases = golden.cases
    try:
        answers = [classifier.run(case.ids) for case in cases]  # the first run of a length also allocates
    except EngineError as problem:
        return {"outcome": "refused", "note": str(problem)}
    oracle = _gap(classifier, answers, [case.oracle[classifier.artifact.activations] for case in cases])
    return {
        "outcome": "ok" if oracle <= golden.tolerance else "refused",
        "oracle_gap": oracle,
        "fp32_gap": _gap(classifier, answers, [case.logits for case in cases]),
        "milliseconds": statistics.median(_milliseconds(classifier, case.ids) for case in cases),
    }


def _gap(classifier: Any, answers: list[Any], expected: list[Any]) -> float:
    """The largest difference in probability."""
    found, right = (classifier.probabilities(np.stack(logits)) for logits in (answers, expected))
    return float(np.abs(found - right).max())


def _milliseconds(classifier: Any, ids: Any) -> float:
    started = time.perf_counter()
    classifier.run(ids)
    return (time.perf_counter() - started) * 1e3


def _ask(folder: Path, runtime: Runtime, bundle: Path) -> Result:
    code = f"import runtime_versions; runtime_versions.probe({str(bundle)!r}, {runtime.engine!r})"
    try:
        done = run_python(folder, "-c", code)
    except subprocess.TimeoutExpired:
        return _result(runtime, bundle, "crashed", note=f"no answer in {TIME_LIMIT} s")
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return _result(runtime, bundle, "crashed", note=_last_words(done))
    if done.returncode != 0:
        found["note"] = f"answers, then {_last_words(done)}"
    return replace(_result(runtime, bundle, ""), **{**found, "note": found["note"].replace(str(folder), "")})


def _pip(folder: Path, *arguments: str) -> str:
    done = run_python(folder, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return "" if done.returncode == 0 else (errors or [_last_words(done)])[-1]


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The signal that ended a process, or the last line that it wrote."""
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def _result(runtime: Runtime, bundle: Path, outcome: str, note: str = "") -> Result:
    return Result(bundle.name, runtime.distribution, runtime.version, outcome, note=note)


def _holds(bundle: Path, runtime: Runtime) -> bool:
    return (bundle / FORMATS[runtime.engine.partition(":")[0]]).exists()


def _cache_folder() -> Path:
    from pocketbert.runtime.cache import cache_folder

    return cache_folder() / "venvs"


def _print_table(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    head, *rows = table(results)
    grid = Table(*head)
    for row in rows:
        grid.add_row(*row)
    Console().print(grid)


def markdown(results: list[Result]) -> str:
    """The table of runtime/ENGINES.md, and what the runtimes that have no numbers said."""
    head, *rows = table(results)
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    notes = {f"- {result.runtime} {result.version}: {result.note}": None for result in results if result.note}
    return "\n".join([*lines, "", *notes])


def table(results: list[Result]) -> list[list[str]]:
    """A heading, then a row per version with a column per bundle."""
    cells = {(result.runtime, result.version, result.bundle): _cell(result) for result in results}
    numpy = {(result.runtime, result.version): result.numpy or "-" for result in results}
    bundles = list(dict.fromkeys(result.bundle for result in results))
    rows = [[*key, numpy[key], *(cells.get((*key, bundle), "-") for bundle in bundles)] for key in numpy]
    return [["runtime", "version", "numpy", *bundles], *rows]


def _cell(result: Result) -> str:
    if result.oracle_gap is None:
        return result.outcome
    return f"{result.outcome}, {result.oracle_gap:.3f} ({result.fp32_gap:.3f}), {result.milliseconds:.1f} ms"


if __name__ == "__main__":
    typer.run(main)
