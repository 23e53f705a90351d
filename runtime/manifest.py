"""The bundle format: what manifest.json says, checked before anything else is opened.

Takes a bundle folder. Gives a frozen `Manifest`; `verify` compares files with their hashes.
Leaves out: writing bundles (export/bundle.py) and running artifacts (engines/).
BUNDLE.md beside this file describes the format for every language; manifest.schema.json is its JSON Schema.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

from pocketbert.runtime.errors import BundleError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TASKS = ("sequence-classification",)
PARTS = ("embeddings", "layers", "head", "graph")  # where an artifact's bytes go
ACTIVATIONS = ("int8", "int8_per_tensor", "fp16", "fp32")
HASH_BLOCK = 1 << 20  # bytes read at a time

T = TypeVar("T")


@dataclass(frozen=True)
class File:
    """A file of the bundle, by its path inside it (forward slashes)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Tensor:
    """An input or output of every artifact; None in `shape` stands for the length in tokens."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Artifact:
    """One runnable form of the model. `path` is a file, or a folder of `files`."""

    format: str  # executorch, tflite, coreml
    path: str
    entry: str  # method, signature or function; "{length}" in it stands for the length in tokens
    any_length: bool  # takes 1 to max_length tokens; else only the manifest's lengths
    activations: str  # int8, fp16, fp32: which of the golden logits it must reproduce
    requires: Mapping[str, str]  # runtime or system -> version range
    parts: Mapping[str, int]  # bytes of embeddings, layers, head, and of everything else
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Manifest:
    """Everything an app must know before it opens an artifact."""

    task: str
    architecture: str
    labels: tuple[str, ...]  # in the order of the logits
    multi_label: bool  # sigmoid for each label; else softmax over all
    lengths: tuple[int, ...]  # ascending; a text is padded to the next one where any_length is false
    max_length: int  # longest input in tokens, special tokens included
    pad_id: int
    scheme: str
    input: Tensor
    output: Tensor
    tokenizer: File
    tokenizer_tables: File  # the same tokenizer for phones
    golden: File
    artifacts: tuple[Artifact, ...]
    source: Mapping[str, Any]  # name, weights_sha256, ignored_tensors
    tools: Mapping[str, str]  # package -> version that made the bundle
    format_version: int = FORMAT_VERSION

    def artifact(self, format: str) -> Artifact:
        """The artifact of `format`. Raises BundleError naming the ones there are."""
        for artifact in self.artifacts:
            if artifact.format == format:
                return artifact
        there = ", ".join(artifact.format for artifact in self.artifacts)
        raise BundleError(f"the bundle has no {format} artifact: it has {there}")

    def padded_length(self, tokens: int) -> int:
        """The smallest of `lengths` that holds `tokens`."""
        return next(length for length in self.lengths if length >= tokens)


def write(manifest: Manifest, folder: Path) -> None:
    """Writes manifest.json."""
    content = {"format_version": manifest.format_version, **asdict(manifest)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: str | Path) -> Manifest:
    """Reads and checks manifest.json. Raises BundleError; opens no other file."""
    file = Path(folder) / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"no {MANIFEST} in {folder}: is it a bundle made by `pocketbert export`?") from None
    except (OSError, ValueError) as problem:
        raise BundleError(f"cannot read {file}: {problem}") from problem
    try:
        return _manifest(content)
    except BundleError as problem:
        raise BundleError(f"{file}: {problem}") from None


def verify(folder: str | Path, files: Sequence[File]) -> None:
    """Compares size and sha256 of `files`. Raises BundleError naming the first that differs."""
    for file in files:
        path = Path(folder) / file.path
        try:
            size = path.stat().st_size
            found = hash_file(path) if size == file.bytes else None
        except OSError:
            raise BundleError(f"{path} is missing: export the bundle again") from None
        if found != file.sha256:
            raise BundleError(f"{path} is not the file that was exported: copy or export the bundle again")


def describe_file(folder: Path, path: str) -> File:
    """The manifest entry of a file in `folder`."""
    return File(path, (folder / path).stat().st_size, hash_file(folder / path))


def hash_file(*paths: Path) -> str:
    """sha256 of a file, or of several one after the other; hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while block := stream.read(HASH_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _manifest(content: Any) -> Manifest:
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(f"format_version is {version!r}, this runtime reads {FORMAT_VERSION}: export again")
    fields = _Fields(content)
    manifest = Manifest(
        task=fields.choice("task", TASKS),
        architecture=fields.take("architecture", str),
        labels=fields.sequence("labels", str),
        multi_label=fields.take("multi_label", bool),
        lengths=fields.sequence("lengths", int),
        max_length=fields.take("max_length", int),
        pad_id=fields.take("pad_id", int),
        scheme=fields.take("scheme", str),
        input=_tensor(fields.child("input")),
        output=_tensor(fields.child("output")),
        tokenizer=_file(fields.child("tokenizer")),
        tokenizer_tables=_file(fields.child("tokenizer_tables")),
        golden=_file(fields.child("golden")),
        artifacts=fields.children("artifacts", _artifact),
        source=fields.take("source", dict),
        tools=fields.take("tools", dict),
    )
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    if len(manifest.labels) < 1 or len(set(manifest.labels)) != len(manifest.labels):
        raise BundleError("labels are empty or repeat")
    ascending = list(manifest.lengths) == sorted(set(manifest.lengths))
    if not ascending or not manifest.lengths or manifest.lengths[0] < 1:
        raise BundleError("lengths are not ascending positive numbers")
    if manifest.lengths[-1] != manifest.max_length:
        raise BundleError(f"the last of lengths is {manifest.lengths[-1]}, max_length is {manifest.max_length}")
    if manifest.pad_id < 0:
        raise BundleError("pad_id is negative")


def _artifact(fields: _Fields) -> Artifact:
    return Artifact(
        format=fields.take("format", str),
        path=_inside(fields.take("path", str)),
        entry=fields.take("entry", str),
        any_length=fields.take("any_length", bool),
        activations=fields.choice("activations", ACTIVATIONS),
        requires=fields.take("requires", dict),
        parts=fields.take("parts", dict),
        files=fields.children("files", _file),
    )


def _file(fields: _Fields) -> File:
    return File(_inside(fields.take("path", str)), fields.take("bytes", int), fields.take("sha256", str))


def _tensor(fields: _Fields) -> Tensor:
    return Tensor(fields.take("name", str), fields.take("dtype", str), tuple(fields.take("shape", list)))


def _inside(path: str) -> str:
    """Refuses a path that leaves the bundle, on any system."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts or path.startswith("/") or ".." in parts or ":" in parts[0]:
        raise BundleError(f"path {path!r} leaves the bundle")
    return path


class _Fields:
    """A JSON object read field by field, so that an error can name the field."""

    def __init__(self, content: Any, where: str = "") -> None:
        if not isinstance(content, dict):
            raise BundleError(f"{where or 'manifest'} is not an object")
        self.content, self.where = content, where

    def name(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def take(self, key: str, kind: type[T]) -> T:
        value: Any = self.content.get(key)
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if not right:
            raise BundleError(f"{self.name(key)} is missing or not a {kind.__name__}")
        return cast(T, value)

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        value = self.take(key, str)
        if value not in allowed:
            raise BundleError(f"{self.name(key)} {value!r} is unknown here: {', '.join(allowed)}")
        return value

    def sequence(self, key: str, kind: type[T]) -> tuple[T, ...]:
        values = self.take(key, list)
        if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            raise BundleError(f"{self.name(key)} holds something else than {kind.__name__}")
        return tuple(values)

    def child(self, key: str) -> _Fields:
        return _Fields(self.take(key, dict), self.name(key))

    def children(self, key: str, build: Callable[[_Fields], T]) -> tuple[T, ...]:
        values = self.take(key, list)
        return tuple(build(_Fields(value, f"{self.name(key)}[{i}]")) for i, value in enumerate(values))
