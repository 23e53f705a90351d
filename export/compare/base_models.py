"""The three base models as checkpoints with random weights: sizes and times do not depend on what weights say.

Takes a name of BASE_MODELS. Returns a model, or a folder with its checkpoint. Leaves out: accuracy, of which they
have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketbert.export.transformers_import import import_transformers

ALBERT_BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
# Family and sizes; transformers' defaults are bert-base-uncased, distilbert-base-uncased and, of ALBERT, xxlarge.
BASE_MODELS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "bert-base": ("bert", {}),
    "distilbert-base": ("distilbert", {}),
    "albert-base": ("albert", ALBERT_BASE),
}
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_base_model(name: str) -> Any:
    """A transformers classifier of that shape, on whatever device is current (meta: no storage)."""
    family, sizes = BASE_MODELS[name]
    transformers = import_transformers()
    config = transformers.AutoConfig.for_model(family, **sizes)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def write_base_model(name: str, folder: Path) -> Path:
    """Writes the checkpoint, fp16, with a vocabulary of made-up pieces of the right size."""
    import torch

    torch.manual_seed(0)
    model = build_base_model(name).half()
    model.save_pretrained(folder / name)
    pieces = [*SPECIALS, *(f"piece{i}" for i in range(model.config.vocab_size - len(SPECIALS)))]
    (folder / name / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder / name
