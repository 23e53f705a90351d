"""Questions, the texts that answer them, and the answers: SQuAD's .json, or .jsonl with a question on each line.

Takes a file. Returns `Questions`. Leaves out: where in a text an answer stands, which its measures do not ask.

SQuAD: `{"data": [{"paragraphs": [{"context": ..., "qas": [{"question": ..., "answers": [{"text": ...}]}]}]}]}`, of both
versions; a question without an answer has none, or is_impossible. A line of .jsonl has `question`, `context` and
`answers`, which is a list of texts, or `{"text": [...]}` as Hugging Face's datasets write it.
https://rajpurkar.github.io/SQuAD-explorer/
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketbert.runtime.check.datasets import DataError, open_text

UNUSABLE = "without question, context or answers"


@dataclass(frozen=True)
class Questions:
    """Questions with the text that each is asked of, and all answers that count as right."""

    name: str  # the file's name
    texts: Sequence[str]  # the questions
    contexts: Sequence[str]
    answers: Sequence[Sequence[str]]  # none where the context has no answer
    rows: int  # usable questions in the file; more than `texts` under a limit
    skipped: Mapping[str, int]  # reason -> questions left out

    @property
    def has_unanswerable(self) -> bool:
        """Whether no answer is the right one somewhere."""
        return any(not answers for answers in self.answers)


Row = tuple[str, str, Sequence[str]]  # question, context, answers


def read_questions(file: str | Path, limit: int | None = None) -> Questions:
    """Reads `file`, the first `limit` usable questions of it. Raises DataError."""
    file = Path(file)
    readers = {".json": _read_squad, ".jsonl": _read_lines}
    if file.suffix.lower() not in readers:
        raise DataError(f"{file} is not {', '.join(readers)}: save questions as SQuAD does, or one on each line")
    rows: list[Row] = []
    skipped = Counter[str]()
    for found in readers[file.suffix.lower()](file):
        if isinstance(found, str):
            skipped[found] += 1
        else:
            rows.append(found)
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(f"no usable question in {file}: {reasons or 'it is empty'}")
    kept = rows[:limit]
    columns = zip(*kept, strict=True) if kept else ((), (), ())
    questions, contexts, answers = (list(column) for column in columns)
    return Questions(file.name, questions, contexts, answers, len(rows), dict(skipped))


def _read_squad(file: Path) -> Iterator[Row | str]:
    """Rows, and reasons why others are left out."""
    try:
        with open_text(file) as stream:
            content = json.load(stream)
        paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
        asked = [(paragraph["context"], question) for paragraph in paragraphs for question in paragraph["qas"]]
    except (ValueError, TypeError, LookupError, RecursionError) as problem:
        raise DataError(f"{file} is no SQuAD file: it has no data, paragraphs, context and qas ({problem})") from None
    for context, question in asked:
        yield _row(question, context)


def _read_lines(file: Path) -> Iterator[Row | str]:
    with open_text(file) as stream:
        for line in stream:
            if line.strip():
                try:
                    content = json.loads(line)
                    yield _row(content, content.get("context") if isinstance(content, dict) else None)
                except (ValueError, RecursionError):
                    yield "not JSON"


def _row(content: Any, context: Any) -> Row | str:
    if not isinstance(content, dict) or not isinstance(context, str):
        return UNUSABLE
    question, answers = content.get("question"), content.get("answers")
    listed = answers.get("text") if isinstance(answers, dict) else answers
    if content.get("is_impossible") is True:
        listed = []
    if not isinstance(question, str) or not isinstance(listed, list):
        return UNUSABLE
    texts = [answer.get("text") if isinstance(answer, dict) else answer for answer in listed]
    if not all(isinstance(text, str) for text in texts):
        return UNUSABLE
    return question, context, [text for text in texts if text]
