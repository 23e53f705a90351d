"""Kotlin beside Python on the same engines: from text to label, start and memory, in processes that take turns.

    python tests/benchmarks/android.py --work DIR [--bundle DIR] [--json FILE]      five minutes, on a quiet machine

Takes a bundle, or makes one of DistilBERT-base's shape with random weights, which cost the same time as trained ones.
Returns a table of medians and every sample as JSON. Leaves out: phones. A JVM's start itself is not counted: an app's
process is there already.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import android_build  # noqa: E402
import android_natives  # noqa: E402

ENGINES = {"tflite": "litert", "executorch": "executorch"}  # of Python -> module
TURNS = 5  # processes of each kind; the first one installs, packs and checks, and is not counted
TOKENS = 10  # special tokens included: a short message
WARM_UP, ROUNDS = 300, 500  # as in Speed.kt
THREADS = 2


def main(
    work: Annotated[Path, typer.Option(help="Folder for the bundle and what engines keep.")],
    bundle: Annotated[Path | None, typer.Option(help="A bundle; else DistilBERT-base's shape.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for every sample.")] = None,
) -> None:
    """Measure, and print a table."""
    lacking = {**({"all": android_build.missing()} if android_build.missing() else {}), **android_natives.make()}
    folder = bundle or base_bundle(work)
    samples = {engine: measure(engine, folder, work) for engine, module in ENGINES.items() if module not in lacking}
    for problem in lacking.values():
        print(f"not measured: {problem}")
    for engine, turns in samples.items():
        show(engine, turns)
    if json_file:
        json_file.write_text(json.dumps({"tokens": TOKENS, "threads": THREADS, "samples": samples}))


def base_bundle(work: Path) -> Path:
    """A bundle of DistilBERT-base's shape with the demo's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    checkpoint, bundle = work / "distilbert-base", work / "distilbert-base-bundle"
    if not bundle.exists():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(AutoConfig.for_model("distilbert")).save_pretrained(checkpoint)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(android_build.REPOSITORY / "export/demo/distilbert" / file, checkpoint)
        command = [Path(sys.executable).with_name("pocketbert"), "export", checkpoint, "--out", bundle]
        subprocess.run([*command, "--formats", ",".join(ENGINES)], check=True)
    return bundle


def measure(engine: str, bundle: Path, work: Path) -> dict[str, list[Any]]:
    """The samples of processes that take turns, by language."""
    text = message(bundle)
    module = ENGINES[engine]
    kotlin = android_build.command_line(f"{module}.SpeedKt", bundle, work / f"scratch-{module}", text)
    # A phone's app has a heap of a few dozen megabytes and keeps to it; a JVM left alone takes gigabytes first.
    kotlin[1:1] = ["-XX:+UseSerialGC", "-Xms8m"]
    python = [sys.executable, __file__, "--worker", engine, str(bundle), text]
    turns: dict[str, list[Any]] = {"kotlin": [], "python": []}
    for _ in range(TURNS):
        for language, command in (("kotlin", kotlin), ("python", python)):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            turns[language].append(json.loads(done.stdout.splitlines()[-1]))
    return {language: found[1:] for language, found in turns.items()}


def message(bundle: Path) -> str:
    """A text of TOKENS ids."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    text = ""
    while len(tokenizer.encode(text).ids) < TOKENS:
        text += " film"
    return text.strip()


def worker(engine: str, bundle: str, text: str) -> None:
    """What Speed.kt does, with the Python runtime."""
    import importlib

    from pocketbert.runtime import Classifier

    # An app's process has loaded its libraries before it opens a model.
    importlib.import_module("ai_edge_litert.compiled_model" if engine == "tflite" else "executorch.runtime")
    before, started, worked = resident(), time.perf_counter(), time.process_time()
    with Classifier.open(bundle, engine, threads=THREADS) as classifier:
        classifier(text)
        start, work = time.perf_counter() - started, time.process_time() - worked
        for _ in range(WARM_UP):
            classifier(text)
        labels = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            classifier(text)
            labels.append(round((time.perf_counter() - begin) * 1e6))
        grown = resident() - before
    print(json.dumps({"start_ms": start * 1e3, "work_ms": work * 1e3, "label_us": labels, "grown_bytes": grown}))


def resident() -> int:
    """The bytes that this process holds in memory, by /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def show(engine: str, samples: dict[str, list[Any]]) -> None:
    """A line for each figure: Kotlin, Python, and their ratio."""

    def median(language: str, name: str) -> float:
        found = [turn[name] for turn in samples[language] if name in turn]
        return statistics.median(statistics.median(value) if isinstance(value, list) else value for value in found)

    print(f"{engine}: {TOKENS} tokens, {THREADS} threads; medians of {TURNS - 1} processes each, Kotlin / Python")
    for name, scale, unit in (
        ("label_us", 1, "µs"),
        ("start_ms", 1, "ms"),
        ("work_ms", 1, "ms"),
        ("grown_bytes", 1e6, "MB"),
    ):
        kotlin, python = (median(language, name) / scale for language in ("kotlin", "python"))
        print(f"  {name:16}{kotlin:10.1f} {python:10.1f} {unit}   ratio {kotlin / python:.2f}")
    print(f"  without engine  {median('kotlin', 'rest_us'):10.1f} µs, {median('kotlin', 'allocated_bytes'):.0f} bytes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        typer.run(main)
