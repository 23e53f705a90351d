"""Answers are those of transformers 4's question-answering pipeline, from the same logits, in one window or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_answers import answers, as_encodings, cut_alike, is_equal, read
from freeze_answers import FILE, TOKENIZERS
from test_model import write_bundle

from pocketbert.runtime import Answer, PocketbertError, QuestionAnswerer
from pocketbert.runtime.question_answerer import find_answer
from pocketbert.runtime.tokenizer import Encoding, Tokenizer

CASES = read(FILE)
DEMO = Path(__file__).resolve().parents[1] / "export/demo"


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(f"{case['text'][:30]}-{case['max_length']}"))
def test_frozen_logits_become_frozen_answers(case: dict[str, Any]) -> None:
    for found, expected in answers(case):
        assert is_equal(found, expected), (found, expected)


def test_frozen_cases_hold_all_kinds_of_answers() -> None:
    given = [expected for case in CASES for *_, expected in case["answers"]]
    assert len(given) > 300 and 30 < given.count(None) < 100
    assert sum(len(case["windows"]) > 2 for case in CASES) > 10
    assert any(answer and answer[2] > 1 for answer in given)  # one that several windows gave


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_are_cut_into_the_frozen_windows(name: str) -> None:
    half = len(CASES) // len(TOKENIZERS)
    cases = CASES[TOKENIZERS.index(name) * half :][:half]
    tokenizers = {each: Tokenizer(DEMO / name / "tokenizer.json", each) for each in {c["max_length"] for c in cases}}
    assert all(cut_alike(case, tokenizers[case["max_length"]]) for case in cases)


# The rule, one thing at a time: six tokens of a text of five words, "f" being two tokens, behind a question of one.


def window(words: str = "a b c d ff", first: int = 0, last: int = 6) -> tuple[str, Encoding]:
    tokens = [(0, 1, 0), (2, 3, 1), (4, 5, 2), (6, 7, 3), (8, 9, 4), (9, 10, 4)][first:last]
    rows = [(0, 0, None), (0, 1, 0), (0, 0, None), *tokens, (0, 0, None)]
    sequences = (None, 0, None, *[1] * len(tokens), None)
    offsets = np.array([row[:2] for row in rows], np.int32)
    return words, Encoding(np.arange(len(rows)), offsets, tuple(row[2] for row in rows), sequences, ("",) * len(rows))


def logits(start: dict[int, float], end: dict[int, float], tokens: int = 10) -> Any:
    """Zero but at these places; the text's tokens are 3 to 8."""
    found = np.zeros((tokens, 2), np.float32)
    for column, values in enumerate((start, end)):
        for place, value in values.items():
            found[place, column] = value
    return found


def answer(start: dict[int, float], end: dict[int, float], **settings: Any) -> Answer | None:
    text, encoding = window()
    return find_answer(text, [encoding], [logits(start, end)], **settings)


def test_the_question_and_special_tokens_answer_nothing() -> None:
    found = answer({1: 90, 2: 90, 9: 90, 4: 9}, {1: 90, 2: 90, 9: 90, 5: 9})
    assert found is not None and (found.text, found.start, found.end) == ("b c", 2, 5)
    assert found.score == pytest.approx((np.exp(9) / (np.exp(9) + 6)) ** 2)  # of the six others one is the first token


def test_an_answer_never_ends_before_it_begins_and_is_no_longer_than_asked() -> None:
    backwards = answer({6: 9}, {4: 9})
    assert backwards is not None and backwards.text != "" and backwards.start < backwards.end
    assert (answer({3: 9}, {6: 9}) or Answer("", 0, 0, 0)).text == "a b c d"
    assert (answer({3: 9, 5: 5}, {6: 9}, max_answer_length=3) or Answer("", 0, 0, 0)).text == "c d"


def test_an_answer_is_whole_words() -> None:
    found = answer({8: 9}, {8: 9})
    assert found is not None and (found.text, found.start, found.end) == ("ff", 8, 10)


def test_none_is_answered_only_where_it_is_allowed() -> None:
    asked: tuple[Any, Any] = ({0: 9, 4: 5}, {0: 9, 4: 5})
    assert answer(*asked, allow_none=True) is None
    found = answer(*asked)
    assert found is not None and found.text == "b"
    assert answer({0: 5, 4: 9}, {0: 5, 4: 9}, allow_none=True) is not None


def test_the_same_words_in_two_windows_or_two_places_add_up() -> None:
    text, whole = window("A b a d ff")
    twice = [logits({3: 5, 5: 5.1}, {3: 5, 5: 5.1})]
    found = find_answer(text, [whole], twice, max_answer_length=1)
    assert found is not None and (found.text, found.start) == ("a", 4)  # the place of the likelier
    both = find_answer(text, [whole, whole], twice * 2, max_answer_length=1)
    assert both is not None and both.score == pytest.approx(2 * found.score)


def test_none_is_as_likely_as_the_window_that_says_so_least() -> None:
    text, whole = window()
    windows, sure = [whole, window(last=4)[1]], logits({0: 9}, {0: 9})
    unsure = logits({0: 9, 4: 9.1}, {0: 9, 4: 9.1}, tokens=8)
    assert find_answer(text, windows[:1], [sure], allow_none=True) is None
    assert find_answer(text, windows, [sure, unsure], allow_none=True) == find_answer(text, windows, [sure, unsure])


def test_a_text_without_a_token_answers_nothing() -> None:
    text, empty = window(last=0)
    assert find_answer(text, [empty], [logits({}, {}, tokens=4)]) is None


def test_frozen_windows_are_those_of_the_file() -> None:
    assert [len(each) for each in as_encodings(CASES[0])] == [len(start) for start in CASES[0]["start"]]


# A bundle of its own


@pytest.fixture
def answerer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QuestionAnswerer:
    """It answers "film", wherever that is."""
    folder = write_bundle(tmp_path / "bundle", "question-answering", monkeypatch)
    return QuestionAnswerer.open(folder, "tflite", self_check=False)


def test_a_bundle_of_start_and_end_logits_gives_answers(answerer: QuestionAnswerer) -> None:
    found = answerer("what was it", "it was a lovely Film!")
    assert found is not None and (found.text, found.start, found.end) == ("Film", 16, 20)
    assert answerer("what was it", "") is None


def test_a_long_text_is_read_to_its_end(answerer: QuestionAnswerer) -> None:
    text = "it was not very good " * 20 + "the film"
    found = answerer("what was it", text, stride=4)
    assert found is not None and (found.text, found.end) == ("film", len(text))
    assert len(answerer.engine.lengths) > 5  # type: ignore[attr-defined]


def test_bad_questions_are_refused(answerer: QuestionAnswerer) -> None:
    with pytest.raises(TypeError, match="each a str, not list"):
        answerer(["what"], "it")  # type: ignore[arg-type]
    with pytest.raises(PocketbertError, match="max_answer_length 0: use 1 or more"):
        answerer("what", "it", max_answer_length=0)
    with pytest.raises(PocketbertError, match="a question of 30 tokens leaves no room"):
        answerer("it " * 30, "film")
    with pytest.raises(PocketbertError, match="stride 99: use 0 to"):
        answerer("what", "film " * 30, stride=99)
