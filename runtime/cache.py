"""The user's cache folder: what makes a second start faster, and nothing that cannot be made again.

Holds packed weights (engines/weight_cache.py) and markers of passed self-checks (self_check.py). Removing it is safe.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE = "POCKETBERT_CACHE"  # the environment variable that names another folder


def cache_folder() -> Path:
    """The user's cache folder, by the system's convention, or the one that CACHE names. It may not exist yet."""
    if CACHE in os.environ:
        return Path(os.environ[CACHE])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pocketbert"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketbert"
