"""The training loop: the teacher judges a batch, the student learns from it, held-out texts choose the best weights.

Takes models, a `Lesson` and options. Changes a `Run`, which holds all that moves, so that saving it (state.py) and
going on gives the same bits as never having stopped.
Leaves out: files, and what the terminal shows (a `Watch` is told).

The teacher runs again at every epoch instead of once: its hidden states are too many to keep (700 MB for SST-2), and
without a cache nothing can grow stale. It costs a quarter of a step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketbert.export.distill import loss
from pocketbert.export.distill.lesson import Batch, Lesson, Speller, by_length
from pocketbert.export.distill.texts import Texts

WARM_UP = 0.06  # share of the steps until the full learning rate; RoBERTa's (arXiv 1907.11692, table 10)
WEIGHT_DECAY = 0.01  # AdamW's own default, and BERT's
CLIP = 5.0  # largest norm of the gradient, as in DistilBERT's train.py: the loss is a sum of weighted parts
LOOKS = 4  # at the held-out texts in an epoch
POINTS = 100  # of the loss curve
JUDGED = 64  # texts at a time where no gradient is kept


@dataclass(frozen=True)
class Look:
    """What the held-out texts said at a step."""

    step: int
    accuracy: float  # on labels, or where there are none agreement with the teacher
    agreement: float | None  # with the teacher; None where the labels are not its own


@dataclass
class Run:
    """All that changes while a student learns."""

    student: Any
    projection: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: Look | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last point of the curve


@dataclass(frozen=True)
class Plan:
    """What stays the same."""

    teacher: Any
    lesson: Lesson
    held_out: Texts
    wanted: Tensor | None  # the teacher's logits for the held-out texts, None where its labels are others
    weights: loss.Weights
    layers: Sequence[int]  # teacher layers that the student's compared layers stand for
    steps: int
    rate: float
    device: torch.device
    bf16: bool
    patience: int

    @property
    def look_every(self) -> int:
        return max(1, self.lesson.steps_per_epoch // LOOKS)

    @property
    def point_every(self) -> int:
        return max(1, self.steps // POINTS)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


class Watch:
    """Told of each step and look; asked after each step whether to stop."""

    stopped = False

    def stepped(self, run: Run, losses: Mapping[str, float], texts: int) -> None:
        pass

    def looked(self, run: Run, look: Look) -> None:
        pass


def make_optimizer(student: Any, projection: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay, as in BERT."""
    named = [*student.named_parameters(), *projection.named_parameters()]
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True)  # a third less time on CPUs


def train(run: Run, plan: Plan, watch: Watch, save: Any) -> str:
    """Learns until the last step, until nothing gets better, or until `watch` says stop: gives which of them.

    `save(run)` is called after each look and at a stop.
    """
    before, started = run.seconds, time.perf_counter()
    while run.step < plan.steps:
        losses, texts = learn(run, plan)
        run.step += 1
        run.seconds = before + time.perf_counter() - started
        watch.stepped(run, losses, texts)
        stop = watch.stopped
        if run.step % plan.look_every == 0 or run.step == plan.steps or (stop and run.best is None):
            watch.looked(run, look(run, plan))
            run.seconds = before + time.perf_counter() - started
            save(run)
            if is_stuck(run, plan):
                return "early"
        elif stop:
            save(run)
        if stop and run.step < plan.steps:
            return "stopped"
    return "done"


def learn(run: Run, plan: Plan) -> tuple[dict[str, float], int]:
    """One step. Gives the parts of the loss and the number of texts."""
    batch = plan.lesson.batch(run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = plan.rate * pace(run.step, plan.steps)
    parts = compare(run, plan, batch)
    weights = plan.weights
    total = weights.soft * parts["soft"] + weights.label * parts["label"] + weights.cosine * parts["cosine"]
    run.optimizer.zero_grad()
    total.backward()
    learned = [p for group in run.optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(learned, CLIP)
    run.optimizer.step()
    losses = {"loss": total.item(), **{name: part.item() for name, part in parts.items()}}
    _note(run, plan, losses)
    return losses, len(batch.known)


def compare(run: Run, plan: Plan, batch: Batch) -> dict[str, Tensor]:
    """The three parts of the loss, unweighted."""
    run.student.train()
    every = len(plan.layers) > 1
    with torch.no_grad(), plan.autocast():
        taught = plan.teacher(**batch.teacher.to(plan.device), output_hidden_states=True)
    with plan.autocast():
        said = run.student(**batch.student.to(plan.device), output_hidden_states=True)
        row, here, there = batch.pairs.to(plan.device)
        mine = said.hidden_states[1:] if every else said.hidden_states[-1:]
        states = [run.projection(state[row, here]) for state in mine]
    wanted = [taught.hidden_states[layer][row, there].float() for layer in plan.layers]
    logits = said.logits.float()
    zero = logits.new_zeros(())
    labels, known = batch.labels.to(plan.device), batch.known.to(plan.device)
    return {
        "soft": loss.soft_loss(logits, taught.logits.float(), plan.weights) if plan.weights.soft else zero,
        "label": loss.label_loss(logits, labels, known, plan.weights) if plan.weights.label else zero,
        "cosine": loss.cosine_loss([state.float() for state in states], wanted) if plan.weights.cosine else zero,
    }


def pace(step: int, steps: int) -> float:
    """The share of the learning rate: up in a straight line, then down to nothing."""
    warm = max(1, round(WARM_UP * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _note(run: Run, plan: Plan, losses: Mapping[str, float]) -> None:
    """Adds to the curve: the mean of each part since its last point."""
    for name, value in losses.items():
        run.sums[name] = run.sums.get(name, 0.0) + value
    run.sums["steps"] = run.sums.get("steps", 0.0) + 1
    if (run.step + 1) % plan.point_every == 0:
        count = run.sums.pop("steps")
        run.curve.append({"step": run.step + 1, **{name: total / count for name, total in run.sums.items()}})
        run.sums = {}


def look(run: Run, plan: Plan) -> Look:
    """Judges the student on the held-out texts; of equals the later weights are kept."""
    logits = answer(run.student, plan.lesson.student, plan.held_out.texts, plan.device)
    found = measure(logits, plan.wanted, plan.held_out, plan.weights.multi_label)
    now = Look(run.step, *found)
    run.looks.append(now)
    if run.best is None or now.accuracy >= run.best.accuracy:
        run.best = now
        run.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in run.student.state_dict().items()}
    return now


def is_stuck(run: Run, plan: Plan) -> bool:
    """Whether so many looks passed since the best accuracy was first seen."""
    seen = [each.accuracy for each in run.looks]
    return len(seen) - 1 - seen.index(max(seen)) >= plan.patience


def answer(model: Any, speller: Speller, texts: Sequence[str], device: torch.device) -> Tensor:
    """Logits float32 (texts, labels) in fp32 arithmetic, batches of similar lengths at a time."""
    ids = speller.encode(texts)
    answers = torch.zeros(len(ids), model.config.num_labels)
    model.eval()
    with torch.inference_mode():
        for rows in by_length(range(len(ids)), ids, JUDGED):
            inputs = speller.pad([ids[row] for row in rows])
            answers[rows] = model(**inputs.to(device)).logits.float().cpu()
    return answers


def measure(logits: Tensor, wanted: Tensor | None, texts: Texts, multi_label: bool) -> tuple[float, float | None]:
    """Accuracy on the labels and agreement with the teacher; without labels the first is the second."""
    said = _answers(logits, multi_label)
    agreement = None if wanted is None else float((said == _answers(wanted, multi_label)).all(1).float().mean())
    if not texts.known.any():
        return agreement or 0.0, agreement
    right = (said == torch.from_numpy(texts.labels)).all(1)[torch.from_numpy(np.flatnonzero(texts.known))]
    return float(right.float().mean()), agreement


def _answers(logits: Tensor, multi_label: bool) -> Tensor:
    """bool (texts, labels): the best label, or all over one half."""
    if multi_label:
        return logits > 0
    return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
