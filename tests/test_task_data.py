"""Data of the other tasks, tags of words and questions with answers, and the measures that the field counts them by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketbert.runtime.check.answer_f1 import exact_match, f1
from pocketbert.runtime.check.datasets import DataError, read_dataset
from pocketbert.runtime.check.entity_f1 import find_spans, score_entities
from pocketbert.runtime.check.questions import read_questions
from pocketbert.runtime.check.tagged_texts import read_tagged_texts

LABELS = ("O", "B-person", "I-person", "B-place", "I-place")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return file


# Words and tags


@pytest.mark.parametrize("separator", ["\t", " ", " _ _ "], ids=["tab", "space", "four columns"])
def test_conll_gives_texts_with_the_place_and_tag_of_each_word(tmp_path: Path, separator: str) -> None:
    lines = ["-DOCSTART- O", "", "I O", "am O", "Zoë B-person", " \t", "", "Oslo B-place", "😀 O"]
    content = "\n".join(line.replace(" ", separator) if line.strip() else line for line in lines)
    found = read_tagged_texts(write(tmp_path, "words.annotated", content), LABELS)
    assert list(found.texts) == ["I am Zoë", "Oslo 😀"]
    assert [list(words) for words in found.words] == [[(0, 1), (2, 4), (5, 8)], [(0, 4), (5, 6)]]
    assert [list(tags) for tags in found.tags] == [["O", "O", "B-person"], ["B-place", "O"]]
    assert (found.rule, found.rows, found.skipped) == ("exact", 2, {})


def test_jsonl_gives_the_same(tmp_path: Path) -> None:
    row = {"tokens": ["I", "am", "Zoë"], "tags": ["O", "O", "b-PERSON"]}
    found = read_tagged_texts(write(tmp_path, "words.jsonl", json.dumps(row)), LABELS)
    assert list(found.texts) == ["I am Zoë"] and [list(tags) for tags in found.tags] == [["O", "O", "B-person"]]
    assert found.rule == "case-insensitive"


def test_texts_with_a_word_that_has_no_tag_are_left_out_and_counted(tmp_path: Path) -> None:
    content = b"one\n\ntwo\t\n\nthree\tO\n\nbroken \xff\tO\n"
    found = read_tagged_texts(write(tmp_path, "words.conll", content), LABELS)
    assert list(found.texts) == ["three"]
    assert found.skipped == {"with a word without tag": 2, "not UTF-8": 1}
    rows = [{"tokens": ["a"], "tags": []}, {"tokens": "a", "tags": ["O"]}, ["a"], {"tokens": ["a"], "tags": ["O"]}]
    lines = "\n".join([*map(json.dumps, rows), "{"])
    found = read_tagged_texts(write(tmp_path, "words.jsonl", lines), LABELS)
    assert list(found.texts) == ["a"]
    assert found.skipped == {"without as many tags as tokens": 3, "not JSON": 1}


def test_a_limit_keeps_the_first_texts_and_says_how_many_there_were(tmp_path: Path) -> None:
    found = read_tagged_texts(write(tmp_path, "words.conll", "a O\n\nb O\n\nc O\n"), LABELS, limit=2)
    assert list(found.texts) == ["a", "b"] and len(found.words) == len(found.tags) == 2 and found.rows == 3


def test_tags_that_the_bundle_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'B-dog' \(1 rows\)"):
        read_tagged_texts(write(tmp_path, "words.conll", "Rex B-dog\n"), LABELS)


def test_a_file_without_tags_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a word on each line and its tag behind it"):
        read_tagged_texts(write(tmp_path, "words.conll", "one\ntwo\n"), LABELS)
    with pytest.raises(DataError, match="it is empty"):
        read_tagged_texts(write(tmp_path, "words.conll", "\n\n"), LABELS)
    with pytest.raises(DataError, match="cannot read"):
        read_tagged_texts(tmp_path / "absent.conll", LABELS)


# What seqeval 1.2.2 answers to the same: seqeval.metrics.sequence_labeling.get_entities and f1_score, default mode
@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("", []),
        ("O O", []),
        ("B-a I-a O", [("a", 0, 2)]),
        ("I-a I-a O B-a", [("a", 0, 2), ("a", 3, 4)]),
        ("B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("B-a I-b I-b", [("a", 0, 1), ("b", 1, 3)]),
        ("I-a I-b B-b", [("a", 0, 1), ("b", 1, 2), ("b", 2, 3)]),
        ("B-creative-work I-creative-work O I-creative-work", [("creative-work", 0, 2), ("creative-work", 3, 4)]),
        ("S-a S-a E-a", [("a", 0, 1), ("a", 1, 2), ("a", 2, 3)]),
        ("B-a I-a E-a I-a", [("a", 0, 3), ("a", 3, 4)]),
        ("B-a E-a E-a", [("a", 0, 2), ("a", 2, 3)]),
    ],
)
def test_entities_are_those_of_seqeval(tags: str, spans: list[tuple[str, int, int]]) -> None:
    assert find_spans(tags.split()) == spans


def test_tags_without_a_prefix_are_inside_an_entity_of_their_name() -> None:
    assert find_spans(["PER", "PER", "LOC", "O"]) == [("PER", 0, 2), ("LOC", 2, 3)]


def test_precision_recall_and_f1_are_those_of_seqeval() -> None:
    expected = [tags.split() for tags in ("B-a I-a O B-b", "O B-a O O", "O O")]
    found = [tags.split() for tags in ("B-a I-a O B-a", "O B-a I-a O", "B-b O")]
    score = score_entities(found, expected)
    assert (score.expected, score.found, score.right) == (3, 4, 1)
    assert (score.precision, score.recall, score.f1) == pytest.approx((1 / 4, 1 / 3, 2 / 7))


def test_no_entities_at_all_score_nothing() -> None:
    score = score_entities([["O"]], [["O"]])
    assert (score.precision, score.recall, score.f1) == (0, 0, 0)


# Questions and answers

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "paragraphs": [
                {
                    "context": "Oslo lies in Norway.",
                    "qas": [
                        {"question": "Where?", "answers": [{"text": "Norway"}, {"text": "in Norway"}]},
                        {"question": "When?", "answers": [{"text": "x"}], "is_impossible": True},
                        {"question": "Who?"},
                    ],
                }
            ]
        }
    ],
}


def test_squad_files_give_questions_contexts_and_all_their_answers(tmp_path: Path) -> None:
    found = read_questions(write(tmp_path, "q.json", json.dumps(SQUAD)))
    assert list(found.texts) == ["Where?", "When?"] and set(found.contexts) == {"Oslo lies in Norway."}
    assert [list(answers) for answers in found.answers] == [["Norway", "in Norway"], []]
    assert found.has_unanswerable and (found.rows, sum(found.skipped.values())) == (2, 1)


def test_lines_of_json_give_the_same(tmp_path: Path) -> None:
    rows: list[object] = [
        {"question": "Where?", "context": "Oslo lies in Norway.", "answers": ["Norway", "in Norway"]},
        {
            "question": "Where?",
            "context": "Oslo lies in Norway.",
            "answers": {"text": ["Norway"], "answer_start": [13]},
        },
        {"question": "Where?", "answers": ["Norway"]},
        {"question": 1, "context": "x", "answers": []},
        {"question": "Where?", "context": "x", "answers": [1]},
        [],
    ]
    found = read_questions(write(tmp_path, "q.jsonl", "\n".join([*map(json.dumps, rows), "{"])), limit=1)
    assert list(found.texts) == ["Where?"] and [list(answers) for answers in found.answers] == [["Norway", "in Norway"]]
    assert not found.has_unanswerable and found.rows == 2
    assert found.skipped == {"without question, context or answers": 4, "not JSON": 1}


@pytest.mark.parametrize("content", ["[]", "{}", '{"data": 1}', '{"data": [{"paragraphs": [{}]}]}', "{"])
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="no SQuAD file"):
        read_questions(write(tmp_path, "q.json", content))


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable question"):
        read_questions(write(tmp_path, "q.json", '{"data": []}'))
    with pytest.raises(DataError, match=r"is not \.json, \.jsonl"):
        read_questions(write(tmp_path, "q.tsv", "question\tcontext\n"))


@pytest.mark.parametrize(
    ("answer", "right", "exact", "overlap"),
    [
        ("Norway", ["Norway"], 1, 1),
        ("the  NORWAY!", ["Norway"], 1, 1),
        ("in Norway", ["Norway"], 0, 2 / 3),
        ("in Norway", ["Sweden", "in the Norway"], 1, 1),
        ("Norway Norway", ["Norway Sweden"], 0, 1 / 2),
        ("Sweden", ["Norway"], 0, 0),
        (None, ["Norway"], 0, 0),
        (None, [], 1, 1),
        ("Norway", [], 0, 0),
        ("the", [], 1, 1),
        ("anthem", ["them"], 0, 0),
    ],
)
def test_answers_are_counted_as_squads_script_counts_them(
    answer: str | None, right: list[str], exact: float, overlap: float
) -> None:
    assert (exact_match(answer, right), f1(answer, right)) == pytest.approx((exact, overlap))


# Pairs


def test_a_second_text_is_read_from_each_kind_of_file(tmp_path: Path) -> None:
    tsv = write(tmp_path, "d.tsv", "text\ttext_pair\tlabel\na\tb\tham\n")
    csv = write(tmp_path, "d.csv", "label,text_pair,text\nham,b,a\n")
    jsonl = write(
        tmp_path, "d.jsonl", '{"text": "a", "text_pair": "b", "label": "ham"}\n{"text": "c", "label": "spam"}\n'
    )
    for file, seconds in ((tsv, ["b"]), (csv, ["b"]), (jsonl, ["b", None])):
        found = read_dataset(file, ("ham", "spam"), pairs=True)
        assert list(found.text_pairs) == seconds and found.texts[0] == "a"


def test_a_second_text_is_refused_where_one_is_taken(tmp_path: Path) -> None:
    file = write(tmp_path, "d.tsv", "text\ttext_pair\tlabel\na\tb\tham\n")
    with pytest.raises(DataError, match="exported with --pairs"):
        read_dataset(file, ("ham", "spam"))
    rows = write(tmp_path, "d.jsonl", '{"text": "a", "text_pair": 1, "label": "ham"}\n{"text": "b", "label": "ham"}\n')
    assert read_dataset(rows, ("ham",)).skipped == {"without text_pair": 1}
