"""Which texts are evidence about an engine: those whose answer is not tipped by how a kernel rounds.

Takes an oracle, token ids and the logits that it gives them. Returns by how much each text's probabilities move when
the oracle is nudged as much as kernels differ, and the texts that move little.
Leaves out: which texts there are, and writing them (golden.py).

Activations are rounded to int8. A number that lies between two steps falls to one or the other by its last bits, and
these are a kernel's own: sums in another order, another exp. Each step that falls otherwise moves the numbers of the
next layer. On most texts that comes to nothing; where two answers tie it moves the probability of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketbert.export.encoder import Encoder, compute_logits, copy_modules
from pocketbert.runtime.self_check import measure_difference

# Relative, of what a norm gives: eight units in the last place of a float32. Kernels of one linear or norm differ by
# one to ten.
NUDGE = 1e-6
# An engine is one more draw of what nudges do, 3e-7 and 1e-6 alike. On the 6-layer DistilBERT of questions two texts of
# 12 move by more than is steady in half of all draws: 4 draws have missed one, 8 miss such a text once in 256 times.
NUDGES = 8
# At most one text in so many is left out, else an engine would be asked too little.
LEFT_OUT_SHARE = 3


def measure_moves(
    oracle: Encoder,
    ids_list: Sequence[Sequence[int]],
    logits: Sequence[NDArray[np.float32]],
    probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float64]:
    """float64 (texts,): the most that NUDGES nudges move a probability of each, as the self-check measures it.

    `logits` are the oracle's own, in the shapes of `compute_logits`.
    """
    moves = np.zeros(len(ids_list))
    for seed in range(NUDGES):
        moved = compute_logits(nudge(oracle, seed), ids_list)
        pairs = zip(moved, logits, strict=True)
        moves = np.maximum(moves, [measure_difference(*pair, probabilities) for pair in pairs])
    return moves


def nudge(oracle: Encoder, seed: int) -> Encoder:
    """A copy whose norms give each channel NUDGE more or less, drawn by `seed`.

    One factor for all channels would do nothing: the scale of a token's activations grows with them, and what is
    rounded stays where it was.
    """
    nudged = copy_modules(oracle)
    signs = torch.Generator().manual_seed(seed)
    for norm in nudged.modules():
        if isinstance(norm, nn.LayerNorm):
            factor = 1 + NUDGE * (2 * torch.randint(0, 2, norm.weight.shape, generator=signs) - 1)
            norm.weight = nn.Parameter(norm.weight * factor, requires_grad=False)
            norm.bias = nn.Parameter(norm.bias * factor, requires_grad=False)
    return nudged


def find_steady(moves: NDArray[np.float64], limit: float) -> list[int]:
    """The places, in order, of the texts that move by `limit` at most; if that leaves out more than one text in
    LEFT_OUT_SHARE, the others that move least stay too."""
    fewest = len(moves) - len(moves) // LEFT_OUT_SHARE
    count = max(fewest, int((moves <= limit).sum()))
    return sorted(np.argsort(moves, kind="stable")[:count].tolist())
