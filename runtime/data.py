"""Labelled texts from a file: .tsv, .csv or .jsonl with the columns `text` and `label`.

Takes a file and a bundle's labels. Gives a `Dataset`: texts, their labels as a table of booleans, the rule by which
labels were matched, and every row that was left out, counted by reason. A file without a header is read by the
columns that the caller names.
Leaves out: other column names and other encodings than UTF-8; both are refused by name.

A .tsv has no quoting: a quote in it is a quote. A .csv is read strictly, as RFC 4180 has it. With several labels per
text (a multi-label bundle), they are separated by `|`, and no label at all is an answer too.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from pocketbert.runtime.errors import PocketbertError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT, LABEL = "text", "label"
SEPARATOR = "|"
LONGEST_FIELD = 2**31 - 1  # characters; csv stops at 131,072 by default, and its limit is a C long
NAMED_LABELS = 5  # unknown labels that an error spells out
SHOWN = 40  # characters of each: a column of texts taken for labels should not fill the screen
# What the codec makes of a byte that is no UTF-8; escapes inside JSON are still ASCII when this is looked for.
UNDECODED = range(0xDC80, 0xDD00)


class DataError(PocketbertError):
    """The data file cannot be read; the message names the file and what to change."""


@dataclass(frozen=True)
class Dataset:
    """Texts and what they are."""

    name: str  # the file's name
    texts: Sequence[str]
    labels: NDArray[np.bool_]  # (texts, labels): which labels hold
    rule: str  # how the file's labels were matched with the bundle's
    rows: int  # usable rows in the file; more than `texts` under a limit
    skipped: Mapping[str, int]  # reason -> rows left out


@dataclass(frozen=True)
class Row:
    """A row as the file has it, or the reason why it cannot be used."""

    text: str = ""
    label: str | None = None  # None: the file does not say
    problem: str | None = None
    lines: int = 1  # lines of the file that it takes


def read(
    file: str | Path,
    labels: Sequence[str],
    multi_label: bool = False,
    limit: int | None = None,
    columns: Sequence[str] = (),
    owner: str = "the bundle",
) -> Dataset:
    """Reads `file`, the first `limit` usable rows of it; `columns` names those of a file without header.

    `labels` are those that `owner` has. Raises DataError.
    """
    file = Path(file)
    rows, skipped = read_rows(file, multi_label, columns)
    named = [split_label(row.label, multi_label) for row in rows]
    rule, index = match(file, named, labels, owner)
    table = np.zeros((len(rows), len(labels)), np.bool_)
    for row, names in enumerate(named):
        table[row, [index[name] for name in names]] = True
    texts = [row.text for row in rows[:limit]]
    return Dataset(file.name, texts, table[:limit], rule, len(rows), skipped)


def read_rows(
    file: Path, multi_label: bool = False, columns: Sequence[str] = (), unlabelled: bool = False
) -> tuple[list[Row], Mapping[str, int]]:
    """The usable rows of `file`, at least one, and a count of the others by reason.

    With `unlabelled`, rows may lack a label, files the column, and a .txt has a text on each line.

    Raises DataError.
    """
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    for row in _rows(file, columns, unlabelled):
        known = row.label is not None if multi_label else bool(row.label)
        problem = row.problem or (None if known or unlabelled else "without label")
        if problem:
            skipped[problem] += row.lines
        else:
            rows.append(row)
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(f"no usable row in {file}" + (f": {reasons}" if reasons else ": it is empty"))
    return rows, dict(skipped)


def _rows(file: Path, columns: Sequence[str], unlabelled: bool) -> Iterator[Row]:
    layout = Layout(file, columns, unlabelled)
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as stream:
            yield from _reader(layout)(layout, stream)
    except OSError as problem:
        raise DataError(f"cannot read {file}: {problem.strerror or problem}") from problem


def split_columns(columns: str | None) -> tuple[str, ...]:
    """What an option --columns says: "label,text" names two columns."""
    return tuple(name.strip() for name in columns.split(",")) if columns else ()


@dataclass(frozen=True)
class Layout:
    """What a reader is told of a file: its columns if it has no header, and whether labels may be missing."""

    file: Path
    columns: Sequence[str] = ()
    unlabelled: bool = False


def _reader(layout: Layout) -> Reader:
    """By the file's ending; a file whose columns are named may have any, and is taken as tab-separated."""
    ending = layout.file.suffix.lower()
    readers = {**READERS, ".txt": _read_lines} if layout.unlabelled else READERS
    if layout.columns:
        if ending == ".jsonl":
            raise DataError(f"{layout.file} names its fields itself: leave --columns out")
        return _read_csv if ending == ".csv" else _read_tsv
    if ending not in readers:
        raise DataError(
            f"{layout.file} is not {', '.join(readers)}: save it as one of them, or if it is tab-separated "
            "without a header name its columns: --columns label,text"
        )
    return readers[ending]


def _read_lines(layout: Layout, stream: TextIO) -> Iterator[Row]:
    for line in stream:
        text = line.rstrip("\r\n")
        problem = "blank" if not text.strip() else "not UTF-8" if _is_undecoded(text) else None
        yield Row(text, problem=problem)


def _read_tsv(layout: Layout, stream: TextIO) -> Iterator[Row]:
    lines = (line.rstrip("\r\n") for line in stream)
    columns = _Columns(layout, layout.columns or next(lines, "").split("\t"))
    for line in lines:
        yield columns.row(line.split("\t") if line else [])


def _read_csv(layout: Layout, stream: TextIO) -> Iterator[Row]:
    file = layout.file
    default = csv.field_size_limit(LONGEST_FIELD)
    try:
        reader = csv.reader(stream, strict=True)
        columns = _Columns(layout, layout.columns or next(reader, []))
        while True:
            before = reader.line_num
            try:
                yield columns.row(next(reader))
            except StopIteration:
                return
            except csv.Error as problem:
                if "end of data" in str(problem):  # it swallowed every row up to the end
                    raise DataError(f"{file}: the quote opened in line {before + 1} is never closed") from None
                yield Row(problem="not CSV", lines=reader.line_num - before)
    except csv.Error as problem:
        raise DataError(f"cannot read the first line of {file}: {problem}") from problem
    finally:
        csv.field_size_limit(default)


def _read_jsonl(layout: Layout, stream: TextIO) -> Iterator[Row]:
    for line in stream:
        if not line.strip():
            yield Row(problem="blank")
        elif _is_undecoded(line):
            yield Row(problem="not UTF-8")
        else:
            yield _json_row(line, layout.unlabelled)


def _json_row(line: str, unlabelled: bool) -> Row:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return Row(problem="not JSON")
    if not isinstance(content, dict):
        return Row(problem="not a JSON object")
    text, label = content.get(TEXT), content.get(LABEL)
    if not isinstance(text, str):
        return Row(problem=f"without {TEXT}")
    if label is None and unlabelled:
        return Row(text)
    if not isinstance(label, str | int) or isinstance(label, bool):
        return Row(problem=f"without {LABEL}")
    return Row(text, str(label).strip())


class _Columns:
    """Where the header, or the caller in its place, says that text and label are."""

    def __init__(self, layout: Layout, header: Sequence[str]) -> None:
        if any(map(_is_undecoded, header)):
            raise DataError(f"{layout.file} is not UTF-8: save it as UTF-8")
        for name in (TEXT, LABEL):
            optional = layout.unlabelled and name == LABEL
            if header.count(name) != 1 and not (optional and name not in header):
                raise DataError(_describe_header(layout, header, name))
        self.text, self.count = header.index(TEXT), len(header)
        self.label = header.index(LABEL) if LABEL in header else None

    def row(self, fields: Sequence[str]) -> Row:
        if not fields:
            return Row(problem="blank")
        if len(fields) != self.count:
            return Row(problem=f"with {len(fields)} instead of {self.count} columns")
        if any(map(_is_undecoded, fields)):
            return Row(problem="not UTF-8")
        return Row(fields[self.text], None if self.label is None else fields[self.label].strip())


def _describe_header(layout: Layout, header: Sequence[str], missing: str) -> str:
    if layout.columns:
        return (
            f"--columns {','.join(header)} lacks {missing}: name the columns of {layout.file} in order, {missing} once"
        )
    shown = ", ".join(name[:SHOWN] for name in header)
    found = f"has the columns {shown}" if any(header) else "has no header"
    advice = "rename the column, or if the file has no header name its columns: --columns label,text"
    return f"{layout.file} {found}: it needs one named {missing}, once; {advice}"


def _is_undecoded(text: str) -> bool:
    return not text.isascii() and any(ord(letter) in UNDECODED for letter in text)


def split_label(label: str | None, multi_label: bool) -> list[str]:
    """The names in one row's label; several only where several may hold."""
    if not multi_label:
        return [label] if label else []
    return [name.strip() for name in (label or "").split(SEPARATOR) if name.strip()]


def match(
    file: Path, named: Sequence[Sequence[str]], labels: Sequence[str], owner: str = "the bundle", advice: str = ""
) -> tuple[str, Mapping[str, int]]:
    """The first rule by which `labels`, which `owner` has, hold every name, and the index that it gives each.

    Raises DataError naming those that none knows, and `advice`.
    """
    found = Counter(name for names in named for name in names)
    unknown: Sequence[str] = list(found)
    for rule, place in RULES.items():
        index = {name: place(name, labels) for name in found}
        known = {name: position for name, position in index.items() if position is not None}
        if len(known) == len(found):
            return rule, known
        unknown = min(unknown, [name for name in found if name not in known], key=len)
    listed = ", ".join(f"{name[:SHOWN]!r} ({found[name]} rows)" for name in unknown[:NAMED_LABELS])
    more = f" and {len(unknown) - NAMED_LABELS} more" if len(unknown) > NAMED_LABELS else ""
    raise DataError(f"{file} has labels that {owner} lacks: {listed}{more}; it has {', '.join(labels)}{advice}")


def _place_exactly(name: str, labels: Sequence[str]) -> int | None:
    return labels.index(name) if name in labels else None


def _place_by_case(name: str, labels: Sequence[str]) -> int | None:
    same = [index for index, label in enumerate(labels) if label.casefold() == name.casefold()]
    return same[0] if len(same) == 1 else None


def _place_by_index(name: str, labels: Sequence[str]) -> int | None:
    whole = name.isascii() and name.isdigit() and len(name) <= len(str(len(labels)))
    return int(name) if whole and int(name) < len(labels) else None


Rule = Callable[[str, Sequence[str]], "int | None"]
RULES: dict[str, Rule] = {
    "exact": _place_exactly,
    "case-insensitive": _place_by_case,
    "index": _place_by_index,
}
Reader = Callable[[Layout, Any], Iterator[Row]]
READERS: dict[str, Reader] = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}
