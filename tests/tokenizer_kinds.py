"""Tokenizers that together use every option that phones read, by name.

The demo checkpoints' own; BERT's and ALBERT's real vocabularies where the real data is; and small ones whose
vocabulary is single code points, so that their ids spell out what normalization gave.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from pocketbert.export.tokenizer.load import build_unigram, build_wordpiece

DEMO = Path(__file__).resolve().parents[1] / "export/demo"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = ("film", "lovely", "love", "##ly", "bad", "the", "good", "don", "cafe", "café", "##é", "re", "##su", "##me")
TYING = (
    "▁love",
    "love",
    "lo",
    "ve",
    "ly",
    "▁lovely",
    "el",
    "fi",
    "lm",
    "il",
    "▁fi",
    "ab",
    "ba",
    "aba",
    "bab",
    "▁a",
    "aa",
)


def spelling(points: Iterable[str]) -> list[str]:
    """Single code points in order, without the huge scripts' bulk and what is not assigned."""
    return sorted({c for c in points if unicodedata.category(c) not in ("Cn", "Co", "Cs")})


def assigned() -> list[str]:
    """Every assigned code point, of Han and Hangul each 16th."""
    huge = [range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0x17000, 0x19000), range(0x20000, 0x33480)]
    return spelling(chr(c) for c in range(0x110000) if c % 16 == 0 or not any(c in block for block in huge))


def wordpiece(points: Iterable[str], **settings: bool | None) -> Tokenizer:
    """BERT's tokenizer over single code points and a few words."""
    points = list(points)
    pieces = dict.fromkeys([*SPECIALS, *PIECES, *points, *(f"##{c}" for c in points)])
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _finish(tokenizer)


def unigram(points: Iterable[str], normalizer: Normalizer, splitter: PreTokenizer) -> Tokenizer:
    """ALBERT's kind of tokenizer over single code points and pieces whose scores tie, whatever the path."""
    points = [c for c in points if c != "▁"]
    pieces = [*((name, 0.0) for name in ("[PAD]", "<unk>", *SPECIALS[2:])), ("▁", -2.0)]
    pieces += [(piece, -2.0 * len(piece)) for piece in TYING]  # as much as the same code points alone
    pieces += [(c, -2.0) for c in points if c not in dict(pieces)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=False))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    return _finish(tokenizer, unknown="<unk>")


def albert_normalizer(*, keep_accents: bool = False, lower: bool = True) -> Normalizer:
    """The chain that export/tokenizer.py builds."""
    chain = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    chain += [] if keep_accents else [normalizers.NFKD(), normalizers.StripAccents()]
    chain += [normalizers.Lowercase()] if lower else []
    chain += [normalizers.Precompiled(demo_charsmap()), normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence(chain)


def demo_charsmap() -> bytes:
    """SentencePiece's nmt_nfkc rules, as the ALBERT demo holds them."""
    content = json.loads((DEMO / "albert/tokenizer.json").read_text(encoding="utf-8"))
    chain = content["normalizer"]["normalizers"]
    return base64.b64decode(next(part["precompiled_charsmap"] for part in chain if part["type"] == "Precompiled"))


def words_and_meta(**settings: object) -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**settings)])  # type: ignore[arg-type]


def with_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Added tokens with each flag, some that overlap, one with a blank, one that normalization changes."""
    tokenizer.add_tokens(
        [
            AddedToken("lefty", lstrip=True, normalized=False),
            AddedToken("righty", rstrip=True, normalized=False),
            AddedToken("both", lstrip=True, rstrip=True, normalized=True),
            AddedToken("whole", single_word=True, normalized=False),
            AddedToken("Café", single_word=True, normalized=True),
            AddedToken("lo", normalized=False),
            AddedToken("love it", normalized=False),
        ]
    )
    return tokenizer


def _finish(tokenizer: Tokenizer, unknown: str = "[UNK]") -> Tokenizer:
    tokenizer.add_special_tokens(["[PAD]", unknown, *SPECIALS[2:]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _bare(points: Iterable[str]) -> Tokenizer:
    """Single steps in another order than BERT's and ALBERT's; BertProcessing for a template."""
    names = ("Nmt", "NFD", "Lowercase", "StripAccents", "NFKD")
    chain = normalizers.Sequence([getattr(normalizers, name)() for name in names])
    tokenizer = unigram(points, chain, words_and_meta(prepend_scheme="never"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


Maker = Callable[[], Tokenizer]


def small(points: list[str]) -> dict[str, Maker]:
    """Tokenizers over the given code points: each option of each part."""
    meta = pre_tokenizers.Metaspace
    return {
        "wordpiece uncased": lambda: wordpiece(points, lowercase=True),
        "wordpiece cased": lambda: wordpiece(points, lowercase=False),
        "wordpiece uncased, accents kept": lambda: wordpiece(points, lowercase=True, strip_accents=False),
        "wordpiece cased, accents stripped": lambda: wordpiece(points, lowercase=False, strip_accents=True),
        "wordpiece, CJK and controls kept": lambda: wordpiece(
            points, clean_text=False, handle_chinese_chars=False, lowercase=True
        ),
        "wordpiece, added tokens": lambda: with_added_tokens(wordpiece(points, lowercase=True)),
        "unigram": lambda: unigram(points, albert_normalizer(), words_and_meta()),
        "unigram cased": lambda: unigram(points, albert_normalizer(lower=False), words_and_meta()),
        "unigram, accents kept": lambda: unigram(points, albert_normalizer(keep_accents=True), words_and_meta()),
        "unigram cased, accents kept": lambda: unigram(
            points, albert_normalizer(keep_accents=True, lower=False), words_and_meta()
        ),
        "unigram, metaspace never, not split": lambda: unigram(
            points, albert_normalizer(), meta(prepend_scheme="never", split=False)
        ),
        "unigram, metaspace always": lambda: with_added_tokens(unigram(points, albert_normalizer(), meta())),
        "unigram, decomposed": lambda: unigram(
            points, normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()]), words_and_meta()
        ),
        "unigram, bare steps": lambda: _bare(points),
    }


def demos() -> dict[str, Maker]:
    """The tokenizers of the embedded checkpoints."""
    return {f"demo {name}": lambda name=name: Tokenizer.from_file(str(DEMO / name / "tokenizer.json"))  # type: ignore[misc]
            for name in ("distilbert", "albert")}  # fmt: skip


def real(shared: Path, scratch: Path) -> dict[str, Maker]:
    """BERT's uncased vocabulary and ALBERT's SentencePiece model, each with every setting of the exporter."""
    spiece, vocabulary = shared / "data/albert_spm/spiece.model", scratch / "vocab.txt"
    bert = Tokenizer.from_file(str(shared / "models/distilbert-l6-h384-sst2/tokenizer.json"))
    pieces = sorted(bert.get_vocab().items(), key=lambda item: item[1])
    vocabulary.write_text("\n".join(piece for piece, _ in pieces) + "\n", encoding="utf-8")
    return {
        "BERT": lambda: build_wordpiece(vocabulary, {}),
        "BERT cased": lambda: build_wordpiece(vocabulary, {"do_lower_case": False}),
        "BERT, accents kept": lambda: build_wordpiece(vocabulary, {"strip_accents": False}),
        "BERT, CJK kept": lambda: build_wordpiece(vocabulary, {"tokenize_chinese_chars": False}),
        "ALBERT": lambda: build_unigram(spiece, {}),
        "ALBERT cased": lambda: build_unigram(spiece, {"do_lower_case": False}),
        "ALBERT, accents kept": lambda: build_unigram(spiece, {"keep_accents": True}),
        "ALBERT cased, accents kept": lambda: build_unigram(spiece, {"do_lower_case": False, "keep_accents": True}),
    }
