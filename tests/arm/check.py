"""Runs golden cases through the Arm kernels of LiteRT and ExecuTorch, under emulation, and reports how near they come.

    python tests/arm/check.py BUNDLE...          what `make check-arm` does with those of the demo

Takes bundles. Returns a line for each bundle and engine. Exit status 1 where an answer is further from the oracle than
the runtime tolerates; 0 with a line that says so where emulation is not to be had. Leaves out: phones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = ROOT / ".venv" / "arm"
SOURCES = ROOT / ".venv" / "typed"  # where the folders of this repository are importable as pocketbert
ENGINES = ("tflite", "executorch")
TIME_LIMIT = 900  # seconds; emulation is some thirty times slower than the machine


def main(bundles: list[str]) -> int:
    problem = build()
    if problem:
        print(f"check-arm skipped: {problem}")
        return 0
    print("Arm kernels under emulation (qemu, Cortex-A76), 1 thread")
    verdicts = [report(Path(bundle), engine) for bundle in bundles for engine in ENGINES]
    return 0 if all(verdicts) else 1


def build() -> str:
    """Makes the emulated environment; gives the reason where it cannot be made."""
    done = subprocess.run([HERE / "environment", ENVIRONMENT], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout or done.stderr).strip().splitlines()[-1]


def report(bundle: Path, engine: str) -> bool:
    """Prints how near `engine` came, and gives whether that is near enough."""
    found = run("golden.py", str(bundle), engine)
    if "error" in found:
        print(f"  {bundle.name:<17} {engine:<11} FAILED: {found['error']}")
        return False
    near = found["oracle_gap"] <= found["tolerance"]
    print(
        f"  {bundle.name:<17} {found['version']:<22} {found['agree']} of {found['cases']} have the checkpoint's label; "
        f"largest gap to the oracle {found['oracle_gap']:.4f}, to the checkpoint {found['checkpoint_gap']:.4f}"
        f"{'' if near else '  MISSED: over ' + str(found['tolerance'])}"
    )
    return near


def run(script: str, *arguments: str) -> dict[str, Any]:
    """Runs a script of this folder in the emulated Python and reads its last line."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "POCKETBERT_CACHE": str(ENVIRONMENT / "cache")}
    command = [ENVIRONMENT / "python", HERE / script, *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {TIME_LIMIT} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
