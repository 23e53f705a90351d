"""The class for each task, and a bundle opened with the one that its manifest asks for.

Takes a bundle folder. Returns a `Classifier`, `TokenClassifier` or `QuestionAnswerer`.
"""

from __future__ import annotations

from pathlib import Path

from pocketbert.runtime.classifier import Classifier
from pocketbert.runtime.manifest import read_manifest
from pocketbert.runtime.model import DEFAULT_THREADS, Model
from pocketbert.runtime.question_answerer import QuestionAnswerer
from pocketbert.runtime.token_classifier import TokenClassifier

MODELS: dict[str, type[Model]] = {model.task: model for model in (Classifier, TokenClassifier, QuestionAnswerer)}


def open_model(
    folder: str | Path, engine: str | None = None, threads: int = DEFAULT_THREADS, self_check: bool = True
) -> Model:
    """Opens a bundle of any task, as `Model.open` of its class does. Raises BundleError and EngineError."""
    manifest = read_manifest(folder)
    return MODELS[manifest.task].open_described(manifest, Path(folder), engine, threads, self_check)
