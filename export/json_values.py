"""A checkpoint's JSON files, read value by value: each is what it must be, or is refused by name in one line.

Takes a file, or an object read already. Returns `JsonObject`, whose methods are the only way to a value.
Leaves out: which keys there are (architectures.py, tokenizer/load.py). No value is believed before it was looked at: a
file that someone published can say anything, and a size in it decides how much memory is taken.
"""

from __future__ import annotations

import json
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import read_regular

LARGEST = 1 << 28  # bytes of a JSON file: the tokenizer of a vocabulary of millions fits

UNSHOWABLE = ("Cc", "Cs")  # Unicode's categories of controls, and of halves of a pair, which no UTF-8 can hold


class JsonError(PocketbertError):
    """A file is no JSON object, or a value in it is not what it must be; the message names it."""


class JsonObject:
    """A JSON object; `name` is its file's, for messages. A key that is absent or null has its default."""

    def __init__(self, content: Mapping[str, Any], name: str) -> None:
        self.content, self.name = content, name

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """An integer from `least` to `most`. Raises JsonError, also where there is neither a value nor a default."""
        value = self._get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(key, value, f"an integer from {least} to {most}")
        return value

    def share(self, key: str, default: float | None = None) -> float:
        """A number between 0 and 1, neither of them."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1:  # comparisons with NaN fail
            raise self._wrong(key, value, "a number between 0 and 1")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        found = self.optional_flag(key)
        return default if found is None else found

    def optional_flag(self, key: str) -> bool | None:
        """true, false, or None where nothing is said."""
        value = self.content.get(key)
        if value is not None and type(value) is not bool:
            raise self._wrong(key, value, "true or false")
        return value

    def choice(self, key: str, allowed: Collection[str], default: str | None = None) -> str:
        """One of the words in `allowed`."""
        value = self._get(key, default)
        if type(value) is not str or value not in allowed:
            raise JsonError(f"{key} {reprlib.repr(value)} is not supported: use {', '.join(allowed)}")
        return value

    def token(self, key: str, default: str) -> str:
        """A special token's text: it is there as it is, or as the `content` of an object."""
        value = self._get(key, default)
        text = value.get("content") if isinstance(value, dict) else value
        if not is_text(text):
            raise self._wrong(key, value, "a token")
        return text

    def names(self, key: str) -> tuple[str, ...] | None:
        """What an object of "0", "1", ... says, in that order; None where there is none. Numbers may be names."""
        value = self.content.get(key)
        if value is None:
            return None
        if not isinstance(value, dict) or not value:
            raise self._wrong(key, value, 'an object with the keys "0", "1", ...')
        named = {str(index): name for index, name in value.items()}
        found = tuple(self._name(key, named, index) for index in range(len(named)))
        twice = [name for name, times in Counter(found).items() if times > 1]
        if twice:
            raise JsonError(f"{key} in {self.name} has {reprlib.repr(twice[0])} twice: give each a name of its own")
        return found

    def texts(self, key: str) -> Mapping[str, str]:
        """An object of texts."""
        value = self._get(key, {})
        if not isinstance(value, dict) or not all(is_text(text) for text in value.values()):
            raise self._wrong(key, value, "an object of texts")
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self.content.get(key)
        if value is None and default is None:
            raise JsonError(f"{self.name} has no {key!r}")
        return default if value is None else value

    def _name(self, key: str, named: Mapping[str, Any], index: int) -> str:
        if str(index) not in named:
            raise JsonError(f"{key} in {self.name} has no entry for {index}")
        name = named[str(index)]
        if type(name) is not int and not is_text(name):
            raise self._wrong(f"{key}[{index}]", name, "a name")
        return str(name)

    def _wrong(self, key: str, value: Any, wanted: str) -> JsonError:
        return JsonError(f"{key} {reprlib.repr(value)} in {self.name} is not {wanted}")


def is_text(value: Any) -> TypeGuard[str]:
    """Whether `value` is a text that a terminal can show and a file can hold: not empty, no control characters."""
    return isinstance(value, str) and value != "" and not any(unicodedata.category(c) in UNSHOWABLE for c in value)


def read_object(file: Path) -> JsonObject:
    """The object that a JSON file holds. Raises JsonError; FileNotFoundError where there is none."""
    try:
        content = json.loads(read_regular(file, LARGEST).decode("utf-8"))
    except FileNotFoundError:
        raise
    except RecursionError:
        raise JsonError(f"cannot read {file.name}: it is nested too deep") from None
    except (OSError, ValueError) as problem:
        raise JsonError(f"cannot read {file.name}: {problem}") from problem
    if not isinstance(content, dict):
        raise JsonError(f"cannot read {file.name}: not a JSON object")
    return JsonObject(content, file.name)
