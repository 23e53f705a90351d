"""Which task a bundle is of: its class by name, or made for a manifest."""

from __future__ import annotations

from pocketbert.runtime.check.tasks import Task
from pocketbert.runtime.check.tasks.question_answering import QuestionAnswering
from pocketbert.runtime.check.tasks.sequence_classification import SequenceClassification
from pocketbert.runtime.check.tasks.token_classification import TokenClassification
from pocketbert.runtime.manifest import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, Manifest
from pocketbert.runtime.tokenizer import Tokenizer

CLASSES: dict[str, type[Task]] = {
    SEQUENCE_CLASSIFICATION: SequenceClassification,
    TOKEN_CLASSIFICATION: TokenClassification,
    QUESTION_ANSWERING: QuestionAnswering,
}


def find(name: str) -> type[Task]:
    """The class of a task, by its name in a manifest."""
    return CLASSES[name]


def choose(manifest: Manifest, tokenizer: Tokenizer) -> Task:
    """The task of a bundle."""
    return find(manifest.task)(manifest, tokenizer)
