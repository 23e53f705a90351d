"""Rounds one weight to whole numbers: to nearest, or so that what it computes changes least.

Takes a weight, float (rows, width), and what reads or feeds it as a second moment. Returns `Rounded`.
Leaves out: which weight gets how many bits, and where second moments come from (quantize.py, calibration.py).

To nearest is right where a step is small. With 15 steps the errors of a row add up in its product, so the second-order
way rounds column after column and lets those not rounded yet make up for the error: GPTQ, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FOUR_BITS = 4
# Bits of a weight -> its range. With 8, -128 stays unused: negating a weight cannot overflow. Of 16 numbers every one
# counts: with -8 a row's error is 8 % smaller.
RANGE = {8: (-127, 127), FOUR_BITS: (-8, 7)}
SYMMETRIC = 7  # the largest of 4 bits with either sign, for tables
# Shares of a row's largest weight that its scale may be made for: what lies beyond is cut to it.
CLIPPINGS = tuple(share / 20 for share in range(8, 21))
# Of the mean of a second moment's diagonal, added to it: directions that no text showed must not cost nothing. Of
# 0.01, 0.1 and 0.3 the middle one lost least on texts that were not calibrated by.
DAMPING = 0.1
BLOCK = 64  # columns that are rounded before those behind them hear of it: fewer, larger products
SWEEPS = 2  # each takes 2 to 3 % off a row's error; a third one less than 1
ON_GRID = 1e-2  # how far from a whole number, in steps, a weight that fp16 has rounded may be
LEAST_SCALE = 2.0**-24  # of fp16


@dataclass(frozen=True)
class Rounded:
    """A weight as whole numbers."""

    weight: Tensor  # int8 (rows, width), whatever the bits
    scale: Tensor  # float32 (rows,)
    bits: int = 8

    def dequantize(self) -> Tensor:
        """float32 (rows, width)"""
        return self.weight * self.scale[:, None]


def round_rows(weight: Tensor, per_channel: bool = True) -> Rounded:
    """Symmetric int8 with a scale per row, to nearest."""
    peak = weight.detach().abs().amax(dim=1)
    if not per_channel:
        peak = torch.full_like(peak, float(peak.max()))
    scale = torch.where(peak > 0, peak / RANGE[8][1], 1.0)  # an empty row needs any scale but 0
    return Rounded(torch.round(weight.detach() / scale[:, None]).to(torch.int8), scale)


def round_to_half_scales(weight: Tensor) -> Rounded:
    """The same with scales that fp16 has too, so that all formats hold the same ones."""
    scale = _half(weight.abs().amax(dim=1) / RANGE[8][1])
    return _rounded(torch.round(weight / scale[:, None]).clamp(*RANGE[8]), scale, 8)


def round_table(weight: Tensor) -> Rounded:
    """4 bits with a scale per row, to nearest: of a table, whose rows are read as they are."""
    scale = search_scale(weight, torch.ones(weight.shape[1], dtype=weight.dtype), -SYMMETRIC)
    return _rounded(_nearest(weight / scale, -SYMMETRIC), scale.flatten(), FOUR_BITS)


def find_grid(weight: Tensor) -> Rounded | None:
    """The 4-bit whole numbers that `weight` is made of already, or None: of a model that was trained to be so.

    A row need not use all of the range, and 2, 0 and -2 may be 1, 0 and -1 as well: of all that fit, those whose scale
    is the nearest to a number of fp16.
    """
    peak = weight.abs().amax(dim=1, keepdim=True).clamp(min=LEAST_SCALE)
    steps, scale, least = torch.zeros_like(weight), peak.clone(), torch.full_like(peak, torch.inf)
    for largest in range(1, 1 - RANGE[FOUR_BITS][0]):
        in_steps, half = weight * (largest / peak), _half(peak / largest)
        whole, misfit = in_steps.round(), (half * largest / peak - 1).abs()
        on_grid = ((in_steps - whole).abs() < ON_GRID) & (whole <= RANGE[FOUR_BITS][1])
        better = on_grid.all(dim=1) & (misfit < least)[:, 0]
        steps[better], scale[better], least[better] = whole[better], half[better], misfit[better]
    return _rounded(steps, scale.flatten(), FOUR_BITS) if least.isfinite().all() else None


def round_second_order(weight: Tensor, moment: Tensor) -> Rounded:
    """4 bits with a scale per row, so that x @ weight.T moves least over inputs of which `moment` (width, width) is the
    mean of x.T @ x. Everything in the dtype of the two: in float64 it is the same on every processor.
    """
    moment = moment + torch.eye(len(moment), dtype=moment.dtype) * (DAMPING * moment.diagonal().mean() + LEAST_SCALE)
    scale = search_scale(weight, moment.diagonal())
    steps, exact = _round_columns(weight / scale, moment), weight @ moment
    felt = steps @ moment  # kept up to date: the product is most of the work
    for _ in range(SWEEPS):
        scale = _fit_scale(weight, steps, felt, scale)
        _improve(steps, felt, exact / scale, moment)
    return _rounded(steps, _fit_scale(weight, steps, felt, scale).flatten(), FOUR_BITS)


def search_scale(weight: Tensor, importance: Tensor, least: int = RANGE[FOUR_BITS][0]) -> Tensor:
    """The scale of each row, of CLIPPINGS, that costs least when rounded to nearest: (rows, 1), numbers of fp16.

    `importance` (width,): of the error of each column. `least`: the smallest whole number.
    """
    peak = weight.abs().amax(dim=1, keepdim=True) / RANGE[FOUR_BITS][1]
    scales = [_half(peak * share) for share in CLIPPINGS]
    costs = [_cost(weight, scale, least) @ importance for scale in scales]
    best = torch.stack(costs).argmin(dim=0)  # (rows,)
    return torch.stack(scales).gather(0, best[None, :, None])[0]


def _cost(weight: Tensor, scale: Tensor, least: int) -> Tensor:
    """The squared error of each weight, rounded to nearest."""
    return _nearest(weight / scale, least).mul_(scale).sub_(weight).square_()


def _round_columns(weight: Tensor, moment: Tensor) -> Tensor:
    """Whole numbers near `weight`, which is in steps; those that matter most are rounded first."""
    # In fp32: a unit that was put in twice is equal to itself but for how a processor adds up, and must keep its place.
    order = moment.diagonal().float().argsort(descending=True, stable=True)
    spread = _inverse_factor(moment[order][:, order])
    left, whole = weight[:, order], torch.empty_like(weight)
    for start in range(0, left.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        part, errors = left[:, block].clone(), torch.empty_like(left[:, block])
        for column in range(part.shape[1]):
            row = spread[start + column, start + column : start + BLOCK]
            steps = _nearest(part[:, column])
            errors[:, column] = (part[:, column] - steps) / row[0]
            part[:, column:].addr_(errors[:, column], row, alpha=-1)
            whole[:, order[start + column]] = steps
        left[:, block.stop :].addmm_(errors, spread[block, block.stop :], alpha=-1)
    return whole


def _fit_scale(weight: Tensor, steps: Tensor, felt: Tensor, scale: Tensor) -> Tensor:
    """The scale of each row that fits its whole numbers best, by least squares: (rows, 1), numbers of fp16.

    `felt` is steps @ moment.
    """
    above, below = (felt * weight).sum(dim=1, keepdim=True), (felt * steps).sum(dim=1, keepdim=True)
    return _half(torch.where((above > 0) & (below > 0), above / below, scale))


def _improve(steps: Tensor, felt: Tensor, exact: Tensor, moment: Tensor) -> None:
    """Moves each whole number to the best one while all others stay, in place, and `felt`, steps @ moment, with them.

    `exact` is the same of what was rounded, in steps.
    """
    for start in range(0, steps.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        part, inner = felt[:, block] - exact[:, block], moment[block, block]
        moved = torch.empty_like(part)
        for column in range(part.shape[1]):
            before = steps[:, start + column]
            after = _nearest(before - part[:, column] / inner[column, column])
            moved[:, column] = after - before
            part.addr_(moved[:, column], inner[column])
            steps[:, start + column] = after
        felt.addmm_(moved, moment[block])


def _inverse_factor(moment: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse: its rows say how a column's error is made up for by those behind it."""
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moment)), upper=True)


def _nearest(steps: Tensor, least: int = RANGE[FOUR_BITS][0]) -> Tensor:
    return steps.round().clamp(least, RANGE[FOUR_BITS][1])


def _half(scale: Tensor) -> Tensor:
    """The nearest number of fp16 that is more than 0."""
    return scale.half().to(scale.dtype).clamp(min=LEAST_SCALE)


def _rounded(steps: Tensor, scale: Tensor, bits: int) -> Rounded:
    return Rounded(steps.to(torch.int8), scale.float(), bits)
