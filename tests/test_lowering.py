"""Oracles travel to the worker processes in one file and stay what they are; a worker that fails is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Maker
from test_bundle import pocketbert

from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder
from pocketbert.export.lowering import map_oracle, save_oracles
from pocketbert.export.quantize import DEFAULT_SCHEME, make_oracles

ACTIVATIONS = ("fp16", "fp32", "int8", "int8_per_tensor")
IDS = torch.arange(1, 12, dtype=torch.int32)[None]


def make(folder: Path) -> dict[str, Encoder]:
    loaded = load_checkpoint(folder)
    return make_oracles(build_encoder(loaded.config, loaded.tensors), ACTIVATIONS, DEFAULT_SCHEME)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_mapped_oracle_is_the_one_that_was_saved(
    make_checkpoint: Maker, tmp_path: Path, family: str, activation: str
) -> None:
    oracles = make(make_checkpoint(family, hidden_act=activation))
    save_oracles(oracles, tmp_path / "oracles.pt")
    for name, saved in oracles.items():
        mapped = map_oracle(tmp_path / "oracles.pt", name)
        assert all(torch.equal(tensor, saved.state_dict()[place]) for place, tensor in mapped.state_dict().items())
        torch.testing.assert_close(mapped(IDS), saved(IDS), atol=1e-6, rtol=0)  # sums may go in another order


def test_oracles_share_what_is_equal_in_their_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """An int8 oracle and the encoder it was made from have their biases, norms and positions in common."""
    oracles = make(checkpoints["distilbert"])
    for names in (("fp32",), ("int8",), ("fp32", "int8")):
        save_oracles({name: oracles[name] for name in names}, tmp_path / "-".join(names))
    alone = sum((tmp_path / name).stat().st_size for name in ("fp32", "int8"))
    assert (tmp_path / "fp32-int8").stat().st_size < alone


def test_a_full_disk_is_an_os_error(checkpoints: dict[str, Path]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left"):
        save_oracles(make(checkpoints["albert"]), Path("/dev/full"))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise RuntimeError('out of buffers')", "lowering to tflite failed: RuntimeError: out of buffers (log: "),
        ("import os; os._exit(9)", "lowering to tflite was killed: is there enough memory?"),
    ],
    ids=["raises", "dies"],
)
def test_a_converter_that_fails_is_named(
    checkpoints: dict[str, Path], tmp_path: Path, module: str, message: str
) -> None:
    (tmp_path / "flatbuffers.py").write_text(module)
    arguments = ("export", checkpoints["bert"], "--out", tmp_path / "out", "--formats", "tflite,coreml")
    result = pocketbert(*arguments, "--max-length", 16, PYTHONPATH=str(tmp_path), TMPDIR=str(tmp_path))
    assert result.returncode == 2
    *progress, last = result.stderr.strip().splitlines()
    assert last.startswith(f"pocketbert: {message}")
    assert all(line.startswith("✓") for line in progress)  # nothing of a library, before or after
    assert not list(tmp_path.glob("*out*"))


def test_the_log_of_a_converter_has_its_traceback(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "flatbuffers.py").write_text("raise RuntimeError('out of buffers')")
    arguments = ("export", checkpoints["bert"], "--out", tmp_path / "out", "--formats", "tflite", "--max-length", 16)
    pocketbert(*arguments, PYTHONPATH=str(tmp_path), TMPDIR=str(tmp_path))
    (log,) = tmp_path.glob("pocketbert-tflite-*.log")
    assert 'flatbuffers.py", line 1' in log.read_text()
