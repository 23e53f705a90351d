"""The tokenizer of a checkpoint gives Hugging Face's ids, from whichever file it is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Maker, edit_json, wordpiece
from tokenizer_texts import ODD
from tokenizers import Tokenizer

from pocketbert.export.tokenizer.load import TokenizerError, load_tokenizer
from pocketbert.runtime.errors import PocketbertError


def write_vocabulary(folder: Path) -> Path:
    pieces = sorted(wordpiece().get_vocab().items(), key=lambda item: item[1])
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(piece for piece, _ in pieces) + "\n", encoding="utf-8")
    return folder


def same_ids(ours: Tokenizer, theirs: Tokenizer) -> None:
    for text in ODD:
        assert ours.encode(text).ids == theirs.encode(text).ids, text


@pytest.mark.parametrize(
    "settings", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}], ids=str
)
def test_vocab_txt_gives_transformers_ids(tmp_path: Path, settings: dict[str, bool]) -> None:
    from transformers import BertTokenizer

    folder = write_vocabulary(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = load_tokenizer(folder)
    same_ids(ours, BertTokenizer(vocab=wordpiece().get_vocab(), **settings)._tokenizer)
    assert ours.encode("lovely film").tokens == ["[CLS]", "lovely", "film", "[SEP]"]


@pytest.mark.parametrize("keep_accents", [False, True])
@pytest.mark.parametrize("do_lower_case", [False, True])
def test_spiece_model_gives_the_ids_of_the_converted_tokenizer(
    tmp_path: Path, do_lower_case: bool, keep_accents: bool
) -> None:
    from transformers import AlbertTokenizer

    train_sentencepiece(tmp_path)
    settings = {"do_lower_case": do_lower_case, "keep_accents": keep_accents}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = AlbertTokenizer.from_pretrained(str(tmp_path), **settings)
    same_ids(load_tokenizer(tmp_path), theirs._tokenizer)


def train_sentencepiece(folder: Path) -> None:
    """A small Unigram model with ALBERT's special pieces, trained on the odd texts themselves."""
    import sentencepiece

    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(text.replace("\n", " ") for text in ODD if text.isprintable()) * 3, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "spiece"), vocab_size=300, model_type="unigram", pad_id=0,
        unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]"], user_defined_symbols=["[MASK]"],
        hard_vocab_limit=False, character_coverage=0.98, minloglevel=2,
    )  # fmt: skip


def test_truncation_and_padding_of_a_published_tokenizer_are_dropped(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(load_tokenizer(tmp_path).encode("the film was very very good").ids) == 8
    assert len(load_tokenizer(tmp_path).encode("film").ids) == 3


def test_two_files_that_contradict_each_other_are_refused(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(TokenizerError, match=r"lowercase=True.*do_lower_case=False"):
        load_tokenizer(folder)


def test_a_tokenizer_of_another_family_is_refused_by_name(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    edit_json(folder / "tokenizer.json", model=model, added_tokens=[], post_processor=None)
    with pytest.raises(TokenizerError, match="BPE"):
        load_tokenizer(folder)


def test_a_folder_without_a_tokenizer_says_what_it_expects(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json, vocab\.txt or spiece\.model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "spiece.model"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe not this")
    with pytest.raises(PocketbertError, match=name):
        load_tokenizer(tmp_path)


def test_bert_ids_equal_the_published_ones(shared: Path, tmp_path: Path) -> None:
    """10,570 questions with the ids that Google's own tokenizer gave them, from tokenizer.json and from vocab.txt."""
    file = shared / "data/tokenizer_goldens/bert_uncased_squad_questions.jsonl"
    tokenizer = load_tokenizer(shared / "models/distilbert-l6-h384-sst2")
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(piece for piece, _ in pieces) + "\n", encoding="utf-8")
    built = load_tokenizer(tmp_path)
    for line in file.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        assert tokenizer.encode(case["text"]).ids[1:-1] == case["ids"]
        assert built.encode(case["text"]).ids[1:-1] == case["ids"]


def test_odd_texts_equal_transformers(shared: Path) -> None:
    """A hundred languages and every emoji, on both real tokenizers."""
    from transformers import AutoTokenizer

    texts = [file.read_text(encoding="utf-8")[:400] for file in sorted((shared / "data/unicode_odd/udhr").iterdir())]
    texts += (shared / "data/unicode_odd/emoji-test.txt").read_text(encoding="utf-8").splitlines()[::10]
    for folder in (shared / "models").iterdir():
        ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
        for text in (*texts, *ODD):
            assert ours.encode(text).ids == theirs(text, truncation=False).input_ids, text


def test_spiece_model_equals_the_real_tokenizer_json(shared: Path) -> None:
    from pocketbert.export.tokenizer.load import build_unigram

    built = build_unigram(shared / "data/albert_spm/spiece.model", {})
    given = load_tokenizer(shared / "models/albert-l6-h384-sst2")
    for file in sorted((shared / "data/unicode_odd/udhr").iterdir())[::7]:
        text = file.read_text(encoding="utf-8")[:600]
        assert built.encode(text).ids == given.encode(text).ids, file.name
    same_ids(built, given)
