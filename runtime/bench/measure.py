"""Measures engines side by side: latency by length, time to a first label, memory.

Takes a bundle and the subjects to compare. Returns a `Bench`: every sample as it was taken, and figures made of them.
Leaves out: what the terminal and the page show (cli/bench.py, page.py), and ONNX export (the export half).

Subjects take turns, round by round, so that a busy machine hurts them all alike; what to look at are medians and
ratios of one run. Each turn is a process of its own (worker.py) that opens, warms up, runs every length and has ended
before the next begins. A process that is kept for its next turn is not idle: threads of onnxruntime spin for a while
after a run, and whoever runs next on the same cores pays for it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.runtime.cache import CACHE
from pocketbert.runtime.errors import EngineError
from pocketbert.runtime.manifest import QUESTION_ANSWERING, Manifest
from pocketbert.runtime.progress import Progress
from pocketbert.runtime.tokenizer import Tokenizer

BENCH_VERSION = 1  # of the JSON
STARTS = 3  # processes in which a start is timed, cold and warm each; the median is given
TEXTS = 10  # of a length in one turn, each timed twice: from text to label, and the model alone
QUESTION = "who acted ?"  # short: with it the bundle's shortest length must still hold a word of the text
FILLER = ["the", "acting,", "costumes,", "music,", "cinematography", "and", "sound", "are", "all", "astounding"]
WORKER = (sys.executable, "-m", "pocketbert.runtime.bench.worker")
MEASURES = ("text_to_label", "model")
# Linux's names of instructions that int8 kernels are written for, x86 and Arm, the fastest first. Virtual machines tell
# no more of a processor than "AMD EPYC", and with AVX2 alone ratios are others than with VNNI.
INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512bw", "avx2", "i8mm", "asimddp")


@dataclass(frozen=True)
class Subject:
    """What is measured: an engine with so many threads, on a `model` of its own where the bundle has none."""

    engine: str
    threads: int
    bundle: str
    model: str = ""

    @property
    def name(self) -> str:
        return f"{self.engine}, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True)
class Start:
    """Seconds of one process from opening a bundle: until it is open, and until the first label."""

    open: float
    first_label: float


@dataclass
class Measurement:
    """What was measured of one subject."""

    subject: Subject
    version: str = ""
    cold: list[Start] = field(default_factory=list)  # with an empty weight cache and an engine that was never checked
    warm: list[Start] = field(default_factory=list)
    samples: dict[int, dict[str, list[float]]] = field(default_factory=dict)  # length -> measure -> seconds
    resident_bytes: int = 0  # over an interpreter that holds the tokenizer, after every length has run; the last turn
    peak_bytes: int = 0  # of all turns, of which the first packs the weights that the others map
    soak: dict[str, float] | None = None  # texts, settled_bytes, resident_bytes, drift

    def quantile(self, length: int, measure: str, share: float) -> float:
        """Seconds that `share` of the texts of `length` tokens stay under."""
        return float(np.quantile(self.samples[length][measure], share))

    def throughput(self, length: int) -> float:
        """Texts per second, one after the other."""
        return 1 / float(np.mean(self.samples[length]["text_to_label"]))


@dataclass(frozen=True)
class Bench:
    """All results of one run, in the order of the subjects."""

    bundle: str
    lengths: tuple[int, ...]
    results: tuple[Measurement, ...]
    machine: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain data: the raw samples and, for each, the median and the 95th percentile."""
        return {
            "bench_version": BENCH_VERSION,
            "bundle": _name(self.bundle),
            "machine": dict(self.machine),
            "lengths": list(self.lengths),
            "results": [{**_plain(result), "summary": _summary(result)} for result in self.results],
        }


STAGE = "measuring"  # as progress is told of it
Input = tuple[str, ...]  # a text, or two
Texts = Mapping[int, Sequence[Input]]  # length in tokens -> texts of it


def measure(
    subjects: Sequence[Subject],
    texts: Mapping[str, Texts],
    rounds: int,
    soak: int = 0,
    starts: int = STARTS,
    progress: Progress | None = None,
) -> Bench:
    """Measures `subjects` on `texts`, by bundle: each tokenizer needs its own for the same lengths.

    Raises EngineError for a subject that does not open.
    """
    lengths = tuple(sorted(texts[subjects[0].bundle]))
    results = [Measurement(subject) for subject in subjects]
    progress = progress or Progress()
    progress.start(STAGE, len(_once_per_engine(results)) + rounds * len(results))
    with tempfile.TemporaryDirectory(prefix="pocketbert-bench-") as cache:
        for result in _once_per_engine(results):
            progress.advance(STAGE, 0, f"starting {result.subject.engine}")
            _time_starts(result, texts[result.subject.bundle][lengths[0]][0], Path(cache), starts)
            progress.advance(STAGE)
        _take_turns(results, texts, rounds, Path(cache), progress)
        for place, result in enumerate(results if soak else ()):
            progress.advance(STAGE, 0, f"{soak} texts through {result.subject.name}")
            _soak(result, texts[result.subject.bundle], soak, _own_cache(Path(cache), place))
    progress.finish(STAGE)
    return Bench(subjects[0].bundle, lengths, tuple(results), _machine())


def make_texts(folder: Path, manifest: Manifest, lengths: Sequence[int]) -> dict[int, list[Input]]:
    """Invented texts of exactly so many tokens, or as near below as the tokenizer allows; with a question before them
    where the bundle takes two texts."""
    tokenizer = Tokenizer(folder / manifest.tokenizer.path, manifest.max_length)
    first = (QUESTION,) if manifest.pairs else ()

    def count(words: Sequence[str]) -> int:
        return len(tokenizer(*(*first, " ".join(words))))

    texts: dict[int, list[Input]] = {}
    for length in lengths:
        words: list[str] = []
        while count([*words, _word(words)]) < length:
            words.append(_word(words))
        fits = [*words, _word(words)]
        found = fits if count(fits) == length else words
        texts[length] = [(*first, " ".join(found))] * TEXTS
    return texts


def group_texts(folder: Path, manifest: Manifest, texts: Sequence[Input]) -> dict[int, list[Input]]:
    """Real texts by the length that an artifact pads them to; at most TEXTS of a length, evenly picked.

    Those that are read in several windows are left out: they have no one length.
    """
    tokenizer = Tokenizer(folder / manifest.tokenizer.path, manifest.max_length)
    groups: dict[int, list[Input]] = {}
    for text in texts:
        if manifest.task == QUESTION_ANSWERING and len(tokenizer.encode_windows(text[0], text[1])) > 1:
            continue
        groups.setdefault(manifest.padded_length(len(tokenizer(*text))), []).append(text)
    return {length: found[:: -(-len(found) // TEXTS)] for length, found in sorted(groups.items())}


def _word(words: Sequence[str]) -> str:
    return FILLER[len(words) % len(FILLER)]


def _once_per_engine(results: Sequence[Measurement]) -> list[Measurement]:
    """The last subject of each engine: how an engine starts hardly depends on its threads."""
    return list({result.subject.engine: result for result in results}.values())


def _time_starts(result: Measurement, text: Input, cache: Path, starts: int) -> None:
    """Cold in an empty cache, then warm in the same one."""
    for index in range(starts):
        place = cache / f"{result.subject.engine.replace(':', '-')}-{index}"
        for kind in (result.cold, result.warm):
            with _worker(result.subject, text, place, start=True) as (_, first):
                kind.append(Start(first["open"], first["first_label"]))


def _take_turns(
    results: Sequence[Measurement], texts: Mapping[str, Texts], rounds: int, cache: Path, progress: Progress
) -> None:
    for turn in range(rounds):
        for place, result in enumerate(results):
            progress.advance(STAGE, 0, f"round {turn + 1} of {rounds}: {result.subject.name}")
            _take_turn(result, texts[result.subject.bundle], _own_cache(cache, place))
            progress.advance(STAGE)


def _own_cache(cache: Path, place: int) -> Path:
    """Of the subject at `place`: what one of them packed must not spare the next one that work."""
    return cache / f"turns-{place}"


def _take_turn(result: Measurement, texts: Texts, cache: Path) -> None:
    """Every length once, in a process that has ended when this returns."""
    with _worker(result.subject, texts[min(texts)][0], cache) as (ask, first):
        result.version = first["version"]
        for length in sorted(texts):
            _collect(result, length, ask({"texts": list(texts[length])}), first["idle_bytes"])


def _soak(result: Measurement, texts: Texts, count: int, cache: Path) -> None:
    mixed = [text for length in sorted(texts) for text in texts[length]]
    with _worker(result.subject, mixed[0], cache) as (ask, _):
        result.soak = ask({"texts": mixed, "soak": count})


def _collect(result: Measurement, length: int, answer: Mapping[str, Any], idle: int) -> None:
    samples = result.samples.setdefault(length, {measure: [] for measure in MEASURES})
    for measure in MEASURES:
        samples[measure] += answer[measure]
    result.resident_bytes = answer["resident_bytes"] - idle
    # The kernel counts the peak with a delay of some pages.
    result.peak_bytes = max(answer["peak_bytes"] - idle, result.peak_bytes, result.resident_bytes)


@contextmanager
def _worker(
    subject: Subject, text: Input, cache: Path, start: bool = False
) -> Iterator[tuple[Callable[[Any], Any], dict[str, Any]]]:
    """A process for `subject`, which has ended when the block has: a function that gives it a task, and what its start
    told. Raises EngineError."""
    environment = {**os.environ, CACHE: str(cache)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(WORKER, env=environment, text=True, **pipes)  # type: ignore[call-overload]

    def ask(task: Any) -> Any:
        print(json.dumps(task), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise EngineError(f"{subject.engine} died while it was measured: does `pocketbert check` pass?")
        return json.loads(line)

    try:
        first = ask({**asdict(subject), "text": text, "start": start})
        if "error" in first:
            raise EngineError(first["error"])
        yield ask, first
    finally:
        process.kill()  # an engine's threads may spin on: its own end is not waited for
        process.communicate()


def _plain(result: Measurement) -> dict[str, Any]:
    """Names instead of the places that bundles had on the computer that measured."""
    found = asdict(result)
    found["subject"] |= {key: _name(found["subject"][key]) for key in ("bundle", "model")}
    return found


def _name(path: str) -> str:
    """The last part of a path, of "." too; empty for none."""
    return Path(os.path.abspath(path)).name if path else ""


def _summary(result: Measurement) -> dict[str, Any]:
    latency = {
        str(length): {
            **{f"{m}_p50": result.quantile(length, m, 0.5) for m in MEASURES},
            **{f"{m}_p95": result.quantile(length, m, 0.95) for m in MEASURES},
            "texts_per_second": result.throughput(length),
        }
        for length in result.samples
    }
    return {"latency": latency, "cold": _median_start(result.cold), "warm": _median_start(result.warm)}


def _median_start(starts: Sequence[Start]) -> dict[str, float] | None:
    if not starts:
        return None
    return {part: float(np.median([getattr(start, part) for start in starts])) for part in ("open", "first_label")}


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _instructions() -> str:
    """The best of what int8 kernels are chosen by; empty where the system does not say."""
    words = set(_read_cpuinfo().split())
    return next((name for name in INSTRUCTIONS if name in words), "")


def _processor() -> str:
    """The processor's name; platform.processor() is empty or just the family on Linux."""
    found = _read_cpuinfo()
    if not found:
        return platform.processor()
    lines = found.splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _read_cpuinfo() -> str:
    """What Linux says of its processors; empty elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
