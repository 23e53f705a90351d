"""Rounding one weight: what second-order rounding saves, what its numbers are, and weights that need none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pocketbert.export import rounding
from pocketbert.export.rounding import FOUR_BITS, RANGE, Rounded, find_grid, round_second_order, round_table

ROWS, WIDTH, TOKENS = 48, 160, 2000  # more than two blocks of columns, the last not full


def correlated_inputs(tokens: int = TOKENS, width: int = WIDTH) -> Tensor:
    """Inputs like those of a linear: few directions have most of what there is, and some units are far larger."""
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(width // 8, width, generator=random, dtype=torch.float64)
    inputs = torch.randn(tokens, width // 8, generator=random, dtype=torch.float64) @ directions
    inputs += 0.5 * torch.randn(tokens, width, generator=random, dtype=torch.float64)
    return inputs * torch.logspace(-1, 1, width, dtype=torch.float64)


def random_weight(rows: int = ROWS, width: int = WIDTH) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def moment_of(inputs: Tensor) -> Tensor:
    return inputs.T @ inputs / len(inputs)


def round_to_nearest(weight: Tensor) -> Rounded:
    scale = (weight.abs().amax(dim=1) / RANGE[FOUR_BITS][1]).half().double()
    steps = (weight / scale[:, None]).round().clamp(*RANGE[FOUR_BITS])
    return Rounded(steps.to(torch.int8), scale.float(), FOUR_BITS)


def lost(rounded: Rounded, weight: Tensor, inputs: Tensor) -> float:
    """The mean square that rounding moves x @ weight.T by, of what it is."""
    moved = inputs @ (rounded.dequantize().double() - weight).T
    return float(moved.square().mean() / (inputs @ weight.T).square().mean())


def is_half(scale: Tensor) -> bool:
    return bool(torch.equal(scale, scale.half().float()) and (scale > 0).all())


def make_on_grid(largest: int, scale: float, rows: int = 8, width: int = 24) -> tuple[Tensor, Tensor]:
    """Whole numbers from -largest to largest, both ends in each row, and the weight that they make."""
    random = torch.Generator().manual_seed(largest)
    steps = torch.randint(-largest, largest + 1, (rows, width), generator=random)
    steps[:, 0], steps[:, 1] = largest, 1 - largest or -1
    return steps, steps * torch.tensor(scale).half().float()


# Second order


def test_on_correlated_inputs_second_order_rounding_loses_a_tenth_of_what_rounding_to_nearest_does() -> None:
    weight, inputs = random_weight(), correlated_inputs()
    second_order = lost(round_second_order(weight, moment_of(inputs)), weight, inputs)
    nearest = lost(round_to_nearest(weight), weight, inputs)
    assert 0 < second_order < 0.1 * nearest
    other = correlated_inputs(2 * TOKENS)[TOKENS:]  # of the same kind, and not calibrated by
    assert lost(round_second_order(weight, moment_of(inputs)), weight, other) < 0.1 * lost(
        round_to_nearest(weight), weight, other
    )


def test_each_column_makes_up_for_those_before_it_within_its_block_and_beyond() -> None:
    """0.20 of what rounding to nearest costs; 0.82 if it were by blocks alone, 0.27 if within blocks alone."""
    weight, moment = 3 * random_weight(), moment_of(correlated_inputs())
    moment += 0.1 * moment.diagonal().mean() * torch.eye(WIDTH)

    def cost(steps: Tensor) -> float:
        return float((((steps - weight) @ moment) * (steps - weight)).sum())

    whole = rounding._round_columns(weight, moment)
    assert cost(whole) < 0.22 * cost(weight.round().clamp(*RANGE[FOUR_BITS]))


@pytest.mark.parametrize("block", [1, 50, WIDTH])
def test_how_many_columns_are_a_block_changes_no_number(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    weight, moment = random_weight(), moment_of(correlated_inputs())
    usual = round_second_order(weight, moment)
    monkeypatch.setattr(rounding, "BLOCK", block)
    assert torch.equal(round_second_order(weight, moment).weight, usual.weight)


def test_each_sweep_takes_something_off(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs = random_weight(), correlated_inputs()
    losses = []
    for sweeps in range(rounding.SWEEPS + 1):
        monkeypatch.setattr(rounding, "SWEEPS", sweeps)
        losses.append(lost(round_second_order(weight, moment_of(inputs)), weight, inputs))
    assert losses[1] < 0.95 * losses[0] and losses[2] < 0.99 * losses[1]


def test_on_inputs_that_have_nothing_in_common_it_loses_no_more() -> None:
    weight = random_weight()
    inputs = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert lost(round_second_order(weight, moment_of(inputs)), weight, inputs) < lost(
        round_to_nearest(weight), weight, inputs
    )


def test_four_bits_are_minus_8_to_7_with_scales_that_fp16_has() -> None:
    rounded = round_second_order(random_weight(), moment_of(correlated_inputs()))
    assert (int(rounded.weight.min()), int(rounded.weight.max()), rounded.bits) == (-8, 7, 4)
    assert rounded.weight.dtype == torch.int8 and rounded.scale.dtype == torch.float32
    assert rounded.weight.shape == (ROWS, WIDTH) and rounded.scale.shape == (ROWS,)
    assert is_half(rounded.scale)


@pytest.mark.parametrize("seed", range(5))
def test_a_sweep_makes_no_row_worse_from_wherever_it_starts(seed: int) -> None:
    weight, moment = 3 * random_weight(), moment_of(correlated_inputs())
    start = torch.randint(-8, 8, (ROWS, WIDTH), generator=torch.Generator().manual_seed(seed)).double()

    def cost(steps: Tensor) -> Tensor:
        return (((steps - weight) @ moment) * (steps - weight)).sum(dim=1)

    steps, felt, costs = start.clone(), start @ moment, [cost(start)]
    for _ in range(3):
        rounding._improve(steps, felt, weight @ moment, moment)
        torch.testing.assert_close(felt, steps @ moment, atol=1e-9, rtol=0)
        costs.append(cost(steps))
        assert (costs[-1] <= costs[-2] * (1 + 1e-9)).all()
        assert torch.equal(steps, steps.round()) and steps.min() >= -8 and steps.max() <= 7
    assert (costs[1] < 0.5 * costs[0]).all()


def test_after_a_sweep_that_moves_nothing_no_single_number_can_be_better() -> None:
    weight, moment = 3 * random_weight(4, 70), moment_of(correlated_inputs(width=70))
    steps = weight.round().clamp(*RANGE[FOUR_BITS])
    before = torch.zeros_like(steps)
    while not torch.equal(steps, before):
        before = steps.clone()
        rounding._improve(steps, steps @ moment, weight @ moment, moment)
    for column in range(70):
        for step in (-1, 1):
            moved = steps.clone()
            moved[:, column] += step
            allowed = (moved[:, column] >= -8) & (moved[:, column] <= 7)
            costs = [(((each - weight) @ moment) * (each - weight)).sum(dim=1) for each in (moved, steps)]
            assert (costs[0] >= costs[1] * (1 - 1e-9))[allowed].all()


def test_a_unit_that_is_there_twice_keeps_its_place_however_its_moments_were_added_up() -> None:
    """Splitting outliers puts units in twice. What they see is equal but for the last bits, which are a processor's."""
    inputs, weight = correlated_inputs(width=40), random_weight(width=40)
    inputs[:, 20], weight[:, 20] = inputs[:, 39], weight[:, 39]
    moment = moment_of(inputs)
    plain = round_second_order(weight, moment)
    assert not torch.equal(plain.weight[:, 20], plain.weight[:, 39])  # so that an exchange would be seen
    for unit in (20, 39):
        nudged = moment.clone()
        nudged[unit, unit] *= 1 + 1e-15
        rounded = round_second_order(weight, nudged)
        assert torch.equal(rounded.weight, plain.weight) and torch.equal(rounded.scale, plain.scale)


def test_a_row_of_zeros_and_a_direction_that_no_text_showed_are_no_obstacle() -> None:
    weight, inputs = random_weight(), correlated_inputs()
    weight[3], inputs[:, 5] = 0, 0
    rounded = round_second_order(weight, moment_of(inputs))
    assert not rounded.weight[3].any() and is_half(rounded.scale)
    unseen = rounded.dequantize()[:, 5] - weight[:, 5]
    assert (unseen[torch.arange(ROWS) != 3].abs() <= rounded.scale[torch.arange(ROWS) != 3]).float().mean() > 0.9
    nothing = round_second_order(weight, torch.zeros(WIDTH, WIDTH, dtype=torch.float64))
    assert is_half(nothing.scale) and lost(nothing, weight, correlated_inputs()) < 0.05


# Tables


def test_a_table_is_rounded_to_nearest_on_both_sides_alike_with_scales_that_fp16_has() -> None:
    table = torch.cat([random_weight(), torch.zeros(1, WIDTH, dtype=torch.float64)]).float()
    rounded, negated = round_table(table), round_table(-table)
    assert torch.equal(negated.weight, -rounded.weight) and torch.equal(negated.scale, rounded.scale)
    assert (int(rounded.weight.min()), int(rounded.weight.max()), rounded.bits) == (-7, 7, 4)
    assert is_half(rounded.scale)
    assert not rounded.weight[-1].any()
    within = table.abs() <= 7 * rounded.scale[:, None]  # others are cut to the largest number
    assert ((rounded.dequantize() - table).abs() <= 0.5001 * rounded.scale[:, None])[within].all()
    assert rounded.weight[~within].abs().eq(7).all()


def test_cutting_the_largest_numbers_of_a_row_costs_less_than_a_coarser_scale() -> None:
    table = random_weight().float()
    plain = round_to_nearest(table.double())
    errors = [(each.dequantize() - table).square().sum(dim=1) for each in (round_table(table), plain)]
    assert (errors[0] <= errors[1]).all() and errors[0].sum() < 0.9 * errors[1].sum()


# Weights of whole numbers


@pytest.mark.parametrize("largest", range(1, 8))
@pytest.mark.parametrize("scale", [1.0, 0.0123, 3e-4])
def test_rows_of_whole_numbers_are_found_whatever_of_the_range_they_use(largest: int, scale: float) -> None:
    steps, weight = make_on_grid(largest, scale)
    found = find_grid(weight)
    assert found is not None and found.bits == FOUR_BITS
    assert torch.equal(found.dequantize(), weight)
    assert torch.equal(found.weight.long(), steps) or largest < 4  # 1, 0 and -1 may be 2, 0 and -2 of half the scale
    assert is_half(found.scale)


@pytest.mark.parametrize("shared", [1, 2, 3])
def test_of_the_grids_that_a_row_is_on_the_one_is_taken_that_fp16_has(shared: int) -> None:
    """2 and -1 may be 6 and -3: of thrice the scale fp16 may lack the last bits."""
    steps = torch.tensor([[2 * shared, -shared, 0, shared]])
    for scale in torch.linspace(0.01, 0.02, 50).half().float():
        found = find_grid(steps * scale)
        assert found is not None and torch.equal(found.dequantize(), steps * scale)


def test_minus_8_is_in_the_range_and_8_is_not() -> None:
    row = torch.tensor([[-8.0, 7, 3, 1]]) / 64
    found = find_grid(torch.cat([row, row / 2]))
    assert found is not None and found.weight.tolist() == [[-8, 7, 3, 1]] * 2
    assert found.scale.tolist() == [1 / 64, 1 / 128]
    assert find_grid(-row) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("head_dim", [8, 32, 64])
def test_whole_numbers_survive_fp16_and_the_scaling_of_the_query(head_dim: int, dtype: torch.dtype) -> None:
    """A checkpoint may be stored in fp16, and 1 / sqrt(head_dim) is multiplied into the query afterwards."""
    rows = [make_on_grid(largest, 0.0177 + largest / 1000) for largest in range(4, 8)]
    steps, weight = torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])
    stored = weight.to(dtype).float() * head_dim**-0.5
    found = find_grid(stored)
    assert found is not None and torch.equal(found.weight.long(), steps)
    assert is_half(found.scale)
    torch.testing.assert_close(found.dequantize(), weight * head_dim**-0.5, rtol=2**-10, atol=0)


def test_an_ordinary_weight_is_on_no_grid() -> None:
    assert find_grid(random_weight().float()) is None
    _, weight = make_on_grid(7, 0.01)
    weight[5, 7] += 0.05 * 0.01  # a twentieth of a step, in one place
    assert find_grid(weight) is None


def test_a_row_of_zeros_is_on_every_grid() -> None:
    steps, weight = make_on_grid(7, 0.01)
    steps[2], weight[2] = 0, 0
    found = find_grid(weight)
    assert found is not None and torch.equal(found.weight.long(), steps) and is_half(found.scale)
