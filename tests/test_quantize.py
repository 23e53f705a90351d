"""The int8 oracle computes what the scheme's name says, and nothing else moves."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketbert.export import quantize
from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder
from pocketbert.export.quantize import DEFAULT_SCHEME, SCHEMES
from pocketbert.export.rounding import RANGE, round_rows

WEIGHT_MAX = RANGE[8][1]

ROUNDING = 0.02  # an int8 rounding that falls the other way moves a logit of these models by at most so much


@pytest.fixture(scope="module")
def fp32(checkpoints: dict[str, Path]) -> Encoder:
    loaded = load_checkpoint(checkpoints["albert"])
    return build_encoder(loaded.config, loaded.tensors)


@pytest.fixture(scope="module")
def oracle(fp32: Encoder) -> Encoder:
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


def test_splitting_outliers_changes_no_answer_and_halves_the_largest_weight(fp32: Encoder) -> None:
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
    rounded = round_rows(torch.tensor([[0.5, -1.0], [3.0, 2.0], [0.0, 0.0]]))
    assert rounded.weight.tolist() == [[64, -127], [127, 85], [0, 0]]
    torch.testing.assert_close(rounded.scale, torch.tensor([1 / 127, 3 / 127, 1.0]))


def test_every_linear_and_the_word_table_are_int8(oracle: Encoder) -> None:
    assert not [m for m in oracle.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    int8 = [m for m in oracle.modules() if isinstance(m, quantize.DynamicLinear | quantize.QuantizedEmbedding)]
    assert len(int8) == 1 + 1 + 6 + 2  # word table, ALBERT's projection, one shared layer, pooling and classifier


def test_the_fp32_encoder_is_left_as_it_was(fp32: Encoder, oracle: Encoder) -> None:
    assert not quantize.is_quantized(fp32)
    assert quantize.is_quantized(oracle)


def test_an_unpacked_oracle_gives_the_same_bits(oracle: Encoder) -> None:
    unpacked = quantize.unpack(oracle)
    assert quantize.is_quantized(unpacked)
    assert not [m for m in unpacked.modules() if isinstance(m, quantize.DynamicLinear)]
    ids = torch.randint(1, 40, (1, 19), dtype=torch.int32)
    assert torch.equal(unpacked(ids), oracle(ids))
    assert [m for m in oracle.modules() if isinstance(m, quantize.DynamicLinear)], "the oracle itself stays"


def test_dequantized_weights_quantize_to_the_same_int8(oracle: Encoder) -> None:
    """What a converter that quantizes by itself relies on."""
    exact = dict(quantize.dequantize(oracle).named_modules())
    for name, module in oracle.named_modules():
        if isinstance(module, quantize.DynamicLinear | quantize.QuantizedEmbedding):
            assert torch.equal(round_rows(exact[name].weight).weight, module.weight), name


def test_the_float_scheme_changes_nothing(fp32: Encoder) -> None:
    assert quantize.quantize(fp32, SCHEMES["float_wf32_afp32"]) is fp32


def test_padding_moves_no_logit_of_the_oracle(oracle: Encoder) -> None:
    """torch adds up more rows in another order, and then an int8 rounding may fall the other way.

    Measured with AVX2 over 1392 texts and paddings: 33 moved at all, 9 by more than 1e-5, one by 0.0112.
    """
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(1, 40, (1, length), generator=generator, dtype=torch.int32) for length in range(2, 32)]
    drifts = torch.stack([(oracle(torch.nn.functional.pad(ids, (0, 5))) - oracle(ids)).abs().max() for ids in texts])
    assert drifts.median() <= 1e-5 and drifts.max() <= ROUNDING


def test_one_scale_per_tensor_is_the_largest_of_its_rows() -> None:
    weight = torch.tensor([[0.5, -1.0], [3.0, 2.0]])
    rounded = round_rows(weight, per_channel=False)
    torch.testing.assert_close(rounded.scale, torch.tensor([3 / 127, 3 / 127]))
    assert rounded.weight.tolist() == [[21, -42], [127, 85]]


def test_an_int8_table_gives_rows_to_half_a_step_and_the_same_as_floats() -> None:
    torch.manual_seed(0)
    table = nn.Embedding.from_pretrained(torch.randn(9, 16) * torch.logspace(-2, 2, 9)[:, None])
    ids = torch.tensor([8, 0, 3])
    rows, int8 = table(ids), quantize.QuantizedEmbedding(round_rows(table.weight))
    step = rows.abs().amax(dim=1, keepdim=True) / WEIGHT_MAX
    assert ((int8(ids) - rows).abs() <= 0.501 * step).all()
    torch.testing.assert_close(int8.dequantize()(ids), int8(ids))


def test_a_linear_of_exact_activations_has_the_int8_weights_and_the_bias() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(16, 9)
    int8 = quantize.DynamicLinear(linear)
    exact = int8.dequantize()
    torch.testing.assert_close(exact.weight, int8.weight * int8.scale[:, None])
    assert (exact.weight - linear.weight).abs().max() <= 0.501 * linear.weight.abs().max() / WEIGHT_MAX
    assert torch.equal(exact.bias, linear.bias)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_scheme_has_a_scale_for_each_row_or_one_for_the_whole_weight(fp32: Encoder, per_channel: bool) -> None:
    scheme = quantize.Scheme("dynamic", bits=8, per_channel=per_channel)
    modules = quantize.quantize(fp32, scheme).modules()
    scales = [m.scale for m in modules if isinstance(m, quantize.DynamicLinear | quantize.QuantizedEmbedding)]
    assert len(scales) == 10
    assert all((len(set(scale.flatten().tolist())) > 1) is per_channel for scale in scales)


def test_oracles_are_named_by_the_activations_that_they_stand_for(fp32: Encoder) -> None:
    made = quantize.make_oracles(fp32, ["int8", "fp32", "fp16", "int8_per_tensor"], DEFAULT_SCHEME)
    assert list(made) == ["int8", "fp32", "fp16", "int8_per_tensor"]
    assert made["fp32"] is fp32
    ids = torch.tensor([[2, 7, 9, 3]], dtype=torch.int32)
    whole, rough = quantize.quantize(fp32, SCHEMES[DEFAULT_SCHEME]), quantize.quantize(fp32, quantize.PER_TENSOR)
    for name, oracle in (("int8", whole), ("fp16", quantize.dequantize(whole)), ("int8_per_tensor", rough)):
        torch.testing.assert_close(made[name](ids), oracle(ids))
        assert (made[name](ids) != fp32(ids)).any()


def test_oracles_of_the_float_scheme_are_the_encoder(fp32: Encoder) -> None:
    assert quantize.make_oracles(fp32, ["int8"], "float_wf32_afp32") == {"int8": fp32}


def test_quantizing_leaves_the_random_numbers_alone_and_nothing_to_train(fp32: Encoder) -> None:
    before = torch.get_rng_state()
    oracle = quantize.quantize(fp32, SCHEMES[DEFAULT_SCHEME])
    made = [quantize.split_outliers(fp32).layers, quantize.dequantize(oracle).head]
    assert torch.equal(torch.get_rng_state(), before)
    assert not [parameter for part in made for parameter in part.parameters() if parameter.requires_grad]


def test_zero_points_of_weights_are_whole_zeros_for_the_kernels() -> None:
    """One for each output channel: the converters read them from here."""
    zero_point = quantize.DynamicLinear(nn.Linear(4, 3)).zero_point
    assert (zero_point.tolist(), zero_point.dtype) == ([0, 0, 0], torch.int64)
