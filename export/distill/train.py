"""The training loop: teacher and student see a batch, the student learns, held-out texts choose the best weights.

Takes models, a `DataLoader` and what to train by: a `Plan`. Changes a `TrainState`, which holds all that moves, so that
saving it (state.py) and going on gives the same bits as never having stopped.
Leaves out: files, and what the terminal shows.

The teacher runs again at every epoch instead of once: its hidden states are too many to keep (700 MB for SST-2), and
without a cache nothing can grow stale. It costs a quarter of a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from pocketbert.export.distill.data_loader import Batch, DataLoader
from pocketbert.export.distill.evaluation import Evaluation, predict_logits, score
from pocketbert.export.distill.loss import LossWeights, cosine_loss, label_loss, soft_loss
from pocketbert.export.distill.splits import Split
from pocketbert.runtime.progress import Progress

WARMUP = 0.06  # share of the steps until the full learning rate; RoBERTa's (arXiv 1907.11692, table 10)
WEIGHT_DECAY = 0.01  # AdamW's own default, and BERT's
MAX_GRAD_NORM = 5.0  # as in DistilBERT's train.py: the loss is a sum of weighted parts
EVALUATIONS = 4  # on the held-out texts in an epoch
CURVE_POINTS = 100  # of the loss
SMOOTHING = 0.98  # weight of the past in the loss that is shown
STAGE = "training"


@dataclass
class TrainState:
    """All that changes while a student learns."""

    student: Any
    projection: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: Evaluation | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)  # of the losses
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last point of the curve


@dataclass(frozen=True)
class Plan:
    """What stays the same."""

    teacher_model: Any
    data_loader: DataLoader
    held_out: Split
    teacher_logits: Tensor | None  # for the held-out texts, None where the teacher's labels are others
    loss_weights: LossWeights
    teacher_layers: Sequence[int]  # those that the student's compared layers stand for
    steps: int
    learning_rate: float
    device: torch.device
    bf16: bool
    patience: int

    @property
    def evaluate_every(self) -> int:
        return max(1, self.data_loader.steps_per_epoch // EVALUATIONS)

    @property
    def point_every(self) -> int:
        return max(1, self.steps // CURVE_POINTS)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


@dataclass
class Meter:
    """What a training says of itself while it runs: a smoothed loss, the last accuracy, the speed."""

    state: TrainState
    plan: Plan
    loss: float = 0.0

    def update(self, loss: float) -> None:
        self.loss = SMOOTHING * self.loss + (1 - SMOOTHING) * loss if self.loss else loss

    @property
    def texts_per_second(self) -> float:
        return self.state.step * self.plan.data_loader.batch_size / max(self.state.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        return (self.plan.steps - self.state.step) * self.state.seconds / max(self.state.step, 1)

    def note(self) -> str:
        """After a step, beside the bar."""
        seen = self.state.evaluations
        held_out = f"held out {seen[-1].accuracy:.2%}  " if seen else ""
        return f"loss {self.loss:.3f}  {held_out}{timedelta(seconds=round(self.seconds_left))} left"

    def line(self) -> str:
        """After an evaluation."""
        held_out = self.state.evaluations[-1].accuracy
        return (
            f"step {self.state.step} of {self.plan.steps}: loss {self.loss:.3f}, held out {held_out:.2%}, "
            f"{self.texts_per_second:,.0f} texts/s, {self.seconds_left:.0f} s left"
        )


def make_optimizer(student: Any, projection: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay, as in BERT."""
    named = [*student.named_parameters(), *projection.named_parameters()]
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)  # a third less time on CPUs


def train(
    state: TrainState,
    plan: Plan,
    save: Callable[[TrainState], None],
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Learns until the last step (returns "done"), until nothing gets better ("early"), or when told ("stopped").

    `save` is called after each evaluation and at a stop; `should_stop` after each step.
    """
    progress, meter = progress or Progress(), Meter(state, plan)
    progress.start(STAGE, plan.steps)
    progress.advance(STAGE, state.step)
    outcome = _train(state, plan, save, progress, should_stop, meter)
    progress.finish(STAGE, meter.note())
    return outcome


def _train(
    state: TrainState,
    plan: Plan,
    save: Callable[[TrainState], None],
    progress: Progress,
    should_stop: Callable[[], bool],
    meter: Meter,
) -> str:
    before, started = state.seconds, time.perf_counter()
    while state.step < plan.steps:
        meter.update(train_step(state, plan)["loss"])
        state.step += 1
        state.seconds = before + time.perf_counter() - started
        progress.advance(STAGE, 1, meter.note())
        stop, last = should_stop(), state.step == plan.steps
        if state.step % plan.evaluate_every == 0 or last or (stop and state.best is None):
            evaluate(state, plan)
            progress.log(meter.line())
            state.seconds = before + time.perf_counter() - started
            save(state)
            if is_stuck(state, plan):
                return "early"
        elif stop:
            save(state)
        if stop and not last:
            return "stopped"
    return "done"


def train_step(state: TrainState, plan: Plan) -> dict[str, float]:
    """One step. Returns the loss and its parts."""
    batch = plan.data_loader.batch(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = plan.learning_rate * learning_rate_schedule(state.step, plan.steps)
    parts = compute_losses(state, plan, batch)
    weights = plan.loss_weights
    total = weights.soft * parts["soft"] + weights.label * parts["label"] + weights.cosine * parts["cosine"]
    state.optimizer.zero_grad()
    total.backward()
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
    state.optimizer.step()
    losses = {"loss": total.item(), **{name: part.item() for name, part in parts.items()}}
    _add_to_curve(state, plan, losses)
    return losses


def compute_losses(state: TrainState, plan: Plan, batch: Batch) -> dict[str, Tensor]:
    """The three parts of the loss, unweighted."""
    state.student.train()
    every = len(plan.teacher_layers) > 1
    with torch.no_grad(), plan.autocast():
        teacher = plan.teacher_model(**batch.teacher.to(plan.device), output_hidden_states=True)
    with plan.autocast():
        student = state.student(**batch.student.to(plan.device), output_hidden_states=True)
        row, here, there = batch.alignment.to(plan.device)
        compared = student.hidden_states[1:] if every else student.hidden_states[-1:]
        found = [state.projection(hidden[row, here]) for hidden in compared]
    wanted = [teacher.hidden_states[layer][row, there].float() for layer in plan.teacher_layers]
    logits, weights = student.logits.float(), plan.loss_weights
    zero = logits.new_zeros(())
    labels, labelled = batch.labels.to(plan.device), batch.labelled.to(plan.device)
    return {
        "soft": soft_loss(logits, teacher.logits.float(), weights) if weights.soft else zero,
        "label": label_loss(logits, labels, labelled, weights) if weights.label else zero,
        "cosine": cosine_loss([hidden.float() for hidden in found], wanted) if weights.cosine else zero,
    }


def learning_rate_schedule(step: int, steps: int) -> float:
    """The share of the learning rate: linear warm-up, then linear decay to nothing."""
    warmup = max(1, round(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def _add_to_curve(state: TrainState, plan: Plan, losses: Mapping[str, float]) -> None:
    """A point of the curve is the mean of each part since the point before."""
    for name, value in losses.items():
        state.sums[name] = state.sums.get(name, 0.0) + value
    state.sums["steps"] = state.sums.get("steps", 0.0) + 1
    if (state.step + 1) % plan.point_every == 0:
        count = state.sums.pop("steps")
        state.curve.append({"step": state.step + 1, **{name: total / count for name, total in state.sums.items()}})
        state.sums = {}


def evaluate(state: TrainState, plan: Plan) -> Evaluation:
    """The student on the held-out texts; of equals the later weights are kept."""
    logits = predict_logits(state.student, plan.data_loader.student_encoder, plan.held_out.texts, plan.device)
    scores = score(logits, plan.teacher_logits, plan.held_out, plan.loss_weights.multi_label)
    now = Evaluation(state.step, *scores)
    state.evaluations.append(now)
    if state.best is None or now.accuracy >= state.best.accuracy:
        state.best = now
        state.best_weights = {name: each.detach().cpu().clone() for name, each in state.student.state_dict().items()}
    return now


def is_stuck(state: TrainState, plan: Plan) -> bool:
    """Whether `patience` evaluations passed since the best accuracy was first seen."""
    seen = [each.accuracy for each in state.evaluations]
    return len(seen) - 1 - seen.index(max(seen)) >= plan.patience
