"""Artifacts of the base shapes, all lengths to 128 included, stay within the sizes that the product promises.

Random weights: a size does not depend on them. The seconds of each export are printed (pytest -s) and recorded in
BENCHMARKS.md; they are not asserted, because they depend on the machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_bundle import pocketbert
from transformers import AlbertConfig, AutoModelForSequenceClassification, DistilBertConfig, PretrainedConfig

from pocketbert.export.tokenizer.load import load_tokenizer
from pocketbert.runtime.manifest import read_manifest

MB, MIB = 1_000_000, 1 << 20
ALBERT_BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
# Bytes that an artifact may have. DistilBERT's int8 weights alone are 66.4996 MB and their scales 0.146 MB, so its
# Core ML limit of 66.5 can only be meant in MiB.
LIMITS = {
    "distilbert": {"executorch": 68.7 * MB, "tflite": 70 * MB, "coreml": 66.5 * MIB},
    "albert": {"executorch": 12.5 * MB, "tflite": 13.5 * MB, "coreml": 12 * MB},
}
CONFIGS = {"distilbert": DistilBertConfig(), "albert": AlbertConfig(**ALBERT_BASE)}


def write_base_checkpoint(folder: Path, config: PretrainedConfig) -> Path:
    """A checkpoint of `config` with random weights and a vocabulary of made-up pieces of the right size."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = specials + [f"piece{index}" for index in range(config.vocab_size - len(specials))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", LIMITS)
def test_base_shapes_fit_their_limits(tmp_path: Path, family: str) -> None:
    checkpoint = write_base_checkpoint(tmp_path / family, CONFIGS[family])
    assert load_tokenizer(checkpoint).get_vocab_size() == CONFIGS[family].vocab_size
    result = pocketbert("export", checkpoint, "--out", tmp_path / "out", "--json")
    assert result.returncode == 0, result.stderr
    exported = json.loads(result.stdout)
    sizes = {artifact["format"]: artifact["bytes"] for artifact in exported["artifacts"]}
    print(f"\n{family}-base: {exported['seconds']:.0f} s, bytes {sizes}")
    # Its biases are zeros, which formats store once: the parts of a file are what it holds, and a reader asks for that.
    assert all(size > 0 for artifact in read_manifest(tmp_path / "out").artifacts for size in artifact.parts.values())
    for name, limit in LIMITS[family].items():
        assert sizes[name] <= limit, f"{name} has {sizes[name] / MB:.2f} MB"
