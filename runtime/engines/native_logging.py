"""Native logging: what libraries write past Python to file descriptor 2, kept off the user's terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silence_native_logs() -> Iterator[None]:
    """Discards what native code writes to stderr inside the block, some of it by way of Python's; exceptions pass."""
    if sys.stderr is None:  # closed from the start: descriptor 2 may be anything by now
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def silence_farewells() -> None:
    """For atexit: native libraries log farewells when Python is gone already, and a closed pipe must not complain."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed from the start, full, or closed by now
            stream.flush()
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
