"""`make mutants`: changes the code one expression at a time and counts the changes that no test notices.

Takes the groups of modules below, or those named. Prints for each module how many mutants the tests killed, writes what
the others changed to build/mutants/survivors.txt, and ends with status 1 where fewer than REQUIRED were killed.
SURVIVORS.md says why the known ones live. Leaves out: how mutants are made (mutmut, which changes functions and not
constants or what is decorated), and what its test runs need besides (plugin.py).

mutmut wants packages laid out as they are imported, so it works on a copy, build/mutants/<group>. Results stay there:
a second run asks about functions that have changed, and with --again about survivors too, once there are new tests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build/mutants"
SURVIVORS = BUILD / "survivors.txt"
REQUIRED = 0.9
PACKAGES = {"runtime/root": "pocketbert", "runtime": "pocketbert/runtime", "export": "pocketbert/export"}
# By the exit status of a mutant's test run. mutmut ends what waits for half an hour with SIGXCPU, plugin.py by status
# and SIGKILL: see there. Only the first three have been noticed by a test for sure.
STATUS = {1: "killed", 2: "killed", 3: "killed", -9: "looped", 36: "hung", -11: "crashed", 0: "lived", 33: "lived"}
NOTICED = ("killed", "looped", "hung", "crashed")
PLUGINS = ("tests.mutants.plugin", "no:cacheprovider", "no:unraisableexception", "no:threadexception")
SETTINGS = """
[tool.mutmut]
source_paths = ["pocketbert"]
only_mutate = {modules}
pytest_add_cli_args = {plugins}
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
timeout_constant = 5.0
timeout_multiplier = 60.0
track_dependencies = false
use_git_change_detection = false
"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@dataclass(frozen=True)
class Group:
    """Modules that are mutated in one go, and pytest's arguments for the tests that may kill them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


# Without tests that need a bundle from real converters: an export takes minutes, and a thousand mutants would ask.
MANIFEST = ("tests/test_manifest.py", "tests/test_manifest_details.py", "-k", "not exported_manifests")
CHECKED = ("tests/test_check.py", "tests/test_check_details.py", "tests/test_check_tasks.py")
CHECK = (*CHECKED, "-k", "not (real_bundle or of_another or against_the)")
JUDGED = ("evaluation", "evaluation_set", "evidence", "gates", "metrics", "parity", "report")
TASKS = ("__init__", "choice", "question_answering", "sequence_classification", "token_classification")
DATA = ("tests/test_data.py", "tests/test_data_rows.py", "tests/test_task_data.py")
READ = ("answer_f1", "datasets", "entity_f1", "questions", "tagged_texts")
GROUPS = {
    "manifest": Group(("runtime/manifest.py",), MANIFEST),
    "data": Group(tuple(f"runtime/check/{name}.py" for name in READ), DATA),
    "check": Group(
        tuple(f"runtime/check/{name}.py" for name in (*JUDGED, *(f"tasks/{task}" for task in TASKS))), CHECK
    ),
    "classifier": Group(
        ("runtime/classifier.py", "runtime/self_check.py", "runtime/tokenizer.py"),
        ("tests/test_classifier_in_numpy.py", "tests/test_self_check.py", "tests/test_tokenizer.py"),
    ),
    "quantize": Group(("export/quantize.py",), ("tests/test_quantize.py",)),
    "bundle": Group(
        ("export/bundle.py", "export/golden.py", "export/steadiness.py"),
        ("tests/test_bundle_stages.py", "tests/test_steadiness.py"),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--again", action="store_true", help="ask about survivors again")
    parser.add_argument("--sample", type=int, help="ask about so many mutants of each group, drawn with seed 0")
    parser.add_argument("--report", action="store_true", help="show what was found, and run nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - GROUPS.keys():
        parser.error(f"no group {min(unknown)!r}: use {', '.join(GROUPS)}")
    names, started = arguments.groups or list(GROUPS), time.monotonic()
    for name in () if arguments.report else names:
        lay_out(name)
        if arguments.again:
            forget_survivors(name)
        run(name, draw(name, arguments.sample) if arguments.sample else ())
        print(f"{(time.monotonic() - started) / 60:.0f} minutes until now", flush=True)
    return report(names)


def lay_out(name: str) -> None:
    """Copies packages and tests. A file that is as it was keeps its time, by which mutmut knows its mutants."""
    folder, group = BUILD / name, GROUPS[name]
    for source, target in PACKAGES.items():
        skip = ("__pycache__", "demo", *(["root"] if source == "runtime" else []))
        copy = copy_into(folder)
        ignore = shutil.ignore_patterns(*skip)
        shutil.copytree(REPOSITORY / source, folder / target, ignore=ignore, copy_function=copy, dirs_exist_ok=True)
    for tests in (folder / "tests", folder / "mutants/tests"):
        shutil.rmtree(tests, ignore_errors=True)
    shutil.copytree(REPOSITORY / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    settings = SETTINGS.format(
        modules=json.dumps([f"pocketbert/{module}" for module in group.modules]),
        plugins=json.dumps([each for plugin in PLUGINS for each in ("-p", plugin)]),
        tests=json.dumps(group.tests),
    )
    (folder / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text() + settings)


def copy_into(folder: Path) -> Callable[[str, str], None]:
    """Copies a file that has changed, and drops mutmut's own copy of it."""

    def copy(source: str, target: str) -> None:
        if not Path(target).exists() or Path(source).read_bytes() != Path(target).read_bytes():
            shutil.copyfile(source, target)
            (folder / "mutants" / Path(target).relative_to(folder)).unlink(missing_ok=True)

    return copy


def results(name: str) -> Iterable[tuple[str, Path, dict[str, Any]]]:
    """Each module of a group, with mutmut's file on it and what that says."""
    for module in GROUPS[name].modules:
        file = BUILD / name / f"mutants/pocketbert/{module}.meta"
        if file.exists():
            yield module, file, json.loads(file.read_text())


def forget_survivors(name: str) -> None:
    for _, file, found in results(name):
        codes = found["exit_code_by_key"].items()
        found["exit_code_by_key"] = {key: code if STATUS.get(code) == "killed" else None for key, code in codes}
        file.write_text(json.dumps(found))
    (BUILD / name / "mutants/mutmut-stats.json").unlink(missing_ok=True)  # which test calls what, without the new ones


def draw(name: str, count: int) -> list[str]:
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    os.chdir(BUILD / name)  # where mutmut looks for its settings
    files = [Path(f"pocketbert/{module}") for module in GROUPS[name].modules]
    made = [
        get_mutant_name(f, each) for f in files for each in mutate_file_contents(str(f), f.read_text()).mutant_names
    ]
    return random.Random(0).sample(made, min(count, len(made)))


def run(name: str, mutants: Iterable[str]) -> None:
    """Runs mutmut, one mutant at a time: other work on the machine comes first."""
    print(f"\n{name}: {', '.join(GROUPS[name].modules)}", flush=True)
    fixtures = prepare_checkpoints()
    environment = {**os.environ, **ENVIRONMENT, "POCKETBERT_TEST_CHECKPOINTS": str(fixtures)}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *mutants]
    subprocess.run(command, cwd=BUILD / name, env=environment, check=True, preexec_fn=lambda: os.nice(19))


def prepare_checkpoints() -> Path:
    """Small checkpoints as conftest.py makes them, once for all mutants: none of what makes them is mutated."""
    conftest = REPOSITORY / "tests/conftest.py"
    folder = BUILD / f"checkpoints-{hashlib.sha256(conftest.read_bytes()).hexdigest()[:8]}"
    if not folder.exists():
        code = "import sys, pathlib, conftest\nfor family in conftest.SIZES:\n"
        code += "    conftest.write_checkpoint(pathlib.Path(sys.argv[1]) / family, family)"
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run([sys.executable, "-c", code, str(unfinished)], cwd=conftest.parent, check=True)
        unfinished.rename(folder)
    return folder


def report(names: list[str]) -> int:
    """Prints a line for each module and writes the survivors; 1 where too many live or none was asked about."""
    total: Counter[str] = Counter()
    lines = []
    print(f"\n{'module':28}{'mutants':>8}{'asked':>8}" + "".join(f"{each:>8}" for each in (*NOTICED, "lived", "score")))
    for name in names:
        for module, _, result in results(name):
            codes = result["exit_code_by_key"]
            found = Counter(STATUS.get(code, "lived") for code in codes.values() if code is not None)
            show(module, len(codes), found)
            total += found
            lines += describe(name, module, [key for key, code in codes.items() if is_alive(code)])
    show("all", sum(len(found["exit_code_by_key"]) for name in names for _, _, found in results(name)), total)
    SURVIVORS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"what the survivors changed: {SURVIVORS.relative_to(REPOSITORY)}")
    return int(not total or score(total) < REQUIRED)


def is_alive(code: int | None) -> bool:
    return code is not None and STATUS.get(code, "lived") == "lived"


def score(found: Counter[str]) -> float:
    return sum(found[each] for each in NOTICED) / max(1, found.total())


def show(module: str, mutants: int, found: Counter[str]) -> None:
    figures = (mutants, found.total(), *(found[each] for each in NOTICED), found["lived"])
    print(f"{module:28}" + "".join(f"{figure:>8}" for figure in figures) + f"{score(found):>8.1%}")


def describe(name: str, module: str, mutants: list[str]) -> list[str]:
    """A line for each: the function, its number, and the lines as they were and as they were changed."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    os.chdir(BUILD / name)  # where mutmut looks for its settings
    lines = []
    for mutant in mutants:
        diff = get_diff_for_mutant(mutant, path=f"pocketbert/{module}").splitlines()[2:]
        was, became = (" ".join(each[1:].strip() for each in diff if each[0] == sign) for sign in "-+")
        lines.append(f"{mutant.removeprefix('pocketbert.').replace('__mutmut_', ' ')}\n  - {was}\n  + {became}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
