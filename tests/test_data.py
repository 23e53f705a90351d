"""Labelled data files: a right answer or one clear error, and never a row lost without a word."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pocketbert.runtime.check.datasets import DataError, read_dataset, read_rows
from pocketbert.runtime.text_encoding import SAMPLE, detect_encoding

LABELS = ("NEGATIVE", "POSITIVE")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return file


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_tsv_takes_quotes_as_they_are(tmp_path):
    file = write(tmp_path, "d.tsv", 'text\tlabel\n"half a quote\tPOSITIVE\nit \'s "fine"\tNEGATIVE\n')
    found = read_dataset(file, LABELS)
    assert list(found.texts) == ['"half a quote', 'it \'s "fine"']
    assert found.labels.tolist() == [[False, True], [True, False]]
    assert (found.rule, found.rows, found.skipped) == ("exact", 2, {})


def test_csv_takes_quoted_commas_lines_and_quotes(tmp_path):
    file = write(tmp_path, "d.csv", 'label,id,text\r\nPOSITIVE,1,"a, ""b""\nc"\r\nNEGATIVE,2,d\r\n')
    assert list(read_dataset(file, LABELS).texts) == ['a, "b"\nc', "d"]


def test_jsonl_takes_numbers_for_labels(tmp_path):
    found = read_dataset(
        write(tmp_path, "d.jsonl", jsonl({"text": "a", "label": 1}, {"text": "b", "label": "0"})), LABELS
    )
    assert (found.rule, found.labels.argmax(axis=1).tolist()) == ("index", [1, 0])


@pytest.mark.parametrize("name", ["d.tsv", "D.TSV"])
def test_byte_order_mark_and_windows_lines(tmp_path, name):
    file = write(tmp_path, name, b"\xef\xbb\xbftext\tlabel\r\nfine\tPOSITIVE\r\n")
    assert list(read_dataset(file, LABELS).texts) == ["fine"]


def test_odd_line_separators_do_not_split_rows(tmp_path):
    text = "a\u2028b\x85c\x0bd\x1ce"
    assert list(read_dataset(write(tmp_path, "d.tsv", f"text\tlabel\n{text}\tPOSITIVE\n"), LABELS).texts) == [text]


def test_labels_match_without_case(tmp_path):
    found = read_dataset(write(tmp_path, "d.tsv", "text\tlabel\na\tpositive\nb\tNegative\n"), LABELS)
    assert (found.rule, found.labels.argmax(axis=1).tolist()) == ("case-insensitive", [1, 0])


def test_exact_match_wins_over_index(tmp_path):
    found = read_dataset(write(tmp_path, "d.tsv", "text\tlabel\na\t1\nb\t0\n"), ("1", "0"))
    assert (found.rule, found.labels.argmax(axis=1).tolist()) == ("exact", [0, 1])


def test_case_that_is_ambiguous_does_not_match(tmp_path):
    with pytest.raises(DataError, match="'YES'"):
        read_dataset(write(tmp_path, "d.tsv", "text\tlabel\na\tYES\n"), ("yes", "Yes"))


@pytest.mark.parametrize(
    ("labels", "named"),
    [("POSITIVE NEUTRAL", "'NEUTRAL' (1 rows)"), ("0 2", "'2' (1 rows)"), ("0 -1", "'-1' (1 rows)")],
)
def test_unknown_labels_are_named_and_only_they(tmp_path, labels, named):
    rows = "".join(f"t\t{label}\n" for label in labels.split())
    with pytest.raises(DataError) as error:
        read_dataset(write(tmp_path, "d.tsv", f"text\tlabel\n{rows}"), LABELS)
    assert f"lacks: {named}; it has NEGATIVE, POSITIVE" in str(error.value)


def test_many_unknown_labels_are_one_line(tmp_path):
    rows = "".join(f"t\t{'x' * 1000}{i}\n" for i in range(100))
    with pytest.raises(DataError, match="and 95 more") as error:
        read_dataset(write(tmp_path, "d.tsv", f"text\tlabel\n{rows}"), LABELS)
    assert len(str(error.value)) < 600


def test_broken_rows_are_counted_by_reason(tmp_path):
    rows = b"a\tPOSITIVE\nno label\nb\t\n\nc\td\tPOSITIVE\n\xff\tPOSITIVE\n"
    found = read_dataset(write(tmp_path, "d.tsv", b"text\tlabel\n" + rows), LABELS)
    reasons = {"with 1 instead of 2 columns": 1, "without label": 1, "blank": 1}
    assert found.skipped == {**reasons, "with 3 instead of 2 columns": 1, "not UTF-8": 1}
    assert list(found.texts) == ["a"]


def test_broken_json_rows_are_counted_by_reason(tmp_path):
    rows = ["{", "[" * 100_000, "7", '{"label": "POSITIVE"}', '{"text": 7, "label": "POSITIVE"}', '{"text": "t"}', ""]
    rows += ['{"text": "t", "label": true}', '{"text": "t", "label": null}', '{"text": "t", "label": "POSITIVE"}']
    found = read_dataset(write(tmp_path, "d.jsonl", "\n".join(rows) + "\n"), LABELS)
    assert found.skipped == {"not JSON": 2, "not a JSON object": 1, "without text": 2, "without label": 3, "blank": 1}
    assert list(found.texts) == ["t"]


def test_broken_csv_rows_count_every_line_they_take(tmp_path):
    file = write(tmp_path, "d.csv", 'text,label\n"a\nb"c,POSITIVE\nfine,POSITIVE\n')
    found = read_dataset(file, LABELS)
    assert (found.skipped, list(found.texts)) == ({"not CSV": 2}, ["fine"])


def test_csv_quote_that_never_closes_is_an_error_not_a_lost_file(tmp_path):
    file = write(tmp_path, "d.csv", 'text,label\nfine,POSITIVE\n"a,POSITIVE\nb,POSITIVE\n')
    with pytest.raises(DataError, match="quote opened in line 3 is never closed"):
        read_dataset(file, LABELS)


@pytest.mark.parametrize("name", ["d.tsv", "d.csv", "d.jsonl"])
def test_empty_files_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"it needs one named text, once|it is empty"):
        read_dataset(write(tmp_path, name, ""), LABELS)


@pytest.mark.parametrize(
    ("header", "missing"), [("sentence\tlabel", "text"), ("text\tclass", "label"), ("text\ttext\tlabel", "text")]
)
def test_missing_columns_are_named(tmp_path, header, missing):
    with pytest.raises(DataError, match=f"it needs one named {missing}, once"):
        read_dataset(write(tmp_path, "d.tsv", f"{header}\na\tb\n"), LABELS)


def test_file_without_a_usable_row_says_why(tmp_path):
    with pytest.raises(DataError, match=r"no usable row in .*: 2 without text"):
        read_dataset(write(tmp_path, "d.jsonl", jsonl({"a": 1}, {"b": 1})), LABELS)


@pytest.mark.parametrize("name", ["d.txt", "d", "d.json"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"is not \.tsv, \.csv, \.jsonl"):
        read_dataset(write(tmp_path, name, "text\tlabel\na\tb\n"), LABELS)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "folder.tsv").mkdir()
    for name in ("missing.tsv", "folder.tsv"):
        with pytest.raises(DataError, match="cannot read"):
            read_dataset(tmp_path / name, LABELS)


ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]  # le and be write no mark


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", ["fine film", "ça déjà vu", "хороший фильм", "这部电影太好看了", "😍"])
@pytest.mark.parametrize("name", ["d.tsv", "d.csv", "d.jsonl"])
def test_every_encoding_of_unicode_is_read(tmp_path, encoding, text, name):
    content = {
        "d.tsv": f"text\tlabel\n{text}\tPOSITIVE\n",
        "d.csv": f'text,label\n"{text}",POSITIVE\n',
        "d.jsonl": json.dumps({"text": text, "label": "POSITIVE"}, ensure_ascii=False) + "\n",
    }[name]
    found = read_dataset(write(tmp_path, name, content.encode(encoding)), LABELS)
    assert (list(found.texts), found.labels.tolist(), found.skipped) == ([text], [[False, True]], {})


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_encodings_of_one_language_are_refused_or_counted(tmp_path, encoding):
    with pytest.raises(DataError, match="is in no Unicode encoding: save it as UTF-8"):
        read_dataset(write(tmp_path, "d.tsv", "text\tlabel\té\na\tPOSITIVE\t\n".encode(encoding)), LABELS)
    found = read_dataset(write(tmp_path, "d.tsv", "text\tlabel\né\tPOSITIVE\na\tPOSITIVE\n".encode(encoding)), LABELS)
    assert (list(found.texts), found.skipped) == (["a"], {"not UTF-8": 1})


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["a", "fine film\n", "хороший фильм", "这部电影\n太好看了 ok\n", "naïve\r\ncafé"])
def test_utf_16_without_mark_is_told_by_its_zero_bytes(codec, text):
    assert detect_encoding(text.encode(codec)) == codec


@pytest.mark.parametrize(
    "text", ["", "a", "a\0b is text", "naïve café", "这部电影", "bell \x07", "private \ue000 use, once"]
)
def test_utf_8_is_told_from_utf_16(text):
    assert detect_encoding(text.encode()) == "utf-8-sig"


@pytest.mark.parametrize("cut", range(4))
def test_a_sample_may_end_inside_a_character(cut):
    sample = ("a" * cut + "😍" * SAMPLE).encode()[:SAMPLE]
    assert detect_encoding(sample) == "utf-8-sig"


@pytest.mark.parametrize(
    "content", ["这部电影".encode("utf-16-le"), "café".encode("latin-1"), "电影".encode("gbk"), bytes(9)]
)
def test_what_is_no_unicode_is_not_guessed(content):
    assert detect_encoding(content) is None


@pytest.mark.parametrize("name", ["d.tsv", "d.jsonl"])
def test_nul_bytes_are_text(tmp_path, name):
    content = "text\tlabel\na\0b\tPOSITIVE\n" if name == "d.tsv" else jsonl({"text": "a\0b", "label": "POSITIVE"})
    assert list(read_dataset(write(tmp_path, name, content), LABELS).texts) == ["a\0b"]


def test_lone_surrogates_are_text(tmp_path):
    content = jsonl({"text": "a\ud800b\udc80", "label": "POSITIVE"})
    assert list(read_dataset(write(tmp_path, "d.jsonl", content), LABELS).texts) == ["a\ud800b\udc80"]


@pytest.mark.parametrize("name", ["d.tsv", "d.csv", "d.jsonl"])
def test_ten_megabytes_are_text(tmp_path, name):
    text = "film " * 2_000_000
    rows = {"d.tsv": f"text\tlabel\n{text}\tPOSITIVE\n", "d.csv": f"text,label\n{text},POSITIVE\n"}
    before = csv.field_size_limit()
    found = read_dataset(write(tmp_path, name, rows.get(name) or jsonl({"text": text, "label": "POSITIVE"})), LABELS)
    assert found.texts[0] == text
    assert csv.field_size_limit() == before


def test_limit_takes_the_first_rows(tmp_path):
    file = write(tmp_path, "d.tsv", "text\tlabel\na\tPOSITIVE\nb\tNEGATIVE\nc\tPOSITIVE\n")
    found = read_dataset(file, LABELS, limit=2)
    assert (list(found.texts), len(found.labels), found.rows) == (["a", "b"], 2, 3)


def test_several_labels_are_separated(tmp_path):
    file = write(tmp_path, "d.tsv", "text\tlabel\na\tPOSITIVE | NEGATIVE\nb\t\nc\tPOSITIVE\n")
    found = read_dataset(file, LABELS, multi_label=True)
    assert found.labels.tolist() == [[True, True], [False, False], [False, True]]


@pytest.mark.parametrize("name", ["SMSSpamCollection", "d.tsv", "d.csv"])
def test_columns_are_named_where_a_file_has_no_header(tmp_path, name):
    comma = "," if name == "d.csv" else "\t"
    file = write(tmp_path, name, f'ham{comma}so "quoted"\nspam{comma}WIN\n'.replace('"', "" if comma == "," else '"'))
    found = read_dataset(file, ("ham", "spam"), columns=("label", "text"))
    assert found.labels.argmax(axis=1).tolist() == [0, 1]
    assert found.texts[1] == "WIN"


def test_a_file_without_header_is_told_how_to_name_its_columns(tmp_path):
    with pytest.raises(DataError, match=r"has the columns ham, hello: .*--columns label,text"):
        read_dataset(write(tmp_path, "d.tsv", "ham\thello\nspam\tWIN\n"), ("ham", "spam"))
    with pytest.raises(DataError, match="--columns label,body lacks text"):
        read_dataset(write(tmp_path, "d.tsv", "ham\thello\n"), ("ham", "spam"), columns=("label", "body"))
    with pytest.raises(DataError, match="names its fields itself: leave --columns out"):
        read_dataset(write(tmp_path, "d.jsonl", "{}\n"), ("ham", "spam"), columns=("label", "text"))


BANKING = "text,category\n" + "".join(
    f"my card number {i} is lost,{('lost_card', 'top_up')[i % 2]}\n" for i in range(20)
)


def test_the_column_that_looks_like_labels_is_named(tmp_path):
    file = write(tmp_path, "d.csv", BANKING)
    with pytest.raises(DataError) as error:
        read_dataset(file, ("lost_card", "top_up"))
    told = "has the columns text, category: it needs one named label, once; category looks like the labels: pass"
    assert str(error.value) == f"{file} {told} --columns text,label"
    found = read_dataset(file, ("lost_card", "top_up"), columns=("text", "label"))  # as told
    assert (len(found.texts), found.skipped) == (20, {"header": 1})


def test_both_columns_are_found_among_others(tmp_path):
    rows = "".join(f"{i}\ten\tno {i}, this is not good\t{i % 3}\tday {i}\n" for i in range(30))
    with pytest.raises(DataError) as error:
        read_dataset(write(tmp_path, "d.tsv", f"id\tlanguage\tsentence\tstars\tday\n{rows}"), ("0", "1", "2"))
    told = "sentence looks like the texts and stars looks like the labels: pass --columns id,language,text,label,day"
    assert str(error.value).endswith(told)


def test_fields_of_json_are_named(tmp_path):
    rows = [{"utterance": f"where is my card {i}", "intent": ("a", "b")[i % 2]} for i in range(9)]
    with pytest.raises(DataError) as error:
        read_dataset(write(tmp_path, "d.jsonl", jsonl(*rows)), ("a", "b"))
    told = "9 without text; its fields are utterance, intent: rename utterance to text and rename intent to label"
    assert str(error.value).endswith(told)


@pytest.mark.parametrize("header", ["label,text", "Label, TEXT", "class,message", "v1,v2", "class,text of the message"])
@pytest.mark.parametrize("name", ["d.tsv", "d.csv"])
@pytest.mark.parametrize("labels", [("ham", "spam"), ()])
def test_a_header_is_left_out_where_columns_are_named(tmp_path, name, header, labels):
    content = f"{header}\nham,hi there\nspam,WIN\nham,hello\nspam,free\n"
    file = write(tmp_path, name, content.replace(",", "\t") if name == "d.tsv" else content)
    rows, skipped = read_rows(file, columns=("label", "text"), labels=labels)
    expected = [("ham", "hi there"), ("spam", "WIN"), ("ham", "hello"), ("spam", "free")]
    if header == "class,text of the message":  # four words may be a text: nothing is lost on a guess
        assert (rows[0].label, skipped) == ("class", {})
    else:
        assert ([(row.label, row.text) for row in rows], skipped) == (expected, {"header": 1})


@pytest.mark.parametrize(
    ("first", "labels"), [("ham,hi", ()), ("rare,hi", ("ham", "rare")), ("RARE,hi", ("ham", "rare"))]
)
def test_a_first_row_with_a_label_is_kept(tmp_path, first, labels):
    file = write(tmp_path, "d.csv", f"{first}\nham,one\nham,two\n")
    rows, skipped = read_rows(file, columns=("label", "text"), labels=labels)
    assert (len(rows), skipped) == (3, {})


def test_columns_named_in_another_order_than_the_header_are_refused(tmp_path):
    with pytest.raises(DataError, match="has a header of its own, text,label: leave --columns out"):
        read_rows(write(tmp_path, "d.csv", "text,label\nhi,ham\n"), columns=("label", "text"))


def test_rows_without_labels_are_read_where_they_are_welcome(tmp_path):
    def texts(name, content):
        rows, skipped = read_rows(write(tmp_path, name, content), unlabelled=True)
        return [(row.text, row.label) for row in rows], skipped

    assert texts("d.txt", "a\n\nb\r\n") == ([("a", None), ("b", None)], {"blank": 1})
    assert texts("d.tsv", "id\ttext\n1\ta\n") == ([("a", None)], {})
    assert texts("d.tsv", "text\tlabel\na\t\nb\tx\n") == ([("a", ""), ("b", "x")], {})
    assert texts("d.jsonl", jsonl({"text": "a"}, {"text": "b", "label": 1})) == ([("a", None), ("b", "1")], {})


def test_real_chat_messages_are_read_from_the_raw_file(shared):
    found = read_dataset(shared / "data/sms_spam/SMSSpamCollection", ("ham", "spam"), columns=("label", "text"))
    assert (len(found.texts), found.labels.sum(axis=0).tolist(), found.skipped) == (5574, [4827, 747], {})


def test_real_file_is_read_whole(shared):
    found = read_dataset(shared / "data" / "sst2" / "dev.tsv", LABELS)
    assert (len(found.texts), found.skipped, found.rule) == (872, {}, "exact")
