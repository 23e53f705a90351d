"""A worker process that leaves nothing behind: it ends with its parent, and its temporary files lie in one folder.

Takes the hidden folder of a run (atomic_directory.py). Leaves out: what workers do (lowering.py). Imports little, so
that a worker is under this rule before it imports a framework, which takes seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from pocketbert.export.atomic_directory import hold

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SCRATCH = "scratch"  # a folder in the hidden one
users_temporary: str | None = None  # of this worker: the folder for what is to stay, such as the log of a failure


def begin(hidden: Path) -> None:
    """Called first in a worker."""
    global users_temporary
    _end_by_kernel()
    _end_by_pipe()
    hold(hidden)  # until this process ends: files may be written here for as long
    users_temporary = tempfile.gettempdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(hidden / SCRATCH)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes that start in this block do not hear Ctrl-C, from their first instruction on: the parent ends them.

    The parent hears it at the end of the block: a child whose parent stops in the middle of telling it what to do
    dies with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else it starts in the block, and lets the signal through again
    with _interrupt_deferred():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """The mask holds for one thread; a signal that another thread takes is handled in the main one all the same."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _end_by_kernel() -> None:
    """Linux ends this process whatever it is doing; a parent that is gone already it does not notice."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_by_pipe() -> None:
    """A thread waits for a pipe from the parent to end; it has its turn when native code lets go of Python's lock."""
    threading.Thread(target=_wait_for_end_of_parent, daemon=True).start()


def _wait_for_end_of_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
