"""A training on disk: everything that --resume needs to go on as if nothing had happened.

Takes and returns a `TrainState`. Random numbers are torch's; batches depend on the seed and the step alone
(data_loader.py). Leaves out: the finished checkpoint (write.py).
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pocketbert.export.distill.evaluation import Evaluation
from pocketbert.export.distill.options import DistillError, DistillOptions
from pocketbert.export.distill.train import TrainState

STATE = "state.pt"
VERSION = 2
# What may differ between a run and its continuation.
FREE = ("out", "resume", "force", "dtype")


def fingerprint(options: DistillOptions, sources: Mapping[str, str], bf16: bool) -> dict[str, str]:
    """What must be the same for a continuation to be one: options, the files' hashes, and how torch computes."""
    chosen = {name: str(value) for name, value in asdict(options).items() if name not in FREE}
    chosen |= {"threads": str(torch.get_num_threads()), "arithmetic": "bf16" if bf16 else "fp32"}
    return {**chosen, **sources, "torch": str(torch.__version__)}


def save_state(state: TrainState, run: Mapping[str, str], folder: Path) -> None:
    """Writes the state of the `run` of that fingerprint, under another name first.

    Raises DistillError where there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": VERSION,
        "fingerprint": dict(run),
        "student": state.student.state_dict(),
        "projection": state.projection.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "best_weights": state.best_weights,
        "evaluations": [asdict(each) for each in state.evaluations],
        "best": None if state.best is None else asdict(state.best),
        **{name: getattr(state, name) for name in ("step", "seconds", "curve", "sums")},
    }
    partial = folder / f".{STATE}"
    try:
        torch.save(content, partial)
        os.replace(partial, folder / STATE)
    except (OSError, RuntimeError) as problem:  # torch reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise DistillError(f"cannot write {folder / STATE}: {str(problem).splitlines()[0]}") from problem


def restore_state(state: TrainState, run: Mapping[str, str], folder: Path) -> None:
    """Puts a saved state into `state`. Raises DistillError where there is none, or where it is another run's."""
    content = _read(folder / STATE)
    saved = content["fingerprint"]
    changed = [name for name, value in run.items() if saved.get(name) != value]
    if changed:
        name = changed[0]
        raise DistillError(
            f"--resume: {name} was {saved.get(name)}, now it is {run[name]}: "
            "a continuation needs the same command, data, torch and threads"
        )
    state.student.load_state_dict(content["student"])
    state.projection.load_state_dict(content["projection"])
    state.optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"])
    if content["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["random_cuda"])
    for name in ("step", "seconds", "curve", "sums", "best_weights"):
        setattr(state, name, content[name])
    state.evaluations = [Evaluation(**each) for each in content["evaluations"]]
    state.best = None if content["best"] is None else Evaluation(**content["best"])


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
