"""The bundle format: what manifest.json says, checked before anything else is opened.

Takes a bundle folder. Returns a frozen `Manifest`; `verify_files` compares files with their hashes.
Leaves out: writing bundles (export/bundle.py) and running artifacts (engines/).
contract/BUNDLE.md describes the format for every language; manifest.schema.json beside it is its JSON Schema.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

from pocketbert.runtime.errors import BundleError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SEQUENCE_CLASSIFICATION = "sequence-classification"
TOKEN_CLASSIFICATION = "token-classification"
QUESTION_ANSWERING = "question-answering"
TASKS = (SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING)
# Whether a bundle may take two texts at once: an answer always comes out of two, entities out of one.
PAIRS = {SEQUENCE_CLASSIFICATION: (False, True), TOKEN_CLASSIFICATION: (False,), QUESTION_ANSWERING: (True,)}
FORMATS = ("executorch", "tflite", "coreml")  # of artifacts; each has an exporter and an engine of its name
FOUR_BIT_SCHEME = "dynamic_wi4_afp32"  # the one scheme whose weights need another runtime, and other limits
PARTS = ("embeddings", "layers", "head", "graph")  # where an artifact's bytes go
ACTIVATIONS = ("int8", "int8_per_tensor", "fp16", "fp32")
HASH_BLOCK = 1 << 20  # bytes read at a time
LARGEST_MANIFEST = 1 << 24  # bytes: a hundred thousand labels fit; more is no manifest
LARGEST_INT32 = 2**31 - 1
SHA256 = re.compile(r"[0-9a-f]{64}")
# How a manifest ends: the sha256 of all bytes before this, so that a bit that flips anywhere is noticed.
SEAL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')
LENGTH = "{length}"  # stands in an artifact's entry for the number of ids

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

    @property
    def by_token(self) -> bool:
        """Whether it has a row for each token, those of padding included."""
        return None in self.shape


@dataclass(frozen=True)
class Artifact:
    """One runnable form of the model. `path` is a file, or a folder of `files`."""

    format: str  # one of FORMATS
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
class Calibration:
    """What weights of 4 bits were rounded by, and what they became: `check` rounds the checkpoint again to compare."""

    texts: int
    texts_sha256: str  # of their token ids: the texts themselves are nobody's business
    weights_sha256: str  # of all whole numbers and scales
    eight_bit_layers: int = 0  # so many of the first ones keep 8 bits


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
    outputs: tuple[Tensor, ...]
    tokenizer: File
    tokenizer_tables: File  # the same tokenizer for phones
    golden: File
    artifacts: tuple[Artifact, ...]
    source: Mapping[str, Any]  # name, weights_sha256, ignored_tensors
    tools: Mapping[str, str]  # package -> version that made the bundle
    pairs: bool = False  # takes two texts as well; a question and the text to answer it from always are two
    calibration: Calibration | None = None  # where weights have 4 bits
    format_version: int = FORMAT_VERSION

    @property
    def files(self) -> tuple[File, ...]:
        """Every file of the bundle but manifest.json."""
        own = (self.tokenizer, self.tokenizer_tables, self.golden)
        return (*own, *(file for artifact in self.artifacts for file in artifact.files))

    @property
    def by_token(self) -> bool:
        """Whether logits are for each token, not for the whole input."""
        return self.outputs[0].by_token

    def artifact(self, format_name: str) -> Artifact:
        """The artifact of that format. Raises BundleError naming the ones there are."""
        for artifact in self.artifacts:
            if artifact.format == format_name:
                return artifact
        there = ", ".join(artifact.format for artifact in self.artifacts)
        raise BundleError(f"the bundle has no {format_name} artifact: it has {there}")

    def padded_length(self, tokens: int) -> int:
        """The smallest of `lengths` that holds `tokens`."""
        return next(length for length in self.lengths if length >= tokens)


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes manifest.json, sealed."""
    body = json.dumps(describe(manifest), indent=1, ensure_ascii=False).removesuffix("\n}").encode()
    seal = f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'
    (folder / MANIFEST).write_bytes(body + seal.encode())


def describe(manifest: Manifest) -> dict[str, Any]:
    """The fields as manifest.json has them, but for the seal. One output is `output`, and `pairs` and `calibration` are
    there where they hold: so a bundle that the first readers can run is one that they can read."""
    content = {"format_version": manifest.format_version, **asdict(manifest)}
    outputs = content.pop("outputs")
    content |= {"output": outputs[0]} if len(outputs) == 1 else {"outputs": outputs}
    return {key: value for key, value in content.items() if key not in ("pairs", "calibration") or value}


def read_manifest(folder: str | Path) -> Manifest:
    """Reads and checks manifest.json. Raises BundleError; opens no other file."""
    file = Path(folder) / MANIFEST
    try:
        raw = read_regular(file, LARGEST_MANIFEST)
        content = json.loads(raw.decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"no {MANIFEST} in {folder}: is it a bundle made by `pocketbert export`?") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise BundleError(f"cannot read {file}: {problem}") from problem
    try:
        manifest = _manifest(content)
        _check_seal(raw, content)
        return manifest
    except BundleError as problem:
        raise BundleError(f"{file}: {problem}") from None


def verify_files(folder: str | Path, files: Sequence[File]) -> None:
    """Compares size and sha256 of regular files below `folder`. Raises BundleError naming the first that differs."""
    inside = Path(folder).resolve()
    for file in files:
        path = Path(folder) / file.path
        try:
            found = path.stat()
        except (OSError, ValueError):
            raise BundleError(f"{path} is missing: export the bundle again") from None
        if not stat.S_ISREG(found.st_mode) or not path.resolve().is_relative_to(inside):
            raise BundleError(f"{path} is not a regular file of the bundle: copy the file itself there")
        if found.st_size != file.bytes or _hash_readable(path) != file.sha256:
            raise BundleError(f"{path} is not the file that was exported: copy or export the bundle again")


def _hash_readable(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as problem:
        raise BundleError(f"cannot read {path}: {problem.strerror or problem}") from problem


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes. Raises OSError; a FIFO would be waited for, for ever."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError("it is not a regular file")
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(f"it has more than {most} bytes")
    return content


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
    if type(version) is not int or version != FORMAT_VERSION:  # true and 1.0 are equal to 1
        raise BundleError(f"format_version is {version!r}, this runtime reads {FORMAT_VERSION}: export again")
    fields = _Fields(content)
    manifest = Manifest(
        task=fields.choice("task", TASKS),
        architecture=fields.take("architecture", str),
        labels=fields.sequence("labels", str),
        multi_label=fields.take("multi_label", bool),
        lengths=fields.sequence("lengths", int),
        max_length=fields.take("max_length", int),
        pad_id=fields.natural("pad_id"),
        scheme=fields.take("scheme", str),
        input=_tensor(fields.child("input")),
        outputs=_outputs(fields, answers=content.get("task") == QUESTION_ANSWERING),
        tokenizer=_file(fields.child("tokenizer")),
        tokenizer_tables=_file(fields.child("tokenizer_tables")),
        golden=_file(fields.child("golden")),
        artifacts=fields.children("artifacts", _artifact),
        source=_source(fields.child("source")),
        tools=fields.table("tools", str),
        pairs=fields.take("pairs", bool) if "pairs" in content else False,
        calibration=_calibration(fields.child("calibration")) if "calibration" in content else None,
    )
    _check(manifest)
    return manifest


def _check_seal(raw: bytes, content: Mapping[str, Any]) -> None:
    """Compares the seal. The first bundles have none; then every field must be one that they had."""
    seal = SEAL.search(raw)
    if seal and hashlib.sha256(raw[: seal.start()]).hexdigest() != seal[1].decode():
        raise BundleError("it is not the file that was exported: copy or export the bundle again")
    unknown = content.keys() - {"output", *(field.name for field in fields_of(Manifest))}
    if not seal and unknown:
        raise BundleError(f"{min(unknown)!r} is unknown and no seal vouches for it: export the bundle again")


def make_outputs(task: str, labels: int) -> tuple[Tensor, ...]:
    """What every artifact of a task gives: for each label, for each label of each token, or start and end by token."""
    if task == QUESTION_ANSWERING:
        return tuple(Tensor(name, "float32", (1, None)) for name in ("start_logits", "end_logits"))
    tokens = (None,) if task == TOKEN_CLASSIFICATION else ()
    return (Tensor("logits", "float32", (1, *tokens, labels)),)


def _check(manifest: Manifest) -> None:
    answers = manifest.task == QUESTION_ANSWERING  # which have no labels
    if bool(manifest.labels) == answers or len(set(manifest.labels)) != len(manifest.labels):
        raise BundleError("labels repeat, are empty, or belong to another task")
    if manifest.multi_label and manifest.task != SEQUENCE_CLASSIFICATION:
        raise BundleError(f"multi_label is true, which {manifest.task} cannot be")
    if manifest.pairs not in PAIRS[manifest.task]:
        raise BundleError(f"pairs is {str(manifest.pairs).lower()}, which {manifest.task} cannot be")
    ascending = list(manifest.lengths) == sorted(set(manifest.lengths))
    if not ascending or not manifest.lengths or manifest.lengths[0] < 1:
        raise BundleError("lengths are not ascending positive numbers")
    if manifest.lengths[-1] != manifest.max_length:
        raise BundleError(f"the last of lengths is {manifest.lengths[-1]}, max_length is {manifest.max_length}")
    if manifest.max_length > LARGEST_INT32 or manifest.pad_id > LARGEST_INT32:
        raise BundleError(f"max_length or pad_id is more than {LARGEST_INT32}")
    if manifest.input != Tensor("input_ids", "int32", (1, None)):
        raise BundleError('input is not "input_ids", int32, [1, null]')
    expected = make_outputs(manifest.task, len(manifest.labels))
    if manifest.outputs != expected:
        shown = ", ".join(f'"{each.name}", {each.dtype}, {json.dumps(each.shape)}' for each in expected)
        raise BundleError(f"output is not {shown}, which {manifest.task} with {len(manifest.labels)} labels gives")
    _check_artifacts(manifest.artifacts)


def _check_artifacts(artifacts: Sequence[Artifact]) -> None:
    formats = [artifact.format for artifact in artifacts]
    if not formats or len(set(formats)) != len(formats):
        raise BundleError(f"artifacts are none, or two of a format: {', '.join(formats)}")
    for artifact in artifacts:
        paths = [file.path for file in artifact.files]
        if not paths or not all(path == artifact.path or path.startswith(f"{artifact.path}/") for path in paths):
            raise BundleError(f"the {artifact.format} artifact is {artifact.path!r}, its files are {', '.join(paths)}")
        rest = artifact.entry.replace(LENGTH, "")
        if not artifact.entry or "{" in rest or "}" in rest:
            raise BundleError(f"entry {artifact.entry!r} of the {artifact.format} artifact is no name with {LENGTH}")


def _artifact(fields: _Fields) -> Artifact:
    return Artifact(
        format=fields.take("format", str),
        path=_inside(fields.take("path", str)),
        entry=fields.take("entry", str),
        any_length=fields.take("any_length", bool),
        activations=fields.choice("activations", ACTIVATIONS),
        requires=fields.table("requires", str),
        parts={part: fields.child("parts").natural(part) for part in PARTS},
        files=fields.children("files", _file),
    )


def _file(fields: _Fields) -> File:
    return File(_inside(fields.take("path", str)), fields.natural("bytes"), fields.sha256("sha256"))


def _tensor(fields: _Fields) -> Tensor:
    shape = tuple(fields.take("shape", list))
    if not all(size is None or type(size) is int for size in shape):
        raise BundleError(f"{fields.name('shape')} holds something else than int and null")
    return Tensor(fields.take("name", str), fields.take("dtype", str), shape)


def _outputs(fields: _Fields, answers: bool) -> tuple[Tensor, ...]:
    """A question's answer has two, all else has one."""
    if ("output" if answers else "outputs") in fields.content:
        raise BundleError("output or outputs belongs to another task")
    return fields.children("outputs", _tensor) if answers else (_tensor(fields.child("output")),)


def _source(fields: _Fields) -> dict[str, Any]:
    fields.take("name", str), fields.sha256("weights_sha256"), fields.sequence("ignored_tensors", str)
    return dict(fields.content)


def _calibration(fields: _Fields) -> Calibration:
    hashes = fields.sha256("texts_sha256"), fields.sha256("weights_sha256")
    return Calibration(fields.natural("texts"), *hashes, fields.natural("eight_bit_layers"))


def _inside(path: str) -> str:
    """Refuses a path that leaves the bundle on any system, or that no file can have: half of a surrogate pair."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or re.search("[\0\ud800-\udfff]", path):
        raise BundleError(f"path {path!r} leaves the bundle")
    return path


class _Fields:
    """A JSON object read field by field, so that an error can name the field."""

    def __init__(self, content: Any, where: str = "") -> None:
        if not isinstance(content, dict):
            raise BundleError(f"{where} is not an object")
        self.content, self.where = content, where

    def name(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def take(self, key: str, kind: type[T]) -> T:
        value: Any = self.content.get(key)
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if not right:
            raise BundleError(f"{self.name(key)} is missing or not a {kind.__name__}")
        return cast(T, value)

    def natural(self, key: str) -> int:
        value = self.take(key, int)
        if value < 0:
            raise BundleError(f"{self.name(key)} is negative")
        return value

    def sha256(self, key: str) -> str:
        value = self.take(key, str)
        if not SHA256.fullmatch(value):
            raise BundleError(f"{self.name(key)} is no sha256 in lower-case hexadecimal")
        return value

    def table(self, key: str, kind: type[T]) -> dict[str, T]:
        values = self.take(key, dict)
        if not all(isinstance(value, kind) for value in values.values()):
            raise BundleError(f"{self.name(key)} holds something else than {kind.__name__}")
        return dict(values)

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
