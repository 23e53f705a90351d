"""The int8 oracle computes what the scheme's name says, and nothing else moves."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketbert.export import checkpoint, encoder, quantize
from pocketbert.export.quantize import DEFAULT_SCHEME, SCHEMES


@pytest.fixture(scope="module")
def fp32(checkpoints: dict[str, Path]) -> encoder.Encoder:
    loaded = checkpoint.load(checkpoints["albert"])
    return encoder.build(loaded.config, loaded.tensors)


@pytest.fixture(scope="module")
def oracle(fp32: encoder.Encoder) -> encoder.Encoder:
    return quantize.quantize(fp32, SCHEMES[DEFAULT_SCHEME])


def plain_linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The scheme once more, in numpy: int8 per output channel times asymmetric int8 per token."""
    scale = np.abs(weight).max(axis=1) / 127
    stored = np.rint(weight / scale[:, None])
    low, high = np.minimum(x.min(axis=1), 0), np.maximum(x.max(axis=1), 0)
    step = (high - low) / 255
    zero = np.clip(np.rint(-128 - low / step), -128, 127)
    tokens = np.clip(np.rint(x / step[:, None]) + zero[:, None], -128, 127) - zero[:, None]
    return (tokens @ stored.T) * step[:, None] * scale + bias


def test_a_linear_is_int8_per_channel_times_int8_per_token() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    x = torch.randn(9, 64) * torch.logspace(-2, 2, 9)[:, None]  # tokens of very different size
    expected = plain_linear(x.double().numpy(), linear.weight.detach().double().numpy(), linear.bias.detach().numpy())
    np.testing.assert_allclose(quantize.DynamicLinear(linear)(x).detach().numpy(), expected, rtol=2e-4, atol=2e-4)


def test_a_large_token_does_not_coarsen_the_others() -> None:
    linear = nn.Linear(64, 48)
    small = torch.randn(1, 64)
    together = torch.cat([small, 1000 * torch.randn(1, 64)])
    quantized = quantize.DynamicLinear(linear)
    torch.testing.assert_close(quantized(together)[:1], quantized(small))


def test_splitting_outliers_changes_no_answer_and_halves_the_largest_weight(fp32: encoder.Encoder) -> None:
    with torch.no_grad():
        outlier = copy.deepcopy(fp32)
        outlier.layers[0].down.weight[3, 5] = 40.0
    split = quantize.split_outliers(outlier)
    ids = torch.randint(1, 40, (1, 11), dtype=torch.int32)
    torch.testing.assert_close(split(ids), outlier(ids), atol=1e-4, rtol=0)
    assert split.layers[0].down.weight.abs().max() <= 40.0 / 2
    assert split.layers[0].up.out_features == outlier.layers[0].up.out_features + quantize.SPLIT_UNITS
    assert outlier.layers[0].down.weight[3, 5] == 40.0


def test_each_row_uses_the_whole_int8_range() -> None:
    stored, scale = quantize.quantize_rows(torch.tensor([[0.5, -1.0], [3.0, 2.0], [0.0, 0.0]]))
    assert stored.tolist() == [[64, -127], [127, 85], [0, 0]]
    torch.testing.assert_close(scale, torch.tensor([1 / 127, 3 / 127, 1.0]))


def test_every_linear_and_the_word_table_are_int8(oracle: encoder.Encoder) -> None:
    assert not [m for m in oracle.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    int8 = [m for m in oracle.modules() if isinstance(m, quantize.DynamicLinear | quantize.Int8Embedding)]
    assert len(int8) == 1 + 1 + 6 + 2  # word table, ALBERT's projection, one shared layer, pooling and classifier


def test_the_fp32_encoder_is_left_as_it_was(fp32: encoder.Encoder, oracle: encoder.Encoder) -> None:
    assert not quantize.is_quantized(fp32)
    assert quantize.is_quantized(oracle)


def test_dequantized_weights_quantize_to_the_same_int8(oracle: encoder.Encoder) -> None:
    """What a converter that quantizes by itself relies on."""
    exact = dict(quantize.dequantize(oracle).named_modules())
    for name, module in oracle.named_modules():
        if isinstance(module, quantize.DynamicLinear | quantize.Int8Embedding):
            assert torch.equal(quantize.quantize_rows(exact[name].weight)[0], module.weight), name


def test_the_float_scheme_changes_nothing(fp32: encoder.Encoder) -> None:
    assert quantize.quantize(fp32, SCHEMES["float_wf32_afp32"]) is fp32


def test_padding_moves_no_logit_of_the_oracle(oracle: encoder.Encoder) -> None:
    ids = torch.randint(1, 40, (1, 11), dtype=torch.int32)
    torch.testing.assert_close(oracle(torch.nn.functional.pad(ids, (0, 5))), oracle(ids), atol=1e-5, rtol=0)


def test_one_scale_per_tensor_is_the_largest_of_its_rows() -> None:
    weight = torch.tensor([[0.5, -1.0], [3.0, 2.0]])
    stored, scale = quantize.quantize_rows(weight, per_channel=False)
    torch.testing.assert_close(scale, torch.tensor([3 / 127, 3 / 127]))
    assert stored.tolist() == [[21, -42], [127, 85]]
