"""What mutmut's pytest runs need here: cheap tests first, fixtures that count, and a limit of processor time.

Loaded by run.py with `-p`, in the run that records which test calls which function and in each mutant's.
Leaves out: choosing tests by function, which mutmut does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import pytest
from mutmut.state import state

STATS = Path("mutmut-stats.json")  # in the folder that mutmut runs tests in
# A mutant that loops is stopped after so many times the processor seconds that its tests take, and no sooner than
# after so many: a busy machine lets no mutant look as if it looped.
TIMES = 20
LEAST = 10.0
IDLE, HUNG = 30, 36  # seconds without any work after which a mutant waits for ever; the status that it then ends with
MEMORY = 24 << 30  # bytes of address space, of which torch alone reserves several

# What tests import while they run, for the process that mutants' processes are forked from: torch takes seconds.
IMPORTED = Path("imported-modules.json")

called_in_setup: dict[int, set[str]] = {}  # fixture -> the functions that it calls


def durations() -> dict[str, float]:
    return dict(json.loads(STATS.read_text())["duration_by_test"]) if STATS.exists() else {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that fails ends a mutant's run: the cheapest are asked first."""
    seconds = durations()
    items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
    if os.environ.get("MUTANT_UNDER_TEST", "").find("__mutmut_") > 0:
        limit = int(process_time() + max(LEAST, TIMES * sum(seconds.get(item.nodeid, 0.0) for item in items)))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))  # one limit for both: SIGKILL, not mutmut's SIGXCPU
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        end_when_idle()


def end_when_idle() -> None:
    """However busy the machine is, a process that has anything to do gets some time of a processor in that time."""
    seen = [-1.0]

    def look(*_: object) -> None:
        if process_time() - seen[0] < 0.005:
            os._exit(HUNG)
        seen[0] = process_time()

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, IDLE, IDLE)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: object) -> Iterator[None]:
    """mutmut counts a call for the test in which it happens: of a fixture that many share, for the first alone."""
    before, state()._stats = state()._stats, set()
    try:
        return (yield)
    finally:
        called_in_setup.setdefault(id(fixturedef), set()).update(state()._stats)
        state()._stats |= before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Function) -> None:
    for fixtures in item._fixtureinfo.name2fixturedefs.values():
        for fixture in fixtures:
            state()._stats |= called_in_setup.get(id(fixture), set())


def pytest_sessionfinish() -> None:
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        IMPORTED.write_text(json.dumps([name for name in sys.modules if not name.startswith(("_", "tests."))]))


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        for name in json.loads(IMPORTED.read_text()) if IMPORTED.exists() else ():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        gc.freeze()
