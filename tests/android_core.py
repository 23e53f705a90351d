"""Compiles android_demo/core with its tests, and runs what comes out, on any JVM.

Takes a JDK (17 or later) and npm, whose package `kotlin-compiler` holds the compiler and the standard library. Keeps
it in .kotlin/, with a build for each state of the sources.
Leaves out: Gradle, which app developers use on the same sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CORE = REPOSITORY / "android_demo/core/src"
CACHE = REPOSITORY / ".kotlin"
COMPILER = "kotlin-compiler@2.4.20"
COMPILER_CLASS = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
OLDEST_JAVA = 17
KEPT_BUILDS = 4  # a contract may be running on an older one
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # a compiler that runs once: half the time
HEAP = "-Xmx2g"  # the longest texts of the contract; the rest runs in far less


def missing() -> str:
    """What this machine lacks to build the core; empty if nothing."""
    for tool in ("java", "npm"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = shown.partition('"')[2].partition(".")[0]
    if not version.isdigit() or int(version) < OLDEST_JAVA:
        return f"java is {version or 'not a JDK'}, {OLDEST_JAVA} or later is needed"
    return ""


def build() -> str:
    """Compiles the core, its tests and the runner, unless this was done before. Gives the class path."""
    libraries = _compiler()
    sources = sorted(CORE.rglob("*.kt"))
    state = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    classes = CACHE / f"build-{state}"
    path = os.pathsep.join(str(libraries / name) for name in ("kotlin-stdlib.jar", "kotlin-test.jar"))
    if not classes.exists():
        builds = sorted(CACHE.glob("build-*"), key=lambda folder: folder.stat().st_mtime)
        for old in builds[:-KEPT_BUILDS]:
            shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            command = ["java", HEAP, *QUICK_START, "-cp", str(libraries / "kotlin-compiler.jar"), COMPILER_CLASS]
            options = ["-no-stdlib", "-no-reflect", "-Werror", "-cp", path, "-d", f"{scratch}/classes"]
            done = subprocess.run([*command, *options, *map(str, sources)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"android_demo/core does not compile:\n{done.stdout}{done.stderr}")
            os.replace(f"{scratch}/classes", classes)
    return f"{classes}{os.pathsep}{path}"


def java(main: str, *arguments: object, cases: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs a main class of the core, with `cases` on its standard input."""
    command = command_line(main, *arguments)
    return subprocess.run(command, input=cases, capture_output=True, check=False)


def command_line(main: str, *arguments: object) -> list[str]:
    return ["java", HEAP, "-cp", build(), f"io.pocketbert.core.{main}", *map(str, arguments)]


def _compiler() -> Path:
    """The folder with the compiler's jars; fetched from npm's registry the first time (90 MB)."""
    libraries = CACHE / COMPILER.replace("@", "-")
    if libraries.exists():
        return libraries
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        pack = ["npm", "pack", "--silent", COMPILER, "--pack-destination", scratch]
        done = subprocess.run(pack, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"npm could not fetch {COMPILER}:\n{done.stderr}")
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
            jars = [member for member in archive.getmembers() if member.name.endswith(".jar")]
            archive.extractall(scratch, jars, filter="data")
        os.replace(f"{scratch}/package/lib", libraries)
    return libraries
