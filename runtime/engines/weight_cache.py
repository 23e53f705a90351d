"""A file of packed weights that processes share, in the user's cache folder.

Takes a key that names artifact and runtime. Returns a path: an intact cache, or a new one to be filled.
Before a new one is begun, room for it is asked of the disk: LiteRT ends the whole process where it runs out of it.
A new cache is filled under a private name and renamed when it is whole, with its sha256 beside it; one that does
not match its sha256 is filled again, never trusted.
Leaves out: eviction. Removing the folder is always safe.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from pocketbert.runtime.cache import CACHE, cache_folder
from pocketbert.runtime.manifest import hash_file


class WeightCache:
    """`with WeightCache(key) as path:` open the model with `path`; leaving the block keeps what was packed.

    The path is empty where the cache folder cannot hold it: then nothing is shared, nothing breaks, and `warning` says
    what it costs. `most`: bytes that the packed weights can take.
    """

    def __init__(self, key: str, most: int = 0) -> None:
        self.most, self.warning = most, ""
        self.file = cache_folder() / f"{key}.xnnpack"
        self.checksum = self.file.with_suffix(".sha256")
        self.private = self.file.with_suffix(f".{os.getpid()}")

    def __enter__(self) -> Path | str:
        if self.is_intact():
            return self.file
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            _reserve(self.private, self.most)
        except OSError as problem:
            self.warning = (
                f"{self.file.parent} cannot hold packed weights ({problem.strerror}): each start packs them again, and "
                f"takes more memory; name another folder in {CACHE}"
            )
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
        with contextlib.suppress(OSError):  # the model is open: a cache that cannot be kept is packed again next time
            self._keep()

    def _keep(self) -> None:
        checksum = self.private.with_suffix(f"{self.private.suffix}-sha256")
        try:
            checksum.write_text(hash_file(self.private))
            os.replace(self.private, self.file)
            os.replace(checksum, self.checksum)
        finally:
            self.private.unlink(missing_ok=True)
            checksum.unlink(missing_ok=True)

    def is_intact(self) -> bool:
        """Whether the cache is there, and is what its checksum says."""
        try:
            return self.checksum.read_text() == hash_file(self.file)
        except OSError:
            return False


def _reserve(file: Path, size: int) -> None:
    """Raises OSError where the disk has no room for a file of `size` bytes; leaves none."""
    try:
        with file.open("wb") as stream:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
            else:
                stream.write(bytes(size))
    finally:
        file.unlink(missing_ok=True)
