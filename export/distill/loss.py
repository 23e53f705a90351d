"""The distillation loss: the teacher's soft targets, the labels, and the direction of hidden states.

    L = alpha_ce * T^2 * KL(softmax(t / T) || softmax(s / T))
        + alpha_label * CE(labels)
        + alpha_cos * (1 - cos(h_s, h_t))

as in DistilBERT (https://arxiv.org/abs/1910.01108, section 2), whose masked words are labels here. Where several
labels may hold, softmax is a sigmoid per label and KL and CE are summed over the labels.
Leaves out: which hidden states belong together (data_loader.py aligns them; padding is aligned with nothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PARTS = ("soft", "label", "cosine")


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts."""

    soft: float
    label: float
    cosine: float
    temperature: float
    multi_label: bool = False


def soft_loss(student: Tensor, teacher: Tensor, weights: LossWeights) -> Tensor:
    """Mean over texts of T^2 * KL. Logits float32 (texts, labels) -> ().

    T^2 keeps the gradient's size when T changes (https://arxiv.org/abs/1503.02531, section 2).
    """
    student, teacher = student / weights.temperature, teacher / weights.temperature
    if weights.multi_label:
        found, wanted = functional.logsigmoid(student), functional.logsigmoid(teacher)
        not_found, not_wanted = functional.logsigmoid(-student), functional.logsigmoid(-teacher)
        kl = wanted.exp() * (wanted - found) + not_wanted.exp() * (not_wanted - not_found)
    else:
        found, wanted = functional.log_softmax(student, -1), functional.log_softmax(teacher, -1)
        kl = wanted.exp() * (wanted - found)
    return kl.sum(-1).mean() * weights.temperature**2


def label_loss(student: Tensor, labels: Tensor, labelled: Tensor, weights: LossWeights) -> Tensor:
    """Cross-entropy of the labelled texts, summed and divided by all texts: each text counts the same.

    Logits float32 (texts, labels), `labels` bool (texts, labels), `labelled` bool (texts,) -> ().
    """
    if weights.multi_label:
        each = functional.binary_cross_entropy_with_logits(student, labels.float(), reduction="none").sum(-1)
    else:
        each = -(functional.log_softmax(student, -1) * labels).sum(-1)
    return (each * labelled).sum() / len(labelled)


def cosine_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean of 1 - cos over aligned hidden states, float32 (pairs, hidden), and over the layers given."""
    losses = [1 - functional.cosine_similarity(s, t, dim=-1).mean() for s, t in zip(student, teacher, strict=True)]
    return sum(losses[1:], losses[0]) / len(losses)
