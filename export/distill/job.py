"""One distillation from files to files: the whole road of `pocketbert distill`.

    teacher + texts -> vocabulary -> student -> training -> checkpoint + report

Takes options. Returns what came of it; leaves a finished checkpoint folder, and beside it a folder with the report.
Leaves out: the terminal (cli/distill.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.distill.data_loader import BatchEncoder, DataLoader
from pocketbert.export.distill.evaluation import predict_logits, score
from pocketbert.export.distill.loss import PARTS, LossWeights
from pocketbert.export.distill.options import DistillError, DistillOptions, check_options, describe_command
from pocketbert.export.distill.report import write_report
from pocketbert.export.distill.splits import Splits, read_splits
from pocketbert.export.distill.state import STATE, fingerprint, restore_state, save_state
from pocketbert.export.distill.student import Shape, Usage, build_student, decide_shape, pair_layers
from pocketbert.export.distill.train import Plan, TrainState, make_optimizer, train
from pocketbert.export.distill.vocabulary import find_special, prune_vocabulary
from pocketbert.export.distill.write import write_checkpoint
from pocketbert.export.transformers_import import import_transformers
from pocketbert.runtime.manifest import SEQUENCE_CLASSIFICATION, hash_file
from pocketbert.runtime.progress import Progress

if TYPE_CHECKING:
    from pocketbert.export.checkpoint import Checkpoint

SAMPLED = 512  # texts whose hidden states show a narrower student which directions matter
SAMPLED_STATES = 20_000  # of them, from all depths
OUTCOMES = {
    "done": "Finished.",
    "early": "Stopped early: nothing got better.",
    "stopped": "Interrupted: this is the best so far.",
}
STAGE = "reading"


@dataclass(frozen=True)
class Job:
    """A distillation, ready to start."""

    options: DistillOptions
    teacher: Checkpoint
    splits: Splits
    tokenizer: Tokenizer  # the student's
    plan: Plan
    state: TrainState
    facts: Mapping[str, Any]  # for the report


@dataclass(frozen=True)
class DistillResult:
    """What came of a distillation."""

    job: Job
    outcome: str  # done, early, stopped
    accuracy: float | None  # the best on the held-out texts
    teacher_accuracy: float | None


def prepare(options: DistillOptions, progress: Progress | None = None) -> Job:
    """Reads everything and builds the student; nothing is written yet. Raises PocketbertError."""
    progress = progress or Progress()
    progress.start(STAGE, note="the teacher and the texts")
    check_options(options)
    device, bf16 = _decide_arithmetic(options)
    teacher = load_checkpoint(options.teacher, task=SEQUENCE_CLASSIFICATION)
    splits = read_splits(options, teacher.labels, teacher.multi_label)
    shape = decide_shape(teacher.config, options)
    tokenizer = _choose_tokenizer(teacher, splits, options)
    loader = _make_data_loader(teacher, tokenizer, splits, shape, options)
    teacher_model = _load_teacher_model(teacher, device)
    states = _sample_states(teacher_model, loader, shape.hidden_size < teacher.config.hidden_size, device)
    usage = Usage(loader.count_tokens(), loader.count_positions())
    student, projection = build_student(teacher, tokenizer, splits.labels, shape, usage, states, options)
    student, projection = student.to(device), projection.to(device)
    plan = _make_plan(options, teacher, splits, teacher_model, loader, shape, device, bf16)
    state = TrainState(student, projection, make_optimizer(student, projection, plan.learning_rate))
    facts = _describe(options, teacher, splits, shape, plan, student)
    torch.manual_seed(options.seed)  # from here on dropout draws
    progress.finish(STAGE)
    return Job(options, teacher, splits, tokenizer, plan, state, facts)


def distill(
    job: Job, progress: Progress | None = None, should_stop: Callable[[], bool] = lambda: False
) -> DistillResult:
    """Trains, and writes the checkpoint and the report. Raises PocketbertError.

    `should_stop` is asked after each step; where it says so, the best so far is written.
    """
    options, plan, state = job.options, job.plan, job.state
    run = fingerprint(options, _hash_sources(job), plan.bf16)
    if options.resume:
        restore_state(state, run, options.work)
    elif options.work.exists():
        shutil.rmtree(options.work)

    def save(state: TrainState) -> None:
        save_state(state, run, options.work)
        write_report(state, {**job.facts, "outcome": "Running."}, options.work)

    outcome = train(state, plan, save, progress, should_stop)
    state.student.load_state_dict(state.best_weights)
    write_checkpoint(state.student.cpu(), job.teacher, job.tokenizer, options)
    write_report(state, {**job.facts, "outcome": OUTCOMES[outcome]}, options.work)
    if outcome != "stopped":
        (options.work / STATE).unlink(missing_ok=True)
    return DistillResult(job, outcome, state.best.accuracy if state.best else None, job.facts["teacher_accuracy"])


def _decide_arithmetic(options: DistillOptions) -> tuple[torch.device, bool]:
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


def _choose_tokenizer(teacher: Checkpoint, splits: Splits, options: DistillOptions) -> Tokenizer:
    if options.vocab_size:
        return prune_vocabulary(teacher.tokenizer, splits.train.texts, options.vocab_size)
    if options.tokenizer is None:
        return teacher.tokenizer
    from pocketbert.export.tokenizer.load import load_tokenizer

    if not options.tokenizer.is_file():
        raise DistillError(f"no file {options.tokenizer}: --tokenizer takes a tokenizer.json")
    return load_tokenizer(options.tokenizer.parent)


def _make_data_loader(
    teacher: Checkpoint, tokenizer: Tokenizer, splits: Splits, shape: Shape, options: DistillOptions
) -> DataLoader:
    specials = tokenizer.num_special_tokens_to_add(False)
    longest = min(shape.max_position_embeddings, teacher.config.max_position_embeddings)
    if options.max_length <= specials:
        raise DistillError(f"--max-length {options.max_length} leaves no room for text: {specials + 1} at least")
    length = min(options.max_length, longest)
    pad = find_special(str(teacher.tokenizer.id_to_token(teacher.config.pad_id)), tokenizer)
    if pad is None:
        raise DistillError(f"{options.tokenizer} has no padding token: [PAD] or <pad>")
    student_encoder = BatchEncoder(tokenizer, pad, length)
    teacher_encoder = BatchEncoder(teacher.tokenizer, teacher.config.pad_id, length)
    return DataLoader(student_encoder, teacher_encoder, splits.train, options.batch_size, options.seed)


def _load_teacher_model(teacher: Checkpoint, device: torch.device) -> Any:
    models = import_transformers().AutoModelForSequenceClassification
    model = models.from_pretrained(teacher.folder, dtype=torch.float32)
    return model.to(device).eval().requires_grad_(False)


def _sample_states(teacher_model: Any, loader: DataLoader, needed: bool, device: torch.device) -> Tensor:
    """The teacher's hidden states at every depth for some texts: (n, hidden)."""
    if not needed:
        return torch.zeros(0, 0)
    rows = range(0, len(loader.split), max(1, len(loader.split) // SAMPLED))
    inputs = loader.teacher_encoder.pad([loader.teacher_ids[row] for row in rows])
    with torch.inference_mode():
        states = teacher_model(**inputs.to(device), output_hidden_states=True).hidden_states
    kept = inputs.attention_mask.bool()
    found = torch.cat([layer.cpu()[kept] for layer in states])  # (depths * tokens, hidden)
    return found[:: max(1, len(found) // SAMPLED_STATES)].clone()


def _make_plan(
    options: DistillOptions,
    teacher: Checkpoint,
    splits: Splits,
    teacher_model: Any,
    loader: DataLoader,
    shape: Shape,
    device: torch.device,
    bf16: bool,
) -> Plan:
    logits = None
    same_labels = list(splits.labels) == list(teacher.labels)
    if same_labels:
        logits = predict_logits(teacher_model, loader.teacher_encoder, splits.held_out.texts, device)
    return Plan(
        teacher_model=teacher_model,
        data_loader=loader,
        held_out=splits.held_out,
        teacher_logits=logits,
        loss_weights=_loss_weights(options, teacher.multi_label, same_labels),
        teacher_layers=_compared_layers(options, shape.num_layers, len(teacher.config.layer_schedule)),
        steps=max(1, round(options.chosen_epochs * loader.steps_per_epoch)),
        learning_rate=options.chosen_learning_rate,
        device=device,
        bf16=bf16,
        patience=options.patience,
    )


def _loss_weights(options: DistillOptions, multi_label: bool, same_labels: bool) -> LossWeights:
    """A teacher with other labels has no soft targets for the student's, only hidden states."""
    soft = options.alpha_ce if same_labels else 0.0
    return LossWeights(soft, options.alpha_label, options.alpha_cos, options.temperature, multi_label)


def _compared_layers(options: DistillOptions, count: int, depth: int) -> list[int]:
    layers = pair_layers(count, depth)
    return layers if options.match == "every" else layers[-1:]


def _describe(
    options: DistillOptions, teacher: Checkpoint, splits: Splits, shape: Shape, plan: Plan, student: Any
) -> dict[str, Any]:
    config, accuracy = teacher.config, None
    if plan.teacher_logits is not None and plan.held_out.labelled.any():
        accuracy, _ = score(plan.teacher_logits, None, plan.held_out, plan.loss_weights.multi_label)
    return {
        "command": describe_command(options),
        "out": str(options.out),
        "teacher": teacher.name,
        "student": options.student,
        "options": {name: str(value) for name, value in asdict(options).items()},
        "data": list(splits.notes),
        "trained_on": len(splits.train),
        "held_out": len(splits.held_out),
        "paired": plan.data_loader.aligned_share,
        "steps": plan.steps,
        "device": str(plan.device),
        "threads": torch.get_num_threads(),
        "arithmetic": "bf16" if plan.bf16 else "fp32",
        "teacher_accuracy": accuracy,
        "weights": {part: getattr(plan.loss_weights, part) for part in PARTS},
        "sizes": {
            "parameters": [_count_stored(teacher), _count_parameters(student)],
            "layers run": [len(config.layer_schedule), shape.num_layers],
            "layers stored": [config.stored_layers, 1 if shape.family == "albert" else shape.num_layers],
            "hidden size": [config.hidden_size, shape.hidden_size],
            "embedding size": [config.embedding_size, shape.embedding_size],
            "vocabulary": [config.vocab_size, student.config.vocab_size],
        },
    }


def _count_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _count_stored(checkpoint: Checkpoint) -> int:
    return sum(tensor.numel() for tensor in checkpoint.tensors.values())


def _hash_sources(job: Job) -> dict[str, str]:
    options = job.options
    files = [
        *options.data,
        *([options.dev] if options.dev else []),
        *([options.tokenizer] if options.tokenizer else []),
    ]
    return {"weights of the teacher": job.teacher.weights_sha256, "content of the data": hash_file(*files)}
