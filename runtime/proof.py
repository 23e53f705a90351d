"""Self-proof: before an engine is trusted on this host it answers the bundle's golden cases.

Takes an opened classifier. Gives nothing, or an EngineError that names engine, version and difference.
Leaves out: gates over data (parity.py). A proof is kept beside the weight cache, by artifact and engine version,
so it costs its time once.

A runtime that lacks the right kernels does not fail, it answers: tflite-runtime 2.14 computes these artifacts to
the end and is wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.runtime import manifest as bundle
from pocketbert.runtime.engines.weight_cache import cache_folder
from pocketbert.runtime.errors import BundleError, EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pocketbert.runtime.classifier import Classifier

# Kernels round halves and add up in other orders, which moves an int8 step here and there: up to 0.009 in probability
# on the real checkpoints measured. A wrong kernel moves tenths.
TOLERANCE = 0.05


@dataclass(frozen=True)
class GoldenCase:
    """A text with what it must become: ids int32 (tokens,), logits float32 (labels,)."""

    text: str
    ids: NDArray[np.int32]
    logits: NDArray[np.float32]  # the fp32 checkpoint's
    oracle: dict[str, NDArray[np.float32]]  # by activations


def read_golden(folder: Path, manifest: bundle.Manifest) -> list[GoldenCase]:
    """The golden cases of a bundle. Raises BundleError if the file was altered or is not what it should be."""
    bundle.verify(folder, [manifest.golden])
    file = folder / manifest.golden.path
    try:
        return [_case(case) for case in json.loads(file.read_text(encoding="utf-8"))["cases"]]
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise BundleError(f"cannot read {file}: {problem!r}") from problem


def prove(classifier: Classifier, folder: Path) -> None:
    """Runs the golden cases unless this engine has passed them before. Raises EngineError."""
    seal = _seal(classifier)
    if seal.exists():
        return
    for case in read_golden(folder, classifier.manifest):
        _check(classifier, case)
    try:
        seal.parent.mkdir(parents=True, exist_ok=True)
        seal.touch()
    except OSError:
        return  # no cache folder: the proof is run again next time


def _check(classifier: Classifier, case: GoldenCase) -> None:
    ids = classifier.tokenizer(case.text)
    if not np.array_equal(ids, case.ids):
        raise EngineError(f"the tokenizer gives other ids for {case.text!r} than at export: export the bundle again")
    expected = case.oracle[classifier.artifact.activations]
    found = classifier.run(ids)
    gap = float(np.abs(classifier.probabilities(found) - classifier.probabilities(expected)).max())
    if gap > TOLERANCE:
        raise EngineError(
            f"{classifier.engine.version} computes {classifier.artifact.path} wrongly: probabilities are off by "
            f"{gap:.3f} for {case.text[:40]!r}: use a version that the manifest asks for"
        )


def _seal(classifier: Classifier) -> Path:
    version = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in classifier.engine.version)
    golden = classifier.manifest.golden.sha256[:16]
    return cache_folder() / f"{classifier.artifact.files[0].sha256[:16]}-{golden}-{version}.proven"


def _case(case: Any) -> GoldenCase:
    return GoldenCase(
        text=str(case["text"]),
        ids=np.array(case["input_ids"], np.int32),
        logits=np.array(case["logits"], np.float32),
        oracle={kind: np.array(logits, np.float32) for kind, logits in case["oracle"].items()},
    )
