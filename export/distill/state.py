"""A run on disk: everything that --resume needs to go on as if nothing had happened.

Takes and gives a `Run`. Random numbers are torch's; batches depend on the seed and the step alone (lesson.py).
Leaves out: the finished checkpoint (write.py).
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pocketbert.export.distill.options import DistillError, Options
from pocketbert.export.distill.train import Look, Run

STATE = "state.pt"
VERSION = 1
# What may differ between a run and its continuation.
FREE = ("out", "resume", "force", "dtype")


def describe(options: Options, sources: Mapping[str, str], bf16: bool) -> dict[str, str]:
    """What must be the same for a continuation to be one: options, the files' hashes, and how torch computes."""
    told = {name: str(value) for name, value in asdict(options).items() if name not in FREE}
    told |= {"threads": str(torch.get_num_threads()), "arithmetic": "bf16" if bf16 else "fp32"}
    return {**told, **sources, "torch": str(torch.__version__)}


def save(run: Run, described: Mapping[str, str], folder: Path) -> None:
    """Writes the run, under another name first. Raises DistillError where there is no room."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": VERSION,
        "described": dict(described),
        "student": run.student.state_dict(),
        "projection": run.projection.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "best_weights": run.best_weights,
        "looks": [asdict(look) for look in run.looks],
        "best": None if run.best is None else asdict(run.best),
        **{name: getattr(run, name) for name in ("step", "seconds", "curve", "sums")},
    }
    partial = folder / f".{STATE}"
    try:
        torch.save(content, partial)
        os.replace(partial, folder / STATE)
    except (OSError, RuntimeError) as problem:  # torch reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise DistillError(f"cannot write {folder / STATE}: {str(problem).splitlines()[0]}") from problem


def restore(run: Run, described: Mapping[str, str], folder: Path) -> None:
    """Puts a saved run into `run`. Raises DistillError where there is none, or where it is another's."""
    content = _read(folder / STATE)
    changed = [name for name, value in described.items() if content["described"].get(name) != value]
    if changed:
        name = changed[0]
        raise DistillError(
            f"--resume: {name} was {content['described'].get(name)}, now it is {described[name]}: "
            "a continuation needs the same command, data, torch and threads"
        )
    run.student.load_state_dict(content["student"])
    run.projection.load_state_dict(content["projection"])
    run.optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"])
    if content["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["random_cuda"])
    for name in ("step", "seconds", "curve", "sums", "best_weights"):
        setattr(run, name, content[name])
    run.looks = [Look(**look) for look in content["looks"]]
    run.best = None if content["best"] is None else Look(**content["best"])


def _read(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DistillError(f"nothing to resume: no {file}; leave --resume out") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as problem:
        raise DistillError(f"cannot read {file}: {str(problem).splitlines()[0]}; start again with --force") from problem
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise DistillError(f"{file} was written by another version: start again with --force")
    return content
