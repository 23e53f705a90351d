"""A student starts from what its teacher knows, learns by the stated loss, and a run can be stopped and taken up."""

from __future__ import annotations

import json
import random
import shlex
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from conftest import LABELS, WORDS, Maker, unigram, wordpiece
from test_bundle import pocketbert
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.cli.distill import distill as command
from pocketbert.export.distill import algebra, job, loss, vocabulary
from pocketbert.export.distill.data_loader import BatchEncoder, DataLoader
from pocketbert.export.distill.options import DistillError, DistillOptions, describe_command
from pocketbert.export.distill.splits import Split, read_splits
from pocketbert.export.distill.student import pair_layers, pick_layers
from pocketbert.export.distill.train import learning_rate_schedule
from pocketbert.export.encoder import build_encoder
from pocketbert.runtime.check.datasets import DataError
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.progress import Progress

FAMILIES = ("bert", "distilbert", "albert")
SENTENCES = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random sentences; "love", "hate" and neither make the label."""
    draw = random.Random(0)
    rows = []
    for _ in range(SENTENCES):
        words = draw.choices(WORDS, k=draw.randint(2, 9))
        rows.append((" ".join(words), "joy" if "love" in words else "anger" if "hate" in words else "calm"))
    file = tmp_path_factory.mktemp("data") / "chat.tsv"
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return file


@pytest.fixture
def options(checkpoints: dict[str, Path], data: Path, tmp_path: Path) -> DistillOptions:
    return DistillOptions(
        teacher=str(checkpoints["bert"]),
        student="distilbert",
        data=(data,),
        out=tmp_path / "student",
        epochs=2,
        batch_size=16,
        max_length=16,
        learning_rate=1e-3,
        held_out=0.2,
        threads=1,
        embedding_size=8,
    )


def run(options: DistillOptions, stop_at: int | None = None) -> job.DistillResult:
    """A whole distillation, or one that is told to stop after so many steps."""
    ready = job.prepare(options)
    return job.distill(ready, should_stop=lambda: ready.state.step == stop_at)


# ---- the loss, against plain loops ----------------------------------------------------------------------


def softmax(row: list[float]) -> list[float]:
    powers = [np.exp(x) for x in row]
    return [power / sum(powers) for power in powers]


def test_soft_loss_is_kl_of_softened_answers_times_temperature_squared() -> None:
    rng = np.random.default_rng(0)
    for temperature in (1.0, 2.0, 5.0):
        s, t = rng.normal(size=(2, 7, 3)) * 3
        total = 0.0
        for mine, wanted in zip(s, t, strict=True):
            p, q = softmax(list(wanted / temperature)), softmax(list(mine / temperature))
            total += sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
        weights = loss.LossWeights(1, 1, 1, temperature)
        found = loss.soft_loss(torch.tensor(s), torch.tensor(t), weights)
        assert float(found) == pytest.approx(total / len(s) * temperature**2, rel=1e-9)


def test_soft_loss_of_several_labels_sums_two_way_answers() -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 5, 4))
    total = 0.0
    for mine, wanted in zip(s.flatten() / 2, t.flatten() / 2, strict=True):
        p, q = 1 / (1 + np.exp(-wanted)), 1 / (1 + np.exp(-mine))
        total += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    found = loss.soft_loss(torch.tensor(s), torch.tensor(t), loss.LossWeights(1, 1, 1, 2.0, multi_label=True))
    assert float(found) == pytest.approx(total / 5 * 4, rel=1e-9)


def test_label_loss_leaves_unlabelled_texts_out_and_counts_every_text_alike() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3))
    labels, known = [2, 0, 0, 1], [True, False, True, False]
    total = sum(-np.log(softmax(list(logits[i]))[labels[i]]) for i in range(4) if known[i])
    table = torch.nn.functional.one_hot(torch.tensor(labels), 3).bool() & torch.tensor(known)[:, None]
    found = loss.label_loss(torch.tensor(logits), table, torch.tensor(known), loss.LossWeights(1, 1, 1, 2.0))
    assert float(found) == pytest.approx(total / 4, rel=1e-9)


def test_cosine_loss_is_the_mean_over_pairs_and_layers() -> None:
    s, t = np.random.default_rng(0).normal(size=(2, 2, 6, 5))  # two layers, six pairs
    each = [
        1 - sum(a * b) / np.sqrt(sum(a * a) * sum(b * b))
        for mine, wanted in zip(s, t, strict=True)
        for a, b in zip(mine, wanted, strict=True)
    ]
    found = loss.cosine_loss(list(torch.tensor(s)), list(torch.tensor(t)))
    assert float(found) == pytest.approx(sum(each) / len(each), rel=1e-9)


def test_padding_is_in_no_pair() -> None:
    tokenizer = wordpiece()
    rows = ["film", "the film was very very good", "not bad"] * 4
    split = Split(rows, np.zeros((12, 2), bool), np.zeros(12, bool))
    encoders = BatchEncoder(tokenizer, 0, 16), BatchEncoder(tokenizer, 0, 16)
    batch = DataLoader(*encoders, split, batch_size=12, seed=0).batch(0)
    row, mine, theirs = batch.alignment
    assert batch.alignment.shape[1] == int(batch.student.attention_mask.sum()) < batch.student.input_ids.numel()
    assert bool(batch.student.attention_mask[row, mine].all())
    assert torch.equal(mine, theirs)


# ---- the student's first weights ------------------------------------------------------------------------


def make_embedding(width: int = 24, hidden: int | None = None) -> algebra.Embedding:
    torch.manual_seed(0)
    project = None if hidden is None else torch.randn(hidden, width)
    offset = None if hidden is None else torch.randn(hidden)
    word, position = torch.randn(60, width), torch.randn(10, width) / 3
    return algebra.Embedding(word, position, 1 + torch.rand(width), torch.randn(width), project, offset)


@pytest.mark.parametrize("hidden", [None, 30], ids=["plain", "projected"])
def test_a_factorized_embedding_of_full_width_is_the_teachers(hidden: int | None) -> None:
    whole = make_embedding(hidden=hidden)
    ids, positions = torch.arange(60), torch.arange(60) % 10
    distances = []
    for size in (24, 20, 12, 6):
        narrow = algebra.factorize(whole, size, torch.ones(60), torch.ones(10))
        assert narrow.word.shape == (60, size)
        lengths = [(each(ids, positions) - narrow.constant).norm() for each in (narrow, whole)]
        assert float(lengths[0] / lengths[1]) == pytest.approx(1, abs=0.1)  # what is cut off shortens no state
        distances.append(float((narrow(ids, positions) - whole(ids, positions)).norm()))
    assert distances[0] < 1e-3 < distances[1] < distances[2] < distances[3] < float(whole(ids, positions).norm())


def test_often_used_words_keep_more_of_themselves() -> None:
    whole, often = make_embedding(), torch.ones(60)
    often[:10] = 10_000
    ids, positions = torch.arange(10), torch.zeros(10, dtype=torch.long)
    wanted = whole(ids, positions)
    errors = [(algebra.factorize(whole, 12, counts, torch.ones(10))(ids, positions) - wanted).norm()
              for counts in (torch.ones(60), often)]  # fmt: skip
    assert errors[1] < 0.7 * errors[0]


def test_layers_are_picked_as_distilbert_picked_them() -> None:
    assert pick_layers(6, 12) == [0, 2, 4, 7, 9, 11]
    assert pick_layers(3, 6) == [0, 2, 5]
    assert pick_layers(6, 6) == [0, 1, 2, 3, 4, 5]
    assert pair_layers(3, 6) == [2, 4, 6]


def start(options: DistillOptions) -> tuple[job.Job, torch.Tensor, torch.Tensor]:
    """The job, and the last hidden states of teacher and untrained student for one text."""
    ready = job.prepare(options)
    ids = torch.tensor([ready.plan.data_loader.student_ids[0]])
    ready.state.student.eval()
    with torch.no_grad():
        pair = [
            model(ids, output_hidden_states=True).hidden_states[-1]
            for model in (ready.plan.teacher_model, ready.state.student)
        ]
    return ready, pair[0], pair[1]


def test_a_student_of_full_depth_starts_as_its_teacher(checkpoints: dict[str, Path], options: DistillOptions) -> None:
    """BERT into DistilBERT: token types folded, no pooler; only the head is new."""
    _, wanted, found = start(replace(options, layers=2))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_an_albert_of_full_size_starts_as_its_teacher(checkpoints: dict[str, Path], options: DistillOptions) -> None:
    again = replace(options, teacher=str(checkpoints["albert"]), student="albert", embedding_size=16)
    ready, wanted, found = start(again)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    sizes = ready.facts["sizes"]["parameters"]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("student", ["distilbert", "albert"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_teaches_both_students(
    checkpoints: dict[str, Path], options: DistillOptions, family: str, student: str
) -> None:
    result = run(replace(options, teacher=str(checkpoints[family]), student=student, epochs=1))
    loaded = load_checkpoint(options.out)
    assert (loaded.config.architecture, tuple(loaded.labels), loaded.ignored) == (student, LABELS, [])
    assert result.outcome == "done"
    model = AutoModelForSequenceClassification.from_pretrained(options.out).eval()
    ids = loaded.tokenizer.encode("the film was not good").ids
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits
        found = build_encoder(loaded.config, loaded.tensors)(torch.tensor([ids], dtype=torch.int32))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("student", ["distilbert", "albert"])
def test_a_narrower_student_of_fewer_pieces_learns(options: DistillOptions, student: str) -> None:
    narrow = replace(
        options,
        student=student,
        hidden=16,
        vocab_size=145,
        epochs=20,
        learning_rate=3e-3,
        patience=99,
        dropout=0,
        alpha_label=0,
    )
    result = run(narrow)
    loaded = load_checkpoint(options.out)
    assert (loaded.config.hidden_size, loaded.config.num_attention_heads, loaded.config.vocab_size) == (16, 2, 145)
    losses = [point["loss"] for point in result.job.state.curve]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    text = "the app was very bad"
    assert AutoTokenizer.from_pretrained(options.out)(text)["input_ids"] == loaded.tokenizer.encode(text).ids


def test_saved_files_can_be_read_by_all_and_are_narrow_if_asked(options: DistillOptions) -> None:
    run(replace(options, dtype="fp16", epochs=0.2))
    files = {file.name: file.stat().st_mode & 0o777 for file in options.out.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(files.values()) == {0o644}
    assert all(tensor.dtype == torch.float16 for tensor in load_checkpoint(options.out).tensors.values())


# ---- vocabularies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [wordpiece, unigram])
def test_a_pruned_vocabulary_spells_every_word_still(make: Any) -> None:
    whole = make()
    used = ["the film was good"] * 5 + ["very bad"]
    size = whole.get_vocab_size() - 8
    pruned = vocabulary.prune_vocabulary(whole, used, size)
    assert pruned.get_vocab_size() == size
    assert set(pruned.get_vocab().values()) == set(range(size))
    text = "the film was lovely not good"
    assert pruned.encode("the film was good").tokens == whole.encode("the film was good").tokens
    assert pruned.encode(text).tokens != whole.encode(text).tokens  # "lovely" is letters now
    assert {"[UNK]", "<unk>"}.isdisjoint(pruned.encode(text).tokens)
    assert pruned.encode(text).tokens[0] == "[CLS]" and pruned.encode(text).tokens[-1] == "[SEP]"
    rows = vocabulary.find_rows(pruned, whole)
    assert [[whole.token_to_id(pruned.id_to_token(i))] for i in range(size)] == rows


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(DistillError, match="--vocab-size 20 is too small: special tokens and single characters are"):
        vocabulary.prune_vocabulary(wordpiece(), ["a"], 20)


def test_tokens_of_two_vocabularies_meet_where_they_cover_the_same_letters() -> None:
    text, one, other = "the Film xy", unigram(), wordpiece()
    mine, theirs = one.encode(text), other.encode(text)
    assert mine.tokens == ["[CLS]", "▁the", "▁film", "▁", "x", "y", "[SEP]"]
    assert theirs.tokens == ["[CLS]", "the", "film", "x", "##y", "[SEP]"]
    assert vocabulary.align_tokens(text, mine, theirs) == [(0, 0), (1, 1), (2, 2), (4, 3), (5, 4), (6, 5)]


def test_a_piece_of_another_vocabulary_takes_the_row_or_the_spelling() -> None:
    one, other = unigram(), wordpiece()
    rows = vocabulary.find_rows(one, other)
    place = one.token_to_id
    assert rows[place("▁film")] == [other.token_to_id("film")]
    assert rows[place("a")] == [other.token_to_id("##a")]
    assert rows[place("<pad>")] == [other.token_to_id("[PAD]")]


def test_a_student_learns_with_a_tokenizer_of_its_own(
    checkpoints: dict[str, Path], options: DistillOptions, tmp_path: Path
) -> None:
    unigram().save(str(tmp_path / "tokenizer.json"))
    result = run(replace(options, student="albert", tokenizer=tmp_path / "tokenizer.json", epochs=1))
    loaded = load_checkpoint(options.out)
    assert loaded.tokenizer.encode("film").tokens == ["[CLS]", "▁film", "[SEP]"]
    assert result.job.plan.data_loader.aligned_share > 0.9


# ---- the loop --------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_decays_in_straight_lines() -> None:
    shares = [learning_rate_schedule(step, 100) for step in range(100)]
    assert shares[:6] == pytest.approx([(step + 1) / 6 for step in range(6)])
    assert shares[6:] == pytest.approx([(100 - step) / 94 for step in range(6, 100)])


class Heard(Progress):
    """What a training says."""

    def __init__(self) -> None:
        self.totals: dict[str, int | None] = {}
        self.steps: Counter[str] = Counter()
        self.lines: list[str] = []
        self.finished: list[str] = []

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        self.totals[stage] = total

    def advance(self, stage: str, steps: int = 1, note: str = "") -> None:
        self.steps[stage] += steps

    def finish(self, stage: str, note: str = "", seconds: float | None = None) -> None:
        self.finished.append(stage)

    def log(self, line: str) -> None:
        self.lines.append(line)


def test_progress_hears_of_every_step_and_evaluation(options: DistillOptions) -> None:
    first, second = Heard(), Heard()
    ready = job.prepare(options, first)
    job.distill(ready, first, lambda: ready.state.step == 3)
    assert first.totals == {"reading": None, "training": ready.plan.steps}
    assert first.steps["training"] == 3
    assert first.finished == ["reading", "training"]
    result = job.distill(job.prepare(replace(options, resume=True)), second)
    assert second.steps["training"] == second.totals["training"] == ready.plan.steps
    assert len(first.lines + second.lines) == len(result.job.state.evaluations)
    assert second.lines[-1].startswith(f"step {ready.plan.steps} of {ready.plan.steps}: loss ")


# ---- the command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "pocketbert distill --teacher t --student albert --data d.tsv --out o"),
        (
            {"data": (Path("a b.tsv"), Path("c.txt")), "columns": ("label", "text"), "epochs": 0.5, "resume": True},
            "pocketbert distill --teacher t --student albert --data 'a b.tsv' --data c.txt --out o "
            "--columns label,text --epochs 0.5 --resume",
        ),
        (
            {"learning_rate": 1e-05, "dropout": 0.0, "vocab_size": 9, "dev": Path("$HOME")},
            "pocketbert distill --teacher t --student albert --data d.tsv --out o "
            "--dev '$HOME' --vocab-size 9 --learning-rate 1e-05 --dropout 0.0",
        ),
    ],
    ids=["needed", "repeated", "numbers"],
)
def test_a_command_line_says_the_options_and_gives_them_again(
    change: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(DistillOptions("t", "albert", (Path("d.tsv"),), Path("o")), **change)
    assert describe_command(options) == line
    read: list[DistillOptions] = []
    monkeypatch.setattr(job, "prepare", lambda options, progress: read.append(options) or sys.exit())
    app = typer.Typer()
    app.command()(command)
    with pytest.raises(SystemExit):
        app(shlex.split(line)[2:], standalone_mode=False)
    assert read == [options]


# ---- texts ----------------------------------------------------------------------------------------------


def write_tsv(folder: Path, *rows: str, header: str = "text\tlabel") -> Path:
    file = folder / "d.tsv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("sentence\tlabel", ["a\tjoy"], "it needs one named text, once"),
        ("text\tlabel", ["a\tspam"] * 12, r"lacks: 'spam' \(12 rows\); it has anger, joy, calm; .* --labels data"),
        ("text\tlabel", [], "no usable row in .*: it is empty"),
        ("text\tlabel", ["a\tjoy", "b\tjoy"], "2 texts are too few"),
        ("text\tlabel", ["the same\tjoy"] * 12, "they repeat each other; pass --dev"),
    ],
)
def test_bad_data_is_one_clear_line(
    options: DistillOptions, tmp_path: Path, header: str, rows: list[str], message: str
) -> None:
    with pytest.raises((DataError, DistillError), match=message) as error:
        job.prepare(replace(options, data=(write_tsv(tmp_path, *rows, header=header),)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": "bert"}, "--student 'bert' is unknown: use distilbert or albert"),
        ({"layers": 3}, "--layers 3: the teacher has 2"),
        ({"hidden": 20}, "--hidden 20: choose a multiple of the teacher's head size 8, up to 32"),
        ({"temperature": 0.0}, "--temperature 0 must be more than 0"),
        ({"vocab_size": 99, "tokenizer": Path("t")}, "pass one of them"),
        ({"tokenizer": Path("none.json")}, "no file none.json"),
        ({"resume": True}, "nothing to resume"),
        ({"max_length": 2}, "--max-length 2 leaves no room"),
    ],
    ids=str,
)
def test_wrong_options_are_named_and_nothing_is_written(
    options: DistillOptions, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DistillError, match=message):
        run(replace(options, **change))
    assert list(tmp_path.iterdir()) == []


def test_labels_of_the_data_give_the_student_a_new_head(options: DistillOptions, tmp_path: Path) -> None:
    rows = [f"{i} film{'' if i % 2 else ' app'}\t{'ham' if i % 2 else 'spam'}" for i in range(60)]
    result = run(replace(options, data=(write_tsv(tmp_path, *rows),), labels="data"))
    assert list(load_checkpoint(options.out).labels) == ["ham", "spam"]
    assert result.teacher_accuracy is None  # it never knew these labels
    assert result.job.plan.loss_weights.soft == 0


def test_several_labels_at_a_time_are_learned(make_checkpoint: Maker, options: DistillOptions, tmp_path: Path) -> None:
    teacher = make_checkpoint("bert", problem_type="multi_label_classification")
    rows = [f"{i} film\t{('joy|calm', 'anger', '')[i % 3]}" for i in range(60)]
    result = run(replace(options, teacher=str(teacher), data=(write_tsv(tmp_path, *rows),)))
    assert load_checkpoint(options.out).multi_label
    learned = result.job.plan.data_loader.split
    assert set(map(tuple, learned.labels.tolist())) == {(False, True, True), (True, False, False), (False,) * 3}
    assert bool(learned.labelled.all())  # no label at all is an answer too
    assert result.job.state.curve[-1]["label"] < result.job.state.curve[0]["label"]


def test_text_without_labels_is_welcome(options: DistillOptions, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("".join(f"{word} 7\n" for word in WORDS))
    ready = job.prepare(replace(options, data=(*options.data, tmp_path / "more.txt")))
    assert (~ready.splits.train.labelled).sum() == len(WORDS)
    assert bool(ready.splits.held_out.labelled.all())


def test_no_part_of_a_held_out_text_was_learned(options: DistillOptions, tmp_path: Path) -> None:
    sentences = [f"{a} {b} {c}" for a in WORDS[:5] for b in WORDS[5:9] for c in WORDS[9:]]
    phrases = [sentence.split(" ", 1)[1] for sentence in sentences]
    file = write_tsv(tmp_path, *(f"{text}\tjoy" for text in sentences + phrases))
    splits = read_splits(replace(options, data=(file,)), LABELS, False)
    assert len(splits.held_out) + len(splits.train) == len(sentences + phrases)
    for text in splits.held_out.texts:
        assert text not in splits.train.texts
    held = [text for text in splits.held_out.texts if len(text.split()) == 3]
    assert held
    assert all(text.split(" ", 1)[1] in splits.held_out.texts for text in held)


# ---- stopping and going on ------------------------------------------------------------------------------


@pytest.mark.parametrize("student", ["distilbert", "albert"])
def test_a_resumed_run_ends_with_the_same_bits(options: DistillOptions, tmp_path: Path, student: str) -> None:
    whole = replace(options, student=student, hidden=24, match="every", patience=99, out=tmp_path / "whole")
    cut = replace(whole, out=tmp_path / "cut")
    run(whole)
    stopped = run(cut, stop_at=5)  # between two evaluations, in the first epoch
    assert (stopped.outcome, stopped.job.state.step) == ("stopped", 5)
    assert run(replace(cut, resume=True)).outcome == "done"
    assert (cut.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()
    logs = [json.loads((folder / "training.json").read_text()) for folder in (whole.work, cut.work)]
    assert [log["curve"] for log in logs[1:]] == [logs[0]["curve"]]
    assert [log["looks"] for log in logs[1:]] == [logs[0]["looks"]]
    assert not (cut.work / "state.pt").exists()  # a finished run leaves its report alone


def test_a_continuation_must_be_one(options: DistillOptions) -> None:
    run(options, stop_at=3)
    with pytest.raises(DistillError, match=r"--resume: alpha_cos was 1\.0, now it is 2\.0"):
        run(replace(options, resume=True, alpha_cos=2.0))


def test_a_state_of_another_version_is_refused_by_name(options: DistillOptions) -> None:
    run(options, stop_at=3)
    file = options.work / "state.pt"
    torch.save({**torch.load(file, weights_only=True), "version": 1}, file)
    with pytest.raises(DistillError, match=r"state\.pt was written by another version: start again with --force"):
        run(replace(options, resume=True))


def test_a_run_stopped_before_its_first_evaluation_keeps_what_it_has(options: DistillOptions) -> None:
    result = run(options, stop_at=1)
    assert result.accuracy is not None
    assert load_checkpoint(options.out).config.architecture == "distilbert"


def test_nothing_better_for_a_while_ends_the_run(options: DistillOptions) -> None:
    result = run(replace(options, epochs=50, learning_rate=1e-9, patience=3, dropout=0.0))
    assert result.outcome == "early"
    assert len(result.job.state.evaluations) < 50


def test_another_folder_is_not_replaced(options: DistillOptions) -> None:
    options.out.mkdir()
    with pytest.raises(DistillError, match="exists: choose another --out"):
        run(options)
    with pytest.raises(DistillError, match="is not a checkpoint and is not replaced"):
        run(replace(options, force=True))


def test_a_full_disk_is_one_line(options: DistillOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(PocketbertError, match=r"cannot write .*No space left on device"):
        run(options)


@pytest.mark.slow
def test_the_command_is_interrupted_resumed_and_exported(
    checkpoints: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    wanted = ["distill", "--teacher", checkpoints["bert"], "--student", "albert", "--data", data, "--out", out]
    wanted += ["--epochs", "400", "--patience", "9999", "--threads", "1", "--batch-size", "4", "--embedding-size", "8"]
    command = [sys.executable, "-m", "pocketbert.runtime.cli", *map(str, wanted)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("step ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "holds the best so far; the same command with --resume goes on" in " ".join(printed.split())
    assert list(load_checkpoint(out).labels) == list(LABELS)
    with subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = next(line for line in process.stderr if line.startswith("step "))
        process.kill()
        process.communicate()
    assert int(first.split()[1]) > 7, first
    exported = pocketbert("export", out, "--out", tmp_path / "bundle", "--formats", "tflite", "--max-length", "16")
    assert exported.returncode == 0, exported.stderr


def test_the_page_stands_alone(options: DistillOptions) -> None:
    run(options)
    page = (options.work / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("https://www.w3.org", "")
    assert "Held-out texts" in page
