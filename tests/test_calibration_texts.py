"""Texts that 4 bits are calibrated by: the package's own or a file in any of the formats, the same ones each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_tasks import write_task

from pocketbert.export import calibration_texts
from pocketbert.export.calibration_texts import CalibrationTexts, read_calibration_texts
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.runtime.check.datasets import DataError
from pocketbert.runtime.manifest import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION

LINES = [f"the film was good {number}" for number in range(20)]


@pytest.fixture(scope="module")
def classifier(checkpoints: dict[str, Path]) -> Checkpoint:
    return load_checkpoint(checkpoints["bert"])


@pytest.fixture(scope="module")
def of_pairs(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = write_task(tmp_path_factory.mktemp("pairs"), "bert", SEQUENCE_CLASSIFICATION)
    return load_checkpoint(folder, pairs=True)


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def ids_of(checkpoint: Checkpoint, *texts: str) -> list[int]:
    return list(checkpoint.tokenizer.encode(*texts).ids)


def lists(texts: CalibrationTexts) -> list[list[int]]:
    return [ids.tolist() for ids in texts.ids]


# The package's own


def test_the_packages_own_are_the_longer_half_to_about_twelve_thousand_tokens(classifier: Checkpoint) -> None:
    found = read_calibration_texts(classifier, None, 48)
    lines = calibration_texts.OWN.read_text(encoding="utf-8").splitlines()
    assert found.name == "calibration.txt" and len(lines) >= 500 and all(line.strip() == line != "" for line in lines)
    assert 0.9 * calibration_texts.MOST_TOKENS < sum(map(len, found.ids)) < 1.1 * calibration_texts.MOST_TOKENS
    every = [classifier.tokenizer.encode(line).ids for line in lines]
    middle = sorted(min(48, len(ids)) for ids in every)[len(every) // 2]
    assert min(map(len, found.ids)) >= middle - 1 and max(map(len, found.ids)) <= 48


def test_the_packages_own_lines_make_pairs_where_the_model_takes_two(of_pairs: Checkpoint) -> None:
    found = read_calibration_texts(of_pairs, None, 400)
    first, second, third = calibration_texts.OWN.read_text(encoding="utf-8").splitlines()[:3]
    assert calibration_texts._read(of_pairs, calibration_texts.OWN)[:2] == [(first, second), (second, third)]
    separator = of_pairs.tokenizer.token_to_id("[SEP]")
    assert {ids.count(separator) for ids in lists(found)} == {2}


def test_the_same_texts_come_each_time_and_a_hash_tells_them_from_others(
    classifier: Checkpoint, tmp_path: Path
) -> None:
    """A bundle says by what it was calibrated, and another computer has to find the same."""
    first, again = (read_calibration_texts(classifier, None, 48) for _ in range(2))
    assert lists(first) == lists(again) and first.sha256 == again.sha256
    hashes = {first.sha256, read_calibration_texts(classifier, None, 24).sha256}
    for name, lines in (("a.txt", LINES), ("b.txt", LINES[::-1]), ("c.txt", [*LINES[:-1], LINES[-1] + "!"])):
        hashes.add(read_calibration_texts(classifier, write(tmp_path, name, "\n".join(lines)), 48).sha256)
    assert len(hashes) == 5
    same = write(tmp_path, "other-name.txt", "\n".join(LINES))
    assert read_calibration_texts(classifier, same, 48).sha256 in hashes
    small = CalibrationTexts("x", first.ids[:0])
    assert small.sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing


# A file


FILES = {
    "lines.txt": "\n".join(LINES),
    "table.tsv": "text\n" + "\n".join(LINES),
    "labelled.tsv": "label\ttext\n" + "\n".join(f"nobody knows\t{line}" for line in LINES),
    "table.csv": "text\n" + "\n".join(f'"{line}"' for line in LINES),
    "rows.jsonl": "\n".join(json.dumps({"text": line}) for line in LINES),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_any_format_gives_its_texts_whatever_its_labels(
    classifier: Checkpoint, tmp_path: Path, name: str
) -> None:
    found = read_calibration_texts(classifier, write(tmp_path, name, FILES[name]), 48)
    assert found.name == name
    assert lists(found) == [ids_of(classifier, line) for line in LINES]


def test_a_file_of_pairs_gives_both_and_a_classifier_of_one_text_refuses_it(
    classifier: Checkpoint, of_pairs: Checkpoint, tmp_path: Path
) -> None:
    rows = [{"text": line, "text_pair": f"{line}, not bad"} for line in LINES]
    file = write(tmp_path, "pairs.jsonl", "\n".join(map(json.dumps, rows)))
    found = read_calibration_texts(of_pairs, file, 48)
    assert lists(found) == [ids_of(of_pairs, row["text"], row["text_pair"]) for row in rows]
    with pytest.raises(DataError, match="text_pair"):
        read_calibration_texts(classifier, file, 48)
    single = write(tmp_path, "single.txt", "\n".join(LINES))
    assert lists(read_calibration_texts(of_pairs, single, 48)) == [ids_of(of_pairs, line) for line in LINES]


def test_tagged_words_are_put_together_as_check_reads_them(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_task(tmp_path / "tagger", "distilbert", TOKEN_CLASSIFICATION))
    tagged = "\n\n".join("\n".join(f"{word} joy" for word in line.split()) for line in LINES)
    found = read_calibration_texts(checkpoint, write(tmp_path, "words.conll", tagged), 48)
    assert lists(found) == [ids_of(checkpoint, line) for line in LINES]
    plain = read_calibration_texts(checkpoint, write(tmp_path, "lines.txt", "\n".join(LINES)), 48)
    assert plain.sha256 == found.sha256


def test_questions_come_with_the_text_that_they_are_asked_of(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_task(tmp_path / "answerer", "albert", QUESTION_ANSWERING))
    context = "the film was lovely"
    questions = [{"id": line, "question": f"{line}?", "answers": []} for line in LINES]
    squad = {"data": [{"paragraphs": [{"context": context, "qas": questions}]}]}
    found = read_calibration_texts(checkpoint, write(tmp_path, "squad.json", json.dumps(squad)), 48)
    assert lists(found) == [ids_of(checkpoint, f"{line}?", context) for line in LINES]


def test_a_text_longer_than_the_model_reads_is_cut(classifier: Checkpoint, tmp_path: Path) -> None:
    file = write(tmp_path, "long.txt", "\n".join(f"{line} " * 30 for line in LINES))
    found = lists(read_calibration_texts(classifier, file, 24))
    separator = classifier.tokenizer.token_to_id("[SEP]")
    assert {len(ids) for ids in found} == {24} and {ids[-1] for ids in found} == {separator}


def test_of_many_texts_the_longer_ones_are_chosen_evenly(
    classifier: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_texts, "MOST_TOKENS", 400)
    lines = [f"good {'film ' * (number % 10)}" for number in range(200)]
    found = lists(read_calibration_texts(classifier, write(tmp_path, "many.txt", "\n".join(lines)), 48))
    longer = [len(line.split()) + 2 for line in lines if len(line.split()) >= 5]
    assert set(map(len, found)) <= set(longer) and len(set(map(len, found))) > 1
    assert 360 <= sum(map(len, found)) <= 440


@pytest.mark.parametrize("count", [1, 15])
def test_too_few_texts_are_refused_by_the_files_name(classifier: Checkpoint, tmp_path: Path, count: int) -> None:
    file = write(tmp_path, "few.txt", "\n".join(LINES[:count]))
    with pytest.raises(DataError, match=rf"few\.txt has {count} texts: 4 bits are calibrated by 16 or more"):
        read_calibration_texts(classifier, file, 48)


def test_sixteen_texts_are_enough(classifier: Checkpoint, tmp_path: Path) -> None:
    file = write(tmp_path, "sixteen.txt", "\n".join(LINES[:16]))
    assert len(read_calibration_texts(classifier, file, 48).ids) == 16


def test_a_file_that_is_not_there_or_empty_is_refused_by_its_name(classifier: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.txt"):
        read_calibration_texts(classifier, tmp_path / "absent.txt", 48)
    with pytest.raises(DataError, match=r"empty\.txt"):
        read_calibration_texts(classifier, write(tmp_path, "empty.txt", "\n"), 48)
