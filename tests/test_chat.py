"""`pocketbert chat`: every keystroke labels the text anew, and leaving is one key."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.cells import cell_len

from pocketbert.runtime.classifier import Prediction
from pocketbert.runtime.cli.chat import BARS, MARKED, UNDERLINED, WIDTH, LabelChat, chat, screen, start, underline
from pocketbert.runtime.errors import EngineError, PocketbertError
from pocketbert.runtime.question_answerer import Answer, QuestionAnswerer
from pocketbert.runtime.token_classifier import Entity, TokenClassifier

LABELS = ("long", "short")


class Classifier:
    """Finds texts long that have more than five letters, and remembers what it was asked."""

    manifest = SimpleNamespace(labels=LABELS)
    engine = SimpleNamespace(version="fake 1.0")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str, text_pair: str | None = None) -> list[Prediction]:
        if text == "crash":
            raise EngineError("the engine is gone")
        self.asked.append(text)
        scores = {"long": 0.9, "short": 0.1} if len(text) > 5 else {"short": 0.75, "long": 0.25}
        return [Prediction(label, score) for label, score in scores.items()]


def typing(keys: str) -> LabelChat:
    """The chat after `keys`."""
    found = LabelChat(Classifier())  # type: ignore[arg-type]
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        screen(found).run()
    return found


@pytest.mark.parametrize("leave", ["\x1b", "\x03", "\x04"])
def test_every_keystroke_is_labelled(leave):
    found: Any = typing(f"ab\x7fcdefg{leave}")
    assert found.classifier.asked == ["", "a", "ab", "a", "ac", "acd", "acde", "acdef", "acdefg"]
    assert found.predictions[0].label == "long"
    assert len(found.latencies) == 8


def test_arrow_keys_do_not_leave():
    found: Any = typing("ab\x1b[Dc\x03")
    assert found.classifier.asked[-1] == "acb"


def test_enter_starts_anew():
    found: Any = typing("abcdefg\rx\x03")
    assert found.classifier.asked[-1] == "x"


def test_bars_keep_the_order_of_the_labels():
    for keys in ("abc\x03", "abcdefg\x03"):
        names = [text.strip() for _, text in typing(keys).lines()[::4]]
        assert names == list(LABELS)


def test_bars_are_as_long_as_the_scores():
    bars = typing("abc\x03").lines()
    filled = {bars[i][1].strip(): bars[i + 1][1] for i in (0, 4)}
    assert filled["short"].count("█") == round(0.75 * WIDTH)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("letters", [1, 30, 55, 100])
def test_labels_are_never_cut(columns, letters):
    found = LabelChat(Classifier())  # type: ignore[arg-type]
    names = tuple(f"label {i} {'映' * (letters // 2)}" for i in range(50))  # two cells wide each
    found.classifier = SimpleNamespace(manifest=SimpleNamespace(labels=names))  # type: ignore[assignment]
    found.predictions = [Prediction(name, 0.02) for name in names]
    lines = "".join(part[1] for part in found.lines(columns)).splitlines()
    assert [line for line in lines if "2.0%" in line] == [line for line in lines if "░" in line]
    assert sum("2.0%" in line for line in lines) == BARS
    assert all(any(line.startswith(name) for line in lines) for name in names[:BARS])
    assert max(cell_len(line) for line in lines if "░" in line) <= columns


def test_status_shows_engine_and_latency():
    found = typing("abc\x03")
    assert found.status().startswith("fake 1.0   text to labels ")
    assert " ms, median " in found.status()
    assert max(map(len, found.status().replace("fake 1.0", "ai-edge-litert 2.3.0").splitlines())) <= 80


def test_engine_that_fails_ends_the_chat_with_its_error():
    with pytest.raises(EngineError, match="the engine is gone"):
        typing("crash")


class Finder(TokenClassifier):
    """Finds each word that begins with a capital letter."""

    engine = SimpleNamespace(version="fake 1.0")  # type: ignore[assignment]

    def __init__(self) -> None:
        pass

    def __call__(self, text: str, strategy: str = "first") -> list[Entity]:
        words = re.finditer(r"\b[A-Z]\w*", text)
        return [Entity("name", word.group(), word.start(), word.end(), 0.9) for word in words]


class Answerer(QuestionAnswerer):
    """Answers with the word that begins as the question does."""

    engine = SimpleNamespace(version="fake 1.0")  # type: ignore[assignment]

    def __init__(self) -> None:
        pass

    def __call__(self, question: str, text: str, *more: Any, **options: Any) -> Answer | None:
        start = text.find(f" {question[:1]}") + 1
        end = text.find(" ", start)
        return Answer(text[start:end], start, end, 0.5) if start else None


def shown(parts: Any) -> list[tuple[str, str]]:
    """What has a style of its own."""
    return [(style, text) for style, text in parts if style and text]


def test_entities_are_underlined_while_they_are_typed() -> None:
    found = start(Finder(), None)
    found.answer("so Emma met Al")
    assert shown(underline("so Emma met Al", found.entities())) == [(UNDERLINED, "Emma"), (UNDERLINED, "Al")]
    assert "".join(text for _, text in underline("so Emma met Al", found.entities())) == "so Emma met Al"
    lines = "".join(text for _, text in found.lines()).splitlines()
    assert lines == ["Emma  name 90.0%", "Al  name 90.0%"]
    found.answer("so")
    assert "no entities" in found.lines()[0][1]


def test_the_screen_underlines_the_line_that_is_typed() -> None:
    found = start(Finder(), None)
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text("so Emma\x03")
        application = screen(found)
        application.run()
        control = application.layout.current_control
        drawn = control.lexer.lex_document(control.buffer.document)(0)
    assert shown(drawn) == [(UNDERLINED, "Emma")]


def test_the_answer_is_marked_in_the_text() -> None:
    text = "Anna lives in Oslo since May "
    found = start(Answerer(), text)
    assert shown(found.lines()) == []  # nothing was asked yet
    found.answer("Oh where?")
    assert "".join(part for _, part in found.lines()).startswith(text)
    assert shown(found.lines()) == [(MARKED, "Oslo"), (MARKED, "Oslo")]
    found.answer("Zzz?")
    assert shown(found.lines()) == []


def test_a_second_text_is_asked_for_where_it_is_needed_and_refused_where_it_is_not() -> None:
    with pytest.raises(PocketbertError, match="pass it as --text-pair"):
        start(Answerer(), None)
    with pytest.raises(PocketbertError, match="leave --text-pair out"):
        start(Finder(), "a text")


def test_chat_needs_a_terminal(tmp_path):
    with pytest.raises(PocketbertError, match="chat needs a terminal"):
        chat(tmp_path)
