"""Matrix products whose every bit is the same however far the operands are padded, with any BLAS.

Takes arrays of any numeric type. Returns their product in that type. Leaves out: broadcasting other than numpy's.

BLAS has a kernel for the bulk of a matrix and others for what is left at its edges, for small matrices, for single
rows, and for the share of each thread; they add up in different orders. With OpenBLAS on AVX2 a row of 384 terms in
float32 gets other bits as one of 8 rows than as one of 12, because 12 rows go to one kernel and 4 or 8 to others.
So BLAS is only ever given blocks of one size, at the same place whatever follows them: padding adds blocks
and zeros, it moves nothing. Blocks of terms are added up from the first to the last, and adding zeros changes nothing.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Rows, columns or terms that BLAS gets at once. Smaller blocks read the weights more often, larger ones compute more
# zeros. Of 16, 24 and 32 this costs least with AVX2 and as little as the others with AVX-512: over the lengths of
# SST-2's texts a tenth to a quarter more than whole matrices, at 8 and 24 tokens up to a half.
BLOCK = 16


def multiply_rows(x: Array, weight: Array) -> Array:
    """x @ weight: (..., rows, in), (in, out) -> (..., rows, out), in blocks of rows; `in` and `out` never vary."""
    *leading, rows, inner = x.shape
    blocks = _pad(x, -2).reshape(*leading, -1, BLOCK, inner)
    return np.matmul(blocks, weight).reshape(*leading, -1, weight.shape[-1])[..., :rows, :]


def multiply(x: Array, y: Array) -> Array:
    """x @ y: (..., rows, inner), (..., inner, columns) -> (..., rows, columns), each of which may vary."""
    if x.shape[-1] != y.shape[-2]:
        raise ValueError(f"the shapes {x.shape} and {y.shape} do not fit together")
    left, right = _tiles(x), _tiles(y)
    terms = (left[..., :, i, None, :, :] @ right[..., i, None, :, :, :] for i in range(right.shape[-4]))
    total = functools.reduce(np.add, terms)  # (..., row blocks, column blocks, BLOCK, BLOCK)
    *leading, row_blocks, column_blocks = total.shape[:-2]
    whole = np.swapaxes(total, -2, -3).reshape(*leading, row_blocks * BLOCK, column_blocks * BLOCK)
    return whole[..., : x.shape[-2], : y.shape[-1]]


def _tiles(x: Array) -> Array:
    """(..., rows, columns) -> (..., row blocks, column blocks, BLOCK, BLOCK), zeros where there is nothing."""
    whole = _pad(_pad(x, -1), -2)
    *leading, rows, columns = whole.shape
    return np.swapaxes(whole.reshape(*leading, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK), -2, -3)


def _pad(x: Array, axis: int) -> Array:
    """Zeros after `x` along `axis`, up to whole blocks."""
    missing = -x.shape[axis] % BLOCK
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing)
    return np.pad(x, widths) if missing else x
