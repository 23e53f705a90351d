"""The three base shapes as checkpoints with random weights: sizes and times do not depend on what weights say.

Gives a folder for each. Leaves out: accuracy, of which they have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketbert.export.hugging_face import open_transformers

WIDTH = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
# transformers' defaults are bert-base-uncased and distilbert-base-uncased; of ALBERT they are xxlarge.
SHAPES: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "bert-base": ("bert", {}),
    "distilbert-base": ("distilbert", {}),
    "albert-base": ("albert", WIDTH),
}
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make(name: str) -> Any:
    """A transformers classifier of that shape, on whatever device is current (meta: no storage)."""
    family, sizes = SHAPES[name]
    transformers = open_transformers()
    config = transformers.AutoConfig.for_model(family, **sizes)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def write(name: str, folder: Path) -> Path:
    """Writes the checkpoint, fp16, with a vocabulary of made-up pieces of the right size."""
    import torch

    torch.manual_seed(0)
    model = make(name).half()
    model.save_pretrained(folder / name)
    pieces = [*SPECIALS, *(f"piece{i}" for i in range(model.config.vocab_size - len(SPECIALS)))]
    (folder / name / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder / name
