"""The tokenizer against Hugging Face's: ids and where they come from, pairs cut longest first, windows of texts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import unigram, wordpiece
from tokenizer_texts import ODD, random_texts
from tokenizers import Tokenizer as HuggingFaceTokenizer

from pocketbert.runtime.errors import BundleError, PocketbertError
from pocketbert.runtime.tokenizer import Tokenizer, share_room

TEXTS = [text for text in (*ODD, *random_texts(60, seed=3)) if not any(0xD800 <= ord(c) < 0xE000 for c in text)]
QUESTION, LONG = "was it good", "the film was lovely, not very bad; " * 6


@pytest.fixture(params=["wordpiece", "unigram"])
def library(request: pytest.FixtureRequest) -> HuggingFaceTokenizer:
    return {"wordpiece": wordpiece, "unigram": unigram}[request.param]()


def ours(library: HuggingFaceTokenizer, tmp_path: Path, max_length: int) -> Tokenizer:
    library.save(str(tmp_path / "tokenizer.json"))
    return Tokenizer(tmp_path / "tokenizer.json", max_length)


def test_an_encoding_says_where_each_id_comes_from(tmp_path: Path) -> None:
    found = ours(wordpiece(), tmp_path, 32).encode("Loved it", "not bad")
    assert found.pieces == ("[CLS]", "love", "##d", "it", "[SEP]", "not", "bad", "[SEP]")
    assert found.offsets.tolist() == [[0, 0], [0, 4], [4, 5], [6, 8], [0, 0], [0, 3], [4, 7], [0, 0]]
    assert found.word_ids == (None, 0, 0, 1, None, 0, 1, None)
    assert found.sequence_ids == (None, 0, 0, 0, None, 1, 1, None)
    assert found.ids.dtype == found.offsets.dtype == np.int32 and len(found) == 8


@pytest.mark.parametrize("max_length", [4, 7, 16, 500])
def test_a_text_is_cut_as_the_library_cuts_it(library: HuggingFaceTokenizer, tmp_path: Path, max_length: int) -> None:
    tokenizer = ours(library, tmp_path, max_length)
    library.enable_truncation(max_length)
    for text in TEXTS:
        expected, found = library.encode(text), tokenizer.encode(text)
        assert tokenizer(text).tolist() == found.ids.tolist() == expected.ids
        assert found.offsets.tolist() == list(map(list, expected.offsets))
        assert list(found.word_ids) == expected.word_ids


@pytest.mark.parametrize("max_length", [3, 4, 9, 32, 500])
def test_a_pair_is_cut_as_the_library_cuts_it(library: HuggingFaceTokenizer, tmp_path: Path, max_length: int) -> None:
    tokenizer = ours(library, tmp_path, max_length)
    library.enable_truncation(max_length)
    for text, text_pair in zip(TEXTS, reversed(TEXTS), strict=True):
        expected, found = library.encode(text, text_pair), tokenizer.encode(text, text_pair)
        assert tokenizer(text, text_pair).tolist() == found.ids.tolist() == expected.ids
        assert found.offsets.tolist() == list(map(list, expected.offsets))
        assert list(found.sequence_ids) == expected.sequence_ids


def test_two_texts_share_any_room_as_the_library_does() -> None:
    library = wordpiece()
    for first, second, room in itertools.product(range(9), range(9), range(12)):
        library.enable_truncation(room + 3)
        kept = library.encode("it " * first, "was " * second).sequence_ids
        assert share_room(first, second, room) == [kept.count(0), kept.count(1)], (first, second, room)


@pytest.mark.parametrize("stride", [0, 1, 7])
@pytest.mark.parametrize("max_length", [16, 30, 200])
def test_windows_are_the_librarys(library: HuggingFaceTokenizer, tmp_path: Path, max_length: int, stride: int) -> None:
    windows = ours(library, tmp_path, max_length).encode_windows(QUESTION, LONG, stride)
    library.enable_truncation(max_length, stride=stride, strategy="only_second")
    first = library.encode(QUESTION, LONG)
    assert [window.ids.tolist() for window in windows] == [first.ids, *(each.ids for each in first.overflowing)]
    assert [list(window.word_ids) for window in windows] == [each.word_ids for each in (first, *first.overflowing)]
    assert len(windows) == 1 or len(windows) > 2


@pytest.mark.parametrize(("max_length", "shared"), [(64, 32), (12, 3)])
def test_windows_share_half_the_maximum_or_else_half_the_room(tmp_path: Path, max_length: int, shared: int) -> None:
    """Of 12 ids six are the question's and special ones: the default, half of 12, would leave nothing new."""
    first, second, *_ = ours(wordpiece(), tmp_path, max_length).encode_windows(QUESTION, LONG * 4)
    ends = [[place for place, s in enumerate(each.sequence_ids) if s == 1] for each in (first, second)]
    assert first.ids[ends[0][-shared:]].tolist() == second.ids[ends[1][:shared]].tolist()
    assert first.offsets[ends[0][-shared:]].tolist() == second.offsets[ends[1][:shared]].tolist()


def test_a_question_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    tokenizer = ours(wordpiece(), tmp_path, 9)
    assert len(tokenizer.encode_windows("was it good the app", "film")) == 1  # both fit
    with pytest.raises(PocketbertError, match="a question of 6 tokens leaves no room for the text"):
        tokenizer.encode_windows("was it good the app film", "film")


@pytest.mark.parametrize("stride", [-1, 6, 100])
def test_a_stride_that_leaves_nothing_new_is_refused(tmp_path: Path, stride: int) -> None:
    with pytest.raises(PocketbertError, match=f"stride {stride}: use 0 to 5"):
        ours(wordpiece(), tmp_path, 12).encode_windows(QUESTION, LONG, stride)


def test_a_pair_that_has_no_room_is_refused(tmp_path: Path) -> None:
    tokenizer = ours(wordpiece(), tmp_path, 2)
    assert len(tokenizer("good film")) == 2
    with pytest.raises(BundleError, match="max_length 2 has no room for the 3 special tokens"):
        tokenizer("good", "film")


def test_offsets_are_of_the_text_as_it_was_given(tmp_path: Path) -> None:
    """A character in two halves, as UTF-16 has it, is one to the library."""
    text = "\ud83d\ude0d film \udc00\ud83d\ude0d bad"
    found = ours(wordpiece(), tmp_path, 32).encode(text, text)
    words = [text[start:end] for start, end in found.offsets.tolist() if end]
    assert words == ["\ud83d\ude0d", "film", "\ud83d\ude0d", "bad"] * 2
