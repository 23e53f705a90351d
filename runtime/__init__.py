"""PocketBERT's runtime: opens a bundle and answers with it. numpy, tokenizers and one engine; no torch.

    from pocketbert.runtime import Classifier, QuestionAnswerer, TokenClassifier
    classifier = Classifier.open("bundle")
    classifier("what a lovely film")        # [Prediction(label="POSITIVE", score=0.998), ...], best first
    TokenClassifier.open("names")("Ada in Paris")       # [Entity(label="person", text="Ada", start=0, ...), ...]
    QuestionAnswerer.open("answers")("Where is Ada?", "Ada went to Paris.")         # Answer(text="Paris", ...)

Here is what an application needs, left to right: manifest.py -> tokenizer.py -> engines/ -> model.py -> classifier.py,
token_classifier.py, question_answerer.py (tasks.py has them by task), and self_check.py, by which an engine is proved
before it is trusted. Beside it are rooms that an application never opens: check/ (does every artifact still answer
like the checkpoint?), bench/ (how fast?), html/ (pages), cli/ (the command).
contract/ is what bundles promise to programs in any language.
"""

from pocketbert.runtime.classifier import Classifier, Prediction
from pocketbert.runtime.errors import BundleError, EngineError, PocketbertError
from pocketbert.runtime.model import Model
from pocketbert.runtime.question_answerer import Answer, QuestionAnswerer
from pocketbert.runtime.tasks import open_model
from pocketbert.runtime.token_classifier import Entity, TokenClassifier

__all__ = [
    "Answer",
    "BundleError",
    "Classifier",
    "EngineError",
    "Entity",
    "Model",
    "PocketbertError",
    "Prediction",
    "QuestionAnswerer",
    "TokenClassifier",
    "open_model",
]
