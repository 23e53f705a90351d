"""Labelled data row by row: what is kept, why the others are left out, and what each error says, word for word."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pocketbert.runtime.check import datasets
from pocketbert.runtime.check.datasets import (
    LONGEST_LABEL,
    DataError,
    match_labels,
    read_dataset,
    read_rows,
    split_columns,
    split_label,
)

LABELS = ("ham", "spam")
RENAME = "rename the column, or if the file has no header name its columns: --columns label,text"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files by their names alone, as errors show them."""
    monkeypatch.chdir(tmp_path)


def write(name: str, content: str | bytes) -> Path:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return Path(name)


def error(file: Path, labels: tuple[str, ...] = LABELS, **options: object) -> str:
    with pytest.raises(DataError) as found:
        read_dataset(file, labels, **options)  # type: ignore[arg-type]
    return str(found.value)


@pytest.mark.parametrize(
    ("said", "names"),
    [(None, ()), ("", ()), ("text", ("text",)), ("label,text", ("label", "text")), (" a , b ,c", ("a", "b", "c"))],
)
def test_columns_are_split_at_commas(said: str | None, names: tuple[str, ...]) -> None:
    assert split_columns(said) == names


@pytest.mark.parametrize(
    ("label", "multi_label", "names"),
    [
        (None, False, []),
        ("", False, []),
        ("a|b", False, ["a|b"]),
        (None, True, []),
        ("", True, []),
        ("a", True, ["a"]),
        (" a | b||c ", True, ["a", "b", "c"]),
    ],
)
def test_several_labels_are_split_where_several_may_hold(
    label: str | None, multi_label: bool, names: list[str]
) -> None:
    assert split_label(label, multi_label) == names


def test_lines_of_a_txt_are_texts_without_labels() -> None:
    file = write("d.txt", b"XRa \r\n \nRb\xff\nX\xc3\xa9\ntabs\tand spaces \nends in an X\r\n")
    rows, skipped = read_rows(file, unlabelled=True)
    assert [(row.text, row.label, row.lines) for row in rows] == [
        ("XRa ", None, 1),
        ("Xé", None, 1),
        ("tabs\tand spaces ", None, 1),
        ("ends in an X", None, 1),
    ]
    assert skipped == {"blank": 1, "not UTF-8": 1}


def test_a_txt_has_no_labels_to_read() -> None:
    assert error(write("d.txt", "a\n")) == (
        "d.txt is not .tsv, .csv, .jsonl: save it as one of them, or if it is tab-separated without a header name its "
        "columns: --columns label,text"
    )
    with pytest.raises(DataError, match=r"d\.xml is not \.tsv, \.csv, \.jsonl, \.txt: save it as one of them"):
        read_rows(write("d.xml", "a\n"), unlabelled=True)


def test_each_reason_for_which_a_tsv_row_is_left_out() -> None:
    broken = b"\none\na\tham\tmore\nb\xff\tham\nc\t \n"
    rows, skipped = read_rows(write("d.tsv", b"text\tlabel\na b\t ham \r\n" + broken + b"XR\tspam"))
    assert [(row.text, row.label) for row in rows] == [("a b", "ham"), ("XR", "spam")]
    assert skipped == {
        "blank": 1,
        "with 1 instead of 2 columns": 1,
        "with 3 instead of 2 columns": 1,
        "not UTF-8": 1,
        "without label": 1,
    }


def test_each_reason_for_which_a_json_line_is_left_out() -> None:
    lines = (
        *('{"text": "a", "label": " ham "}', '{"text": "b", "label": 1}', "", " \t", "{", "[" * 100_000, '["a"]'),
        *('{"label": "ham"}', '{"text": 1, "label": "ham"}', '{"text": "c"}', '{"text": "d", "label": true}'),
        *('{"text": "e", "label": 1.5}', '{"text": "f", "label": null}'),
    )
    file = write("d.jsonl", "\n".join(lines).encode() + b'\n{"text": "\xff", "label": "ham"}')
    rows, skipped = read_rows(file)
    assert [(row.text, row.label) for row in rows] == [("a", "ham"), ("b", "1")]
    assert skipped == {
        "blank": 2,
        "not JSON": 2,
        "not a JSON object": 1,
        "without text": 2,
        "without label": 4,
        "not UTF-8": 1,
    }


def test_json_lines_without_labels_are_texts_where_they_are_welcome() -> None:
    file = write("d.jsonl", '{"text": "c"}\n{"text": "d", "label": null}\n{"text": "e", "label": []}\n{"label": "x"}\n')
    rows, skipped = read_rows(file, unlabelled=True)
    assert [(row.text, row.label) for row in rows] == [("c", None), ("d", None)]
    assert skipped == {"without label": 1, "without text": 1}


def test_each_line_of_a_csv_row_that_is_none_is_counted() -> None:
    file = write("d.csv", 'text,label\na,ham\n"b"x,ham\n"c\nd"x,ham\n\ne,spam\n')
    rows, skipped = read_rows(file)
    assert [row.text for row in rows] == ["a", "e"]
    assert skipped == {"not CSV": 3, "blank": 1}


def test_a_quote_that_never_closes_is_found_by_the_line_in_which_it_opens() -> None:
    assert error(write("d.csv", 'text,label\na,ham\n"b,ham\nc,ham\n')) == (
        "d.csv: the quote opened in line 3 is never closed"
    )


def test_a_first_line_that_is_no_csv_is_an_error_of_its_own() -> None:
    assert error(write("d.csv", '"a"b,c\n')).startswith("cannot read the first line of d.csv: ',' expected after '\"'")


def test_long_fields_of_a_csv_are_read_and_the_limit_of_the_process_is_as_before() -> None:
    before = csv.field_size_limit()
    text = "a" * (before + 1)
    assert read_rows(write("d.csv", f"text,label\n{text},ham\n"))[0][0].text == text
    assert csv.field_size_limit() == before


def test_a_file_of_blank_rows_and_an_empty_one_say_so() -> None:
    assert error(write("d.tsv", "text\tlabel\n\na\t\n")) == "no usable row in d.tsv: 1 blank, 1 without label"
    assert error(write("e.tsv", "text\tlabel\n")) == "no usable row in e.tsv: it is empty"
    assert error(write("f.tsv", "")) == "f.tsv has no header: it needs one named text, once"
    assert error(write("g.csv", "")) == "g.csv has no header: it needs one named text, once"
    assert error(write("h.jsonl", "")) == "no usable row in h.jsonl: it is empty; its fields are "


def test_a_file_that_is_not_there_is_named_with_the_reason() -> None:
    assert error(Path("d.tsv")) == "cannot read d.tsv: No such file or directory"


def test_a_file_that_fails_without_a_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> str:
        raise OSError("the disk is gone")

    monkeypatch.setattr(datasets, "detect_encoding", fail)
    assert error(write("d.tsv", "text\tlabel\n")) == "cannot read d.tsv: the disk is gone"


def test_only_the_first_bytes_tell_the_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(datasets, "detect_encoding", seen.append)
    read_rows(write("d.tsv", "text\tlabel\na\tham\n" + "b\tspam\n" * datasets.SAMPLE))
    assert [len(sample) for sample in seen] == [datasets.SAMPLE]


def test_a_header_in_no_encoding_of_unicode_says_how_to_save_the_file() -> None:
    assert error(write("d.tsv", b"t\xe9xt\tlabel\nabcdefgh\tham\n")) == (
        "d.tsv is in no Unicode encoding: save it as UTF-8"
    )


def test_a_csv_is_taken_as_what_its_name_says_and_another_file_as_tab_separated() -> None:
    columns = ("label", "text")
    assert read_rows(write("d.CSV", "ham,a\nspam,b\nham,c\n"), columns=columns)[0][0].text == "a"
    assert read_rows(write("d.dat", "ham\ta\nspam\tb\nham\tc\n"), columns=columns)[0][0].text == "a"
    assert error(write("d.JSONL", "{}"), columns=columns) == "d.JSONL names its fields itself: leave --columns out"


@pytest.mark.parametrize(
    ("columns", "missing"), [(("text", "x"), "label"), (("label", "x"), "text"), (("text", "label", "label"), "label")]
)
def test_named_columns_have_text_and_label_once(columns: tuple[str, ...], missing: str) -> None:
    assert error(write("d.tsv", "a\tham\n"), columns=columns) == (
        f"--columns {','.join(columns)} lacks {missing}: name the columns of d.tsv in order, {missing} once"
    )


def test_a_header_that_repeats_is_left_out_and_one_in_another_order_refused() -> None:
    for first in ("Label\tTEXT", " label \ttext"):
        rows, skipped = read_rows(write("d.tsv", f"\n{first}\nham\ta\nspam\tb\nham\tc\n"), columns=("label", "text"))
        assert ([row.text for row in rows], skipped) == (["a", "b", "c"], {"blank": 1, "header": 1})
    assert error(write("d.tsv", "Text\tLabel\na\tham\n"), columns=("label", "text")) == (
        "d.tsv has a header of its own, text,label: leave --columns out"
    )
    rows, _ = read_rows(write("d.tsv", "ham\ta\nlabel\ttext\n"), columns=("label", "text"), labels=LABELS)
    assert [row.text for row in rows] == ["a", "text"]


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        ("class\tmessage", False),
        ("class\tthe message text", False),
        ("class\tthis is a text", True),  # four words
        ("ham\tmessage", True),
        ("HAM\tmessage", True),
        ("1\tmessage", True),
        ("2\tmessage", False),
        ("spam\tmessage", True),
        ("other\tmessage", True),  # as in another row
    ],
)
def test_a_first_row_is_a_header_if_it_is_short_and_its_label_is_nobodys(first: str, kept: bool) -> None:
    file = write("d.tsv", f"{first}\nham\ta b c d\nother\tb\n")
    rows, skipped = read_rows(file, columns=("label", "text"), labels=LABELS)
    assert (len(rows), skipped) == ((3, {}) if kept else (2, {"header": 1}))


def test_a_first_row_of_several_labels_is_no_header_if_one_is_known() -> None:
    for first, kept in (("class|ham", True), ("class|kind", False), ("class|other", True), ("", True)):
        rows, _ = read_rows(
            write("d.tsv", f"{first}\tmessage\nham\ta\nother|spam\tb\n"),
            multi_label=True,
            columns=("label", "text"),
            labels=LABELS,
        )
        assert len(rows) == 2 + kept, first


def test_a_label_that_the_second_row_repeats_makes_a_row_of_the_first() -> None:
    rows, _ = read_rows(write("d.tsv", "kind\ta\nkind\tb\nham\tc\n"), columns=("label", "text"), labels=LABELS)
    assert [row.text for row in rows] == ["a", "b", "c"]


def test_a_header_that_was_left_out_takes_no_row_with_it() -> None:
    """Whatever the first row's label: a class may even be called `label`."""
    for first in ("kind", "label"):
        file = write("d.tsv", f"label\ttext\n{first}\ta\nham\tb\nlabel\tc\n")
        rows, skipped = read_rows(file, columns=("label", "text"))
        assert ([row.text for row in rows], skipped) == (["a", "b", "c"], {"header": 1})


def test_a_carriage_return_ends_a_row_only_before_a_newline() -> None:
    rows, _ = read_rows(write("d.tsv", "label\ttext\nham\ta\rb\r\nham\tends in an X\n"))
    assert [row.text for row in rows] == ["a\rb", "ends in an X"]


def test_a_table_has_no_fields_of_json_to_name() -> None:
    assert error(write("d.tsv", '{"a": 1}\n'), columns=("label", "text")) == (
        "no usable row in d.tsv: 1 with 1 instead of 2 columns"
    )


def test_a_field_that_most_lines_lack_is_short_on_average() -> None:
    lines = [{"kind": "ab"[i % 2], "note": "abc", **({"extra": "a" * 9} if i == 0 else {})} for i in range(4)]
    fields = error(write("d.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    assert fields.endswith("its fields are kind, note, extra: rename kind to label and rename note to text")


def test_a_file_of_one_row_that_is_a_header_has_none() -> None:
    assert error(write("d.tsv", "class\tmessage\n"), columns=("label", "text")) == "no usable row in d.tsv: 1 header"


def test_no_label_is_an_answer_where_several_may_hold() -> None:
    found = read_dataset(write("d.tsv", "text\tlabel\na\t\nb\tspam|ham\nc\tspam\n"), LABELS, multi_label=True)
    assert found.labels.tolist() == [[False, False], [True, True], [False, True]]
    assert (found.name, found.texts, found.labels.dtype) == ("d.tsv", ["a", "b", "c"], np.bool_)


def test_a_limit_keeps_the_count_of_all_rows() -> None:
    found = read_dataset(str(write("d.tsv", "text\tlabel\na\tham\nb\tspam\nc\tham\n")), LABELS, limit=2)
    assert (found.texts, found.labels.tolist(), found.rows) == (["a", "b"], [[True, False], [False, True]], 3)


@pytest.mark.parametrize(
    ("labels", "rule", "index"),
    [
        (("ham", "HAM", "spam"), "exact", {"ham": 0, "spam": 2}),
        (("Spam", "HAM"), "case-insensitive", {"ham": 1, "spam": 0}),
    ],
)
def test_labels_are_matched_by_the_first_rule_that_knows_all(
    labels: tuple[str, ...], rule: str, index: dict[str, int]
) -> None:
    assert match_labels(Path("d"), [["ham"], [], ["spam", "ham"]], labels) == (rule, index)


def test_numbers_are_places_among_the_labels() -> None:
    assert match_labels(Path("d"), [["0"], ["1"], ["00"]], LABELS * 5) == ("index", {"0": 0, "1": 1, "00": 0})
    for wrong in ("2", "-1", "²", "٣", "000", ""):
        with pytest.raises(DataError):
            match_labels(Path("d"), [["0"], [wrong]], LABELS)


def test_labels_that_are_unknown_are_counted_and_cut() -> None:
    named = [[f"{i}" + "x" * 50] for i in range(5)] + [["0" + "x" * 50], ["ham"]]
    listed = ", ".join(f"'{i}{'x' * 39}' ({2 if i == 0 else 1} rows)" for i in range(5))
    with pytest.raises(DataError) as found:
        match_labels(Path("d.tsv"), named, LABELS)
    assert str(found.value) == f"d.tsv has labels that the bundle lacks: {listed}; it has ham, spam"
    with pytest.raises(DataError) as found:
        match_labels(Path("d.tsv"), [*named, ["6"]], LABELS, owner="the model", advice=": look")
    said = f"d.tsv has labels that the model lacks: {listed} and 1 more; it has ham, spam: look"
    assert str(found.value) == said


def test_the_rule_that_knows_most_says_which_are_unknown() -> None:
    with pytest.raises(DataError) as found:
        match_labels(Path("d"), [["HAM"], ["Spam"], ["eggs"]], LABELS)
    assert str(found.value) == "d has labels that the bundle lacks: 'eggs' (1 rows); it has ham, spam"
    file = write("d.tsv", "text\tlabel\na\teggs\n")
    assert error(file) == "d.tsv has labels that the bundle lacks: 'eggs' (1 rows); it has ham, spam"
    owned = error(file, owner="the teacher")
    assert owned == "d.tsv has labels that the teacher lacks: 'eggs' (1 rows); it has ham, spam"


# What an error makes of the columns that it finds


def table(header: str, *rows: str) -> str:
    return "\n".join((header, *rows)) + "\n"


def test_the_columns_that_look_right_are_spelled_out_for_the_option() -> None:
    file = write("d.tsv", table("id\tkind\tbody", "1\tham\ta b", "2\tspam\tc d e", "3\tham\tf", "4\tspam\tg h"))
    found = "kind looks like the labels and body looks like the texts: pass --columns id,label,text"
    assert error(file) == f"d.tsv has the columns id, kind, body: it needs one named text, once; {found}"
    named = read_dataset(file, LABELS, columns=("id", "label", "text"))
    assert (named.rows, named.skipped) == (4, {"header": 1})


def test_the_column_that_is_missing_is_the_one_that_is_named() -> None:
    rows = ("ham\ta b", "spam\tc d e", "ham\tf", "spam\tg h")
    assert error(write("d.tsv", table("label\tbody", *rows))) == (
        "d.tsv has the columns label, body: it needs one named text, once; "
        "body looks like the texts: pass --columns label,text"
    )
    assert error(write("d.csv", table("kind,text", *(row.replace("\t", ",") for row in rows)))) == (
        "d.csv has the columns kind, text: it needs one named label, once; "
        "kind looks like the labels: pass --columns label,text"
    )


def test_a_column_that_is_there_twice_is_no_use() -> None:
    said = f"d.tsv has the columns text, text, label: it needs one named text, once; {RENAME}"
    assert error(write("d.tsv", table("text\ttext\tlabel", "a\tb\tham"))) == said


@pytest.mark.parametrize(
    ("column", "is_label"),
    [
        (["a", "b", "a", "b"], True),
        (["a", "b", "a", "b", "c"], False),  # each in less than two rows on average
        (["a", "b", "c", "a", "b", "c"], True),
        (["a", "a", "a", "a"], False),  # always the same
        (["a" * LONGEST_LABEL, "b"] * 2, True),
        (["a" * (LONGEST_LABEL + 1), "b"] * 2, False),
        ([], False),
    ],
)
def test_labels_are_few_short_values_that_repeat(column: list[str], is_label: bool) -> None:
    rows = [f"{value}\ttext {'x' * 100} {i}" for i, value in enumerate(column)]
    said = error(write("d.tsv", table("kind\tbody", *rows)))
    assert said.endswith("pass --columns label,text" if is_label else RENAME)


def test_of_two_columns_that_repeat_the_one_with_fewer_values_is_the_label() -> None:
    rows = [f"{'xyz'[i % 3]}\t{'ab'[i % 2]}\tsome text {i}" for i in range(12)]
    assert error(write("d.tsv", table("a topic\tkind\tbody", *rows))).endswith("pass --columns a topic,label,text")
    same = [f"{'ab'[i % 2]}\t{'ab'[i % 2]}\tsome text {i}" for i in range(12)]
    assert error(write("d.tsv", table("second\tfirst\tbody", *same))).endswith("pass --columns label,first,text")


def test_the_texts_are_longest_on_average_not_the_first_or_the_last() -> None:
    rows = [f"{i}\ta long one {i}\t{'ab'[i % 2]}\tz{i}" for i in range(4)]
    assert error(write("d.tsv", table("id\tbody\tkind\tuser", *rows))).endswith("pass --columns id,text,label,user")


def test_rows_of_another_width_are_not_looked_at() -> None:
    rows = ("ham\ta b", "broken", "spam\tc d e", "ham\tf", "x\ty\tz", "spam\tg h")
    assert error(write("d.tsv", table("kind\tbody", *rows))).endswith("pass --columns label,text")


def test_rows_after_a_broken_one_of_a_csv_are_not_looked_at() -> None:
    rows = ("ham,a b", "spam,c d e", "ham,f", "spam,g h", '"x"y,z')
    assert error(write("d.csv", table("kind,body", *rows))).endswith("pass --columns label,text")


def test_only_the_first_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "LOOKED_AT", 4)
    rows = [f"{'ab'[i % 2]}\ttext {i}" for i in range(4)]
    others = [f"{i}\tt" for i in range(9)]
    assert error(write("d.tsv", table("kind\tbody", *rows, *others))).endswith("pass --columns label,text")
    lines = [{"kind": "ab"[i % 2], "body": f"text {i}"} for i in range(4)] + [{"later": i} for i in range(9)]
    assert error(write("d.jsonl", "".join(json.dumps(line) + "\n" for line in lines))) == (
        "no usable row in d.jsonl: 13 without text; its fields are kind, body: "
        "rename kind to label and rename body to text"
    )


def test_names_of_columns_are_cut_and_counted() -> None:
    names = ["x" * 50, "y" * 50, *(f"c{i}" for i in range(20))]
    shown = ", ".join(name[:40] for name in names[:20])
    said = f"d.tsv has the columns {shown} and 2 more: it needs one named text, once; {RENAME}"
    assert error(write("d.tsv", table("\t".join(names)))) == said
    assert error(write("d.tsv", table("\t".join(names[:20])))) == said.replace(" and 2 more", "")
    rows = [f"{'ab'[i % 2]}\ttext {i}" for i in range(4)]
    long = error(write("d.tsv", table(f"{names[0]}\t{names[1]}", *rows)))
    assert f"; {names[0][:40]} looks like the labels and {names[1][:40]} looks like the texts: pass" in long
    lines = "".join(json.dumps({names[0]: "ab"[i % 2], names[1]: f"text {i}"}) + "\n" for i in range(4))
    fields = error(write("d.jsonl", lines))
    assert fields.endswith(f": rename {names[0][:40]} to label and rename {names[1][:40]} to text")


def test_fields_of_json_are_looked_at_where_some_lines_have_them() -> None:
    lines = [*({"kind": "ab"[i % 2], "body": f"text {i}"} for i in range(4)), {"body": "last"}, [1]]
    content = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    assert error(write("d.jsonl", content)) == (
        "no usable row in d.jsonl: 5 without text, 1 not a JSON object, 1 blank; its fields are kind, body"
    )
    lines = [*lines, {"kind": "a", "body": "b"}]
    content = "\n".join(json.dumps(line) for line in lines) + "\n"
    assert error(write("d.jsonl", content)).endswith(": rename kind to label and rename body to text")


def test_fields_that_say_nothing_are_only_named() -> None:
    assert error(write("d.jsonl", '{"a": 1}\n{"b": 2}\n')) == (
        "no usable row in d.jsonl: 2 without text; its fields are a, b"
    )


@pytest.mark.parametrize("line", ["{", "[" * 100_000])
def test_lines_that_are_no_json_have_no_fields(line: str) -> None:
    assert error(write("d.jsonl", line + "\n")) == "no usable row in d.jsonl: 1 not JSON"


def test_fields_are_read_in_the_encoding_of_the_file() -> None:
    assert error(write("d.jsonl", '{"körper": 1}\n'.encode("utf-16"))).endswith("; its fields are körper")


def test_a_file_that_vanishes_has_no_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("d.jsonl", '{"a": 1}\n')
    reads = iter((None, OSError("gone")))

    def codec(_: Path) -> str:
        if problem := next(reads):
            raise problem
        return "utf-8"

    monkeypatch.setattr(datasets, "_codec", codec)
    assert error(file) == "no usable row in d.jsonl: 1 without text"
