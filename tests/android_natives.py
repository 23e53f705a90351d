"""The engines' native libraries for the JVM tests of android_demo, in android_demo/target/natives.

Takes the installed wheels: LiteRT's library is used as it is, ExecuTorch's through a small library that g++ compiles
against the wheel. Returns the folder; prints, for each engine that cannot run here, what it lacks.
Leaves out: what phones ship.

    .venv/bin/python tests/android_natives.py
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from android_build import ANDROID, NATIVES

SOURCE = ANDROID / "host/src/main/cpp/executorch_host.cc"
LITERT = "libLiteRt.so"
EXECUTORCH = "libexecutorch_host.so"


class Lacking(Exception):
    """What this machine has not."""


def make(folder: Path = NATIVES) -> dict[str, str]:
    """Fills the folder. Returns, for each engine that cannot run in a JVM here, why."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = {}
    for engine, file, provide in (("litert", LITERT, _link_litert), ("executorch", EXECUTORCH, _compile_executorch)):
        try:
            provide(folder / file)
        except Lacking as problem:
            (folder / file).unlink(missing_ok=True)
            problems[engine] = str(problem)
    return problems


def _package(name: str) -> Path:
    """The folder of an installed package."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise Lacking(f"{name} is not installed")
    return Path(next(iter(found.submodule_search_locations)))


def _existing(folder: Path, pattern: str) -> Path:
    for file in sorted(folder.glob(pattern)):
        return file
    raise Lacking(f"there is no {pattern} in {folder.name}")


def _link_litert(link: Path) -> None:
    library = _existing(_package("ai_edge_litert"), LITERT)
    if not link.is_symlink() or link.resolve() != library.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(library)


def _compile_executorch(library: Path) -> None:
    """Compiles the library, unless the one that is there is of the same source and wheel."""
    if not shutil.which("g++"):
        raise Lacking("g++ is not installed")
    wheel = _package("executorch")
    runtime = _existing(wheel, "extension/pybindings/_portable_lib*.so")
    # The runtime was built as a Python module: its library must be in the process, though no Python runs.
    python = _existing(Path(sysconfig.get_config_var("LIBDIR")), f"libpython3.{sys.version_info[1]}.so*")
    libraries = [runtime, _existing(wheel, "backends/qualcomm/libqnn_executorch_backend.so"), python]
    folders = [*(file.parent for file in libraries), _package("torch") / "lib"]
    include = wheel / "include"
    command = ["g++", "-std=c++20", "-O2", "-fPIC", "-shared", "-DC10_USING_CUSTOM_GENERATED_MACROS", str(SOURCE), "-o"]
    options = [f"-I{include}", f"-I{include / 'executorch/runtime/core/portable_type/c10'}", *map(str, libraries)]
    options += [f"-Wl,-rpath,{folder}" for folder in folders] + ["-Wl,--allow-shlib-undefined", "-Wl,--no-as-needed"]
    state = hashlib.sha256(SOURCE.read_bytes() + " ".join(options).encode()).hexdigest()
    seal = library.with_suffix(".sha256")
    if library.exists() and seal.exists() and seal.read_text() == state:
        return
    fresh = library.with_suffix(f".{os.getpid()}")
    done = subprocess.run([*command, str(fresh), *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Lacking(f"{SOURCE.name} does not compile against this wheel: {done.stderr.strip()}")
    os.replace(fresh, library)
    seal.write_text(state)


if __name__ == "__main__":
    for engine, problem in make().items():
        print(f"{engine} cannot run in a JVM here: {problem}")
