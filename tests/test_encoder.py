"""The encoder equals Hugging Face's classifiers on the same weights, whatever the length, padding and family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_model, write_checkpoint
from torch import Tensor

from pocketbert.export.architectures import NAMES
from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder
from pocketbert.export.heads import HEADS

EQUAL = 1e-4  # largest difference of a logit that counts as the same fp32 arithmetic
FAMILIES = ("bert", "distilbert", "albert")
LENGTHS = {"one word": 3, "two words": 4, "17 tokens": 17, "the maximum": 48}


def load_encoder(folder: Path) -> Encoder:
    loaded = load_checkpoint(folder)
    return build_encoder(loaded.config, loaded.tensors)


def random_ids(length: int, vocabulary: int) -> Tensor:
    """Ids without the pad id 0."""
    return torch.randint(1, vocabulary, (1, length), generator=torch.Generator().manual_seed(length), dtype=torch.int32)


def reference_logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids.long(), attention_mask=(ids != 0).long()).logits


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_hugging_face(checkpoints: dict[str, Path], family: str, length: int) -> None:
    model, ours = make_model(family), load_encoder(checkpoints[family])
    ids = random_ids(length, ours.config.vocab_size)
    torch.testing.assert_close(ours(ids), reference_logits(model, ids), atol=EQUAL, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_logits_equal_hugging_face_with_a_mask(checkpoints: dict[str, Path], family: str) -> None:
    model, ours = make_model(family), load_encoder(checkpoints[family])
    padded = torch.nn.functional.pad(random_ids(17, ours.config.vocab_size), (0, 15))
    torch.testing.assert_close(ours(padded), reference_logits(model, padded), atol=EQUAL, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_moves_no_logit(checkpoints: dict[str, Path], family: str) -> None:
    ours = load_encoder(checkpoints[family])
    ids = random_ids(9, ours.config.vocab_size)
    torch.testing.assert_close(ours(torch.nn.functional.pad(ids, (0, 23))), ours(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_one_token_too_long_is_cut_to_the_maximum(checkpoints: dict[str, Path], family: str) -> None:
    from pocketbert.export.golden import encode

    loaded = load_checkpoint(checkpoints[family])
    ids = encode(loaded.tokenizer, "film " * 47, max_length=48)  # 47 words and two special tokens
    exact = encode(loaded.tokenizer, "film " * 46, max_length=48)
    assert ids == exact and len(ids) == 48
    tensor = torch.tensor([ids], dtype=torch.int32)
    torch.testing.assert_close(
        load_encoder(checkpoints[family])(tensor), reference_logits(make_model(family), tensor), atol=EQUAL, rtol=0
    )


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu"])
def test_every_activation_equals_hugging_face(tmp_path: Path, activation: str) -> None:
    write_checkpoint(tmp_path, "bert", hidden_act=activation)
    ids = random_ids(12, 50)
    expected = reference_logits(make_model("bert", hidden_act=activation), ids)
    torch.testing.assert_close(load_encoder(tmp_path)(ids), expected, atol=EQUAL, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_hidden_layers": 4, "num_hidden_groups": 2},
        {"num_hidden_layers": 5, "num_hidden_groups": 3},
        {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
        {"num_hidden_layers": 2, "inner_group_num": 3},
    ],
    ids=str,
)
def test_albert_groups_and_inner_layers_equal_hugging_face(tmp_path: Path, settings: dict[str, int]) -> None:
    write_checkpoint(tmp_path, "albert", **settings)
    ids = random_ids(12, 40)
    expected = reference_logits(make_model("albert", **settings), ids)
    torch.testing.assert_close(load_encoder(tmp_path)(ids), expected, atol=EQUAL, rtol=0)


def test_albert_stores_its_shared_layer_once(checkpoints: dict[str, Path]) -> None:
    ours = load_encoder(checkpoints["albert"])
    assert ours.config.layer_schedule == (0, 0, 0)
    assert len(ours.layers) == 1


def test_the_mask_is_safe_in_fp16(checkpoints: dict[str, Path]) -> None:
    half = load_encoder(checkpoints["distilbert"]).half()
    ids = random_ids(9, half.config.vocab_size)
    padded = half(torch.nn.functional.pad(ids, (0, 15)))
    assert torch.isfinite(padded).all()
    torch.testing.assert_close(padded, half(ids), atol=2e-2, rtol=0)  # fp16 sums over other lengths round elsewhere


def test_the_last_layer_computes_the_cls_position_only(checkpoints: dict[str, Path]) -> None:
    ours = load_encoder(checkpoints["distilbert"])
    seen: list[torch.Size] = []
    for layer in ours.layers:
        layer.up.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    ours(random_ids(17, ours.config.vocab_size))
    assert [shape[0] for shape in seen] == [17, 1]


def test_every_head_has_a_module_and_names() -> None:
    assert set(HEADS) == {(family, task) for family, names in NAMES.items() for task in names.heads}


@pytest.mark.parametrize("name", ["bert-l6-h384-answers", "distilbert-l6-h384-sst2", "albert-l6-h384-sst2"])
def test_real_checkpoints_equal_hugging_face(shared: Path, name: str) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = shared / "models" / name
    loaded = load_checkpoint(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).float().eval()  # one is stored in fp16
    ours = build_encoder(loaded.config, loaded.tensors)
    for text in ("film", "what a lovely film", "it is slow , and then it is slower . " * 20):
        ids = torch.tensor([loaded.tokenizer.encode(text).ids], dtype=torch.int32)
        torch.testing.assert_close(ours(ids), reference_logits(model, ids), atol=EQUAL, rtol=0)
