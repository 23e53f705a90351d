"""Builds android_demo with Maven and runs its tests and programs on any JVM.

Takes a JDK (17 or later) and Maven, which fetches the Kotlin compiler and the libraries from Maven Central. What was
compiled is in each module's target/, with the reports of its tests.
Leaves out: Gradle, which app developers use on the same sources.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ANDROID = REPOSITORY / "android_demo"
NATIVES = ANDROID / "target/natives"
AAPT2 = Path("/usr/bin/aapt2")
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
OLDEST_JAVA = 17
HEAP = "-Xmx2g"  # the longest texts of the contract; the rest runs in far less


def missing() -> str:
    """What this machine lacks to build; empty if nothing."""
    for tool in ("javac", "mvn"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    shown = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=False)
    version = (shown.stdout + shown.stderr).removeprefix("javac ").partition(".")[0].strip()
    if not version.isdigit() or int(version) < OLDEST_JAVA:
        return f"javac is {version or 'of no known version'}, {OLDEST_JAVA} or later is needed"
    return ""


def missing_for_app() -> str:
    """What this machine lacks to link the app's resources; empty if nothing."""
    lacking = [str(file) for file in (AAPT2, FRAMEWORK) if not file.exists()]
    return f"no {' and no '.join(lacking)} (Debian's packages aapt and android-framework-res)" if lacking else ""


def maven(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Maven on android_demo, quietly; without the app where that cannot be built."""
    command = ["mvn", "--batch-mode", "--quiet", "--file", str(ANDROID), *arguments]
    if missing_for_app():
        command.append("--activate-profiles=!app")
    return subprocess.run(command, capture_output=True, text=True, check=False)


@functools.cache
def build(module: str = "core") -> str:
    """Compiles a module with its tests and what it needs, unless that was done before. Returns the class path."""
    target, state = ANDROID / module / "target", _state()
    seal, libraries = target / "state", target / "classpath"
    if not seal.exists() or seal.read_text() != state:
        done = maven("--projects", module, "--also-make", "process-test-classes")
        if done.returncode:
            raise RuntimeError(f"android_demo does not compile:\n{done.stdout}{done.stderr}")
        seal.write_text(state)
    return os.pathsep.join([str(target / "classes"), str(target / "test-classes"), libraries.read_text()])


def test(*properties: str) -> subprocess.CompletedProcess[str]:
    """Compiles every module and runs its tests; a failing test is in the reports, and is no failure of the build."""
    done = maven("test", "-Dmaven.test.failure.ignore=true", *properties)
    if not done.returncode:
        for libraries in ANDROID.glob("*/target/classpath"):
            libraries.with_name("state").write_text(_state())
    return done


def _state() -> str:
    """A hash of all that is compiled, and of how."""
    sources = [*ANDROID.glob("*/src/**/*.kt"), *ANDROID.glob("*/src/**/*.xml"), *ANDROID.glob("**/pom.xml")]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sorted(sources))).hexdigest()


def java(main: str, *arguments: object, cases: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs a main class, with `cases` on its standard input."""
    command = command_line(main, *arguments)
    return subprocess.run(command, input=cases, capture_output=True, check=False)


def command_line(main: str, *arguments: object) -> list[str]:
    """The command for a main class, named by module and class: `core.ReplayKt`."""
    module = main.partition(".")[0]
    natives = f"-Dpocketbert.natives={NATIVES}"
    return ["java", HEAP, natives, "-cp", build(module), f"io.pocketbert.{main}", *map(str, arguments)]
