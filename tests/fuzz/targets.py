"""What is fuzzed in Python: readers of files that came from elsewhere. They may refuse, with their own error; no more.

A target takes bytes, which it writes where its reader looks for them, in a scratch folder. It raises whatever the
reader should not have raised, or AssertionError for a promise that was not kept.
Leaves out: how bytes are made (mutation.py, atheris) and how long (run.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mutation import mutate_bytes, mutate_json, mutate_protobuf

from pocketbert.runtime import manifest, self_check
from pocketbert.runtime.engines.coreml import mil
from pocketbert.runtime.engines.coreml.mil import weights
from pocketbert.runtime.errors import BundleError, EngineError
from pocketbert.runtime.tokenizer import Tokenizer

warnings.simplefilter("ignore")  # numpy's about overflow: the values are refused or not, warned of or not

PACKAGE, MODEL = "model.mlpackage", "Data/com.apple.CoreML/model.mlmodel"
SCRATCH = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)  # memory is ten times as fast
WORDS_KEPT = 200  # of a vocabulary: mutations shall hit more than words
LONGEST_MESSAGE = 1000  # characters; an error is a line that someone reads
TEXTS = ("", "a lovely film, not bad", "日本 \u0301é\u200d😀 [MASK]", "x" * 300, "\ud800\0\n")


@dataclasses.dataclass(frozen=True)
class Target:
    """One reader."""

    seeds: Callable[[Path], list[bytes]]  # of a bundle that was exported
    open: Callable[[Path, Path], Callable[[bytes], None]]  # the bundle and an empty folder -> what runs one input
    mutate: Callable[..., bytes]


def refuses(error: type[Exception], read: Callable[[], Any]) -> Any:
    """What `read` gives, or None if it raised `error` with a line that can be shown."""
    try:
        return read()
    except error as problem:
        message = str(problem)
        assert message and "\n" not in message, f"not one line: {message[:LONGEST_MESSAGE]!r}"
        assert len(message) < LONGEST_MESSAGE, f"a line of {len(message)} characters: {message[:200]!r}"
        return None


def open_manifest(_: Path, scratch: Path) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        (scratch / manifest.MANIFEST).write_bytes(data)
        found = refuses(BundleError, lambda: manifest.read_manifest(scratch))
        if found is None:
            return
        assert 0 < found.padded_length(1) <= found.lengths[-1] == found.max_length
        assert found.outputs == manifest.make_outputs(found.task, len(found.labels))
        assert all((scratch / file.path).resolve().is_relative_to(scratch) for file in found.files)
        refuses(BundleError, lambda: manifest.verify_files(scratch, found.files))

    return run


def open_golden(bundle: Path, scratch: Path) -> Callable[[bytes], None]:
    own = manifest.read_manifest(bundle)

    def run(data: bytes) -> None:
        (scratch / own.golden.path).write_bytes(data)
        entry = manifest.File(own.golden.path, len(data), hashlib.sha256(data).hexdigest())
        sealed = dataclasses.replace(own, golden=entry)
        found = refuses(BundleError, lambda: self_check.read_golden(scratch, sealed))
        for case in found.cases if found else ():
            assert case.ids.ndim == 1 and case.logits.shape == (len(own.labels),)
            assert isinstance(case.text, str) and np.isfinite(case.logits).all() and case.oracle

    return run


def open_tokenizer(_: Path, scratch: Path) -> Callable[[bytes], None]:
    file = scratch / "tokenizer.json"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        tokenizer = refuses(BundleError, lambda: Tokenizer(file, 16))
        for text in TEXTS if tokenizer else ():
            ids = refuses(BundleError, lambda text=text: tokenizer(text))
            assert ids is None or (ids.ndim == 1 and len(ids) <= 16)

    return run


def open_package(bundle: Path, scratch: Path) -> Callable[[bytes], None]:
    """The program; the weights are those of the bundle."""
    shutil.copytree(bundle / PACKAGE, scratch / PACKAGE)

    def run(data: bytes) -> None:
        (scratch / PACKAGE / MODEL).write_bytes(data)
        refuses(EngineError, lambda: mil.load(scratch / PACKAGE))

    return run


def open_package_manifest(bundle: Path, scratch: Path) -> Callable[[bytes], None]:
    shutil.copytree(bundle / PACKAGE, scratch / PACKAGE)
    (scratch / PACKAGE / MODEL).write_bytes(b"")

    def run(data: bytes) -> None:
        (scratch / PACKAGE / "Manifest.json").write_bytes(data)
        refuses(EngineError, lambda: mil.load(scratch / PACKAGE))

    return run


def open_weights(_: Path, scratch: Path) -> Callable[[bytes], None]:
    """A blob file; the input's last four bytes say where a program looks for a blob."""
    file = scratch / "weight.bin"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        for offset in (64, int.from_bytes(data[-4:], "little"), -1, len(data) - 8):
            refuses(EngineError, weights.Blob(file, offset).read)

    return run


def weight_seeds(_: Path) -> list[bytes]:
    """A blob of each type, written as weights.py describes them."""
    seeds = []
    for code, dtype in weights.BLOB_TYPES.items():
        data = np.arange(5).astype(dtype).tobytes()
        blob = struct.pack("<IIQQ", weights.SENTINEL, code, len(data), 128).ljust(64, b"\0") + data
        seeds.append(struct.pack("<II", 1, weights.VERSION).ljust(64, b"\0") + blob + (64).to_bytes(4, "little"))
    return seeds


def tokenizer_seeds(bundle: Path) -> list[bytes]:
    content = json.loads((bundle / "tokenizer.json").read_bytes())
    vocabulary = content["model"]["vocab"]
    short = list(vocabulary.items() if isinstance(vocabulary, dict) else vocabulary)[:WORDS_KEPT]
    content["model"]["vocab"] = dict(short) if isinstance(vocabulary, dict) else short
    return [json.dumps(content).encode()]


def file_of(path: str) -> Callable[[Path], list[bytes]]:
    return lambda bundle: [(bundle / path).read_bytes()]


TARGETS = {
    "manifest": Target(file_of(manifest.MANIFEST), open_manifest, mutate_json),
    "golden": Target(file_of("golden.json"), open_golden, mutate_json),
    "tokenizer": Target(tokenizer_seeds, open_tokenizer, mutate_json),
    "package": Target(file_of(f"{PACKAGE}/{MODEL}"), open_package, mutate_protobuf),
    "package_manifest": Target(file_of(f"{PACKAGE}/Manifest.json"), open_package_manifest, mutate_json),
    "weights": Target(weight_seeds, open_weights, mutate_bytes),
}
