"""Tables for phones say what the tokenizer says, and refuse by name what they cannot say."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import tokenizer_kinds
from conftest import unigram, wordpiece
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pocketbert.export.tokenizer import code_points, graphemes
from pocketbert.export.tokenizer.load import TokenizerError
from pocketbert.export.tokenizer.tables import compile_tokenizer, read_charsmap


def change(tokenizer: Tokenizer, **parts: object) -> Tokenizer:
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (change(wordpiece(), normalizer=normalizers.NFC()), "normalizer is not one that phones read: NFC"),
        (change(wordpiece(), normalizer=normalizers.Sequence([normalizers.Strip()])), "Strip"),
        (change(wordpiece(), normalizer=normalizers.Replace(Regex("a+"), "b")), r"Replace of Regex 'a\+'"),
        (change(wordpiece(), pre_tokenizer=pre_tokenizers.ByteLevel()), "pre-tokenizer is not .*: ByteLevel"),
        (change(unigram(), pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first")), "prepend_scheme 'first'"),
        (change(wordpiece(), post_processor=processors.ByteLevel()), "post-processor is not .*: ByteLevel"),
        (Tokenizer(models.BPE()), "model is not .*: BPE"),
        (Tokenizer(models.Unigram([("a", 0.0)], None, False)), "Unigram without unk_id"),
        (Tokenizer(models.Unigram([("a", 0.0)], 0, True)), "byte_fallback"),
        (Tokenizer(models.WordPiece({"a": 0}, unk_token="[UNK]")), r"no '\[UNK\]'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_that_phones_do_not_read_is_refused_by_name(tokenizer: Tokenizer, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        compile_tokenizer(tokenizer)


def test_the_same_tokenizer_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        compile_tokenizer(unigram()).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_program_travels_in_a_safetensors_file(tmp_path: Path) -> None:
    compile_tokenizer(wordpiece()).save(tmp_path / "tables")
    with safe_open(tmp_path / "tables", "numpy") as file:
        program = json.loads(file.metadata()["program"])
        assert set(file.keys()) >= {"vocabulary.labels", "vocabulary.values", "vocabulary.children"}
    assert program["single"] == [2, -1, 3] and program["pair"] == [2, -1, 3, -2, 3]
    assert [step["step"] for step in program["normalizer"]] == ["map", "order", "map"]


def test_neighbouring_maps_are_one() -> None:
    chain = normalizers.Sequence([normalizers.Lowercase(), normalizers.Nmt(), normalizers.Lowercase()])
    tables = compile_tokenizer(change(wordpiece(), normalizer=chain))
    assert [step["step"] for step in tables.program["normalizer"]] == ["map"]


def test_a_map_that_adds_marks_stays_by_itself_before_another_that_is_ordered() -> None:
    """The first sorts as a code point of the second's input, which a map that did both would hide."""
    chain = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFD()])
    tables = compile_tokenizer(change(wordpiece(), normalizer=chain))
    assert [step["step"] for step in tables.program["normalizer"]] == ["map", "map", "order"]


def test_maps_compose_from_left_to_right() -> None:
    first, second = {1: (2, 3), 4: ()}, {2: (5, 5), 4: (6,), 7: (8,)}
    assert code_points.compose(first, second) == {1: (5, 5, 3), 2: (5, 5), 4: (), 7: (8,)}
    assert code_points.compose({1: (2,)}, {2: (1,)}) == {2: (1,)}


def test_ranks_order_marks_as_their_combining_classes_do() -> None:
    """Of the marks that both Unicode versions know."""
    ranks = code_points.combining_ranks()
    pairs = {(rank, unicodedata.combining(chr(point))) for point, rank in ranks.items()}
    pairs = {(rank, kind) for rank, kind in pairs if kind}
    assert sorted(pairs) == sorted(pairs, key=lambda pair: pair[1])
    assert len(pairs) == len({rank for rank, _ in pairs}) == len({kind for _, kind in pairs}) > 50


def test_grapheme_classes_of_well_known_code_points() -> None:
    classes = graphemes.grapheme_classes()
    expected = {
        "\r": "CR", "\n": "LF", "\x01": "CONTROL", "\u200b": "CONTROL", "\u0301": "EXTEND", "\u200d": "ZWJ",
        "\u0903": "SPACING_MARK", "\u0600": "PREPEND", "\u1100": "L", "\u1161": "V", "\u11a8": "T", "\uac00": "LV",
        "\uac01": "LVT", "\u00a9": "PICTOGRAPH",
        "😍": "PICTOGRAPH", "\u0915": "CONSONANT", "\u094d": "LINKER", "\u200c": "PLAIN_EXTEND", "🏽": "EXTEND",
    }  # fmt: skip
    assert {c: classes[ord(c)].name for c in expected} == expected
    assert ord("a") not in classes and ord("漢") not in classes


def test_planes_that_are_not_asked_hold_nothing_that_joins() -> None:
    """Each 97th code point of the other planes answers like an ideograph."""
    ask = normalizers.Precompiled(graphemes._one_letter_charsmap()).normalize_str
    for plane in set(range(17)) - set(graphemes.PLANES):
        for point in range(plane << 16, (plane << 16) + 0xFFFE, 97):
            answers = {q: len(ask(a + chr(point) + b)) for q, (a, b) in graphemes.QUESTIONS.items()}
            assert graphemes._class(chr(point), answers) == graphemes.Class.OTHER, hex(point)


def test_a_charsmap_is_read_as_the_library_applies_it() -> None:
    charsmap = tokenizer_kinds.demo_charsmap()
    rules, normalize = read_charsmap(charsmap), normalizers.Precompiled(charsmap).normalize_str
    assert len(rules) > 3000
    for point in range(0x20, 0x3400):
        assert rules.get(chr(point), chr(point)) == normalize(chr(point)), hex(point)
