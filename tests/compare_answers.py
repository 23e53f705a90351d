"""Compares our answers with the frozen ones of transformers 4: those of the contract, or a file of the user's own.

    python tests/compare_answers.py FILE TOKENIZER.json

FILE is as tests/freeze_answers.py writes it. Prints how many answers are equal, and those that are not; ends with
status 1 if any is. Scores may differ by 1e-5, places by nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.runtime.question_answerer import Answer, find_answer
from pocketbert.runtime.tokenizer import Encoding, Tokenizer

SCORE = 1e-5  # by which a score may differ
SPECIAL = (0, 0, None)


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


def as_encodings(case: dict[str, Any]) -> list[Encoding]:
    """The windows of a case, whose ids and pieces no rule looks at."""
    return [_as_encoding(case["question_tokens"], case["tokens"][begin:end]) for begin, end in case["windows"]]


def _as_encoding(question: int, tokens: list[Any]) -> Encoding:
    rows = [SPECIAL, *[SPECIAL] * question, SPECIAL, *tokens, SPECIAL]
    sequences = (None, *[0] * question, None, *[1] * len(tokens), None)
    offsets = np.array([row[:2] for row in rows], np.int32)
    return Encoding(np.zeros(len(rows), np.int32), offsets, tuple(row[2] for row in rows), sequences, ("",) * len(rows))


def answers(case: dict[str, Any]) -> Iterator[tuple[Answer | None, list[Any] | None]]:
    """What we answer, and what transformers does, for each of a case's settings."""
    windows = as_encodings(case)
    logits = [np.array(pair, np.float32).T for pair in zip(case["start"], case["end"], strict=True)]
    for longest, allow_none, expected in case["answers"]:
        yield find_answer(case["text"], windows, logits, longest, allow_none), expected


def is_equal(found: Answer | None, expected: list[Any] | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return [found.start, found.end] == expected[:2] and abs(found.score - expected[2]) <= SCORE


def cut_alike(case: dict[str, Any], tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer, made for the case's max_length, cuts the same windows of the same tokens."""
    found = tokenizer.encode_windows(case["question"], case["text"], case["stride"])
    expected = [(each.offsets.tolist(), each.word_ids) for each in map(_text_alone, as_encodings(case))]
    return [(each.offsets.tolist(), each.word_ids) for each in map(_text_alone, found)] == expected


def _text_alone(window: Encoding) -> Encoding:
    return window.take([place for place, sequence in enumerate(window.sequence_ids) if sequence == 1])


def main() -> None:
    file, tokenizer = map(Path, sys.argv[1:])
    cases = read(file)
    tokenizers = {length: Tokenizer(tokenizer, length) for length in {case["max_length"] for case in cases}}
    windows = [cut_alike(case, tokenizers[case["max_length"]]) for case in cases]
    equal = [(case, *pair, is_equal(*pair)) for case in cases for pair in answers(case)]
    for case, found, expected, same in equal:
        if not same:
            print(f"{case['question']!r}: {found}, not {expected}")
    right, several = sum(same for *_, same in equal), sum(len(case["windows"]) > 1 for case in cases)
    none = sum(expected is None for _, _, expected, _ in equal)
    print(f"{right} of {len(equal)} answers are equal ({none} are none); {sum(windows)} of {len(cases)} texts are cut "
          f"alike ({several} into several windows)")  # fmt: skip
    sys.exit(0 if right == len(equal) and all(windows) else 1)


if __name__ == "__main__":
    main()
