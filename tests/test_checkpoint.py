"""Checkpoints as people have them load alike; what cannot be honoured is refused by name, in one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Maker, edit_json, make_model
from safetensors.torch import load_file, save_file

from pocketbert.export.architectures import read_config
from pocketbert.export.checkpoint import CheckpointError, load_checkpoint, weight_files
from pocketbert.export.encoder import build_encoder
from pocketbert.export.json_values import JsonError
from pocketbert.runtime.errors import PocketbertError

IDS = torch.tensor([[2, 5, 6, 7, 3]], dtype=torch.int32)


def logits(folder: Path) -> torch.Tensor:
    loaded = load_checkpoint(folder)
    return build_encoder(loaded.config, loaded.tensors)(IDS)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal weights: where a file puts them in memory may still change the order of a sum."""
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Sets tensors of model.safetensors; None removes one. Dots are written as double underscores."""
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


# Weights


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_shards_load_like_one_file(make_checkpoint: Maker, family: str) -> None:
    folder = make_checkpoint(family)
    whole = logits(folder)
    (folder / "model.safetensors").unlink()
    make_model(family).save_pretrained(folder, max_shard_size="20KB")
    assert len(weight_files(folder)) > 1
    assert_same(logits(folder), whole)


def test_a_pickled_state_dict_loads_like_safetensors(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    whole = logits(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_same(logits(folder), whole)


class Payload:
    """What a malicious pickle does when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.mark,))


def test_a_pickle_that_holds_code_is_not_run(make_checkpoint: Maker, tmp_path: Path) -> None:
    folder = make_checkpoint("bert")
    (folder / "model.safetensors").unlink()
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"classifier.weight": Payload(tmp_path / "ran")}, file)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_checkpoint(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_weights_compute_in_fp32(make_checkpoint: Maker, dtype: torch.dtype) -> None:
    folder = make_checkpoint("albert")
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file({name: tensor.float() for name, tensor in tensors.items()}, folder / "model.safetensors")
    rounded = logits(folder)
    save_file(tensors, folder / "model.safetensors")
    assert logits(folder).dtype == torch.float32
    assert_same(logits(folder), rounded)


def test_layer_norms_of_the_first_bert_checkpoints_are_found(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    whole = logits(folder)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(old, folder / "model.safetensors")
    assert_same(logits(folder), whole)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_every_tensor_is_used_once(make_checkpoint: Maker, family: str) -> None:
    folder = make_checkpoint(family)
    loaded = load_checkpoint(folder)
    assert len(loaded.tensors) == len(load_file(folder / "model.safetensors"))
    assert loaded.ignored == []


def test_a_missing_tensor_is_named(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("distilbert")
    edit_tensors(folder, distilbert__transformer__layer__1__ffn__lin1__bias=None)
    with pytest.raises(CheckpointError, match=r"distilbert\.transformer\.layer\.1\.ffn\.lin1\.bias"):
        load_checkpoint(folder)


def test_a_misshapen_tensor_is_named(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("distilbert")
    edit_tensors(folder, distilbert__transformer__layer__1__ffn__lin1__bias=torch.zeros(3))
    with pytest.raises(PocketbertError, match=r"layers\.1\.up\.bias.*\(3,\).*\(64,\)"):
        logits(folder)


def test_an_encoder_without_a_classifier_says_to_fine_tune(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("distilbert")
    edit_tensors(folder, classifier__weight=None, classifier__bias=None)
    with pytest.raises(CheckpointError, match="fine-tune it first"):
        load_checkpoint(folder)


def test_an_unknown_tensor_is_refused_unless_ignored(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    edit_tensors(folder, bert__encoder__layer__0__adapter__down__weight=torch.zeros(2, 2))
    with pytest.raises(CheckpointError, match=r"adapter\.down\.weight.*--ignore"):
        load_checkpoint(folder)
    assert load_checkpoint(folder, ignore=["*.adapter.*"]).ignored == ["bert.encoder.layer.0.adapter.down.weight"]


def test_pretraining_heads_and_index_buffers_are_listed_as_ignored(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    edit_tensors(
        folder,
        bert__embeddings__position_ids=torch.arange(48)[None],
        cls__predictions__bias=torch.zeros(5),
    )
    assert load_checkpoint(folder).ignored == ["bert.embeddings.position_ids", "cls.predictions.bias"]


# Config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "'roberta' is not supported"),
        ({"model_type": None}, "no 'model_type'"),
        ({"hidden_act": "swish"}, "'swish' is not supported"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_size": None}, "'hidden_size'"),
        ({"num_attention_heads": 5}, "5 heads"),
        ({"pad_token_id": -1}, "pad_token_id -1"),
        ({"problem_type": "regression"}, "'regression'"),
        ({"quantization_config": {"bits": 4}}, "already quantized"),
    ],
    ids=str,
)
def test_what_a_config_cannot_have_is_named(make_checkpoint: Maker, change: dict[str, object], message: str) -> None:
    folder = make_checkpoint("bert")
    edit_json(folder / "config.json", **change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_labels_come_in_the_order_of_the_logits(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    edit_json(folder / "config.json", id2label={"2": "c", "0": "a", "1": "b"})
    assert load_checkpoint(folder).labels == ("a", "b", "c")


def test_a_gap_in_the_labels_is_named(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    edit_json(folder / "config.json", id2label={"0": "a", "1": "b", "5": "c"})
    with pytest.raises(CheckpointError, match="no entry for 2"):
        load_checkpoint(folder)


def test_multi_label_is_read_from_problem_type(make_checkpoint: Maker) -> None:
    assert load_checkpoint(make_checkpoint("distilbert", problem_type="multi_label_classification")).multi_label


def test_albert_schedules_follow_its_groups() -> None:
    config = {
        "model_type": "albert",
        "vocab_size": 9,
        "embedding_size": 4,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "num_hidden_layers": 12,
        "num_hidden_groups": 5,
    }
    assert read_config(config).layer_schedule == (0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4)
    with pytest.raises(JsonError, match="'embedding_size'"):
        read_config({key: value for key, value in config.items() if key != "embedding_size"})


# Folders


def test_a_folder_without_weights_says_what_it_expects(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_checkpoint(folder)


def test_a_truncated_weight_file_is_named(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors"):
        load_checkpoint(folder)


def test_a_missing_shard_is_named(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"classifier.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors"):
        load_checkpoint(folder)


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_checkpoint(tmp_path)


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_checkpoint(tmp_path)


def test_a_hub_id_downloads_what_a_checkpoint_needs_and_no_pickle(
    make_checkpoint: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint("albert")
    asked: dict[str, object] = {}
    files = [SimpleNamespace(rfilename=name) for name in ("config.json", "model.safetensors", "pytorch_model.bin")]
    hub = SimpleNamespace(model_info=lambda repository, timeout: SimpleNamespace(siblings=files))

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_checkpoint("someone/some-model").name == "someone/some-model"
    assert asked["repository"] == "someone/some-model"
    assert asked["patterns"] == ["*.json", "vocab.txt", "spiece.model", "*.safetensors"]


def test_a_hub_id_without_a_network_says_to_pass_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="no folder 'someone/some-model' here, and the hub did not give it"):
        load_checkpoint("someone/some-model")


def test_a_path_that_is_no_hub_id_is_a_missing_folder() -> None:
    with pytest.raises(CheckpointError, match="no such folder: /nowhere/at/all"):
        load_checkpoint("/nowhere/at/all")
