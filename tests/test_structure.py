"""The shape of the code: what imports what, read from the sources, and what one import or one command brings along."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LARGEST_SHARE = 1 / 4  # of the lines, that one folder's own modules may have: more, and it shows nothing of its shape
# From the ground up: a room imports those before it only. Rooms of one row do not know each other.
FLOORS = (
    ("runtime.errors", "runtime.progress", "runtime.cache", "runtime.text_encoding"),
    ("runtime.manifest", "runtime.tokenizer"),
    ("runtime.scores",),  # by the manifest's tasks
    ("runtime.engines",),
    ("runtime.self_check",),
    ("runtime.model",),
    ("runtime.classifier", "runtime.token_classifier", "runtime.question_answerer"),
    ("runtime.tasks",),
    ("runtime.html",),
    ("runtime.bench",),
    ("runtime.check",),
    ("runtime.cli",),
)


def modules() -> dict[str, Path]:
    """Module name without `pocketbert.` -> file."""
    found = {}
    for half in ("runtime", "export"):
        for file in (REPOSITORY / half).rglob("*.py"):
            parts = file.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(name: str, file: Path) -> Iterator[str]:
    """The project's modules that a module imports anywhere, for type checkers too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pocketbert."):
            place = (node.module or "").removeprefix("pocketbert.")
            for alias in node.names:
                yield f"{place}.{alias.name}" if f"{place}.{alias.name}" in MODULES else place
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("pocketbert.") for a in node.names if a.name.startswith("pocketbert."))


GRAPH = {name: sorted(set(imports(name, file)) - {name}) for name, file in MODULES.items()}


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) for room in rooms if f"{module}.".startswith(f"{room}."))


def test_the_runtime_never_imports_the_export_half() -> None:
    assert [
        name for name in GRAPH if name.startswith("runtime") for one in GRAPH[name] if one.startswith("export")
    ] == []


def test_no_import_of_the_runtime_runs_back_up() -> None:
    rooms = [name for name in GRAPH if name.count(".") and not name.startswith("runtime.root")]
    wrong = [
        f"{name} imports {one}"
        for name in rooms
        if name.startswith("runtime.")
        for one in GRAPH[name]
        if one.count(".") and floor(one) > floor(name)
    ]
    assert wrong == []


def test_no_folder_holds_more_than_a_quarter_of_the_lines() -> None:
    lines = Counter[str]()
    for file in MODULES.values():
        lines[str(file.parent.relative_to(REPOSITORY))] += len(file.read_text(encoding="utf-8").splitlines())
    assert {folder: n for folder, n in lines.items() if n > LARGEST_SHARE * lines.total()} == {}


def test_there_is_no_circle_of_imports() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for one in GRAPH.get(name, ()):
                visit(one, (*path, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())


def test_nothing_but_a_command_imports_a_command() -> None:
    """Drawing progress and naming exit statuses is what the commands of both halves share."""
    shared = {f"runtime.cli.{name}" for name in ("arguments", "exit_status", "output", "progress")}
    for name, found in GRAPH.items():
        commands = [one for one in found if ".cli." in one and one not in shared]
        assert commands == [] or name.startswith(("runtime.cli", "export.cli")), f"{name} imports {commands}"


def run(code: str) -> list[str]:
    """The modules that are loaded after `code`, in a process of its own."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_runtime_brings_numpy_and_nothing_else() -> None:
    bare, loaded = run("import numpy"), run("import pocketbert.runtime")
    standard = set(sys.stdlib_module_names)
    brought = {name.partition(".")[0] for name in set(loaded) - set(bare)} - standard
    # The editable install of a clone brings its finder along.
    assert {name for name in brought if not name.startswith(("pocketbert", "__editable__"))} == set()
    assert not [name for name in loaded if name.startswith(("pocketbert.export", "pocketbert.runtime.cli"))]
    assert not [name for name in loaded if name.startswith(("pocketbert.runtime.check", "pocketbert.runtime.bench"))]


@pytest.mark.parametrize(
    "module",
    [
        *(f"pocketbert.{room}" for room in ("export", "runtime.check", "runtime.bench", "runtime.html")),
        "huggingface_hub",  # tokenizers has it installed
        "torch",
        "rich",
    ],
)
def test_classify_loads_no_other_room_and_no_large_library(bundles: dict[str, Path], module: str) -> None:
    command = ["pocketbert", "classify", str(bundles["albert"]), "film", "--engine", "tflite"]
    code = f"sys.argv = {command!r}\nfrom pocketbert.runtime.cli import main\ntry: main()\nexcept SystemExit: pass"
    assert not [name for name in run(code) if f"{name}.".startswith(f"{module}.")]


def test_a_command_line_without_its_libraries_says_what_to_install() -> None:
    code = "sys.modules['typer'] = None\nfrom pocketbert.runtime.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False)
    line = "pocketbert: the command line needs typer: pip install 'pocketbert[cli]'\n"
    assert (done.returncode, done.stderr) == (2, line)
