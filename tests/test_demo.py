"""The embedded checkpoints are small, ours, and good enough to show what the kit does."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.demo import CHECKPOINTS, sentences, vocabularies
from pocketbert.export.encoder import build_encoder

BYTES_LIMIT = 8_000_000  # both together
ACCURACY_LIMIT = 5 / 6  # on SST-2 dev


def test_both_checkpoints_together_are_small() -> None:
    files = [file for folder in CHECKPOINTS.values() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= BYTES_LIMIT


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_each_is_of_its_family_with_both_labels(name: str) -> None:
    loaded = load_checkpoint(CHECKPOINTS[name])
    assert (loaded.config.architecture, list(loaded.labels)) == (name, ["NEGATIVE", "POSITIVE"])
    assert loaded.ignored == []


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_each_tells_praise_from_complaint(name: str) -> None:
    loaded = load_checkpoint(CHECKPOINTS[name])
    model = build_encoder(loaded.config, loaded.tensors)
    for text, label in (("what a lovely film", "POSITIVE"), ("worst app ever!!", "NEGATIVE")):
        logits = model(torch.tensor([loaded.tokenizer.encode(text).ids], dtype=torch.int32))
        assert loaded.labels[int(logits.argmax())] == label


def test_invented_sentences_are_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("SWAPS", "SPLICES", "CHATS"):
        monkeypatch.setattr(sentences, kind, 20)
    one, other = (sentences.invent(["a fine film", "no fun at all"], ["phone"], random.Random(0)) for _ in range(2))
    assert one == other
    assert len(one) == 60
    assert not any("{" in text or "|" in text for text in one)


def unknown_keys(tokenizer: Tokenizer) -> list[str]:
    """By id: a Unigram's `tokens` spell what it does not know."""
    unknown = next(i for name in ("[UNK]", "<unk>") if (i := tokenizer.token_to_id(name)) is not None)
    return [key for key in sorted(vocabularies.TYPED) if unknown in tokenizer.encode(f"a {key} b").ids]


@pytest.mark.parametrize("train", [vocabularies.wordpiece, vocabularies.unigram])
def test_a_demo_vocabulary_knows_all_that_a_keyboard_has(monkeypatch: pytest.MonkeyPatch, train: Any) -> None:
    monkeypatch.setattr(vocabularies, "PIECES", 300)
    rng = random.Random(0)
    texts = [sentences.chat(rng) for _ in range(500)]
    one, other = train(texts), train(texts)
    assert one.get_vocab() == other.get_vocab()
    assert unknown_keys(one) == []


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_each_embedded_tokenizer_knows_all_that_a_keyboard_has(name: str) -> None:
    assert unknown_keys(load_checkpoint(CHECKPOINTS[name]).tokenizer) == []


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_each_is_right_on_five_of_six_sentences(shared: Path, name: str) -> None:
    loaded = load_checkpoint(CHECKPOINTS[name])
    model = build_encoder(loaded.config, loaded.tensors)
    with open(shared / "data/sst2/dev.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    right = 0
    for row in rows:
        ids = torch.tensor([loaded.tokenizer.encode(row["text"]).ids], dtype=torch.int32)
        right += loaded.labels[int(model(ids).argmax())] == row["label"]
    assert len(rows) == 872
    assert right / len(rows) >= ACCURACY_LIMIT
