"""Small checkpoints made on the spot, one per family, and bundles exported from them once per session.

The weights are random (seed 0) and wide enough that a wrong tensor, scale or activation moves the logits.
Runs of a thousand sessions make the checkpoints once and name their folder: POCKETBERT_TEST_CHECKPOINTS.
Real checkpoints and texts, where a neighbouring `shared` folder has them, come as `shared`; a test that needs them says
so when it skips. torch and transformers, which take seconds, are imported by those who call for a model.
"""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SHARED = Path(__file__).resolve().parents[2] / "shared"
WORDS = ("film", "lovely", "bad", "good", "the", "not", "it", "was", "very", "love", "hate", "app")
SIZES = {
    "bert": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 48},
    "albert": {
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
    },
}
LABELS = ("anger", "joy", "calm")
Maker = Callable[..., Path]


def wordpiece() -> Tokenizer:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _with_template(tokenizer, "[PAD]", "[UNK]")


def unigram() -> Tokenizer:
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -4.0) for word in WORDS] + [(letter, -6.0) for letter in string.ascii_lowercase]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    return _with_template(tokenizer, "<pad>", "<unk>")


def _with_template(tokenizer: Tokenizer, *specials: str) -> Tokenizer:
    tokenizer.add_special_tokens([*specials, "[CLS]", "[SEP]", "[MASK]"])
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


def make_model(family: str, kind: Any = None, **settings: Any) -> Any:
    """A Hugging Face classifier, of sequences or another `kind`, with random weights, norms included."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = unigram() if family == "albert" else wordpiece()
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    config = AutoConfig.for_model(
        family, **{**SIZES[family], "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0, **labels, **settings}
    )
    torch.manual_seed(0)
    model = (kind or AutoModelForSequenceClassification).from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
    return model


def write_checkpoint(folder: Path, family: str, kind: Any = None, **settings: Any) -> Path:
    make_model(family, kind, **settings).save_pretrained(folder)
    (unigram() if family == "albert" else wordpiece()).save(str(folder / "tokenizer.json"))
    return folder


def edit_json(file: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; None removes a key."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Maker:
    """make_checkpoint("albert", num_hidden_groups=2) -> the folder of a new checkpoint."""
    return lambda family, **settings: write_checkpoint(tmp_path / family, family, **settings)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each family; read only."""
    if ready := os.environ.get("POCKETBERT_TEST_CHECKPOINTS"):
        return {family: Path(ready) / family for family in SIZES}
    return {family: write_checkpoint(tmp_path_factory.mktemp(family), family) for family in SIZES}


@pytest.fixture(scope="session")
def bundles(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of each family in every format, lengths to 24; read only."""
    from pocketbert.export.bundle import ExportOptions, export_bundle

    folder = tmp_path_factory.mktemp("bundles")
    for family, checkpoint in checkpoints.items():
        export_bundle(str(checkpoint), folder / family, ExportOptions(max_length=24))
    return {family: folder / family for family in checkpoints}


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real checkpoints and texts beside the repository, if they are there."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real models and data in {SHARED.name}/ beside the repository")
    return SHARED
