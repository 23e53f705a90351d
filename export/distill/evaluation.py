"""How a model does on held-out texts: its logits, their accuracy, and their agreement with the teacher's.

Takes a transformers model and a `Split`. Returns logits and figures.
Leaves out: when that is asked, and what follows from it (train.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketbert.export.distill.data_loader import BatchEncoder, batch_by_length
from pocketbert.export.distill.splits import Split
from pocketbert.runtime.check.metrics import answers

BATCH = 64  # texts at a time: no gradient is kept


@dataclass(frozen=True)
class Evaluation:
    """How the student did on the held-out texts at a step."""

    step: int
    accuracy: float  # on labels, or where there are none agreement with the teacher
    agreement: float | None  # with the teacher; None where the labels are not its own


def predict_logits(model: Any, encoder: BatchEncoder, texts: Sequence[str], device: torch.device) -> Tensor:
    """A transformers model's logits, float32 (texts, labels), in fp32 arithmetic; batches of similar lengths."""
    ids = encoder.encode(texts)
    logits = torch.zeros(len(ids), model.config.num_labels)
    model.eval()
    with torch.inference_mode():
        for rows in batch_by_length(range(len(ids)), ids, BATCH):
            inputs = encoder.pad([ids[row] for row in rows])
            logits[rows] = model(**inputs.to(device)).logits.float().cpu()
    return logits


def score(logits: Tensor, teacher_logits: Tensor | None, split: Split, multi_label: bool) -> tuple[float, float | None]:
    """Accuracy on the labels and agreement with the teacher; without labels the first is the second."""
    found = answers(logits.numpy(), multi_label)
    agreement = None if teacher_logits is None else _share(found == answers(teacher_logits.numpy(), multi_label))
    if not split.labelled.any():
        return agreement or 0.0, agreement
    return _share((found == split.labels)[split.labelled]), agreement


def _share(same: np.ndarray) -> float:
    """Of the rows of bool (texts, labels), those that are all True."""
    return float(torch.from_numpy(same).all(1).float().mean())
