"""PocketBERT: fine-tuned DistilBERT, ALBERT and BERT classifiers on phones.

`pocketbert.export` turns a checkpoint into a bundle, `pocketbert.runtime` answers with it. This is the package that
holds the two; in the repository they are the folders export/ and runtime/.
"""

__version__ = "0.1.0"
