"""A folder that appears whole or not at all: it is filled under a hidden name and renamed at the end.

Takes the folder's final path. Leaves out: what is written into it.

While a run lives it holds a lock on its hidden folder, and the kernel lets go of the lock however the run ends. So the
next run tells the folders of the dead from those of the living, and removes the dead ones'. Both renames are one step
of the file system: nobody sees half of a folder, and of two runs without `replace` the second fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HIDDEN = re.compile(r"\..+\.unfinished-[a-z0-9_]{8}")  # eight: mkdtemp's own choice of letters
CONTENT = "content"
AT_FDCWD = -100  # fcntl.h: paths are relative to the working directory
RENAME_EXCHANGE = 2  # linux/fs.h
RENAME_SWAP = 2  # macOS, sys/stdio.h


@contextlib.contextmanager
def stage(out: Path) -> Iterator[Path]:
    """A folder to fill and publish as `out`. It and all else in its parent, which is hidden, go when the block ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_dead(out.parent)
    hidden, lock = _make_hidden(out)
    try:
        (hidden / CONTENT).mkdir()
        yield hidden / CONTENT
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def publish(folder: Path, out: Path, replace: bool = False) -> None:
    """Renames the finished folder to `out`; with `replace`, in place of a folder that is there.

    Raises FileExistsError where something is there and not to be replaced; then nothing has happened.
    """
    for path in (folder, *folder.rglob("*")):  # mkdtemp, coremltools and transformers make theirs private
        path.chmod(0o755 if path.is_dir() else 0o644)
    if replace and out.exists():
        _exchange(folder, out)
    else:
        _rename(folder, out)


def remove_dead(parent: Path) -> None:
    """Removes the hidden folders in `parent` whose runs have ended without a chance to do it."""
    for hidden in parent.iterdir():
        if HIDDEN.fullmatch(hidden.name) and hidden.is_dir() and not hidden.is_symlink():
            lock = _lock(hidden, "LOCK_EX", "LOCK_NB")
            if lock is not None:
                shutil.rmtree(hidden, ignore_errors=True)
                os.close(lock)


def hold(hidden: Path) -> int | None:
    """Marks a hidden folder as a living run's until the descriptor is closed, or this process ends."""
    return _lock(hidden, "LOCK_SH")


def _make_hidden(out: Path) -> tuple[Path, int | None]:
    while True:
        hidden = Path(tempfile.mkdtemp(prefix=f".{out.name}.unfinished-", dir=out.parent))
        lock = hold(hidden)
        if hidden.exists():  # else another run found it before it was held, and took it for dead
            return hidden, lock


def _lock(folder: Path, *flags: str) -> int | None:
    """A descriptor that holds a lock; None where that is held, or where the system or the file system has none.

    The living share it; who gets it alone knows that there are none.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # gone by now, or another user's
        return None
    try:
        fcntl.flock(descriptor, sum(getattr(fcntl, flag) for flag in flags))
        return descriptor
    except OSError:
        os.close(descriptor)
        return None


def _rename(folder: Path, out: Path) -> None:
    """A folder never takes the place of a file or of a folder that holds something: rename(2)."""
    try:
        os.rename(folder, out)
    except OSError as problem:
        if problem.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise FileExistsError(errno.EEXIST, "it is there by now: another run wrote it", str(out)) from problem


def _exchange(folder: Path, out: Path) -> None:
    """Swaps the two in one step; where the system cannot, the old one is moved aside first."""
    if _swap(os.fsencode(folder), os.fsencode(out)):
        return
    old = folder.with_name("replaced")
    os.rename(out, old)
    try:
        _rename(folder, out)
    except OSError:
        os.rename(old, out)
        raise


def _swap(one: bytes, other: bytes) -> bool:
    """Whether the kernel and the file system could do it."""
    if sys.platform not in ("linux", "darwin"):
        return False
    library = ctypes.CDLL(None)
    if sys.platform == "darwin":
        return bool(library.renamex_np(one, other, RENAME_SWAP) == 0)
    if not hasattr(library, "renameat2"):  # musl, and glibc before 2.28
        return False
    return bool(library.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0)
