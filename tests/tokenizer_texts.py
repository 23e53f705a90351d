"""Texts on which tokenizers go wrong: made from code points, or read from the real data beside the repository.

Returns plain strings; some hold unpaired surrogates, as a keyboard can send them.
Leaves out: ids (tokenizer_cases.py).

Random texts are the same on every machine: they come from `random.Random(seed).random()`, which Python promises to
keep, and from nothing that depends on a Unicode version.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from pocketbert.export import golden

# Where tokenizers go wrong: accents in both forms, case pairs, CJK, joiners, controls, odd blanks, very long words.
ODD = (
    *golden.TEXTS,
    "e\u0301 é Ａ ﬃ ß ẞ İ ı ς σ Σ",
    "\u00a0\u2003\u3000 blanks \u200b\u200d\ufeff joiners",
    "漢字かな交じり文 한국어 中文,标点。",
    "a" * 250,
    "👩🏽‍🚀 🏳️‍🌈 ☺︎ ☺️",
    "\x00\x01\x7f\x9f controls\r\n\t",
    "don't can't it's 'quoted' ``a'' U.S.A. 3.14 1,000",
    "नमस्ते ไทย עברית العربية",
)
SCALARS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
WORDS = ("film", "lovely", "bad", "not", "the", "Good", "ANGRY", "don't", "naïve", "café", "résumé", "Straße", "e-mail")
# Pools of pieces for random texts: a text mixes two or three of them.
POOLS: dict[str, Sequence[str]] = {
    "words": WORDS,
    "latin": [chr(c) for c in (*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0xC0, 0x250), *range(0x1E00, 0x1F00))],
    "ascii": [chr(c) for c in range(0x21, 0x7F)],
    "blanks": [*" \t\n\r\f\v\x85\xa0", "\r\n", "  ", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u3000"],
    "marks": [chr(c) for c in (*range(0x300, 0x370), *range(0x483, 0x48A), *range(0x591, 0x5C8), *range(0x1AB0, 0x1AD0),
                               *range(0x20D0, 0x20F1), *range(0x302A, 0x3030), 0x3099, 0x309A, *range(0x1D165, 0x1D16A),
                               0x0345, 0x034F, 0x0334, 0x093C, 0x0E38, 0x0F71, 0x0F72, 0x1DFA, 0xFE20, 0x10F46)],
    "joiners": [*"\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u061c\u180e", "\ufe0e", "\ufe0f", "\U000e0020"],
    "controls": [chr(c) for c in (*range(0x20), *range(0x7F, 0xA0), 0xFFF9, 0xFFFC, 0xFFFD, 0xFFFE, 0xE000, 0x10FFFF)],
    "surrogates": ["\ud800", "\udbff", "\udc00", "\udfff", "\ude00\ud83d", "\ud83d"],
    "hangul": [chr(c) for c in (*range(0x1100, 0x1200, 3), *range(0xAC00, 0xD7A4, 97), *range(0xA960, 0xA97D, 5),
                                *range(0xD7B0, 0xD7FC, 5), 0x3131, 0x314F, 0xFFA1, 0x11A8)],
    "rtl": [chr(c) for c in (*range(0x5D0, 0x5EB), *range(0x600, 0x700), *range(0xFB1D, 0xFB50),
                             *range(0xFE70, 0xFEFD))],
    "indic": [chr(c) for c in (*range(0x900, 0x980), *range(0xB80, 0xC00), *range(0xD00, 0xD80), 0x0DCA, 0x1B44)],
    "thai": [chr(c) for c in (*range(0xE01, 0xE3B), *range(0xE3F, 0xE5C), *range(0xF00, 0xFD0, 3))],
    "cjk": [chr(c) for c in (*range(0x4E00, 0x9FFF, 331), 0x3400, 0x4DBF, 0x9FFF, 0xF900, 0xFA10, 0xFAFF, 0x20000,
                             0x2A6DF, 0x2A700, 0x2B820, 0x2B920, 0x2CEAF, 0x2F800, 0x2FA1F, 0x30000)],
    "kana": [chr(c) for c in (*range(0x3041, 0x3100), *range(0x31F0, 0x3200), *range(0xFF61, 0xFFA0), 0x1B000)],
    "wide": [chr(c) for c in (*range(0xFF01, 0xFF5F), *range(0x2460, 0x2500), *range(0x2100, 0x2190),
                              *range(0x3200, 0x33FF, 7), *range(0xFB00, 0xFB07), 0xAA, 0xBD, 0x1D400, 0x1F110)],
    "punctuation": [chr(c) for c in (*range(0x2010, 0x2060), *range(0x3001, 0x3020), 0xA1, 0xA7, 0xAB, 0xB6, 0xBF,
                                     0x37E, 0x387, 0x55A, 0x5BE, 0x964, 0x2E3A, 0xFE4F, 0x10A50, 0x1F5D9)],
    "emoji": [*"😍👍🏽👩🚀🏳🌈☺✔©®™‼⁉ℹ⌚ㇷ゚", "👩🏽‍🚀", "🏳️‍🌈", "🇫🇷", "1️⃣", "👨‍👩‍👧‍👦", "©\u200d", "\u200d©\u0301"],
    "cases": [*"ΑΆΣσςİıŁǅǄßẞĲŉΐΰΌ", "ΣΣ", "Ω", "K", "Å", "ﬁ", "Ⴀ", "Ꭰ", "ꭰ", "𐐀", "𞤀"],
    "specials": ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<pad>", "<unk>", "<UNK>", "[mask]", "[CL", "##ing", "▁",
                 "▁▁", "``", "''", "`", "'", "\"", "  ", "   "],
}  # fmt: skip


def pick(source: random.Random, items: Sequence[str]) -> str:
    return items[int(source.random() * len(items))]


def random_texts(count: int, seed: int, longest: int = 24) -> Iterator[str]:
    """Texts that mix pieces of two or three pools."""
    source, names = random.Random(seed), list(POOLS)
    for _ in range(count):
        pools = [POOLS[pick(source, names)] for _ in range(2 + int(source.random() * 2))]
        length = 1 + int(source.random() * longest)
        yield "".join(pick(source, pools[int(source.random() * len(pools))]) for _ in range(length))


def pool_texts() -> Iterator[str]:
    """Every piece of every pool: alone, between letters, behind a letter with a mark."""
    for pool in POOLS.values():
        for piece in pool:
            yield from (piece, f"a{piece}b", f"e\u0301{piece}")


def long_texts(size: int) -> Iterator[str]:
    """Long words and long texts: around WordPiece's limit, and `size` code points with and without blanks."""
    for count in (99, 100, 101, 102, 1000):
        yield from ("a" * count, "é" * count, "e\u0301" * count, "漢" * count, "😍" * count, f"x {'a' * count} y")
    for piece in (*"a 漢한😍Ωﬁ\u0301", "ab", "lovely", "lovely ", "a\u0301\u0323", "\u0323\u0301", "``"):
        yield piece * (size // len(piece))
    yield "".join(random_texts(size // 16, seed=5))


def read_real(shared: Path) -> dict[str, list[str]]:
    """Real texts, by where they come from."""
    data = shared / "data"
    squad = json.loads((data / "squad/xquad.en.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in squad for paragraph in article["paragraphs"]]
    goldens = (data / "tokenizer_goldens/bert_uncased_squad_questions.jsonl").read_text(encoding="utf-8")
    sms = (data / "sms_spam/SMSSpamCollection").read_text(encoding="utf-8", errors="replace")
    odd = data / "unicode_odd"
    return {
        "squad": [*(p["context"] for p in paragraphs), *(qa["question"] for p in paragraphs for qa in p["qas"])],
        "questions": [json.loads(line)["text"] for line in goldens.splitlines()],
        "sst2": [row[0] for name in ("train", "dev") for row in read_tsv(data / f"sst2/{name}.tsv")],
        "sms": [line.partition("\t")[2] for line in sms.splitlines()],
        "wnut17": [text for file in sorted((data / "wnut17").glob("*.*[dlt]")) for text in _tweets(file)],
        "udhr": [line for file in sorted((odd / "udhr").iterdir()) for line in _lines(file)],
        "emoji": _lines(odd / "emoji-test.txt"),
    }


def read_tsv(file: Path) -> list[list[str]]:
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _tweets(file: Path) -> Iterator[str]:
    """Tweets of a CoNLL file: a word and its tag on each line, an empty line between two."""
    for block in file.read_text(encoding="utf-8").split("\n\n"):
        yield " ".join(line.partition("\t")[0] for line in block.splitlines())
