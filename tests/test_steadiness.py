"""Golden cases are evidence: what an oracle's own rounding tips is left out, and no more than that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from pocketbert.export import golden
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder, compute_logits
from pocketbert.export.quantize import DEFAULT_SCHEME, SCHEMES, DynamicLinear, quantize
from pocketbert.export.steadiness import LEFT_OUT_SHARE, NUDGE, NUDGES, find_steady, measure_moves, nudge
from pocketbert.runtime.manifest import SEQUENCE_CLASSIFICATION
from pocketbert.runtime.scores import softmax
from pocketbert.runtime.self_check import measure_difference

LENGTH = 24
TIPPED = "what a lovely film"


class Halfway(nn.Module):
    """Answers 0, 0 to all texts but `tipped`; there the first logit is a number halfway between two int8 steps, or as
    far above the lower one as `step` says."""

    def __init__(self, tipped: Sequence[int], step: float, linear: type[nn.Module] = DynamicLinear) -> None:
        super().__init__()
        self.tipped = list(tipped)
        self.config = SimpleNamespace(task=SEQUENCE_CLASSIFICATION, num_labels=2)
        self.norm = nn.LayerNorm(3).requires_grad_(False)
        self.norm.weight.zero_()
        self.norm.bias.copy_(torch.tensor([-128, 127, 20 + step]))  # the scale is 1, the zero point 0
        exact = nn.Linear(3, 2).requires_grad_(False)
        exact.weight.copy_(torch.tensor([[0, 0, 1], [0, 0, 0]]))
        exact.bias.copy_(torch.tensor([-20.0, 0]))
        self.linear = linear(exact) if linear is DynamicLinear else exact

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(torch.zeros(1, 3))) * (ids[0].tolist() == self.tipped)


@pytest.fixture(scope="module")
def checkpoint(checkpoints: dict[str, Path]) -> Checkpoint:
    return load_checkpoint(checkpoints["bert"])


def written(folder: Path, checkpoint: Checkpoint, step: float, linear: type[nn.Module] = DynamicLinear) -> list[str]:
    """The texts of a golden.json for an oracle that `step` sets between two roundings."""
    tipped = golden.encode(checkpoint.tokenizer, TIPPED, max_length=LENGTH)
    oracles = {"fp16": Halfway(tipped, step, nn.Linear), "int8": Halfway(tipped, step, linear)}
    encoder = cast(Encoder, oracles["fp16"])
    count = golden.write_golden(folder, checkpoint, encoder, cast("dict[str, Encoder]", oracles), LENGTH)
    content = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    assert (count, content["tolerance"]) == (len(content["cases"]), 0.05)
    return [case["text"] for case in content["cases"]]


def test_a_text_that_one_rounding_tips_is_no_golden_case(tmp_path: Path, checkpoint: Checkpoint) -> None:
    assert written(tmp_path, checkpoint, 0.5) == [text for text in golden.TEXTS if text != TIPPED]


@pytest.mark.parametrize(("step", "linear"), [(0.4, DynamicLinear), (0.6, DynamicLinear), (0.5, nn.Linear)])
def test_a_text_that_no_rounding_tips_is_a_golden_case(
    tmp_path: Path, checkpoint: Checkpoint, step: float, linear: type[nn.Module]
) -> None:
    assert written(tmp_path, checkpoint, step, linear) == list(golden.TEXTS)


def test_moves_are_the_largest_of_all_nudges_as_the_task_reads_them() -> None:
    oracle, others = cast(Encoder, Halfway([1, 2], 0.5)), [[1, 2], [3]]
    logits = compute_logits(oracle, others)
    np.testing.assert_allclose(logits[0], [0, 0], atol=1e-5)  # 20.5 is rounded to even
    moves = measure_moves(oracle, others, logits, softmax)
    np.testing.assert_allclose(moves, [1 / (1 + np.exp(-1)) - 0.5, 0], atol=1e-5)  # by one step
    assert measure_moves(oracle, others, logits, lambda logits: 2 * softmax(logits))[0] == pytest.approx(2 * moves[0])


def test_every_nudge_counts(checkpoint: Checkpoint) -> None:
    oracle = quantize(build_encoder(checkpoint.config, checkpoint.tensors), SCHEMES[DEFAULT_SCHEME])
    ids_list = [golden.encode(checkpoint.tokenizer, text, max_length=LENGTH) for text in golden.TEXTS]
    logits = compute_logits(oracle, ids_list)
    each = []
    for seed in range(NUDGES):
        pairs = zip(compute_logits(nudge(oracle, seed), ids_list), logits, strict=True)
        each.append([measure_difference(*pair, softmax) for pair in pairs])
    assert len(set(np.argmax(each, axis=0).tolist())) > 2  # neither the first nor the last is always the largest
    np.testing.assert_array_equal(measure_moves(oracle, ids_list, logits, softmax), np.max(each, axis=0))


def test_a_nudge_moves_each_channel_of_each_norm_and_leaves_the_oracle(checkpoint: Checkpoint) -> None:
    oracle = quantize(build_encoder(checkpoint.config, checkpoint.tensors), SCHEMES[DEFAULT_SCHEME])
    before = {name: tensor.clone() for name, tensor in oracle.state_dict().items()}
    drawn = [nudge(oracle, seed).state_dict() for seed in (0, 0, 1)]
    norms = {name for name in before if "norm" in name}
    assert len(norms) == 2 * (1 + 2 * checkpoint.config.stored_layers)
    for name, tensor in before.items():
        assert torch.equal(oracle.state_dict()[name], tensor)
        assert torch.equal(drawn[0][name], drawn[1][name])
        moved = drawn[0][name].double() / tensor.double() - 1 if name in norms else None
        if moved is None:
            assert torch.equal(drawn[0][name], tensor)
        else:
            np.testing.assert_allclose(moved.abs(), NUDGE, atol=1.5 * 2**-23)
            assert moved.min() < 0 < moved.max()
    assert any(not torch.equal(drawn[0][name], drawn[2][name]) for name in norms)


@pytest.mark.parametrize(
    ("moves", "kept"),
    [
        ([0.0, 0.02, 0.01], [0, 1, 2]),
        ([0.0, 0.3, 0.01], [0, 2]),
        ([0.3, 0.2, 0.5, 0.0, 0.1, 0.4], [0, 1, 3, 4]),  # more than a third: the steadiest stay
        ([0.1, 0.1, 0.1], [0, 1]),
        ([0.9], [0]),
        ([0.9, 0.8], [0, 1]),
    ],
)
def test_at_most_a_third_is_left_out_the_least_steady_first(moves: list[float], kept: list[int]) -> None:
    assert find_steady(np.array(moves), 0.02) == kept
    assert (LEFT_OUT_SHARE, NUDGES) == (3, 8)
