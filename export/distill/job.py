"""One distillation from files to files: the whole road of `pocketbert distill`.

    teacher + texts -> vocabulary -> student -> training -> checkpoint + report

Takes options. Gives a finished checkpoint folder, and beside it a folder with the report.
Leaves out: the terminal (cli.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pocketbert.export import checkpoint as checkpoints
from pocketbert.export.distill import report, state, student, texts, vocabulary, write
from pocketbert.export.distill import train as training
from pocketbert.export.distill.lesson import Lesson, Speller
from pocketbert.export.distill.loss import PARTS, Weights
from pocketbert.export.distill.options import DistillError, Options, check
from pocketbert.export.distill.train import Plan, Run, Watch
from pocketbert.export.hugging_face import open_transformers
from pocketbert.runtime.manifest import hash_file

if TYPE_CHECKING:
    from pocketbert.export.checkpoint import Checkpoint

SAMPLED = 512  # texts whose hidden states show a narrower student which directions matter
SAMPLED_STATES = 20_000  # of them, from all depths
OUTCOMES = {
    "done": "Finished.",
    "early": "Stopped early: nothing got better.",
    "stopped": "Interrupted: this is the best so far.",
}


@dataclass(frozen=True)
class Job:
    """A distillation, ready to start."""

    options: Options
    teacher: Checkpoint
    source: texts.Source
    tokenizer: Tokenizer  # the student's
    plan: Plan
    run: Run
    facts: dict[str, Any]  # for the report


@dataclass(frozen=True)
class Result:
    """What a distillation gave."""

    job: Job
    outcome: str  # done, early, stopped
    accuracy: float | None  # the best on the held-out texts
    teacher_accuracy: float | None


def prepare(options: Options, command: str = "") -> Job:
    """Reads everything and builds the student; nothing is written yet. Raises PocketbertError."""
    check(options)
    device, bf16 = _decide_arithmetic(options)
    teacher = checkpoints.load(options.teacher)
    source = texts.read(options, teacher.labels, teacher.multi_label)
    shape = student.decide_shape(teacher.config, options)
    tokenizer = _choose_tokenizer(teacher, source, options)
    lesson = _make_lesson(teacher, tokenizer, source, shape, options)
    judge = _load_teacher(teacher, device)
    states = _sample_states(judge, lesson, shape.hidden < teacher.config.hidden_size, device)
    usage = student.Usage(lesson.count_words(), lesson.count_positions())
    pupil, projection = student.make(teacher, tokenizer, source.labels, shape, usage, states, options)
    pupil, projection = pupil.to(device), projection.to(device)
    plan = _make_plan(options, teacher, source, judge, lesson, shape, device, bf16)
    run = Run(pupil, projection, training.make_optimizer(pupil, projection, plan.rate))
    job = Job(options, teacher, source, tokenizer, plan, run, {})
    job.facts.update(_describe(job, command))
    torch.manual_seed(options.seed)  # from here on dropout draws
    return job


def distill(job: Job, watch: Watch) -> Result:
    """Trains, and writes the checkpoint and the report. Raises PocketbertError."""
    options, plan, run = job.options, job.plan, job.run
    described = state.describe(options, _hashes(job), plan.bf16)
    if options.resume:
        state.restore(run, described, options.work)
    elif options.work.exists():
        shutil.rmtree(options.work)

    def save(run: Run) -> None:
        state.save(run, described, options.work)
        report.write(run, {**job.facts, "outcome": "Running."}, options.work)

    outcome = training.train(run, plan, watch, save)
    run.student.load_state_dict(run.best_weights)
    write.write(run.student.cpu(), job.teacher, job.tokenizer, options)
    report.write(run, {**job.facts, "outcome": OUTCOMES[outcome]}, options.work)
    if outcome != "stopped":
        (options.work / state.STATE).unlink(missing_ok=True)
    return Result(job, outcome, run.best.accuracy if run.best else None, job.facts["teacher_accuracy"])


def _decide_arithmetic(options: Options) -> tuple[torch.device, bool]:
    """CUDA if there is one, and bf16 where the hardware has it: emulated it is slower than fp32."""
    if options.threads:
        torch.set_num_threads(options.threads)
    cuda = torch.cuda.is_available()
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to repeat itself
        torch.use_deterministic_algorithms(True, warn_only=True)
    bf16 = has_bf16(cuda) if options.precision == "auto" else options.precision == "bf16"
    return torch.device("cuda" if cuda else "cpu"), bf16


def has_bf16(cuda: bool) -> bool:
    """Whether the GPU, or else the CPU (AVX-512 BF16, AMX, Arm's bf16), multiplies bfloat16 itself."""
    if cuda:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _choose_tokenizer(teacher: Checkpoint, source: texts.Source, options: Options) -> Tokenizer:
    if options.vocab_size:
        return vocabulary.prune(teacher.tokenizer, source.train.texts, options.vocab_size)
    if options.tokenizer is None:
        return teacher.tokenizer
    from pocketbert.export.tokenizer import load_tokenizer

    if not options.tokenizer.is_file():
        raise DistillError(f"no file {options.tokenizer}: --tokenizer takes a tokenizer.json")
    return load_tokenizer(options.tokenizer.parent)


def _make_lesson(
    teacher: Checkpoint, tokenizer: Tokenizer, source: texts.Source, shape: student.Shape, options: Options
) -> Lesson:
    specials = tokenizer.num_special_tokens_to_add(False)
    longest = min(shape.positions, teacher.config.positions)
    if options.max_length <= specials:
        raise DistillError(f"--max-length {options.max_length} leaves no room for text: {specials + 1} at least")
    length = min(options.max_length, longest)
    pad = vocabulary.find_special(str(teacher.tokenizer.id_to_token(teacher.config.pad_id)), tokenizer)
    if pad is None:
        raise DistillError(f"{options.tokenizer} has no padding token: [PAD] or <pad>")
    own = Speller(teacher.tokenizer, teacher.config.pad_id, length)
    return Lesson(Speller(tokenizer, pad, length), own, source.train, options.batch_size, options.seed)


def _load_teacher(teacher: Checkpoint, device: torch.device) -> Any:
    models = open_transformers().AutoModelForSequenceClassification
    model = models.from_pretrained(teacher.folder, dtype=torch.float32)
    return model.to(device).eval().requires_grad_(False)


def _sample_states(judge: Any, lesson: Lesson, needed: bool, device: torch.device) -> Tensor:
    """The teacher's hidden states at every depth for some texts: (n, hidden)."""
    if not needed:
        return torch.zeros(0, 0)
    rows = range(0, len(lesson.texts), max(1, len(lesson.texts) // SAMPLED))
    inputs = lesson.teacher.pad([lesson.teacher_ids[row] for row in rows])
    with torch.inference_mode():
        states = judge(**inputs.to(device), output_hidden_states=True).hidden_states
    kept = inputs.attention_mask.bool()
    found = torch.cat([layer.cpu()[kept] for layer in states])  # (depths * tokens, hidden)
    return found[:: max(1, len(found) // SAMPLED_STATES)].clone()


def _make_plan(
    options: Options,
    teacher: Checkpoint,
    source: texts.Source,
    judge: Any,
    lesson: Lesson,
    shape: student.Shape,
    device: torch.device,
    bf16: bool,
) -> Plan:
    own_labels = list(source.labels) == list(teacher.labels)
    return Plan(
        teacher=judge,
        lesson=lesson,
        held_out=source.held_out,
        wanted=training.answer(judge, lesson.teacher, source.held_out.texts, device) if own_labels else None,
        weights=_weights(options, teacher.multi_label, own_labels),
        layers=_compared(options, shape.depth, len(teacher.config.schedule)),
        steps=max(1, round(options.epochs * lesson.steps_per_epoch)),
        rate=options.rate,
        device=device,
        bf16=bf16,
        patience=options.patience,
    )


def _weights(options: Options, multi_label: bool, own_labels: bool) -> Weights:
    """A teacher with other labels has no answer to imitate, only hidden states."""
    soft = options.alpha_ce if own_labels else 0.0
    return Weights(soft, options.alpha_label, options.alpha_cos, options.temperature, multi_label)


def _compared(options: Options, depth: int, teacher_depth: int) -> list[int]:
    layers = student.pair_layers(depth, teacher_depth)
    return layers if options.match == "every" else layers[-1:]


def _describe(job: Job, command: str) -> dict[str, Any]:
    plan, config = job.plan, job.teacher.config
    pupil = job.run.student.config
    accuracy = None
    if plan.wanted is not None and plan.held_out.known.any():
        accuracy, _ = training.measure(plan.wanted, None, plan.held_out, plan.weights.multi_label)
    shape = student.decide_shape(config, job.options)
    return {
        "command": command,
        "out": str(job.options.out),
        "teacher": job.teacher.name,
        "student": job.options.student,
        "options": {name: str(value) for name, value in asdict(job.options).items()},
        "data": list(job.source.notes),
        "trained_on": len(plan.lesson.texts),
        "held_out": len(plan.held_out),
        "paired": plan.lesson.paired,
        "steps": plan.steps,
        "device": str(plan.device),
        "threads": torch.get_num_threads(),
        "arithmetic": "bf16" if plan.bf16 else "fp32",
        "teacher_accuracy": accuracy,
        "weights": {part: getattr(plan.weights, part) for part in PARTS},
        "sizes": {
            "parameters": [count_teacher(job.teacher), count(job.run.student)],
            "layers run": [len(config.schedule), shape.depth],
            "layers stored": [config.stored_layers, 1 if shape.family == "albert" else shape.depth],
            "hidden size": [config.hidden_size, shape.hidden],
            "embedding size": [config.embedding_size, shape.embedding_size],
            "vocabulary": [config.vocab_size, pupil.vocab_size],
        },
    }


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_teacher(teacher: Checkpoint) -> int:
    return sum(tensor.numel() for tensor in teacher.tensors.values())


def _hashes(job: Job) -> Mapping[str, str]:
    options = job.options
    files = [
        *options.data,
        *([options.dev] if options.dev else []),
        *([options.tokenizer] if options.tokenizer else []),
    ]
    return {"weights of the teacher": job.teacher.weights_sha256, "content of the data": hash_file(*map(Path, files))}
