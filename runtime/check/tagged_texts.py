"""Texts whose words have tags, from a file of the CoNLL kind, or .jsonl with `tokens` and `tags`.

Takes a file and a bundle's labels. Returns `TaggedTexts`: each text is its words with a space between, as a tokenizer
would meet them, with the place of each word in it and its tag.
Leaves out: labelled texts (datasets.py), and tags of other schemes than the bundle's own.

The CoNLL kind: a word on each line, its tag in the last column, columns apart by tabs or spaces, an empty line between
texts. Files of it end in .conll, .bio, .iob2, .txt, .tsv or anything: all that is not .jsonl is read as one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pocketbert.runtime.check.datasets import DataError, match_labels, open_text
from pocketbert.runtime.text_encoding import is_undecoded

DOCUMENT = "-DOCSTART-"  # the first word of a line between documents, in the files of CoNLL-2003
TOKENS, TAGS = "tokens", "tags"


@dataclass(frozen=True)
class TaggedTexts:
    """Texts, and what each of their words is tagged."""

    name: str  # the file's name
    texts: Sequence[str]
    words: Sequence[Sequence[tuple[int, int]]]  # of each text: where its words begin and end, in code points
    tags: Sequence[Sequence[str]]  # of each text: labels of the bundle, one for each word
    rule: str  # how the file's tags were matched with the bundle's labels
    rows: int  # usable texts in the file; more than `texts` under a limit
    skipped: Mapping[str, int]  # reason -> texts left out


@dataclass(frozen=True)
class Sentence:
    """A text as the file has it, or the reason why it cannot be used."""

    words: Sequence[str] = ()
    tags: Sequence[str] = ()
    problem: str | None = None


def read_tagged_texts(
    file: str | Path, labels: Sequence[str], limit: int | None = None, owner: str = "the bundle"
) -> TaggedTexts:
    """Reads `file`, the first `limit` usable texts of it. `labels` are those that `owner` has. Raises DataError."""
    file = Path(file)
    read, skipped = _read(file), Counter[str]()
    sentences: list[Sentence] = []
    for sentence in read:
        if sentence.problem:
            skipped[sentence.problem] += 1
        else:
            sentences.append(sentence)
    if not sentences:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        found = reasons or "it is empty"
        raise DataError(
            f"no usable text in {file}: {found}; put a word on each line and its tag behind it, or use .jsonl"
        )
    rule, index = match_labels(file, [sentence.tags for sentence in sentences], labels, owner)
    kept = sentences[:limit]
    return TaggedTexts(
        name=file.name,
        texts=[" ".join(sentence.words) for sentence in kept],
        words=[_places(sentence.words) for sentence in kept],
        tags=[[labels[index[tag]] for tag in sentence.tags] for sentence in kept],
        rule=rule,
        rows=len(sentences),
        skipped=dict(skipped),
    )


def _read(file: Path) -> Iterator[Sentence]:
    reader = _read_jsonl if file.suffix.lower() == ".jsonl" else _read_columns
    with open_text(file) as stream:
        yield from reader(stream)


def _read_columns(stream: TextIO) -> Iterator[Sentence]:
    lines: list[str] = []
    for line in [*stream, ""]:
        if line.strip():
            lines.append(line.rstrip("\r\n"))
        elif lines:
            if not lines[0].startswith(DOCUMENT):
                yield _sentence(lines)
            lines = []


def _sentence(lines: Sequence[str]) -> Sentence:
    if any(map(is_undecoded, lines)):
        return Sentence(problem="not UTF-8")
    columns = [line.split("\t") if "\t" in line else line.split(" ") for line in lines]
    fields = [[field.strip() for field in (row[0], row[-1])] for row in columns]
    if any(len(row) == 1 for row in columns) or not all(word and tag for word, tag in fields):
        return Sentence(problem="with a word without tag")
    return Sentence([word for word, _ in fields], [tag for _, tag in fields])


def _read_jsonl(stream: TextIO) -> Iterator[Sentence]:
    for line in stream:
        if line.strip():
            try:
                yield _object(json.loads(line))
            except (ValueError, RecursionError):
                yield Sentence(problem="not JSON")


def _object(content: Any) -> Sentence:
    words, tags = (_texts(content.get(key)) if isinstance(content, dict) else [] for key in (TOKENS, TAGS))
    if not words or len(words) != len(tags):
        return Sentence(problem=f"without as many {TAGS} as {TOKENS}")
    return Sentence(words, tags)


def _texts(values: Any) -> list[str]:
    """A list of texts, or an empty one for anything else."""
    are_texts = isinstance(values, list) and all(isinstance(value, str) and value.strip() for value in values)
    return values if are_texts else []


def _places(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where each word stands once they are joined by spaces."""
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return places
