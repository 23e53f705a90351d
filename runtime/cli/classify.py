"""`pocketbert classify`: a line for each text with its best label, its entities, or the answer to it.

Takes texts as arguments or as lines of stdin, in any encoding of Unicode; a second text comes from --text-pair, or in a
line of stdin behind a tab. Prints text, or JSON with every label's probability. Where the answers go elsewhere than to
the terminal, a bar there shows how far it is.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from io import BufferedReader
from itertools import chain
from typing import Annotated, Any, cast

import typer

from pocketbert.runtime.classifier import Classifier
from pocketbert.runtime.cli.arguments import Bundle, EngineName, TextPair, Threads
from pocketbert.runtime.cli.progress import Bars
from pocketbert.runtime.errors import PocketbertError, PocketbertWarning
from pocketbert.runtime.model import DEFAULT_THREADS, Model
from pocketbert.runtime.progress import Progress
from pocketbert.runtime.question_answerer import QuestionAnswerer
from pocketbert.runtime.tasks import open_model
from pocketbert.runtime.text_encoding import SAMPLE, decode_lines, detect_encoding, is_undecoded
from pocketbert.runtime.token_classifier import TokenClassifier

STAGE = "labelling"
CHUNK = 1 << 20  # bytes
NOTHING = "-"
HALF = 0.5  # where several labels may hold, those above it are shown


def classify(
    bundle: Bundle,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, a line of stdin each.")] = None,
    text_pair: TextPair = None,
    engine: EngineName = None,
    threads: Threads = DEFAULT_THREADS,
    allow_none: Annotated[
        bool, typer.Option("--allow-none", help="Let a question have no answer, if the model was trained so.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Label texts, find their entities, or answer questions, with a bundle."""
    with open_model(bundle, engine, threads) as model, _progress(bool(texts)) as progress:
        answer = _answerer(model, allow_none)
        progress.start(STAGE, None if texts else _count_lines())
        for text, second in _pairs(texts, text_pair, model):
            found, shown = answer(text, second)
            asked = {"text": text} if second is None else {"text": text, "text_pair": second}
            print(json.dumps({**asked, **found}) if as_json else "\t".join([shown, *asked.values()]))
            sys.stdout.flush()  # a pipe wants each answer as soon as it is there
            progress.advance(STAGE)


def _pairs(texts: list[str] | None, text_pair: str | None, model: Model) -> Iterator[tuple[str, str | None]]:
    """Each text with its second one. Raises PocketbertError for a question without the text to answer it from."""
    asks = isinstance(model, QuestionAnswerer)
    for text in texts or _lines():
        first, tab, behind = text.partition("\t") if model.manifest.pairs and not texts else (text, "", "")
        second = behind if tab else text_pair
        if asks and second is None:
            raise PocketbertError(
                "a question needs the text to answer it from: --text-pair, or a tab behind the question"
            )
        yield first, second


def _answerer(model: Model, allow_none: bool) -> Callable[[str, str | None], tuple[dict[str, Any], str]]:
    """What a model says to a text and a second one: for JSON, and to read."""
    if isinstance(model, TokenClassifier):
        return partial(_find_entities, model)
    if isinstance(model, QuestionAnswerer):
        return partial(_answer, model, allow_none)
    return partial(_label, cast(Classifier, model))


def _label(classifier: Classifier, text: str, second: str | None) -> tuple[dict[str, Any], str]:
    """The best label, or with several possible labels those over one half."""
    found = classifier(text, second)
    chosen = [one for one in found if one.score > HALF] if classifier.manifest.multi_label else found[:1]
    return {"predictions": [asdict(one) for one in found]}, _join(f"{one.label} {one.score:.3f}" for one in chosen)


def _find_entities(classifier: TokenClassifier, text: str, second: str | None) -> tuple[dict[str, Any], str]:
    if second is not None:
        raise PocketbertError("entities are found in one text at a time: leave --text-pair out")
    found = classifier(text)
    return {"entities": [asdict(one) for one in found]}, _join(
        f"{one.text}: {one.label} {one.score:.3f}" for one in found
    )


def _answer(
    answerer: QuestionAnswerer, allow_none: bool, question: str, text: str | None
) -> tuple[dict[str, Any], str]:
    found = answerer(question, text or "", allow_none=allow_none)
    return {"answer": found and asdict(found)}, _join([f"{found.text} {found.score:.3f}"] if found else [])


def _join(found: Iterable[str]) -> str:
    return ", ".join(found) or NOTHING


def _progress(has_texts: bool) -> AbstractContextManager[Progress]:
    """A bar on stderr where answers do not show by themselves how far it is."""
    if has_texts or sys.stdout.isatty() or sys.stderr is None or not sys.stderr.isatty():
        return nullcontext(Progress())
    from rich.console import Console

    return Bars(Console(stderr=True))


def _count_lines() -> int | None:
    """How many lines stdin has; None where only reading them would tell."""
    if sys.stdin is None or not sys.stdin.seekable():
        return None
    stream, start = sys.stdin.buffer, sys.stdin.buffer.tell()
    count = sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(CHUNK), b""))
    stream.seek(start)
    return count


def _lines() -> Iterator[str]:
    """The lines of stdin, without their ends; a broken character becomes U+FFFD.

    Raises PocketbertError for a stdin that is closed or in no encoding of Unicode.
    """
    if sys.stdin is None:
        raise PocketbertError("stdin is closed: pass texts as arguments")
    stream, broken = cast(BufferedReader, sys.stdin.buffer), 0
    arrived = stream.peek()[:SAMPLE].rpartition(b"\n")[0]  # without waiting for more than the first line
    first = stream.readline()
    codec = detect_encoding(max(arrived, first, key=len))
    if codec is None:
        raise PocketbertError("stdin is in no Unicode encoding: convert it to UTF-8, as iconv -f LATIN1 -t UTF-8 does")
    for text in decode_lines(chain([first], stream), codec):
        broken += is_undecoded(text)
        yield text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if is_undecoded(text) else text
    if broken:
        warnings.warn(f"{broken} lines hold bytes that are no UTF-8, read as U+FFFD", PocketbertWarning, stacklevel=2)
