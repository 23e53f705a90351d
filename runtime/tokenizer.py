"""Turns texts into the ids that every artifact takes.

Takes a bundle's tokenizer.json. Gives int32 ids, [CLS] and [SEP] included, cut to the bundle's max_length.
Leaves out: padding (the classifier knows which lengths an engine takes) and attention masks (artifacts derive
theirs from the pad id).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.runtime.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tokenizer:
    """A bundle's tokenizer; safe to share between threads."""

    def __init__(self, file: Path, max_length: int) -> None:
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        try:
            self._tokenizer = HuggingFaceTokenizer.from_file(str(file))
        except Exception as problem:  # tokenizers raises plain Exception
            raise BundleError(f"cannot read {file}: {problem}") from problem
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()

    def __call__(self, text: str) -> NDArray[np.int32]:
        """The ids of one text: int32 (tokens,), at most max_length of them."""
        return np.array(self._tokenizer.encode(_valid(text)).ids, np.int32)


def _valid(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can hold, replaced by U+FFFD; pairs become one character."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
