"""Training to four bits: what is written lies on the grid, is an ordinary checkpoint, and is closer to its teacher."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.distill import four_bits
from pocketbert.export.distill.four_bits import Trained, train_to_four_bits
from pocketbert.export.distill.options import DistillError, DistillOptions, check_scheme
from pocketbert.export.encoder import Encoder, build_encoder
from pocketbert.export.quantize import FOUR_BIT_SCHEME, SCHEMES, DynamicLinear, quantize
from pocketbert.runtime.cli.app import app

FAMILIES = ("bert", "distilbert", "albert")
WORDS = ["film", "lovely", "bad", "good", "the", "not", "it", "was", "very", "love", "hate", "app"]
EQUAL = 1e-4  # of logits in fp32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of words that the small tokenizers know; no label anywhere."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=draw.randint(4, 14))) for _ in range(300)]
    file = tmp_path_factory.mktemp("data") / "texts.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module", params=FAMILIES)
def teacher(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Path:
    return checkpoints[request.param]


@pytest.fixture(scope="module")
def trained(teacher: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("trained") / "student"
    options = DistillOptions(
        str(teacher), "", (data,), out, epochs=48, learning_rate=2e-3, scheme=FOUR_BIT_SCHEME, held_out=0.1
    )
    return train_to_four_bits(options)


def load(folder: Path) -> tuple[Checkpoint, Encoder]:
    loaded = load_checkpoint(folder)
    return loaded, build_encoder(loaded.config, loaded.tensors)


@pytest.fixture(scope="module")
def student(teacher: Path) -> Encoder:
    """As calibrated, not trained yet."""
    _, encoder = load(teacher)
    return four_bits.make_student(encoder, [torch.tensor([2, 5, 6, 7, 8, 3], dtype=torch.int32)] * 20)


def test_training_comes_closer_to_the_teacher_than_calibration(trained: Trained) -> None:
    assert trained.after < 0.95 * trained.before


def test_an_export_takes_the_trained_whole_numbers_without_any_text(trained: Trained) -> None:
    """Without texts there is no calibration, and a weight off the grid would ask for one."""
    _, encoder = load(trained.out)
    oracle = quantize(encoder, SCHEMES[FOUR_BIT_SCHEME])
    exact = dict(encoder.named_modules())
    four = {
        name: part for name, part in oracle.layers.named_modules(prefix="layers") if isinstance(part, DynamicLinear)
    }
    assert {part.bits for part in four.values()} == {4}
    for name, part in four.items():
        torch.testing.assert_close(part.dequantize().weight, exact[name].weight, atol=1e-6, rtol=1e-4)
    ids = torch.tensor([[2, 5, 6, 7, 8, 9]], dtype=torch.int32)
    table = oracle.embeddings.word.dequantize()
    torch.testing.assert_close(table(ids), encoder.embeddings.word(ids), atol=1e-3, rtol=1e-3)


def test_what_is_written_is_an_ordinary_checkpoint(trained: Trained, teacher: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    ids = torch.tensor([[2, 5, 6, 7, 8, 9, 3]])
    loaded, encoder = load(trained.out)
    other = AutoModelForSequenceClassification.from_pretrained(trained.out, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(ids.int()), other(ids).logits, atol=EQUAL, rtol=0)
    assert loaded.labels == load_checkpoint(teacher).labels


def test_the_tables_of_positions_stay_the_teachers(trained: Trained, teacher: Path) -> None:
    before, after = load_checkpoint(teacher), load_checkpoint(trained.out)
    tables = [name for name in before.tensors if name.endswith(("position.weight", "token_type.weight"))]
    assert tables and all(torch.equal(before.tensors[name], after.tensors[name]) for name in tables)


def test_no_weight_starts_near_the_edge_of_its_whole_number(student: Encoder) -> None:
    """Noise would tip it at once, and undo what calibration made up for."""
    grids = [linear.parametrizations.weight for linear in student.modules() if hasattr(linear, "parametrizations")]
    assert len(grids) == 6 * len(student.layers)
    for grid in grids:
        steps = grid.original / grid[0].scale
        assert float((steps - steps.round()).abs().max()) < 0.21


def test_weights_on_the_grid_learn_at_the_given_rate_and_all_others_more_slowly(student: Encoder) -> None:
    on_grid, others = four_bits._group(student, 0.01)
    assert len(on_grid["params"]) == 6 * len(student.layers) and on_grid["rate"] == 0.01
    assert {each.dim() for each in on_grid["params"]} == {2} and 0 < others["rate"] < on_grid["rate"]
    learning = sum(each.requires_grad for each in student.parameters())
    assert len(on_grid["params"]) + len(others["params"]) == learning


def test_a_weight_moves_though_what_is_computed_is_a_whole_number() -> None:
    grid = four_bits.Grid(torch.tensor([0.5, 1.0]))
    weight = torch.tensor([[0.6, 9.0], [-20.0, 0.4]], requires_grad=True)
    rounded = grid(weight)
    assert rounded.tolist() == [[0.5, 3.5], [-8.0, 0.0]]
    rounded.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 0.0], [0.0, 1.0]]  # none where a weight is beyond the range


def test_options_of_students_do_not_go_with_a_scheme(data: Path, tmp_path: Path) -> None:
    options = DistillOptions("teacher", "", (data,), tmp_path / "out", scheme=FOUR_BIT_SCHEME)
    check_scheme(options)
    with pytest.raises(DistillError, match="leave --layers out"):
        check_scheme(replace(options, layers=3))
    with pytest.raises(DistillError, match="use dynamic_wi4_afp32"):
        check_scheme(replace(options, scheme="dynamic_wi2_afp32"))


def test_the_command_says_what_to_do_next(checkpoints: dict[str, Path], data: Path, tmp_path: Path) -> None:
    command = [
        "distill",
        "--teacher",
        str(checkpoints["distilbert"]),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, [*command, "--scheme", FOUR_BIT_SCHEME, "--epochs", "0.1", "--held-out", "0.1"])
    assert done.exit_code == 0, done.output
    assert "from the teacher" in done.output and "--scheme dynamic_wi4_afp32" in done.output
    lacking = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "other")])
    assert lacking.exit_code != 0
