"""The process of one turn of one engine: it opens the engine, then times what its parent asks for.

Takes a subject as a line of JSON on stdin, then a line for each task. Prints a line of JSON on stdout for each: seconds
and bytes as they were measured. Leaves out: choosing texts, order and statistics (measure.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketbert.runtime import engines
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import Artifact, Manifest, read_manifest
from pocketbert.runtime.tasks import MODELS, open_model
from pocketbert.runtime.tokenizer import Tokenizer

WARM_UP = 3  # runs that are not counted: the first of a length may allocate, and the core may have slept
SETTLED = 10  # the first of so many parts of a soak is left out: by then every length has run once


def main() -> None:
    """Answers one line for each line of stdin, until it ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native libraries print must not end up between the answers
    subject = json.loads(sys.stdin.readline())
    model, first = _open(subject)
    print(json.dumps(first), file=replies, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        answer = _soak(model, task["texts"], task["soak"]) if "soak" in task else _time(model, task["texts"])
        print(json.dumps(answer), file=replies, flush=True)


def _open(subject: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The opened model, and what it took to get to a first label."""
    for library in engines.load_module(subject["engine"]).LIBRARIES:
        importlib.import_module(library)
    importlib.import_module("tokenizers")
    tokenizer = None if subject["start"] else _load_tokenizer(Path(subject["bundle"]))
    idle, started = resident(), time.perf_counter()
    try:
        model = _open_model(subject, tokenizer)
    except PocketbertError as problem:
        return None, {"error": str(problem)}
    opened = time.perf_counter()
    model(*subject["text"])
    labelled = time.perf_counter()
    times = {"open": opened - started, "first_label": labelled - started}
    return model, {"version": model.engine.version, "idle_bytes": idle, **times}


def _load_tokenizer(folder: Path) -> Tokenizer:
    """Loaded first where memory is measured: phones read the tables of BUNDLE.md instead, which take a megabyte, while
    the library takes up to 54. What it needed for a moment is given back, or the engine would seem to need less."""
    tokenizer = _read_tokenizer(folder, read_manifest(folder))
    tokenizer("a text")
    with contextlib.suppress(AttributeError, OSError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return tokenizer


def _open_model(subject: dict[str, Any], tokenizer: Tokenizer | None) -> Any:
    """A model as an app opens it; or around a tokenizer that is there already, or a model beside the bundle."""
    folder, engine, threads = Path(subject["bundle"]), subject["engine"], subject["threads"]
    if tokenizer is None and not subject["model"]:
        return open_model(folder, engine, threads)
    manifest = read_manifest(folder)
    if subject["model"]:
        manifest = replace(manifest, artifacts=(_describe_model(engine, subject["model"]),))
    outputs = [output.name for output in manifest.outputs]
    artifact = manifest.artifact(engines.kind(engine))
    opened = engines.open_engine(engine, folder, artifact, threads, outputs=outputs)
    return MODELS[manifest.task](manifest, tokenizer or _read_tokenizer(folder, manifest), opened)


def _describe_model(engine: str, model: str) -> Artifact:
    """A model that is no part of the bundle, which takes texts of the bundle's tokenizer at their own length."""
    return Artifact(engine, model, entry="", any_length=True, activations="", requires={}, parts={}, files=())


def _read_tokenizer(folder: Path, manifest: Manifest) -> Tokenizer:
    return Tokenizer(folder / manifest.tokenizer.path, manifest.max_length)


def _time(model: Any, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Seconds of each text, from text to label and for the model alone."""
    ids = [model.tokenizer(*text) for text in texts]
    for text in (list(texts) * WARM_UP)[:WARM_UP]:
        model(*text)
    labels = [_seconds(model, *text) for text in texts]
    alone = [_seconds(model.run, row) for row in ids]
    return {"text_to_label": labels, "model": alone, "peak_bytes": peak(), "resident_bytes": resident()}


def _soak(model: Any, texts: Sequence[Sequence[str]], count: int) -> dict[str, Any]:
    """Labels `count` texts and tells how far memory moved, after the first part of them."""
    settled = 0
    for index in range(count):
        model(*texts[index % len(texts)])
        if index == count // SETTLED:
            settled = resident()
    end = resident()
    drift = (end - settled) / settled if settled else 0.0
    return {"texts": count, "settled_bytes": settled, "resident_bytes": end, "drift": drift}


def _seconds(function: Any, *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def resident() -> int:
    """Bytes of this process that are in memory, mapped files included; 0 where the system does not tell."""
    return _status("VmRSS")


def peak() -> int:
    """The most that was resident at once."""
    return _status("VmHWM")


def _status(field: str) -> int:
    """A figure of /proc/self/status, which Linux has; in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


if __name__ == "__main__":
    main()
