"""A file of packed weights that processes share, in the user's cache folder.

Takes a key that names artifact and runtime. Gives a path: an intact cache, or a new one to be filled.
A new cache is filled under a private name and renamed when it is whole, with its sha256 beside it; one that does
not match its sha256 is filled again, never trusted.
Leaves out: eviction. Removing the folder is always safe.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from pocketbert.runtime.manifest import hash_file

CACHE = "POCKETBERT_CACHE"  # the environment variable that names another folder


def cache_folder() -> Path:
    """The user's cache folder, by the system's convention, or the one that CACHE names."""
    if CACHE in os.environ:
        return Path(os.environ[CACHE])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pocketbert"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketbert"


class WeightCache:
    """`with WeightCache(key) as path:` open the model with `path`; leaving the block keeps what was packed.

    The path is empty where the cache folder cannot be written: then nothing is shared, and nothing breaks.
    """

    def __init__(self, key: str) -> None:
        self.file = cache_folder() / f"{key}.xnnpack"
        self.seal = self.file.with_suffix(".sha256")
        self.private = self.file.with_suffix(f".{os.getpid()}")

    def __enter__(self) -> Path | str:
        if self.is_intact():
            return self.file
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.private.touch()
            self.private.unlink()
        except OSError:
            return ""
        return self.private

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.private.exists():
            return
        if error is not None:
            self.private.unlink()
            return
        seal = self.private.with_suffix(f"{self.private.suffix}-seal")
        seal.write_text(hash_file(self.private))
        os.replace(self.private, self.file)
        os.replace(seal, self.seal)

    def is_intact(self) -> bool:
        """Whether the cache is there, and is what was sealed."""
        try:
            return self.seal.read_text() == hash_file(self.file)
        except OSError:
            return False
