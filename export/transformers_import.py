"""transformers without its chatter: progress bars of a second's work, warnings about GPU kernels of its imports.

Returns the module; importing it takes seconds, so nothing does before it must.
"""

from __future__ import annotations

import logging
from typing import Any

from pocketbert.runtime.errors import PocketbertError

TALKERS = ("torchao", "torch.utils._pytree")  # imported along with a model


def import_transformers() -> Any:
    """The module `transformers`. Raises PocketbertError where the extra `train` is not installed."""
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import transformers
    except ImportError as problem:
        raise PocketbertError(f"this needs more packages: pip install 'pocketbert[train]' ({problem})") from problem
    transformers.utils.logging.disable_progress_bar()
    return transformers
