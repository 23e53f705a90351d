"""The same TFLite files by several versions of LiteRT, beside onnxruntime: a version picks its own kernels.

    python tests/benchmarks/litert_versions.py --work DIR      DIR as measure.py left it; some minutes

Takes bundles of the base shapes, and versions from the package index, each into an environment of its own. Writes
results/litert-versions.json beside this file. Processes take turns, one at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Annotated, Any

import typer
from measure import FAMILIES, keep

HERE = Path(__file__).resolve().parent
VERSIONS = ("1.4.0", "2.1.0", "2.3.0")
LENGTHS = (16, 24, 32, 48, 64, 128)
ROUNDS = 3
BUNDLES = {"int8": "{}-bundle", "int4": "{}-four-bits-bundle"}


def main(work: Annotated[Path, typer.Option(help="Folder of measure.py.")]) -> None:
    """Measure, and write results/litert-versions.json."""
    pythons = {version: install(work / f"litert-{version}", version) for version in VERSIONS}
    samples: dict[str, dict[str, list[Any]]] = {}
    for _ in range(ROUNDS):
        for family in FAMILIES:
            models = {
                f"LiteRT {version}, {bits}": (python, work / bundle.format(family) / "model.tflite")
                for bits, bundle in BUNDLES.items()
                for version, python in pythons.items()
            }
            models["onnxruntime, int8"] = (Path(sys.executable), work / f"{family}-onnx" / "model.int8.onnx")
            for name, (python, model) in models.items():
                print(family, name, flush=True)
                samples.setdefault(family, {}).setdefault(name, []).append(run(python, model))
    keep("litert-versions", samples)


def install(folder: Path, version: str) -> Path:
    """A Python that has this LiteRT and numpy."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"ai-edge-litert=={version}", "numpy"], check=True)
    return python


def run(python: Path, model: Path) -> Any:
    """Seconds of each run, by length."""
    command = [python, HERE / "time_model.py", model, *map(str, LENGTHS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout.decode().splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
