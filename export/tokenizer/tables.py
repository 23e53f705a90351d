"""A tokenizer as tables that any phone can walk: tokenizer.safetensors, beside tokenizer.json in a bundle.

Takes a `tokenizers.Tokenizer`. Returns a program (which steps, in which order; JSON) and the arrays it names, in one
safetensors file. runtime/contract/BUNDLE.md describes both for programmers of any language.
Leaves out: running them, which android_demo/core does. A part that the tables cannot say is refused by name.

Why not tokenizer.json alone: it names parts ("NFKD", "Lowercase", "WhitespaceSplit") and leaves their meaning to the
Unicode tables of the library that reads it. Each phone has its own. Here the library's answers travel along, and what
is left to write in each language is a few dozen lines per step. Reading also takes milliseconds, as nothing is built.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pocketbert.export.tokenizer import code_points, graphemes
from pocketbert.export.tokenizer.code_points import Text, code_point_map, compose
from pocketbert.export.tokenizer.load import TokenizerError

TABLES = "tokenizer.safetensors"
VERSION = 1
PAGE = 256  # code points in a page of a table; equal pages are stored once
KEEP, SPACED, HANGUL, TEXTS = 0, 1, 2, 3  # actions of a map; from TEXTS on: text number `action - TEXTS`
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)
FIRST_L, FIRST_V, FIRST_T = 0x1100, 0x1161, 0x11A7  # Unicode, chapter 3.12: conjoining jamo
VOWELS, TAILS = 21, 28
FIRST_SEQUENCE, SECOND_SEQUENCE = -1, -2  # places of the texts in a template of ids
LONGEST_KEY, MOST_RULES = 256, 1 << 20  # bytes, and how many: of a charsmap. ALBERT's has 6,872 of 8 bytes at most
BLANKS = " {2,}"  # the one regular expression that tokenizers of this family use
Step = dict[str, Any]
Json = Mapping[str, Any]


@dataclass
class Tables:
    """A compiled tokenizer: the program, and the arrays that it names."""

    program: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Writes a safetensors file; the program is its metadata."""
        from safetensors.numpy import save_file

        program = json.dumps(self.program, ensure_ascii=False)
        save_file(self.arrays, str(file), {"program": program})


def compile_tokenizer(tokenizer: Tokenizer) -> Tables:
    """Turns a tokenizer into tables. Raises TokenizerError naming the part that they cannot say."""
    content = json.loads(tokenizer.to_str())
    tables = Tables({"version": VERSION})
    tables.program["normalizer"] = _normalizer_steps(content["normalizer"], tables)
    tables.program["pre_tokenizer"] = _splitter_steps(content["pre_tokenizer"], tables)
    tables.program["model"] = _model(content["model"], tables)
    tables.program["added_tokens"] = _added_tokens(content["added_tokens"], tokenizer, tables)
    tables.program["single"], tables.program["pair"] = _templates(content["post_processor"])
    return tables


# --- normalizer -------------------------------------------------------------------------------------------------


def _normalizer_steps(part: Json | None, tables: Tables) -> list[Step]:
    """The steps, with neighbouring maps of single code points made one."""
    steps: list[Step] = []
    runs = itertools.groupby(_primitives(part), key=lambda primitive: primitive[0])
    groups = [(kind, list(run)) for kind, run in runs]
    for number, (kind, group) in enumerate(groups, 1):
        values = [value for _, value in group]
        if kind == "map":
            is_ordered = number < len(groups) and groups[number][0] == "order"
            for texts in _compose_neighbours(values, is_ordered):
                steps.append({"step": "map", "table": _store_map(f"map{len(steps)}", texts, tables)})
        else:
            steps += [_normalizer_step(kind, value, tables) for value in values]
    return steps


def _compose_neighbours(maps: Sequence[Mapping[int, Text]], is_ordered: bool) -> list[Mapping[int, Text]]:
    """One map; two if marks are ordered behind the last and a map before it adds some: it decides on places."""
    *before, last = maps
    first: Mapping[int, Text] = functools.reduce(compose, before, {})
    if is_ordered and any(point in code_points.combining_ranks() for text in first.values() for point in text[1:]):
        return [first, last]
    return [compose(first, last)]


def _normalizer_step(kind: str, value: Any, tables: Tables) -> Step:
    if kind == "order":
        return {"step": "order", "table": _store_table("order", code_points.combining_ranks(), tables)}
    if kind == "charsmap":
        return _charsmap_step(value, tables)
    return {"step": kind, **value}


def _primitives(part: Json | None) -> Iterator[tuple[str, Any]]:
    """A normalizer as maps of code points, orderings, replacements and charsmaps."""
    kind = part["type"] if part else "none"
    if part is None:
        return
    if kind == "Sequence":
        for child in part["normalizers"]:
            yield from _primitives(child)
    elif kind == "BertNormalizer":
        yield from _bert_primitives(part)
    elif kind in ("NFD", "NFKD"):
        yield "map", code_point_map(kind)
        yield "order", None
    elif kind in ("StripAccents", "Lowercase", "Nmt"):
        yield "map", code_point_map(kind)
    elif kind == "Replace":
        yield _replacement(part)
    elif kind == "Precompiled":
        yield "charsmap", base64.b64decode(part["precompiled_charsmap"] or "")
    else:
        raise _refusal("normalizer", kind)


def _bert_primitives(part: Json) -> Iterator[tuple[str, Any]]:
    """BertNormalizer: clean and space CJK; decompose, drop marks; lower-case. Each alone looks at one code point."""
    yield "map", code_point_map("BertNormalizer", part["clean_text"], part["handle_chinese_chars"], False, False)
    strip = part["lowercase"] if part["strip_accents"] is None else part["strip_accents"]
    if strip:
        decompositions = code_point_map("NFD")
        yield "map", decompositions
        yield "order", None
        marks = code_point_map("BertNormalizer", False, False, True, False)
        yield "map", {point: text for point, text in marks.items() if point not in decompositions}
    if part["lowercase"]:
        yield "map", code_point_map("Lowercase")


def _replacement(part: Json) -> tuple[str, Json]:
    (kind, pattern), content = next(iter(part["pattern"].items())), part["content"]
    if kind == "String" and pattern:
        return "replace", {"pattern": pattern, "content": content}
    if kind == "Regex" and pattern == BLANKS:
        return "collapse", {"content": content}
    raise _refusal("normalizer", f"Replace of {kind} {pattern!r}")


def _charsmap_step(charsmap: bytes, tables: Tables) -> Step:
    """A charsmap: what the shortest key at the start of a cluster, or of a code point, becomes."""
    try:
        texts = read_charsmap(charsmap)
    except TokenizerError:
        raise
    except (IndexError, ValueError):  # it points beyond its end, or is cut off
        raise _refusal("normalizer", "Precompiled with a charsmap that is broken") from None
    numbers = {text: i for i, text in enumerate(sorted(set(texts.values())))}
    _store_texts("charsmap", [_points(text) for text in numbers], tables)
    _store_trie("charsmap", {key: numbers[text] for key, text in texts.items()}, tables)
    _store_table("graphemes", graphemes.grapheme_classes(), tables)
    tables.arrays["graphemes.transitions"] = graphemes.transitions()
    return {"step": "charsmap", "trie": "charsmap", "texts": "charsmap", "graphemes": "graphemes"}


def read_charsmap(charsmap: bytes) -> dict[str, str]:
    """The rules of a SentencePiece charsmap: key -> text, without keys that begin with another key.

    Layout (sentencepiece, normalizer.cc, DecodePrecompiledCharsMap): uint32 size of a double-array trie over bytes,
    the trie, then texts that end in 0; a key's value is where its text starts. Only the shortest key counts in
    `tokenizers` (spm_precompiled takes `results[0]`).
    """
    size = int(np.frombuffer(charsmap, "<u4", 1)[0])
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    texts = charsmap[4 + size :]
    labels = units & (1 << 31 | 0xFF)
    offsets = (units >> 10) << ((units & 1 << 9) >> 6)
    children: dict[int, list[int]] = {}  # place that a parent points to -> places of its children
    for child in np.flatnonzero((labels > 0) & (labels <= 0xFF)).tolist():
        children.setdefault(child ^ int(labels[child]), []).append(child)
    rules: dict[bytes, str] = {}
    open_nodes = [(b"", int(offsets[0]))]
    while open_nodes:
        key, base = open_nodes.pop()
        if len(key) > LONGEST_KEY or len(open_nodes) + len(rules) > MOST_RULES:
            raise ValueError("the trie leads back into itself")
        for place in children.get(base, ()):
            longer, below = key + bytes([int(labels[place])]), place ^ int(offsets[place])
            if units[place] >> 8 & 1:
                start = int(units[below]) & ((1 << 31) - 1)
                rules[longer] = texts[start : texts.index(b"\0", start)].decode("utf-8")
            else:
                open_nodes.append((longer, below))
    try:
        return {key.decode("utf-8"): text for key, text in sorted(rules.items())}
    except UnicodeDecodeError:
        raise _refusal("normalizer", "Precompiled with keys that are no UTF-8") from None


# --- pre-tokenizer, model, added tokens, template ---------------------------------------------------------------


def _splitter_steps(part: Json | None, tables: Tables) -> list[Step]:
    kind = part["type"] if part else "none"
    if part is None:
        return []
    if kind == "Sequence":
        return [step for child in part["pretokenizers"] for step in _splitter_steps(child, tables)]
    if kind == "BertPreTokenizer":
        return [{"step": "split", "table": _store_table("bert", code_points.bert_classes(), tables)}]
    if kind == "WhitespaceSplit":
        return [{"step": "split", "table": _store_table("blank", code_points.whitespace_classes(), tables)}]
    if kind == "Metaspace":
        scheme = part["prepend_scheme"]
        if scheme not in ("always", "never"):  # "first" asks where a character came from, which no table knows
            raise _refusal("pre-tokenizer", f"Metaspace with prepend_scheme {scheme!r}")
        prepend = scheme == "always"
        return [{"step": "metaspace", "replacement": part["replacement"], "prepend": prepend, "split": part["split"]}]
    raise _refusal("pre-tokenizer", kind)


def _model(part: Json, tables: Tables) -> Json:
    if part["type"] == "WordPiece":
        vocabulary = part["vocab"]
        if part["unk_token"] not in vocabulary:
            raise TokenizerError(f"the vocabulary has no {part['unk_token']!r}")
        _store_trie("vocabulary", vocabulary, tables)
        return {
            "type": "WordPiece",
            "trie": "vocabulary",
            "unk_id": vocabulary[part["unk_token"]],
            "continuation": part["continuing_subword_prefix"],
            "longest_word": part["max_input_chars_per_word"],
        }
    if part["type"] == "Unigram":
        if part.get("byte_fallback"):
            raise _refusal("model", "Unigram with byte_fallback")
        if part["unk_id"] is None:
            raise _refusal("model", "Unigram without unk_id")
        _store_trie("vocabulary", {piece: i for i, (piece, _) in enumerate(part["vocab"])}, tables)
        tables.arrays["scores"] = np.array([score for _, score in part["vocab"]], np.float64)
        return {"type": "Unigram", "trie": "vocabulary", "scores": "scores", "unk_id": part["unk_id"]}
    raise _refusal("model", part["type"])


def _added_tokens(parts: Sequence[Json], tokenizer: Tokenizer, tables: Tables) -> list[Step]:
    """Tokens found before the text is split: in the text as written, or in the normalized text."""
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    tokens = [{"id": part["id"], **{flag: part[flag] for flag in flags}} for part in parts]
    for name, normalized in (("written", False), ("normalized", True)):
        normalize = tokenizer.normalizer.normalize_str if normalized and tokenizer.normalizer else str
        found = {normalize(part["content"]): i for i, part in enumerate(parts) if part["normalized"] == normalized}
        _store_trie(f"added.{name}", found, tables)
    if any(token[flag] for token in tokens for flag in ("single_word", "lstrip", "rstrip")):
        _store_table("words", code_points.word_classes(), tables)
    return tokens


def _templates(part: Json | None) -> tuple[list[int], list[int]]:
    """Ids around one text and around two; FIRST_SEQUENCE and SECOND_SEQUENCE stand for the texts."""
    if part is None:
        return [FIRST_SEQUENCE], [FIRST_SEQUENCE, SECOND_SEQUENCE]
    if part["type"] == "BertProcessing":
        first, last = part["cls"][1], part["sep"][1]
        return [first, FIRST_SEQUENCE, last], [first, FIRST_SEQUENCE, last, SECOND_SEQUENCE, last]
    if part["type"] != "TemplateProcessing":
        raise _refusal("post-processor", part["type"])
    single, pair = (_template(part[name], part["special_tokens"]) for name in ("single", "pair"))
    return single, pair


def _template(pieces: Sequence[Json], special_tokens: Json) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        if "SpecialToken" in piece:
            name = piece["SpecialToken"]["id"]
            if name not in special_tokens:
                raise TokenizerError(f"the tokenizer's post-processor names {name!r} and has no id for it")
            ids += special_tokens[name]["ids"]
        else:
            ids.append(FIRST_SEQUENCE if piece["Sequence"]["id"] == "A" else SECOND_SEQUENCE)
    return ids


def _refusal(part: str, name: str) -> TokenizerError:
    return TokenizerError(f"the tokenizer's {part} is not one that phones read: {name}")


# --- arrays -----------------------------------------------------------------------------------------------------


def _store_table(name: str, values: Mapping[int, int], tables: Tables) -> str:
    """Code point -> number below 65536: `values[pages[point / 256] * 256 + point % 256]`, 0 where nothing is said."""
    flat = np.zeros(code_points.CODE_POINTS, np.uint16)
    flat[list(values.keys())] = list(values.values())
    pages: dict[bytes, int] = {}
    numbers = [pages.setdefault(page.tobytes(), len(pages)) for page in flat.reshape(-1, PAGE)]
    tables.arrays[f"{name}.pages"] = np.array(numbers, np.uint16)
    tables.arrays[f"{name}.values"] = np.frombuffer(b"".join(pages), np.uint16)
    return name


def _store_map(name: str, texts: Mapping[int, Text], tables: Tables) -> str:
    """Code point -> action. Spacing a character and taking a Hangul syllable apart are actions of their own."""
    numbers = {text: i for i, text in enumerate(sorted({t for p, t in texts.items() if not _formula(p, t)}))}
    actions = {point: _formula(point, text) or TEXTS + numbers[text] for point, text in texts.items()}
    _store_texts(name, list(numbers), tables)
    return _store_table(name, actions, tables)


def _formula(point: int, text: Text) -> int:
    """The action that makes `text` without storing it, or 0."""
    if text == (ord(" "), point, ord(" ")):
        return SPACED
    return HANGUL if point in HANGUL_SYLLABLES and text == _jamo(point) else 0


def _jamo(syllable: int) -> Text:
    index = syllable - HANGUL_SYLLABLES.start
    lead, vowel, tail = index // (VOWELS * TAILS), index // TAILS % VOWELS, index % TAILS
    return (FIRST_L + lead, FIRST_V + vowel) + ((FIRST_T + tail,) if tail else ())


def _store_texts(name: str, texts: Sequence[Text], tables: Tables) -> None:
    """Text i is `texts[starts[i]]` to `texts[starts[i + 1]]`, without the last."""
    starts = np.cumsum([0, *(len(text) for text in texts)])
    tables.arrays[f"{name}.starts"] = starts.astype(np.int32)
    tables.arrays[f"{name}.texts"] = np.array([point for text in texts for point in text], np.int32)


def _store_trie(name: str, keys: Mapping[str, int], tables: Tables) -> str:
    """Keys over code points, breadth first: the children of node n are nodes children[n] to children[n + 1].

    `labels` holds each node's last code point, ascending among siblings; `values` its key's number, -1 for none.
    """
    rows = sorted((key, value) for key, value in keys.items() if key)
    labels, values, children = [0], [-1], [1]
    level = [(0, len(rows))]
    depth = 0
    while level:
        below = []
        for start, end in level:
            for low, high in _branches(rows, start, end, depth):
                ends_here = len(rows[low][0]) == depth + 1
                labels.append(ord(rows[low][0][depth]))
                values.append(rows[low][1] if ends_here else -1)
                below.append((low + ends_here, high))
            children.append(len(labels))
        level, depth = below, depth + 1
    tables.arrays[f"{name}.labels"] = np.array(labels, np.int32)
    tables.arrays[f"{name}.values"] = np.array(values, np.int32)
    tables.arrays[f"{name}.children"] = np.array(children, np.int32)
    return name


def _branches(rows: Sequence[tuple[str, int]], start: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
    """Runs of rows with the same code point at `depth`."""
    low = start
    for i in range(start + 1, end + 1):
        if i == end or rows[i][0][depth] != rows[low][0][depth]:
            if low < end:
                yield low, i
            low = i


def _points(text: str) -> Text:
    return tuple(map(ord, text))
