"""PocketBERT's runtime: opens a bundle and classifies texts. numpy, tokenizers and one engine; no torch.

from pocketbert.runtime import Classifier
classifier = Classifier.open("bundle")
classifier("what a lovely film")        # [Prediction(label="POSITIVE", score=0.998), ...], best first
"""

from pocketbert.runtime.classifier import Classifier, Prediction
from pocketbert.runtime.errors import BundleError, EngineError, PocketbertError

__all__ = ["BundleError", "Classifier", "EngineError", "PocketbertError", "Prediction"]
