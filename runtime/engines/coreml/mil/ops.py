"""The ops of an ML program in numpy: a table from an op's name to a function with the op's own parameters.

Takes arrays, by the parameter names of the MIL op reference, with its defaults. Returns the op's one result.
Leaves out: declared types (evaluator.py rounds to them), the ops that no BERT-like classifier, token
classifier or question answerer contains, and parameter values that none uses: those are refused by name.

Reference: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.runtime.engines.coreml.mil.products import multiply, multiply_rows
from pocketbert.runtime.errors import EngineError

Array = NDArray[Any]

CAST_TYPES = {
    "bool": np.bool_,
    "fp16": np.float16,
    "fp32": np.float32,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "uint8": np.uint8,
    "uint16": np.uint16,
}
LAYER_NORM_EPSILON = 1e-5  # the op's default
TANH_GELU_CUBIC = 0.044715  # Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415
# erf(x) = x P(x^2) / Q(x^2) for |x| <= 4, where it is 1 to float32: the rational minimax fit of Eigen
# (Eigen/src/Core/MathFunctionsImpl.h, generic_fast_erf_float) and XLA. Highest power first.
ERF_BOUND = 4.0
ERF_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


class UnsupportedOp(EngineError):
    """The program holds an op, a parameter or a parameter's value that is not evaluated here; it is named."""


def cast(x: Array, dtype: Array) -> Array:
    """To `dtype`; a float loses its fraction on the way to an integer, as in C."""
    if str(dtype) not in CAST_TYPES:
        raise UnsupportedOp(f"dtype {str(dtype)!r} is not supported: only {', '.join(CAST_TYPES)}")
    return x.astype(CAST_TYPES[str(dtype)])


def concat(values: tuple[Array, ...], axis: Array, interleave: bool | Array = False) -> Array:
    """Joins `values` along `axis`; scalars join to a vector, as shapes do."""
    if interleave:
        raise UnsupportedOp("interleave True is not supported")
    return np.concatenate([np.atleast_1d(value) for value in values], axis=int(axis))


def expand_dims(x: Array, axes: Array) -> Array:
    """Adds a size of 1 at each of `axes` of the result."""
    return np.expand_dims(x, _axes(axes))


def gather(
    x: Array,
    indices: Array,
    axis: int | Array = 0,
    batch_dims: int | Array = 0,
    validate_indices: bool | Array = False,
) -> Array:
    """Slices of `x` along `axis`: x.shape[:axis] + indices.shape + x.shape[axis + 1:]."""
    for name, value in (("batch_dims", batch_dims), ("validate_indices", validate_indices)):
        if value:
            raise UnsupportedOp(f"{name} {value} is not supported: only 0")
    return np.take(x, indices, axis=int(axis))


def identity(x: Array) -> Array:
    """The value itself, under another name."""
    return x


def reshape(x: Array, shape: Array) -> Array:
    """To `shape`, in which -1 is what remains, and 0 keeps the size at its place if the rank stays."""
    sizes = [int(size) for size in shape]
    if 0 in sizes and len(sizes) != x.ndim:
        raise ValueError(f"shape {sizes} keeps sizes of a tensor of another rank, {x.ndim}")
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(sizes)])


def select(cond: Array, a: Array, b: Array) -> Array:
    """`a` where `cond` holds, else `b`."""
    return np.where(cond, a, b)


def shape(x: Array) -> Array:
    """The sizes of `x`: int32 (rank,)."""
    return np.array(x.shape, np.int32)


def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """x[begin:end:stride] on every axis; a mask that is set means from the start, to the end, just the one at begin."""
    unset = np.zeros(x.ndim, np.bool_)
    parameters = (
        begin,
        end,
        np.ones(x.ndim, np.int32) if stride is None else stride,
        unset if begin_mask is None else begin_mask,
        unset if end_mask is None else end_mask,
        unset if squeeze_mask is None else squeeze_mask,
    )
    if any(parameter.shape != (x.ndim,) for parameter in parameters):
        raise ValueError(f"a parameter has not one entry for each of {x.ndim} axes")
    return x[tuple(_index(*(entry.item() for entry in axis)) for axis in zip(*parameters, strict=True))]


def _index(begin: int, end: int, stride: int, from_start: bool, to_end: bool, squeeze: bool) -> int | slice:
    if squeeze:
        return 0 if from_start else begin
    return slice(None if from_start else begin, None if to_end else end, stride)


def squeeze(x: Array, axes: Array | None = None) -> Array:
    """Removes sizes of 1: at `axes`, or all of them."""
    return np.squeeze(x, None if axes is None else _axes(axes))


def transpose(x: Array, perm: Array) -> Array:
    """Axis i of the result is axis perm[i] of `x`."""
    return np.transpose(x, _axes(perm))


def cumsum(x: Array, axis: int | Array = 0, exclusive: bool | Array = False, reverse: bool | Array = False) -> Array:
    """Each number and all before it on `axis`, added up from the first."""
    for name, value in (("exclusive", exclusive), ("reverse", reverse)):
        if value:
            raise UnsupportedOp(f"{name} True is not supported")
    return np.add.accumulate(x, int(axis))


def gelu(x: Array, mode: str | Array = "EXACT") -> Array:
    """x times the share of a normal distribution below x, exactly or by the tanh that BERT's first code used."""
    if str(mode) == "EXACT":
        share: Array = 1 + erf(x * 0.5**0.5)
    elif str(mode) == "TANH_APPROXIMATION":
        share = 1 + np.tanh((2 / math.pi) ** 0.5 * (x + TANH_GELU_CUBIC * x * x * x))
    else:
        raise UnsupportedOp(f"mode {str(mode)!r} is not supported: only EXACT and TANH_APPROXIMATION")
    return 0.5 * x * share


def erf(x: Array) -> Array:
    """The error function, off by at most 1e-7; float64, because the fit in float32 would lose 4e-7."""
    x = np.clip(x.astype(np.float64), -ERF_BOUND, ERF_BOUND)
    square = x * x
    ratio: Array = _polynomial(ERF_NUMERATOR, square) / _polynomial(ERF_DENOMINATOR, square)
    return np.multiply(x, ratio)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += coefficient
    return total


def layer_norm(
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float | Array = LAYER_NORM_EPSILON,
) -> Array:
    """Mean 0 and variance 1 over `axes` (all, if absent), then times gamma plus beta."""
    over = tuple(range(x.ndim)) if axes is None else _axes(axes)
    centered = x - x.mean(axis=over, keepdims=True)
    normal: Array = centered / np.sqrt((centered * centered).mean(axis=over, keepdims=True) + epsilon)
    sizes = [size if axis in {a % x.ndim for a in over} else 1 for axis, size in enumerate(x.shape)]
    scaled = normal if gamma is None else normal * gamma.reshape(sizes)
    return scaled if beta is None else scaled + beta.reshape(sizes)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    product = multiply_rows(np.atleast_2d(x), weight.T).reshape(*x.shape[:-1], weight.shape[0])
    return product if bias is None else product + bias


def matmul(x: Array, y: Array, transpose_x: bool | Array = False, transpose_y: bool | Array = False) -> Array:
    """x @ y over the last two axes, each transposed first if asked for."""
    return multiply(np.swapaxes(x, -1, -2) if transpose_x else x, np.swapaxes(y, -1, -2) if transpose_y else y)


def real_div(x: Array, y: Array) -> Array:
    """x / y for floats; how Core ML rounds a quotient of integers is not documented."""
    if x.dtype.kind != "f":
        raise UnsupportedOp(f"the type {x.dtype} is not supported: only floats")
    return np.divide(x, y)


def relu(x: Array) -> Array:
    """The larger of x and 0."""
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), by way of tanh, which does not overflow."""
    half: Array = np.tanh(0.5 * x)
    return 0.5 * (1 + half)


def softmax(x: Array, axis: int | Array = -1) -> Array:
    """Over `axis`, shifted by its maximum so that it cannot overflow."""
    powers: Array = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return np.divide(powers, _sum_in_order(powers, int(axis)))


def _sum_in_order(x: Array, axis: int) -> Array:
    """Sums one by one along `axis`, kept: numpy's own sum may take blocks, so that even zeros change the order."""
    return np.take(np.add.accumulate(x, axis), [-1], axis)


def _axes(axes: Array) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.atleast_1d(axes))


# These pass values on as they are, in whatever type they have.
MOVES: dict[str, Callable[..., Array]] = {
    "cast": cast,
    "concat": concat,
    "expand_dims": expand_dims,
    "gather": gather,
    "identity": identity,
    "reshape": reshape,
    "select": select,
    "shape": shape,
    "slice_by_index": slice_by_index,
    "squeeze": squeeze,
    "transpose": transpose,
}
# These compute, in float32 where the program says fp16.
ARITHMETIC: dict[str, Callable[..., Array]] = {
    "add": lambda x, y: np.add(x, y),
    "cumsum": cumsum,
    "equal": lambda x, y: np.equal(x, y),
    "erf": erf,
    "gelu": gelu,
    "greater": lambda x, y: np.greater(x, y),
    "layer_norm": layer_norm,
    "linear": linear,
    "logical_and": lambda x, y: np.logical_and(x, y),
    "logical_not": lambda x: np.logical_not(x),
    "matmul": matmul,
    "maximum": lambda x, y: np.maximum(x, y),
    "minimum": lambda x, y: np.minimum(x, y),
    "mul": lambda x, y: np.multiply(x, y),
    "not_equal": lambda x, y: np.not_equal(x, y),
    "real_div": real_div,
    "relu": relu,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "sub": lambda x, y: np.subtract(x, y),
    "tanh": lambda x: np.tanh(x),
}
