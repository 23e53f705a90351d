"""transformers without its chatter: progress bars of a second's work, warnings about GPU kernels of its imports.

Gives the module; importing it takes seconds, so nothing does before it must.
"""

from __future__ import annotations

import logging
from typing import Any

TALKERS = ("torchao", "torch.utils._pytree")  # imported along with a model


def open_transformers() -> Any:
    """The module `transformers`. Raises ImportError where the extra `train` is not installed."""
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers
