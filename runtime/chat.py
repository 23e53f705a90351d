"""`pocketbert chat`: type a text and watch its labels change with each keystroke.

Takes a bundle. Gives a full-screen terminal: a line to type in, a bar for each label, and the milliseconds from
text to labels. Leaves out: keeping what was typed.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.runtime.errors import EngineError, PocketbertError

if TYPE_CHECKING:
    from prompt_toolkit.application import Application
    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from pocketbert.runtime.classifier import Classifier, Prediction

BARS = 8  # labels shown: what fits a small terminal
WIDTH = 30  # of a full bar, in characters
NAME = 20  # characters of a label
REMEMBERED = 200  # keystrokes of which the median latency is taken
MILLISECONDS = 1000
ESCAPE_SECONDS = 0.05  # to tell Esc from the arrow keys, which begin with it


class Chat:
    """What was typed, how it is labelled, and how long that took."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.predictions: list[Prediction] = []
        self.latencies: deque[float] = deque(maxlen=REMEMBERED)  # ms
        self.label("")  # the first run warms the engine up
        self.latencies.clear()

    def label(self, text: str) -> None:
        """Labels `text` anew."""
        started = time.perf_counter()
        self.predictions = self.classifier(text)
        self.latencies.append((time.perf_counter() - started) * MILLISECONDS)

    def bars(self) -> StyleAndTextTuples:
        """A line for each of the best labels, in the bundle's order: a list that jumps cannot be read."""
        lines: StyleAndTextTuples = []
        best, order = self.predictions[0], self.classifier.manifest.labels.index
        for prediction in sorted(self.predictions[:BARS], key=lambda prediction: order(prediction.label)):
            filled = round(prediction.score * WIDTH)
            style = "bold" if prediction is best else ""
            name = prediction.label if len(prediction.label) <= NAME else f"{prediction.label[: NAME - 1]}…"
            lines.append((style, f"{name:<{NAME}} "))
            lines.append(("ansigreen" if prediction is best else "ansiblue", "█" * filled))
            lines.append(("ansibrightblack", "░" * (WIDTH - filled)))
            lines.append((style, f" {prediction.score:6.1%}\n"))
        return lines

    def status(self) -> str:
        """The engine, and the latency once there is one."""
        speed = ""
        if self.latencies:
            last, median = self.latencies[-1], statistics.median(self.latencies)
            speed = f"   text to labels {last:.1f} ms, median {median:.1f} ms"
        return f"{self.classifier.engine.version}{speed}   Enter clears, Esc leaves"


def chat(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by `pocketbert export`.")],
    engine: Annotated[
        str | None, typer.Option(help="tflite, executorch or coreml; the best installed by default.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 2,
) -> None:
    """Watch the labels change while you type."""
    import sys

    from pocketbert.runtime.classifier import Classifier

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PocketbertError("chat needs a terminal: use `pocketbert classify` in scripts")
    with Classifier.open(bundle, engine, threads) as classifier:
        screen(Chat(classifier)).run()


def screen(chat: Chat) -> Application[None]:
    """The full-screen application around `chat`."""
    try:
        from prompt_toolkit.application import Application
        from prompt_toolkit.buffer import Buffer
        from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
    except ImportError:
        raise EngineError("chat needs prompt_toolkit: pip install 'pocketbert[chat]'") from None

    def relabel(buffer: Buffer) -> None:
        try:
            chat.label(buffer.text)
        except PocketbertError as problem:  # the screen is left before the command line says it
            application.exit(exception=problem)

    typed = Buffer(on_text_changed=relabel, multiline=False)
    rows = [
        Window(FormattedTextControl([("bold", "Type a text:")]), height=1),
        Window(BufferControl(typed), wrap_lines=True, dont_extend_height=True),
        Window(height=1),
        Window(FormattedTextControl(chat.bars)),
        Window(FormattedTextControl(chat.status), height=1, style="reverse"),
    ]
    layout = Layout(HSplit(rows), focused_element=rows[1])
    application: Application[None] = Application(layout, key_bindings=_keys(), full_screen=True)
    application.ttimeoutlen = ESCAPE_SECONDS
    return application


def _keys() -> Any:
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _start_anew(event: KeyPressEvent) -> None:
        event.current_buffer.text = ""

    @keys.add("escape")
    @keys.add("c-c")
    @keys.add("c-d")
    def _leave(event: KeyPressEvent) -> None:
        event.app.exit()

    return keys
