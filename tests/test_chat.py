"""`pocketbert chat`: every keystroke labels the text anew, and leaving is one key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from pocketbert.runtime.chat import BARS, WIDTH, Chat, chat, screen
from pocketbert.runtime.classifier import Prediction
from pocketbert.runtime.errors import EngineError, PocketbertError

LABELS = ("long", "short")


class Classifier:
    """Finds texts long that have more than five letters, and remembers what it was asked."""

    manifest = SimpleNamespace(labels=LABELS)
    engine = SimpleNamespace(version="fake 1.0")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str) -> list[Prediction]:
        if text == "crash":
            raise EngineError("the engine is gone")
        self.asked.append(text)
        scores = {"long": 0.9, "short": 0.1} if len(text) > 5 else {"short": 0.75, "long": 0.25}
        return [Prediction(label, score) for label, score in scores.items()]


def typing(keys: str) -> Chat:
    """The chat after `keys`."""
    found = Chat(Classifier())  # type: ignore[arg-type]
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
        names = [text.strip() for _, text in typing(keys).bars()[::4]]
        assert names == list(LABELS)


def test_bars_are_as_long_as_the_scores():
    bars = typing("abc\x03").bars()
    filled = {bars[i][1].strip(): bars[i + 1][1] for i in (0, 4)}
    assert filled["short"].count("█") == round(0.75 * WIDTH)


def test_many_and_long_labels_fit():
    found = Chat(Classifier())  # type: ignore[arg-type]
    names = tuple(f"label {i} {'x' * 100}" for i in range(50))
    found.classifier = SimpleNamespace(manifest=SimpleNamespace(labels=names))  # type: ignore[assignment]
    found.predictions = [Prediction(name, 0.02) for name in names]
    text = "".join(part[1] for part in found.bars())
    assert text.count("\n") == BARS
    assert max(map(len, text.splitlines())) <= 60


def test_status_shows_engine_and_latency():
    found = typing("abc\x03")
    assert found.status().startswith("fake 1.0   text to labels ")
    assert " ms, median " in found.status()


def test_engine_that_fails_ends_the_chat_with_its_error():
    with pytest.raises(EngineError, match="the engine is gone"):
        typing("crash")


def test_chat_needs_a_terminal(tmp_path):
    with pytest.raises(PocketbertError, match="chat needs a terminal"):
        chat(tmp_path)
