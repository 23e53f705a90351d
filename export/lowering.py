"""Lowers formats side by side, in worker processes: a converter's global state, memory and chatter end with them.

Takes the oracles in one file, which the workers map: none of them loads, hashes or quantizes a checkpoint.
Returns for each format what its backend wrote, and the seconds.
Leaves out: how a format is lowered (backends/) and what the oracles are (quantize.py).

Workers start before there is anything to lower, so that converters are imported while the caller quantizes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType

import torch

from pocketbert.export import worker_process
from pocketbert.export.backends import Lowered, import_backend
from pocketbert.export.encoder import Encoder
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import FORMATS, File, describe_file

failed_imports: dict[str, LoweringError] = {}  # of this worker: a second try can fail for another reason


class LoweringError(PocketbertError):
    """A converter failed or was killed; the message names the format."""


@dataclass(frozen=True)
class Result:
    """What one format's lowering gave."""

    lowered: Lowered
    files: tuple[File, ...]
    seconds: float


class Workers:
    """Two processes at most: one for the first of FORMATS, which takes as long as the other two together, and one for
    the others. A third would only cost memory. `hidden`: the run's folder, for their temporary files."""

    def __init__(self, formats: Sequence[str], hidden: Path) -> None:
        first, *others = sorted(set(formats), key=FORMATS.index)
        self.lanes = [lane for lane in ([first], others) if lane]
        self.hidden = hidden
        self.jobs: dict[Future[Result | None], str] = {}

    def __enter__(self) -> Workers:
        """Starts the processes; each imports its first converter."""
        spawn = get_context("spawn")
        begin, arguments = worker_process.begin, (self.hidden,)
        pools = [ProcessPoolExecutor(1, mp_context=spawn, initializer=begin, initargs=arguments) for _ in self.lanes]
        self.pools = {name: pool for lane, pool in zip(self.lanes, pools, strict=True) for name in lane}
        try:
            with worker_process.uninterrupted():
                self.jobs = {self.pools[name].submit(_prepare, name): name for name, *_ in self.lanes}
        except BaseException as problem:  # an interrupt, or no memory for a process: the first may be there already
            self.__exit__(type(problem), problem, problem.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No process outlives a failure or Ctrl-C."""
        for pool in self.pools.values():
            if kind is not None:
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(cancel_futures=True)

    def lower(self, name: str, oracles: Path, oracle: str, lengths: Sequence[int], folder: Path) -> None:
        """Has the format `name` made of the oracle of that name in the file `oracles`, written into `folder`."""
        try:
            self.jobs[self.pools[name].submit(_lower, name, oracles, oracle, lengths, folder)] = name
        except BrokenProcessPool:
            raise self._killed(name) from None

    def results(self) -> Iterator[tuple[str, Result]]:
        """Each format when it is done. Raises LoweringError at the first that failed."""
        for job in as_completed(self.jobs):
            try:
                result = job.result()
            except BrokenProcessPool:
                raise self._killed(self.jobs[job]) from None
            if result is not None:
                yield self.jobs[job], result

    def _killed(self, name: str) -> LoweringError:
        """The error of a lane whose process is gone, and with it what waited there: the first not done was running."""
        lane = [(job, each) for job, each in self.jobs.items() if self.pools[each] is self.pools[name]]
        running = next((each for job, each in lane if not job.done() or job.exception()), name)
        return LoweringError(f"lowering to {running} was killed: is there enough memory?")


def save_oracles(oracles: Mapping[str, Encoder], file: Path) -> None:
    """Writes the modules as they are, tensors that they share once. Raises OSError."""
    with open(file, "wb") as stream:  # torch's own writer has no OSError for a full disk
        torch.save(dict(oracles), stream)


def map_oracle(file: Path, name: str) -> Encoder:
    """One of them; its tensors are pages of the file, which all processes share."""
    oracle: Encoder = torch.load(file, mmap=True, weights_only=False)[name]  # a pickle, of this very export
    return oracle


def _prepare(name: str) -> None:
    """In a worker: imports a converter, which takes seconds."""
    torch.set_num_threads(1)  # formats are lowered side by side; torch's own threads would only wait for each other
    try:
        with _converter(name):
            import_backend(name)
    except LoweringError as problem:
        failed_imports[name] = problem
        raise


def _lower(name: str, oracles: Path, oracle: str, lengths: Sequence[int], folder: Path) -> Result:
    """In a worker."""
    if name in failed_imports:
        raise failed_imports[name]
    started = time.perf_counter()
    with _converter(name):
        lowered = import_backend(name).lower(map_oracle(oracles, oracle), lengths, folder)
    files = _describe_files(folder, lowered.path)
    return Result(lowered, files, time.perf_counter() - started)


def _describe_files(folder: Path, path: str) -> tuple[File, ...]:
    """One file, or every file of a package folder."""
    place = folder / path
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    return tuple(describe_file(folder, file.relative_to(folder).as_posix()) for file in files)


@contextlib.contextmanager
def _converter(name: str) -> Iterator[None]:
    """Sends all that a converter prints, native code included, to a log that is kept if it fails."""
    handle, log = tempfile.mkstemp(prefix=f"pocketbert-{name}-", suffix=".log")
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(handle, descriptor)
    os.close(handle)
    try:
        yield
    except (OSError, MemoryError, PocketbertError):
        Path(log).unlink()
        raise
    except Exception as problem:  # a converter's own: it can be anything
        traceback.print_exc()
        sys.stderr.flush()
        reason = next(iter(str(problem).strip().splitlines()), "")
        message = f"lowering to {name} failed: {type(problem).__name__}: {reason} (log: {_keep(Path(log))})"
        raise LoweringError(message) from None
    Path(log).unlink()


def _keep(log: Path) -> Path:
    """Copies a log to where the user's temporary files are: the export's own vanish with it."""
    kept = Path(worker_process.users_temporary or tempfile.gettempdir()) / log.name
    shutil.copyfile(log, kept)
    return kept
