"""The linear algebra by which a student starts from what its teacher knows.

Takes and returns plain tensors, float32. `Embedding` is what turns a token and a position into a hidden state, for any
of the three families:  project @ (gain * normalize(word + position) + shift) + offset.
Leaves out: names and families (student.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SAMPLE = 4096  # (token, position) pairs on which a norm is fitted


@dataclass(frozen=True)
class Embedding:
    """The tables and the affine map after the norm."""

    word: Tensor  # (vocabulary, width)
    position: Tensor  # (positions, width), token type 0 included
    gain: Tensor  # (width,), the norm's weight
    shift: Tensor  # (width,), the norm's bias
    project: Tensor | None = None  # (hidden, width); ALBERT has one
    offset: Tensor | None = None  # (hidden,)

    @property
    def matrix(self) -> Tensor:
        """(hidden, width)"""
        return torch.eye(len(self.gain)) if self.project is None else self.project

    @property
    def constant(self) -> Tensor:
        """(hidden,)"""
        return torch.zeros(len(self.matrix)) if self.offset is None else self.offset

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Hidden states (n, hidden) of tokens at positions, each (n,)."""
        x = normalize(self.word[ids] + self.position[positions]) * self.gain + self.shift
        return x @ self.matrix.T + self.constant


def normalize(x: Tensor) -> Tensor:
    """LayerNorm without weight and bias, over the last axis."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-12)


def center(x: Tensor) -> Tensor:
    """Without the mean over the last axis, which a LayerNorm takes away first."""
    return x - x.mean(-1, keepdim=True)


def find_basis(rows: Tensor, size: int) -> Tensor:
    """The (width, size) basis on which centered `rows` (n, width) lose least, made for a LayerNorm to follow.

    A LayerNorm subtracts the mean over its axes, so one of `size` directions is lost to it. The principal directions
    are therefore size - 1, turned into the part of the narrow space whose mean is 0: normalizing there and in the
    wide space are the same up to sqrt(size / width). At full size nothing is lost, and the two are equal.
    """
    _, _, directions = torch.linalg.svd(center(rows), full_matrices=False)  # (rank, width), largest first
    kept = directions[: size - 1]
    ones = torch.ones(size, 1) / size**0.5
    turned = torch.linalg.svd(ones, full_matrices=True)[0][:, 1 : len(kept) + 1]  # (size, kept), orthogonal to ones
    return kept.T @ turned.T


def factorize(embedding: Embedding, size: int, word_counts: Tensor, position_counts: Tensor) -> Embedding:
    """The same embedding through a table `size` wide: ALBERT's, equal to the teacher's at the full size.

    The truncated SVD of the teacher's tables (each row as often as the data uses it) gives the narrow tables; the
    directions, with the teacher's norm on them, become ALBERT's projection.
    """
    width = len(embedding.gain)
    weighted = torch.cat(
        [
            center(embedding.word) * (word_counts + 1).sqrt()[:, None],
            center(embedding.position) * (position_counts + 1).sqrt()[:, None],
        ]
    )
    basis = find_basis(weighted, size)  # (width, size)
    matrix = embedding.matrix
    offset = matrix @ embedding.shift + embedding.constant
    return Embedding(
        word=center(embedding.word) @ basis,
        position=center(embedding.position) @ basis,
        gain=torch.ones(size),
        shift=torch.zeros(size),
        project=matrix @ (embedding.gain[:, None] * basis) * (width / size) ** 0.5,
        offset=offset,
    )


def widen(embedding: Embedding, generator: torch.Generator) -> Embedding:
    """A projected embedding (ALBERT's) as a plain one, for a DistilBERT: its norm is fitted by least squares.

    The narrow norm has no equal in the wide space, so this is a start, not an identity.
    """
    if embedding.project is None:
        return embedding
    ids = torch.randint(len(embedding.word), (SAMPLE,), generator=generator)
    positions = torch.randint(len(embedding.position), (SAMPLE,), generator=generator)
    spread = center(embedding.word[ids] + embedding.position[positions]).std(-1).mean()
    matrix = embedding.matrix * embedding.gain / spread
    word = center(embedding.word) @ matrix.T
    position = center(embedding.position) @ matrix.T + embedding.matrix @ embedding.shift + embedding.constant
    wanted, found = embedding(ids, positions), normalize(word[ids] + position[positions])
    gain = (center(wanted.T) * center(found.T)).mean(-1) / center(found.T).square().mean(-1)
    return Embedding(word, position, gain, wanted.mean(0) - gain * found.mean(0))


def narrow_norm(gain: Tensor, shift: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """A LayerNorm's weight and bias (width,) for states written on `basis` (width, size)."""
    width, size = basis.shape
    share = basis.square() / basis.square().sum(0)
    return gain @ share * (width / size) ** 0.5, shift @ basis
