"""Self-check: before an engine is trusted on this host it answers the bundle's golden cases.

Takes an opened model. Returns nothing, or raises an EngineError that names engine, version and difference.
Leaves out: gates over data (check/). A marker of a passed self-check is kept in the cache folder, by artifact and
engine version, so it costs its time once.

A runtime that lacks the right kernels does not always refuse, it may answer: ENGINES.md names versions that compute
such files to the end and are wrong.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from pocketbert.runtime.cache import cache_folder
from pocketbert.runtime.errors import BundleError, EngineError
from pocketbert.runtime.manifest import Artifact, Manifest, read_regular, verify_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.engines import Engine
    from pocketbert.runtime.tokenizer import Tokenizer

# Bundles say themselves how far a probability may be off; the first ones did not, and this was the limit then.
UNSTATED_TOLERANCE = 0.05
LARGEST_GOLDEN = 1 << 24  # bytes: some thousand texts of the longest kind
SHOWN = 40  # characters of a text in a message


T = TypeVar("T", np.int32, np.float32)


class Model(Protocol):
    """What is checked: a `runtime.model.Model`, whatever its task."""

    manifest: Manifest
    artifact: Artifact
    tokenizer: Tokenizer
    engine: Engine

    def run(self, ids: NDArray[np.int32]) -> NDArray[np.float32]: ...

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class GoldenCase:
    """A text, or two, with what it must become: ids int32 (tokens,), logits float32 as `Model.run` gives them."""

    text: str
    ids: NDArray[np.int32]
    logits: NDArray[np.float32]  # the fp32 checkpoint's
    oracle: dict[str, NDArray[np.float32]]  # by activations
    text_pair: str | None = None  # the second text; of a question, the text that answers it


@dataclass(frozen=True)
class Golden:
    """golden.json: the cases, and by how much a probability may differ from the oracle's."""

    cases: tuple[GoldenCase, ...]
    tolerance: float


def read_golden(folder: Path, manifest: Manifest) -> Golden:
    """The golden cases of a bundle. Raises BundleError if the file was altered or is not what it should be."""
    verify_files(folder, [manifest.golden])
    file = folder / manifest.golden.path
    try:
        content = json.loads(read_regular(file, LARGEST_GOLDEN).decode("utf-8"))
        tolerance = float(content.get("tolerance", UNSTATED_TOLERANCE))
        cases = tuple(_case(case, manifest) for case in content["cases"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError, OSError) as problem:
        raise BundleError(f"cannot read {file}: {problem!r}") from problem
    if not cases or not 0 < tolerance < 1:
        raise BundleError(f"{file} has {len(cases)} cases and the tolerance {tolerance:g}: export the bundle again")
    return Golden(cases, tolerance)


def measure_difference(
    logits: NDArray[np.float32],
    oracle: NDArray[np.float32],
    probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> float:
    """By how much a probability is off: the largest difference over all labels and tokens."""
    return float(np.abs(probabilities(logits) - probabilities(oracle)).max())


def check_golden_cases(model: Model, folder: Path) -> None:
    """Runs the golden cases unless this engine has passed them before. Raises EngineError."""
    marker = _marker(model)
    with contextlib.suppress(OSError):  # a folder that cannot be looked into holds no marker
        if marker.exists():
            return
    golden = read_golden(folder, model.manifest)
    for case in golden.cases:
        _check_case(model, case, golden.tolerance)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:
        return  # no cache folder: the check is run again next time


def _check_case(model: Model, case: GoldenCase, tolerance: float) -> None:
    ids = model.tokenizer(case.text, case.text_pair)
    if not np.array_equal(ids, case.ids):
        raise EngineError(f"the tokenizer gives other ids for {case.text!r} than at export: export the bundle again")
    logits, oracle = model.run(ids), case.oracle[model.artifact.activations]
    if logits.shape != oracle.shape:  # which numpy would stretch to fit
        raise EngineError(f"{model.artifact.path} gives logits of shape {logits.shape}, not {oracle.shape}")
    difference = measure_difference(logits, oracle, model.probabilities)
    if not difference <= tolerance:  # NaN is no pass
        raise EngineError(
            f"{model.engine.version} computes {model.artifact.path} wrongly: probabilities are off by "
            f"{difference:.3f} for {case.text[:SHOWN]!r}: use a version that the manifest asks for"
        )


def _marker(model: Model) -> Path:
    version = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in model.engine.version)
    golden = model.manifest.golden.sha256[:16]
    return cache_folder() / f"{model.artifact.files[0].sha256[:16]}-{golden}-{version}.checked"


def _case(case: Any, manifest: Manifest) -> GoldenCase:
    ids = _numbers(case["input_ids"], "i", np.int32)
    if not isinstance(case["text"], str) or ids.ndim != 1 or not 0 < len(ids) <= manifest.max_length:
        raise ValueError(f"a case has no text, or {ids.shape} ids")
    text_pair = case.get("text_pair")
    if text_pair is not None and not (manifest.pairs and isinstance(text_pair, str)):
        raise ValueError("text_pair is no second text, or the bundle takes one text")
    missing = {artifact.activations for artifact in manifest.artifacts} - case["oracle"].keys()
    if missing:
        raise ValueError(f"a case lacks the oracle's logits for {min(missing)}")
    shape = _shape(manifest, len(ids))
    oracle = {kind: _logits(logits, shape) for kind, logits in case["oracle"].items()}
    return GoldenCase(case["text"], ids, _logits(case["logits"], shape), oracle, text_pair)


def _shape(manifest: Manifest, tokens: int) -> tuple[int, ...]:
    """Of a case's logits: the outputs' own, several stacked on a last axis."""
    sizes = (tokens if size is None else size for size in manifest.outputs[0].shape[1:])
    return (*sizes, len(manifest.outputs)) if len(manifest.outputs) > 1 else tuple(sizes)


def _logits(values: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    logits = _numbers(values, "if", np.float32)
    if logits.shape != shape or not np.isfinite(logits).all():
        raise ValueError(f"logits {str(values)[:SHOWN]} are not {' x '.join(map(str, shape))} numbers")
    return logits


def _numbers(values: Any, kinds: str, dtype: type[T]) -> NDArray[T]:
    """JSON's numbers as an array. Raises ValueError for what numpy would make a number of: "1", true, 1.5 as an id."""
    found = np.array(values)
    if found.dtype.kind not in kinds:
        raise ValueError(f"{values!r} are not numbers, or no whole ones")
    with np.errstate(over="ignore"):  # becomes infinite, which is no logit
        numbers = found.astype(dtype)
    if dtype is np.int32 and not np.array_equal(numbers, found):
        raise ValueError(f"{values!r} do not fit 32 bits")
    return numbers
