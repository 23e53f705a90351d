"""`pocketbert chat`: type a text and watch its labels, its entities or its answer change with each keystroke.

Takes a bundle, and where a text is one of two the second. Draws a full-screen terminal: a line to type in, in which
entities are underlined; a bar for each label, a line for each entity, or the text with the answer marked; and the
milliseconds that it took. Leaves out: keeping what was typed.
"""

from __future__ import annotations

import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from pocketbert.runtime.classifier import Classifier
from pocketbert.runtime.cli.arguments import Bundle, EngineName, TextPair, Threads
from pocketbert.runtime.errors import EngineError, PocketbertError
from pocketbert.runtime.model import DEFAULT_THREADS, Model
from pocketbert.runtime.question_answerer import QuestionAnswerer
from pocketbert.runtime.tasks import open_model
from pocketbert.runtime.token_classifier import TokenClassifier

if TYPE_CHECKING:
    from prompt_toolkit.application import Application
    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from pocketbert.runtime.classifier import Prediction
    from pocketbert.runtime.question_answerer import Answer
    from pocketbert.runtime.token_classifier import Entity

BARS = 8  # labels shown: what fits a small terminal
WIDTH, SHORTEST_BAR = 30, 10  # of a full bar, in characters
NAME = 20  # characters that a label has at least
SCORE = 9  # characters for a percentage and what is between it, the bar and the name
COLUMNS, STATUS_LINES = 80, 2  # of a terminal
REMEMBERED = 200  # keystrokes of which the median latency is taken
MILLISECONDS = 1000
ENTITIES = 8  # listed
UNDERLINED, MARKED = "underline ansigreen", "bold ansigreen"
ESCAPE_SECONDS = 0.05  # to tell Esc from the arrow keys, which begin with it


class Chat(ABC):
    """What was typed, what is said to it, and how long that took."""

    prompt = "Type a text:"
    done = "text to labels"  # what is timed

    def __init__(self, model: Model) -> None:
        self.model = model
        self.latencies: deque[float] = deque(maxlen=REMEMBERED)  # ms
        self.answer("")  # the first run warms the engine up
        self.latencies.clear()

    def answer(self, text: str) -> None:
        """Answers `text` anew."""
        started = time.perf_counter()
        self.ask(text)
        self.latencies.append((time.perf_counter() - started) * MILLISECONDS)

    @abstractmethod
    def ask(self, text: str) -> None:
        """Runs the model, and keeps what it says."""

    @abstractmethod
    def lines(self, columns: int = COLUMNS) -> StyleAndTextTuples:
        """What is shown below the text."""

    def entities(self) -> Sequence[Entity]:
        """What to underline in the text."""
        return ()

    def status(self) -> str:
        """The engine, the latency once there is one, and the keys, on a line each."""
        speed = ""
        if self.latencies:
            last, median = self.latencies[-1], statistics.median(self.latencies)
            speed = f"   {self.done} {last:.1f} ms, median {median:.1f} ms"
        return f"{self.model.engine.version}{speed}\nEnter clears, Esc leaves"


class LabelChat(Chat):
    """Labels, with a bar each."""

    def __init__(self, classifier: Classifier, text_pair: str | None = None) -> None:
        self.classifier, self.text_pair = classifier, text_pair
        self.predictions: list[Prediction] = []
        super().__init__(classifier)

    def ask(self, text: str) -> None:
        self.predictions = self.classifier(text, self.text_pair)

    def lines(self, columns: int = COLUMNS) -> StyleAndTextTuples:
        """A line for each of the best labels, in the bundle's order: a list that jumps cannot be read.

        Names are never cut: bars give way to long ones, and those that are longer still have a line of their own.
        """
        lines: StyleAndTextTuples = []
        best, order = self.predictions[0], self.classifier.manifest.labels.index
        shown = sorted(self.predictions[:BARS], key=lambda prediction: order(prediction.label))
        longest = columns - SHORTEST_BAR - SCORE
        name_width = max([NAME, *(cell_len(one.label) for one in shown if cell_len(one.label) <= longest)])
        bar = max(SHORTEST_BAR, min(WIDTH, columns - SCORE - name_width))
        for prediction in shown:
            filled = round(prediction.score * bar)
            style = "bold" if prediction is best else ""
            space = name_width - cell_len(prediction.label)
            lines.append(
                (style, prediction.label + (" " * (space + 1) if space >= 0 else "\n" + " " * (name_width + 1)))
            )
            lines.append(("ansigreen" if prediction is best else "ansiblue", "█" * filled))
            lines.append(("ansibrightblack", "░" * (bar - filled)))
            lines.append((style, f" {prediction.score:6.1%}\n"))
        return lines


class EntityChat(Chat):
    """Entities: underlined in the text, and listed in its order."""

    done = "text to entities"

    def __init__(self, classifier: TokenClassifier) -> None:
        self.classifier = classifier
        self.found: list[Entity] = []
        super().__init__(classifier)

    def ask(self, text: str) -> None:
        self.found = self.classifier(text)

    def entities(self) -> Sequence[Entity]:
        return self.found

    def lines(self, columns: int = COLUMNS) -> StyleAndTextTuples:
        lines: StyleAndTextTuples = []
        for entity in self.found[:ENTITIES]:
            lines += [(UNDERLINED, entity.text), ("bold", f"  {entity.label}"), ("", f" {entity.score:.1%}\n")]
        if len(self.found) > ENTITIES:
            lines.append(("ansibrightblack", f"and {len(self.found) - ENTITIES} more\n"))
        return lines or [("ansibrightblack", "no entities\n")]


class AnswerChat(Chat):
    """The text that questions are asked of, with the answer marked in it."""

    prompt = "Type a question:"
    done = "question to answer"

    def __init__(self, answerer: QuestionAnswerer, text: str) -> None:
        self.answerer, self.text = answerer, text
        self.found: Answer | None = None
        super().__init__(answerer)

    def ask(self, text: str) -> None:
        found = self.answerer(text, self.text)
        self.found = found if text.strip() else None

    def lines(self, columns: int = COLUMNS) -> StyleAndTextTuples:
        if self.found is None:
            return [("", self.text)]
        start, end = self.found.start, self.found.end
        parts = [("", self.text[:start]), (MARKED, self.text[start:end]), ("", f"{self.text[end:]}\n\n")]
        return [*parts, (MARKED, self.found.text), ("", f" {self.found.score:.1%}")]


def chat(
    bundle: Bundle, text_pair: TextPair = None, engine: EngineName = None, threads: Threads = DEFAULT_THREADS
) -> None:
    """Watch labels, entities or answers change while you type."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PocketbertError("chat needs a terminal: use `pocketbert classify` in scripts")
    with open_model(bundle, engine, threads) as model:
        screen(start(model, text_pair)).run()


def start(model: Model, text_pair: str | None) -> Chat:
    """The chat for a model's task. Raises PocketbertError where the second text is missing, or one too many."""
    if isinstance(model, QuestionAnswerer):
        if not text_pair:
            raise PocketbertError("a question needs the text to answer it from: pass it as --text-pair")
        return AnswerChat(model, text_pair)
    if isinstance(model, TokenClassifier):
        if text_pair is not None:
            raise PocketbertError("entities are found in one text at a time: leave --text-pair out")
        return EntityChat(model)
    assert isinstance(model, Classifier)
    return LabelChat(model, text_pair)


def screen(chat: Chat) -> Application[None]:
    """The full-screen application around `chat`."""
    try:
        from prompt_toolkit.application import Application, get_app
        from prompt_toolkit.buffer import Buffer
        from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
    except ImportError:
        raise EngineError("chat needs prompt_toolkit: pip install 'pocketbert[chat]'") from None

    def answer(buffer: Buffer) -> None:
        try:
            chat.answer(buffer.text)
        except PocketbertError as problem:  # the screen is left before the command line says it
            application.exit(exception=problem)

    typed = Buffer(on_text_changed=answer, multiline=False)
    rows = [
        Window(FormattedTextControl([("bold", chat.prompt)]), height=1),
        Window(BufferControl(typed, lexer=_underline(chat)), wrap_lines=True, dont_extend_height=True),
        Window(height=1),
        Window(FormattedTextControl(lambda: chat.lines(get_app().output.get_size().columns)), wrap_lines=True),
        Window(FormattedTextControl(chat.status), height=STATUS_LINES, style="reverse", wrap_lines=True),
    ]
    layout = Layout(HSplit(rows), focused_element=rows[1])
    application: Application[None] = Application(layout, key_bindings=_keys(), full_screen=True)
    application.ttimeoutlen = ESCAPE_SECONDS
    return application


def _underline(chat: Chat) -> Any:
    """Styles the one line that is typed by the entities in it."""
    from prompt_toolkit.lexers import Lexer

    class EntityLexer(Lexer):
        def lex_document(self, document: Any) -> Any:
            return lambda line: underline(document.text, chat.entities())

        def invalidation_hash(self) -> Any:
            return tuple(chat.entities())  # a text may be drawn before it is answered

    return EntityLexer()


def underline(text: str, entities: Sequence[Entity]) -> StyleAndTextTuples:
    """A text in parts, those of entities underlined."""
    parts: StyleAndTextTuples = []
    behind = 0
    for entity in entities:
        parts += [("", text[behind : entity.start]), (UNDERLINED, text[entity.start : entity.end])]
        behind = entity.end
    return [*parts, ("", text[behind:])]


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
