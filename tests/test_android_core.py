"""The Kotlin core reads bundles, tokenizes and classifies as the Python runtime does; needs a JDK and Maven.

The frozen corpus must catch what it is there for: each deliberate break of the tables is replayed too.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import android_build
import frozen_cases
import numpy as np
import pytest
from frozen_cases import Case
from tokenizer_cases import Text, Tokens, expected, pack
from tokenizer_kinds import wordpiece
from tokenizers import AddedToken, normalizers

from pocketbert.export.tokenizer import tables as tokenizer_tables
from pocketbert.export.tokenizer.graphemes import BREAK
from pocketbert.export.tokenizer.tables import HANGUL, KEEP, SPACED, Tables, compile_tokenizer
from pocketbert.runtime import manifest

LONGEST_TOKENIZING = 200  # microseconds for 30 words on a warm JVM, on the two x86 cores that this was built on
Trial = tuple[Tables, list[Case]]


@pytest.fixture(scope="session", autouse=True)
def core() -> None:
    """The compiled core; without the tools for it these tests say so and are skipped."""
    lacking = android_build.missing()
    if lacking:
        pytest.skip(f"{lacking}: android_demo/core is neither compiled nor tested")
    android_build.build()


@pytest.fixture(scope="session")
def corpus() -> dict[str, list[Case]]:
    """The frozen cases by tokenizer."""
    found = defaultdict(list)
    for case in frozen_cases.read()[1]:
        found[case[0]].append(case)
    return found


def compiled() -> dict[str, Tables]:
    """Fresh tables of every tokenizer of the corpus; a test may break them."""
    points, _ = frozen_cases.read()
    return {name: compile_tokenizer(tokenizer) for name, tokenizer in frozen_cases.tokenizers(points).items()}


def mismatches(trials: list[Trial], folder: Path) -> list[int]:
    """Replays each trial's cases in Kotlin: how many gave other ids, or the same at other places."""
    files, cases = [], []
    for i, (tables, rows) in enumerate(trials):
        files.append(folder / f"{i}.safetensors")
        tables.save(files[-1])
        cases += [pack(text, found, i) for _, text, found in rows]
    done = android_build.java("core.ReplayKt", *files, cases=b"".join(cases))
    assert done.returncode == 0, done.stderr.decode()
    outcomes = [json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith('{"strings"')]
    assert [outcome["strings"] for outcome in outcomes] == [len(rows) for _, rows in trials]
    return [outcome["mismatches"] + outcome["misplaced"] for outcome in outcomes]


def test_the_frozen_corpus_is_what_tokenizers_gives() -> None:
    assert frozen_cases.write() == frozen_cases.FILE.read_text(encoding="ascii")


def test_kotlin_gives_the_frozen_tokens_at_their_places(corpus: dict[str, list[Case]], tmp_path: Path) -> None:
    trials = [(tables, corpus[name]) for name, tables in compiled().items()]
    assert mismatches(trials, tmp_path) == [0] * len(trials)
    assert sum(len(rows) for _, rows in trials) > 6000


def test_marks_that_change_places_leave_them_where_they_were(tmp_path: Path) -> None:
    """Of two maps the first adds a mark; an added token is spelled as normalization leaves it."""
    tokenizer = wordpiece([*"aiIV\u0307\u0323\u0301İé"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKD()])
    tokenizer.add_tokens([AddedToken("Ⅳ", normalized=True)])
    texts = ("aİ\u0323b", "é\u0323", "İ\u0301\u0323İ\u0323", "\u0344\u0323\u0f73\u0344", "x Ⅳ iv IV y")
    rows = [("", text, found) for text, found in expected(tokenizer, map(Text, texts))]
    assert mismatches([(compile_tokenizer(tokenizer), rows)], tmp_path) == [0]


def test_a_number_that_is_not_the_library_s_is_noticed(corpus: dict[str, list[Case]], tmp_path: Path) -> None:
    """Each list of an encoding is compared: one number of it is changed."""
    name = "demo distilbert"
    rows = []
    for field, (_, text, (first, *others)) in zip(fields(Tokens), corpus[name][4:], strict=False):
        numbers = list(getattr(first, field.name))
        numbers[1] += 1
        rows.append((name, text, [replace(first, **{field.name: numbers}), *others]))
    assert len(rows) == 6
    assert mismatches([(compiled()[name], rows)], tmp_path) == [6]


def steps(tables: Tables, kind: str) -> list[Any]:
    """The steps of a kind, in normalizer and pre-tokenizer."""
    return [step for part in ("normalizer", "pre_tokenizer") for step in tables.program[part] if step["step"] == kind]


def spread_out(tables: Tables, table: str) -> Any:
    """A table by code point, to be written into: its pages are made different places."""
    pages, values = tables.arrays[f"{table}.pages"], tables.arrays[f"{table}.values"]
    flat = values.reshape(-1, tokenizer_tables.PAGE)[pages].reshape(-1)
    tables.arrays[f"{table}.pages"] = np.arange(len(pages), dtype=np.uint16)
    tables.arrays[f"{table}.values"] = flat
    return flat


def keep(kind: str, points: range) -> Callable[[Tables], None]:
    """A break: the steps of a kind leave some code points alone."""

    def forget(tables: Tables) -> None:
        for step in steps(tables, kind):
            spread_out(tables, step["table"])[points.start : points.stop] = KEEP

    return forget


def forget_action(action: int) -> Callable[[Tables], None]:
    """A break: maps leave alone what one of their actions changes."""

    def forget(tables: Tables) -> None:
        for step in steps(tables, "map"):
            actions = spread_out(tables, step["table"])
            actions[actions == action] = KEEP

    return forget


def forget_charsmap(tables: Tables) -> None:
    for step in steps(tables, "charsmap"):
        tables.arrays[f"{step['trie']}.values"][:] = -1


def forget_clusters(tables: Tables) -> None:
    for step in steps(tables, "charsmap"):
        tables.arrays[f"{step['graphemes']}.transitions"][:] |= BREAK


def turn_ties(tables: Tables) -> None:
    """Of paths with equal scores the one with the longest pieces wins no more."""
    if "scores" in tables.arrays:
        lengths = np.zeros(len(tables.arrays["scores"]))
        depth = _depths(tables)
        ids = tables.arrays["vocabulary.values"]
        lengths[ids[ids >= 0]] = depth[ids >= 0]
        tables.arrays["scores"] = tables.arrays["scores"] - 1e-9 * lengths**2


def _depths(tables: Tables) -> Any:
    children = tables.arrays["vocabulary.children"]
    depth = np.zeros(len(children) - 1, int)
    for node, (start, end) in enumerate(pairwise(children)):
        depth[start:end] = depth[node] + 1
    return depth


def drop_steps(kind: str) -> Callable[[Tables], None]:
    def drop(tables: Tables) -> None:
        tables.program["normalizer"] = [step for step in tables.program["normalizer"] if step["step"] != kind]

    return drop


def allow_longer_words(tables: Tables) -> None:
    if "longest_word" in tables.program["model"]:
        tables.program["model"]["longest_word"] += 1


def never_prepend(tables: Tables) -> None:
    for step in steps(tables, "metaspace"):
        step["prepend"] = False


def miss_added_tokens(tables: Tables) -> None:
    tables.arrays["added.written.values"][:] = -1


BREAKS: dict[str, Callable[[Tables], None]] = {
    "accents": keep("map", range(0x300, 0x370)),
    "CJK spacing": forget_action(SPACED),
    "punctuation": keep("split", range(0x2010, 0x2060)),
    "white space": keep("split", range(0x2000, 0x2010)),
    "charsmap": forget_charsmap,
    "grapheme clusters": forget_clusters,
    "Viterbi ties": turn_ties,
    "canonical order": drop_steps("order"),
    "Hangul": forget_action(HANGUL),
    "quotes": drop_steps("replace"),
    "long words": allow_longer_words,
    "metaspace": never_prepend,
    "added tokens": miss_added_tokens,
}


def broken(tables: Tables, damage: Callable[[Tables], None]) -> Tables:
    """A damaged copy."""
    copy = Tables(json.loads(json.dumps(tables.program)), {name: array.copy() for name, array in tables.arrays.items()})
    damage(copy)
    return copy


def count_caught(corpus: dict[str, list[Case]], folder: Path) -> dict[str, int]:
    """Break -> how many frozen cases notice it, over all tokenizers."""
    whole = compiled()
    trials = [(broken(tables, damage), corpus[name]) for damage in BREAKS.values() for name, tables in whole.items()]
    found = np.array(mismatches(trials, folder)).reshape(len(BREAKS), len(whole)).sum(axis=1)
    return dict(zip(BREAKS, found.tolist(), strict=True))


def test_the_frozen_corpus_catches_each_deliberate_break(corpus: dict[str, list[Case]], tmp_path: Path) -> None:
    caught = count_caught(corpus, tmp_path)
    print(caught)
    assert [part for part, cases in caught.items() if not cases] == []


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_kotlin_opens_an_exported_bundle_and_answers_its_golden_cases(bundles: dict[str, Path], family: str) -> None:
    done = android_build.java("core.BundleCheckKt", bundles[family])
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    lines = [line.split(" ", 2) for line in done.stdout.decode().splitlines()]
    assert [line[0] for line in lines] == [
        artifact.format for artifact in manifest.read_manifest(bundles[family]).artifacts
    ]
    assert all(float(gap) == 0 and set(labels.split(", ")) == {"anger", "joy", "calm"} for _, gap, labels in lines)


def test_kotlin_refuses_an_altered_bundle_by_name(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["albert"], tmp_path / "altered")
    with open(folder / "tokenizer.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    done = android_build.java("core.BundleCheckKt", folder)
    assert done.returncode == 2
    assert "tokenizer.safetensors is not the file that was exported" in done.stdout.decode()


@pytest.mark.slow
def test_thirty_words_take_a_fifth_of_a_millisecond_and_a_megabyte_takes_linear_time(tmp_path: Path) -> None:
    words = " ".join(text for _, text in ((case[0], case[1].text) for case in frozen_cases.read()[1]) if text.isascii())
    (tmp_path / "words.txt").write_text(words, encoding="utf-8")
    for name in ("demo distilbert", "demo albert"):
        compiled()[name].save(tmp_path / "tables")
        speed = json.loads(android_build.java("core.SpeedKt", tmp_path / "tables", tmp_path / "words.txt").stdout)
        assert speed["median_us"] < LONGEST_TOKENIZING
        assert speed["allocated_bytes"] < 10_000
        assert speed["whole_s"] < 4 * speed["half_s"]
