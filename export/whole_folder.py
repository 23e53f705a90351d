"""A folder that appears whole or not at all: it is filled under a hidden name and renamed at the end.

Takes the folder's final path. Leaves out: what is written into it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out`, gone when the block ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, out: Path) -> None:
    """Renames the finished folder to `out`; one that is replaced is first moved aside."""
    for path in (folder, *folder.rglob("*")):  # mkdtemp, coremltools and transformers make theirs private
        path.chmod(0o755 if path.is_dir() else 0o644)
    if out.exists():
        old = folder.with_name(f"{folder.name}-old")
        os.replace(out, old)
        os.replace(folder, out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(folder, out)
