"""Trains a model to be of 4 bits, its own fp32 self being the teacher: rounding is in the loop, no label is needed.

    checkpoint + texts -> weights rounded by calibration -> training -> the same checkpoint, its weights on the grid

Takes options. Returns what came of it; leaves a checkpoint folder whose layers hold whole numbers times scales, so that
an export to the scheme takes them as they are. Any task, pairs too.
Leaves out: the terminal (cli/distill.py), smaller students (job.py), and going on after an interruption.

Calibration rounds one layer after the other, each by itself. Here all weights move together: a step of the optimizer
moves the float behind a whole number, and what is computed is always the whole number (a straight-through estimator,
https://arxiv.org/abs/1308.3432). Scales stay as calibrated, and so does the word table.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from pocketbert.export.atomic_directory import publish, stage
from pocketbert.export.calibration import calibrate, split_texts
from pocketbert.export.calibration_texts import choose, read_inputs
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint, read_stored
from pocketbert.export.distill.options import DistillError, DistillOptions
from pocketbert.export.distill.train import MAX_GRAD_NORM, learning_rate_schedule
from pocketbert.export.distill.write import copy_tokenizer
from pocketbert.export.encoder import Encoder, Layer, Pack, build_encoder
from pocketbert.export.quantize import TwoTables, split_outliers
from pocketbert.export.rounding import FOUR_BITS, RANGE, Rounded
from pocketbert.runtime.progress import Progress

# Of AdamW: a weight moves by about as much in a step, and a whole number is some 0.01 wide. With twice as much so many
# flip at random that the distance to the teacher grows.
LEARNING_RATE = 1e-4
OTHERS = 0.3  # share of it by which biases and norms learn: they have no whole number to cross to
BATCH = 2048  # tokens of a step: fewer say too little of a weight whose whole number is about to change
# Tokens of which each may look at each other: as much of attention's work is between texts, masked out. With 1,024
# together a step took three times as long.
ATTENTION = 128
EVALUATIONS = 8  # on the held-out texts, of the whole training
MOST_HELD_OUT = 512  # texts
# How far from its whole number a weight starts at most, in steps. Calibration chose many that are not the nearest: were
# they to start at the edge, noise would undo at once what they make up for.
START = 0.2
FLOATS = "parametrizations.weight.original"  # how torch names the float behind a weight on a grid
STAGES = ("reading", "rounding", "training")
INNER_SIZE = ("hidden_dim", "intermediate_size")  # DistilBERT's key, and the others'


@dataclass(frozen=True)
class Trained:
    """What came of it: how far held-out texts are from the teacher, as calibrated and at the end."""

    out: Path
    texts: int
    steps: int
    seconds: float
    before: float
    after: float


class Grid(nn.Module):
    """A parametrization: a weight as the whole numbers that it is nearest to, times scales."""

    scale: Tensor  # float32 (rows, 1)

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, None])

    def forward(self, weight: Tensor) -> Tensor:
        steps = (weight / self.scale).clamp(*RANGE[FOUR_BITS])
        return self.scale * (steps + (steps.round() - steps).detach())


def train_to_four_bits(options: DistillOptions, progress: Progress | None = None) -> Trained:
    """Trains the teacher of `options` to `dynamic_wi4_afp32` and writes `options.out`. Raises PocketbertError."""
    progress, started = progress or Progress(), time.perf_counter()
    if options.threads:
        torch.set_num_threads(options.threads)
    reading, rounding, training = STAGES
    progress.start(reading, note="the teacher and the texts")
    checkpoint = load_checkpoint(options.teacher, pairs=options.pairs)
    longest = min(options.max_length, checkpoint.config.max_position_embeddings)
    texts = [ids for file in options.data for ids in read_inputs(checkpoint, file, longest)]
    random.Random(options.seed).shuffle(texts)
    count = min(MOST_HELD_OUT, int(len(texts) * options.held_out))
    if not count:
        raise DistillError(f"{len(texts)} texts are too few to learn from and to judge by")
    held_out, texts = texts[:count], texts[count:]
    progress.finish(reading, f"{len(texts)} texts")
    progress.start(rounding, len(checkpoint.config.layer_schedule))
    teacher = split_outliers(build_encoder(checkpoint.config, checkpoint.tensors))
    student = make_student(teacher, choose(texts), lambda: progress.advance(rounding))
    progress.finish(rounding)
    before, after, steps = _train(student, teacher, texts, held_out, options, progress, training)
    write_student(student, checkpoint, options)
    return Trained(options.out, len(texts), steps, time.perf_counter() - started, before, after)


def make_student(teacher: Encoder, texts: Sequence[Tensor], on_step: Callable[[], None] = lambda: None) -> Encoder:
    """The teacher as calibration rounds it, ready to be trained."""
    student = copy.deepcopy(teacher)
    student.embeddings.word = TwoTables.of(teacher.embeddings.word).dequantize()
    for name, found in calibrate(student, texts, on_step).items():
        linear = cast(nn.Linear, student.get_submodule(name))
        _set_on_grid(linear, found.rounded)
        linear.bias.data = found.bias
    student.requires_grad_(True)
    student.embeddings.word.requires_grad_(False)
    return student


def _set_on_grid(linear: nn.Linear, rounded: Rounded) -> None:
    """The exact weight, as far as it rounds to what calibration chose."""
    scale = rounded.scale[:, None]
    steps = torch.clamp(linear.weight / scale, rounded.weight - START, rounded.weight + START)
    linear.weight.data = steps * scale
    parametrize.register_parametrization(linear, "weight", Grid(rounded.scale), unsafe=True)


def make_batches(texts: Sequence[Tensor]) -> list[list[Pack]]:
    """Steps of about BATCH tokens, each in packs of texts that are about as long."""
    return [
        [Pack.of(part) for part in split_texts(sorted(step, key=len), ATTENTION)] for step in split_texts(texts, BATCH)
    ]


def compute_states(encoder: Encoder, packs: Sequence[Pack]) -> list[Tensor]:
    """What every depth and the head give for all packs. Weights are rounded once, whatever the packs."""
    with parametrize.cached():
        runs = [_run(encoder, pack) for pack in packs]
    return [torch.cat(part) for part in zip(*runs, strict=True)]


def _run(encoder: Encoder, pack: Pack) -> list[Tensor]:
    states = [encoder.embed(pack)]
    for depth in range(len(encoder.config.layer_schedule)):
        states.append(encoder.run_layers(states[-1], pack, depth, depth + 1))
    return [*states[1:], encoder.head(states[-1])]


def divergence(student: Encoder, teacher: Encoder, packs: Sequence[Pack]) -> Tensor:
    """Squared distance of hidden states and logits, each in shares of what the teacher's vary by: depths together
    weigh as much as logits."""
    with torch.no_grad():
        wanted = compute_states(teacher, packs)
    found = compute_states(student, packs)
    parts = [functional.mse_loss(own, its) / its.var().clamp(min=1e-6) for own, its in zip(found, wanted, strict=True)]
    return torch.stack(parts[:-1]).mean() + parts[-1]


def _train(
    student: Encoder,
    teacher: Encoder,
    texts: Sequence[Tensor],
    held_out: Sequence[Tensor],
    options: DistillOptions,
    progress: Progress,
    stage_name: str,
) -> tuple[float, float, int]:
    """Learns, and leaves the best weights in `student`. Returns the divergence before and after, and the steps."""
    batches, judged = make_batches(texts), make_batches(held_out)
    steps = max(1, round(options.chosen_epochs * len(batches)))
    rate = options.learning_rate or LEARNING_RATE
    optimizer = torch.optim.AdamW(_group(student, rate), weight_decay=0.0)
    before = best = _judge(student, teacher, judged)
    kept = copy.deepcopy(student.state_dict())
    progress.start(stage_name, steps)
    for step, batch in zip(range(steps), _endless(batches, options.seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate_schedule(step, steps)
        optimizer.zero_grad()
        divergence(student, teacher, batch).backward()
        nn.utils.clip_grad_norm_(student.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        progress.advance(stage_name, 1, f"held out {best:.4f}, {before:.4f} at first")
        if (step + 1) % max(1, steps // EVALUATIONS) == 0 or step + 1 == steps:
            found = _judge(student, teacher, judged)
            progress.log(f"step {step + 1} of {steps}: held out {found:.4f}")
            if found < best:
                best, kept = found, copy.deepcopy(student.state_dict())
    student.load_state_dict(kept)
    progress.finish(stage_name, f"held out {best:.4f}, {before:.4f} at first")
    return before, best, steps


def _group(student: Encoder, rate: float) -> list[dict[str, Any]]:
    """What learns, by how quickly: the weights on a grid, and all the others."""
    learning = {name: each for name, each in student.named_parameters() if each.requires_grad}
    on_grid = [each for name, each in learning.items() if name.endswith(FLOATS)]
    others = [each for name, each in learning.items() if not name.endswith(FLOATS)]
    return [{"params": on_grid, "rate": rate}, {"params": others, "rate": rate * OTHERS}]


def _judge(student: Encoder, teacher: Encoder, batches: Sequence[Sequence[Pack]]) -> float:
    with torch.no_grad():
        return float(torch.stack([divergence(student, teacher, batch) for batch in batches]).mean())


def _endless(batches: Sequence[Sequence[Pack]], seed: int) -> Iterator[Sequence[Pack]]:
    """All of them again and again, in another order each time."""
    order = random.Random(seed)
    while True:
        yield from order.sample(batches, len(batches))


def write_student(student: Encoder, teacher: Checkpoint, options: DistillOptions) -> None:
    """Writes the teacher's checkpoint with the student's weights, in fp32: fp16 would move them off the grid.

    Raises DistillError where that cannot be written.
    """
    from safetensors.torch import save_file

    for part in list(student.modules()):
        if parametrize.is_parametrized(part):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    stored, names = read_stored(teacher)
    for canonical, tensor in unfold(student).items():
        stored[names[canonical]] = tensor
    try:
        with stage(options.out) as staging:
            save_file({name: tensor.contiguous() for name, tensor in stored.items()}, staging / "model.safetensors")
            _write_config(teacher.folder, student, staging)
            copy_tokenizer(teacher.folder, staging)
            publish(staging, options.out, replace=options.force)
    except OSError as problem:
        raise DistillError(f"cannot write {options.out}: {problem.strerror or problem}") from problem


def unfold(student: Encoder) -> dict[str, Tensor]:
    """The tensors that training changed, as a checkpoint has them; the tables of positions and types it did not."""
    tables = ("embeddings.position", "embeddings.second")
    tensors = {name: tensor.detach() for name, tensor in student.state_dict().items() if name not in tables}
    scale = (student.config.hidden_size // student.config.num_attention_heads) ** -0.5
    return {name: tensor / scale if ".query." in name else tensor for name, tensor in tensors.items()}


def _write_config(folder: Path, student: Encoder, staging: Path) -> None:
    """The teacher's, but for the hidden units that outlier splitting added and the type of the weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    inner = cast(Layer, student.layers[0]).up.out_features
    changed = {**{key: inner for key in INNER_SIZE}, "dtype": "float32", "torch_dtype": "float32"}
    config |= {key: value for key, value in changed.items() if key in config}
    (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
