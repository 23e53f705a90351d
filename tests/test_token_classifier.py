"""Entities are those of transformers' token-classification pipeline, from the same logits, on any text."""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import freeze_entities
import numpy as np
import pytest
from conftest import make_model, unigram, wordpiece
from test_model import write_bundle
from tokenizer_texts import ODD, POOLS, pool_texts, random_texts

from pocketbert.runtime import Entity, PocketbertError, TokenClassifier
from pocketbert.runtime.token_classifier import continue_words, find_entities
from pocketbert.runtime.tokenizer import Encoding, Tokenizer

LABELS, CASES = freeze_entities.read()
UNKNOWN = 1
STEP = int(os.environ.get("STEP", 4))  # of the real tweets, every fourth; STEP=1 for all
FOUND = tuple[str, int, int, float]


def as_encoding(tokens: list[Any]) -> Encoding:
    """A frozen case's tokens; ids only tell which are unknown."""
    pieces, starts, ends, special, unknown = zip(*tokens, strict=True)
    sequences = tuple(None if each else 0 for each in special)
    offsets = np.array([starts, ends], np.int32).T
    return Encoding(np.array(unknown, np.int32), offsets, sequences, sequences, pieces)


def rows(entities: list[Entity]) -> list[FOUND]:
    return [(entity.label, entity.start, entity.end, entity.score) for entity in entities]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case[1][:30]))
def test_frozen_logits_become_frozen_entities(case: list[Any]) -> None:
    number, text, marks, tokens, logits, *expected = case
    encoding = as_encoding(tokens)
    words = continue_words(text, encoding, UNKNOWN, marks)
    for continues, entities in zip((words, None), expected, strict=True):
        found = find_entities(text, encoding, np.array(logits, np.float32), LABELS[number], continues)
        assert [row[:3] for row in rows(found)] == [tuple(row[:3]) for row in entities]
        assert [row[3] for row in rows(found)] == pytest.approx([row[3] for row in entities], abs=1e-5)
        assert [entity.text for entity in found] == [text[start:end] for _, start, end, _ in entities]


def test_frozen_cases_tell_the_strategies_and_the_labels_apart() -> None:
    assert sum(first != simple for *_, first, simple in CASES) > 100
    assert {name for *_, first, simple in CASES for name, *_ in (*first, *simple)} > {"creative-work", "name", "date"}


@pytest.mark.slow
def test_the_frozen_entities_are_what_transformers_answers_today() -> None:
    assert freeze_entities.write() == freeze_entities.FILE.read_text(encoding="ascii")


TEXTS = ["", *ODD, *itertools.islice(pool_texts(), 0, None, 7), *random_texts(1500, seed=21)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("family", ["distilbert", "albert"])
def test_thousands_of_odd_texts_become_the_pipelines_entities(family: str, tmp_path: Path) -> None:
    """Of texts of emoji, marks, scripts and blanks, with random logits; scores are equal to the last bit."""
    library = unigram() if family == "albert" else wordpiece()
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", 64)
    source, pipeline = random.Random(2), freeze_entities.make_pipeline(library, LABELS[0], max_length=64)
    texts, found = [text for text in TEXTS if not set(text) & set("".join(POOLS["surrogates"]))], 0
    for text in texts:
        encoding = tokenizer.encode(text)
        logits = freeze_entities.random_logits(source, len(encoding), len(LABELS[0]))
        words = continue_words(text, encoding, tokenizer.unk_id, tokenizer.continuation is not None)
        for strategy, continues in (("first", words), ("simple", None)):
            expected = freeze_entities.ask(pipeline, text, logits, strategy)
            assert rows(find_entities(text, encoding, logits, LABELS[0], continues)) == expected, text
            found += len(expected)
    assert len(texts) > 2000 and found > 5000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_a_whole_checkpoint_answers_like_its_pipeline(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

    model = make_model(family, AutoModelForTokenClassification, id2label=dict(enumerate(LABELS[0])), label2id={})
    library = unigram() if family == "albert" else wordpiece()
    library.save(str(tmp_path / "tokenizer.json"))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=library, unk_token="<unk>" if family == "albert" else "[UNK]", model_max_length=48
    )
    wrapped.model_input_names = ["input_ids", "attention_mask"]
    compare(
        model, wrapped, Tokenizer(tmp_path / "tokenizer.json", 48), LABELS[0], [*freeze_entities.TEXTS, *TEXTS[::20]]
    )


@pytest.mark.slow
def test_the_real_checkpoint_answers_like_its_pipeline(shared: Path) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    folder = shared / "models/distilbert-l6-h384-wnut17"
    blocks = (shared / "data/wnut17/emerging.test.annotated").read_text(encoding="utf-8").split("\n\n")
    tweets = [" ".join(line.partition("\t")[0] for line in block.splitlines()) for block in blocks]
    model = AutoModelForTokenClassification.from_pretrained(folder).float()
    config = json.loads((folder / "config.json").read_text())
    labels = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
    tokenizer = Tokenizer(folder / "tokenizer.json", 512)
    assert compare(model, AutoTokenizer.from_pretrained(folder), tokenizer, labels, tweets[::STEP]) > 300 / STEP


def compare(model: Any, wrapped: Any, tokenizer: Tokenizer, labels: list[str], texts: list[str]) -> int:
    """Calls transformers' pipeline as anyone does, and asks our rule of the logits that it saw; how many entities."""
    from transformers import pipeline

    pipe, said, count = pipeline("token-classification", model=model, tokenizer=wrapped), [], 0
    model.register_forward_hook(lambda *call: said.append(call[-1].logits[0].numpy()))
    for text in texts:
        if any(0xD800 <= ord(c) < 0xE000 for c in text):
            continue
        encoding, found = tokenizer.encode(text), pipe(text, aggregation_strategy="first")
        logits, words = said.pop(), continue_words(text, encoding, tokenizer.unk_id, tokenizer.continuation is not None)
        first = [(e["entity_group"], e["start"], e["end"], float(e["score"])) for e in found]
        assert rows(find_entities(text, encoding, logits, labels, words)) == first, text
        simple = freeze_entities.ask(pipe, text, logits, "simple")
        assert rows(find_entities(text, encoding, logits, labels)) == simple, text
        count += len(first)
    return count


# A bundle of its own


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenClassifier:
    """Labels "love" and "film" as places, and all that continues or is the word "it" as going on."""
    folder = write_bundle(tmp_path / "bundle", "token-classification", monkeypatch)
    return TokenClassifier.open(folder, "tflite", self_check=False)


def test_a_bundle_of_token_logits_gives_entities(classifier: TokenClassifier) -> None:
    first, second = classifier("Lovely film, not FILM it!")
    assert (first.label, first.text, first.start, first.end) == ("place", "film", 7, 11)
    assert (second.label, second.text) == ("place", "FILM it")
    assert 0.9 < first.score <= 1
    assert classifier("") == []


def test_only_the_strategy_first_makes_words_whole(classifier: TokenClassifier) -> None:
    assert [entity.text for entity in classifier("films", "first")] == ["films"]
    assert [entity.text for entity in classifier("films", "simple")] == ["film"]


def test_a_long_text_is_cut_and_its_offsets_are_right(classifier: TokenClassifier) -> None:
    found = classifier("so was " * 7 + "film " * 100)
    assert [entity.start for entity in found] == list(range(49, 49 + 5 * len(found), 5))


def test_what_is_no_text_or_strategy_is_refused(classifier: TokenClassifier) -> None:
    with pytest.raises(TypeError, match="a text is a str, not list"):
        classifier(["film"])  # type: ignore[arg-type]
    with pytest.raises(PocketbertError, match="strategy 'max': use first or simple"):
        classifier("film", "max")
