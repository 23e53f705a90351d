"""Labelled texts from a file: .tsv, .csv or .jsonl with the columns `text`, `label`, and `text_pair` for a second text.

Takes a file and a bundle's labels. Returns a `Dataset`: texts, their labels as a table of booleans, the rule by which
labels were matched, and every row that was left out, counted by reason. A file without a header, or with other names
in it, is read by the columns that the caller names; its first row is left out where it is a header after all.
Leaves out: guessing columns, and encodings other than Unicode's; an error says which columns look right.

A .tsv has no quoting: a quote in it is a quote. A .csv is read strictly, as RFC 4180 has it. With several labels per
text (a multi-label bundle), they are separated by `|`, and no label at all is an answer too.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.text_encoding import SAMPLE, UTF_8, detect_encoding, error_handler, is_undecoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT, TEXT_PAIR, LABEL = "text", "text_pair", "label"
SEPARATOR = "|"
HEADER = "header"  # why a first row is left out where --columns names the columns
LONGEST_FIELD = 2**31 - 1  # characters; csv stops at 131,072 by default, and its limit is a C long
NAMED_LABELS = 5  # unknown labels that an error spells out
SHOWN = 40  # characters of each: a column of texts taken for labels should not fill the screen
NAMED_COLUMNS = 20  # of a header that an error spells out
HEADER_WORDS = 3  # of a column's name, in a first row that is taken for a header
LOOKED_AT = 1000  # rows in which an error looks for the columns of labels and texts
LONGEST_LABEL = 60  # characters


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
    text_pairs: Sequence[str | None] = ()  # the second text of each; empty where there are none


@dataclass(frozen=True)
class Row:
    """A row as the file has it, or the reason why it cannot be used."""

    text: str = ""
    text_pair: str | None = None
    label: str | None = None  # None: the file does not say
    problem: str | None = None
    lines: int = 1  # lines of the file that it takes


def read_dataset(
    file: str | Path,
    labels: Sequence[str],
    multi_label: bool = False,
    limit: int | None = None,
    columns: Sequence[str] = (),
    owner: str = "the bundle",
    pairs: bool = False,
) -> Dataset:
    """Reads `file`, the first `limit` usable rows of it; `columns` names those of a file without header.

    `labels` are those that `owner` has, and `pairs` says whether it takes two texts. Raises DataError.
    """
    file = Path(file)
    rows, skipped = read_rows(file, multi_label, columns, labels=labels, pairs=pairs)
    named = [split_label(row.label, multi_label) for row in rows]
    rule, index = match_labels(file, named, labels, owner)
    table = np.zeros((len(rows), len(labels)), np.bool_)
    for row, names in enumerate(named):
        table[row, [index[name] for name in names]] = True
    texts = [row.text for row in rows[:limit]]
    return Dataset(file.name, texts, table[:limit], rule, len(rows), skipped, [row.text_pair for row in rows[:limit]])


def read_rows(
    file: Path,
    multi_label: bool = False,
    columns: Sequence[str] = (),
    unlabelled: bool = False,
    labels: Sequence[str] = (),
    pairs: bool = False,
) -> tuple[list[Row], Mapping[str, int]]:
    """The usable rows of `file`, at least one, and a count of the others by reason.

    With `unlabelled`, rows may lack a label, files the column, and a .txt has a text on each line. `labels` are known
    ones: where columns are named, a first row with one of them is no header. A second text is refused without `pairs`.

    Raises DataError.
    """
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    for row in _rows(Layout(file, columns, unlabelled)):
        known = row.label is not None if multi_label else bool(row.label)
        problem = row.problem or (None if known or unlabelled else "without label")
        if problem:
            skipped[problem] += row.lines
        else:
            rows.append(row)
    if columns and rows and HEADER not in skipped and _is_header(rows, multi_label, labels):
        del rows[0]
        skipped[HEADER] = 1
    if not pairs and any(row.text_pair is not None for row in rows):
        raise DataError(f"{file} has a second text, {TEXT_PAIR}: that takes a bundle which was exported with --pairs")
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        found = _describe_fields(file) if file.suffix.lower() == ".jsonl" else ""
        raise DataError(f"no usable row in {file}: {reasons or 'it is empty'}{found}")
    return rows, dict(skipped)


def _is_header(rows: Sequence[Row], multi_label: bool, labels: Sequence[str]) -> bool:
    """Whether the first row names the columns: a word or two, and a label that nobody knows and no other row has."""
    names = split_label(rows[0].label, multi_label)
    if not names or len(rows[0].text.split()) > HEADER_WORDS:
        return False
    if any(place(name, labels) is not None for name in names for place in RULES.values()):
        return False
    return not any(name in split_label(row.label, multi_label) for row in rows[1:] for name in names)


def _rows(layout: Layout) -> Iterator[Row]:
    with open_text(layout.file) as stream:
        yield from _reader(layout)(layout, stream)


@contextlib.contextmanager
def open_text(file: Path) -> Iterator[TextIO]:
    """A file's text in whichever encoding of Unicode it is; bytes that are none are escaped, see `is_undecoded`.

    Raises DataError for a file that cannot be read, in the block too.
    """
    try:
        codec = _codec(file)
        with file.open(encoding=codec, errors=error_handler(codec), newline="\n") as stream:
            yield stream
    except OSError as problem:
        raise DataError(f"cannot read {file}: {problem.strerror or problem}") from problem


def _codec(file: Path) -> str:
    with file.open("rb") as stream:
        return detect_encoding(stream.read(SAMPLE)) or UTF_8


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
        problem = "blank" if not text.strip() else "not UTF-8" if is_undecoded(text) else None
        yield Row(text, problem=problem)


def _read_tsv(layout: Layout, stream: TextIO) -> Iterator[Row]:
    lines = (line.rstrip("\r\n") for line in stream)
    rows = (line.split("\t") if line else [] for line in lines)
    header = layout.columns or next(rows, [])
    columns = _Columns(layout, header, rows)
    for fields in rows:
        yield columns.row(fields)


def _read_csv(layout: Layout, stream: TextIO) -> Iterator[Row]:
    file = layout.file
    default = csv.field_size_limit(LONGEST_FIELD)
    try:
        reader = csv.reader(stream, strict=True)
        columns = _Columns(layout, layout.columns or next(reader, []), reader)
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
        elif is_undecoded(line):
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
    second = content.get(TEXT_PAIR)
    if second is not None and not isinstance(second, str):
        return Row(problem=f"without {TEXT_PAIR}")
    if label is None and unlabelled:
        return Row(text, second)
    if not isinstance(label, str | int) or isinstance(label, bool):
        return Row(problem=f"without {LABEL}")
    return Row(text, second, str(label).strip())


def _describe_fields(file: Path) -> str:
    """What the lines of a .jsonl call their fields, and which to rename."""
    with contextlib.suppress(OSError, ValueError, RecursionError), file.open(encoding=_codec(file)) as stream:
        lines = [line for line in islice(stream, LOOKED_AT) if line.strip()]
        objects = [content for content in map(json.loads, lines) if isinstance(content, dict)]
        names = list(dict.fromkeys(name for content in objects for name in content))
        rows = [[str(content.get(name, "")) for name in names] for content in objects]
        advice = " and ".join(f"rename {name[:SHOWN]} to {role}" for name, role in _find_columns(names, rows).items())
        return f"; its fields are {_shorten(names)}" + (f": {advice}" if advice else "")
    return ""


class _Columns:
    """Where the header, or the caller in its place, says that text and label are; `rows` tell an error more."""

    def __init__(self, layout: Layout, header: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
        if any(map(is_undecoded, header)):
            raise DataError(f"{layout.file} is in no Unicode encoding: save it as UTF-8")
        for name in (TEXT, LABEL):
            optional = layout.unlabelled and name == LABEL
            if header.count(name) != 1 and not (optional and name not in header):
                raise DataError(_describe_header(layout, header, name, rows))
        self.text, self.count = header.index(TEXT), len(header)
        self.text_pair, self.label = (header.index(name) if name in header else None for name in (TEXT_PAIR, LABEL))
        self.file, self.named = layout.file, sorted(name.casefold() for name in layout.columns)
        self.names, self.first = [name.casefold() for name in header], True

    def row(self, fields: Sequence[str]) -> Row:
        if self.first and fields:
            self.first = False
            if self.named and self.is_header(fields):
                return Row(problem=HEADER)
        if not fields:
            return Row(problem="blank")
        if len(fields) != self.count:
            return Row(problem=f"with {len(fields)} instead of {self.count} columns")
        if any(map(is_undecoded, fields)):
            return Row(problem="not UTF-8")
        second = None if self.text_pair is None else fields[self.text_pair]
        return Row(fields[self.text], second, None if self.label is None else fields[self.label].strip())

    def is_header(self, fields: Sequence[str]) -> bool:
        """Whether a first row says again what the columns are called. Raises DataError if it says otherwise."""
        found = [name.strip().casefold() for name in fields]
        if sorted(found) != self.named:
            return False
        if found != self.names:
            raise DataError(f"{self.file} has a header of its own, {','.join(found)}: leave --columns out")
        return True


def _describe_header(layout: Layout, header: Sequence[str], missing: str, rows: Iterator[Sequence[str]]) -> str:
    if layout.columns:
        return (
            f"--columns {','.join(header)} lacks {missing}: name the columns of {layout.file} in order, {missing} once"
        )
    if not any(header):
        return f"{layout.file} has no header: it needs one named {missing}, once"
    advice = "rename the column, or if the file has no header name its columns: --columns label,text"
    if len(set(header)) == len(header):
        looks_like = _find_columns(header, [fields for fields in _readable(rows) if len(fields) == len(header)])
        named = ",".join(looks_like.get(name, name) for name in header)
        said = " and ".join(f"{name[:SHOWN]} looks like the {role}s" for name, role in looks_like.items())
        advice = f"{said}: pass --columns {named}" if missing in looks_like.values() else advice
    return f"{layout.file} has the columns {_shorten(header)}: it needs one named {missing}, once; {advice}"


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_COLUMNS} more" if len(names) > NAMED_COLUMNS else ""
    return ", ".join(name[:SHOWN] for name in names[:NAMED_COLUMNS]) + more


def _readable(rows: Iterator[Sequence[str]]) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    with contextlib.suppress(csv.Error):
        found.extend(islice(rows, LOOKED_AT))
    return found


def _find_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """The column that looks like each of text and label, where none is named so.

    Labels: few short values, each in two rows or more on average. Texts: of the other columns the longest on average.
    """
    values = {name: [fields[place] for fields in rows] for place, name in enumerate(names)}
    found = {}
    if LABEL not in names:
        counts = {name: len(set(column)) for name, column in values.items() if name != TEXT and _repeats(column)}
        found.update({name: LABEL for name in sorted(counts, key=lambda name: counts[name])[:1]})
    if TEXT not in names and rows:
        others = [name for name in names if name != LABEL and name not in found]
        found.update({name: TEXT for name in sorted(others, key=lambda name: -sum(map(len, values[name])))[:1]})
    known = LABEL in names or LABEL in found.values()
    return {name: found[name] for name in names if name in found} if known else {}


def _repeats(column: Sequence[str]) -> bool:
    kinds = set(column)
    return 2 <= len(kinds) <= len(column) / 2 and max(map(len, kinds)) <= LONGEST_LABEL


def split_label(label: str | None, multi_label: bool) -> list[str]:
    """The names in one row's label; several only where several may hold."""
    if not multi_label:
        return [label] if label else []
    return [name.strip() for name in (label or "").split(SEPARATOR) if name.strip()]


def match_labels(
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
