"""Finds or builds a checkpoint's tokenizer, as a `tokenizers.Tokenizer` without truncation or padding.

Takes a Hugging Face folder. Uses tokenizer.json if there is one, else builds WordPiece from vocab.txt or
Unigram from spiece.model with the settings of tokenizer_config.json.
Leaves out: tokenizers of other families; they are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram, WordPiece

from pocketbert.runtime.errors import PocketbertError

TOKENIZER, VOCABULARY, SENTENCEPIECE = "tokenizer.json", "vocab.txt", "spiece.model"
MODELS = ("WordPiece", "Unigram")  # the tokenizers of BERT, DistilBERT and ALBERT
# Settings of tokenizer_config.json and the name that tokenizer.json's BertNormalizer gives them.
BERT_SETTINGS = {"do_lower_case": "lowercase", "tokenize_chinese_chars": "handle_chinese_chars"}
UNIGRAM_TYPE = 1  # TrainerSpec.ModelType.UNIGRAM, sentencepiece_model.proto


class TokenizerError(PocketbertError):
    """The tokenizer is missing, broken, or of a kind that no phone app here reads."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads the tokenizer of the checkpoint in `folder`. Raises TokenizerError."""
    settings = _read_settings(folder / "tokenizer_config.json")
    if (folder / TOKENIZER).exists():
        tokenizer = _read(folder / TOKENIZER, settings)
    elif (folder / VOCABULARY).exists():
        tokenizer = build_wordpiece(folder / VOCABULARY, settings)
    elif (folder / SENTENCEPIECE).exists():
        tokenizer = build_unigram(folder / SENTENCEPIECE, settings)
    else:
        raise TokenizerError(f"no tokenizer: expected {TOKENIZER}, {VOCABULARY} or {SENTENCEPIECE}")
    tokenizer.no_truncation()  # published files often carry the settings of their last training run
    tokenizer.no_padding()
    return tokenizer


def build_wordpiece(vocabulary: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer over vocab.txt, one piece per line, as transformers' BertTokenizer builds it."""
    lines = vocabulary.read_text(encoding="utf-8").split("\n")
    pieces = {piece.removesuffix("\r"): index for index, piece in enumerate(lines) if piece or index < len(lines) - 1}
    unknown = _token(settings, "unk_token", "[UNK]")
    tokenizer = Tokenizer(WordPiece(pieces, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    _add_special_tokens(tokenizer, settings, pad="[PAD]", unknown=unknown)
    return tokenizer


def build_unigram(model: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """ALBERT's tokenizer over a SentencePiece model, as transformers' converter builds it."""
    proto = _read_sentencepiece(model)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(_albert_normalizers(proto, settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]  # ▁, always prepended
    )
    tokenizer.decoder = decoders.Metaspace()
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    _add_special_tokens(tokenizer, settings, pad="<pad>", unknown=unknown)
    return tokenizer


def _albert_normalizers(proto: Any, settings: Mapping[str, Any]) -> list[normalizers.Normalizer]:
    chain: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.get("keep_accents", False):
        chain += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.get("do_lower_case", True):
        chain.append(normalizers.Lowercase())
    if proto.normalizer_spec.precompiled_charsmap:
        chain.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    return [*chain, normalizers.Replace(Regex(" {2,}"), " ")]


def _read(file: Path, settings: Mapping[str, Any]) -> Tokenizer:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as problem:  # tokenizers raises plain Exception
        raise TokenizerError(f"cannot read {file.name}: {problem}") from problem
    kind = content["model"].get("type")
    if kind not in MODELS:
        raise TokenizerError(f"{file.name} is a {kind} tokenizer: only {' and '.join(MODELS)} are supported")
    _refuse_contradiction(content.get("normalizer") or {}, settings)
    return tokenizer


def _refuse_contradiction(normalizer: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """transformers lets tokenizer_config.json overrule tokenizer.json in part: two answers are no answer."""
    if normalizer.get("type") != "BertNormalizer":
        return
    for setting, name in BERT_SETTINGS.items():
        if setting in settings and normalizer.get(name) != settings[setting]:
            raise TokenizerError(
                f"tokenizer.json says {name}={normalizer.get(name)}, tokenizer_config.json says "
                f"{setting}={settings[setting]}: correct the wrong one"
            )


def _read_settings(file: Path) -> Mapping[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise TokenizerError(f"cannot read {file.name}: {problem}") from problem
    return content if isinstance(content, dict) else {}


def _read_sentencepiece(file: Path) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(file.read_bytes())
    except DecodeError as problem:
        raise TokenizerError(f"cannot read {file.name}: not a SentencePiece model") from problem
    if proto.trainer_spec.model_type != UNIGRAM_TYPE:
        raise TokenizerError(f"{file.name} is not a Unigram model, the only kind that ALBERT uses")
    return proto


def _add_special_tokens(tokenizer: Tokenizer, settings: Mapping[str, Any], pad: str, unknown: str) -> None:
    first, last = _token(settings, "cls_token", "[CLS]"), _token(settings, "sep_token", "[SEP]")
    names = [_token(settings, "pad_token", pad), unknown, first, last, _token(settings, "mask_token", "[MASK]")]
    missing = [name for name in (first, last) if tokenizer.token_to_id(name) is None]
    if missing:
        raise TokenizerError(f"the vocabulary has no {missing[0]!r}")
    tokenizer.add_special_tokens([name for name in names if tokenizer.token_to_id(name) is not None])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (first, last)],
    )


def _token(settings: Mapping[str, Any], key: str, default: str) -> str:
    """A special token's text: settings hold it plain or as an AddedToken's dict."""
    token = settings.get(key) or default
    return str(token["content"]) if isinstance(token, dict) else str(token)
