"""Finds or builds a checkpoint's tokenizer, as a `tokenizers.Tokenizer` without truncation or padding.

Takes a Hugging Face folder. Uses tokenizer.json if there is one, else builds WordPiece from vocab.txt or
Unigram from spiece.model with the settings of tokenizer_config.json.
Leaves out: tokenizers of other families; they are refused by name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram, WordPiece

from pocketbert.export.json_values import JsonObject, read_object
from pocketbert.runtime.engines.native_logging import silence_native_logs
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import read_regular

TOKENIZER, VOCABULARY, SENTENCEPIECE = "tokenizer.json", "vocab.txt", "spiece.model"
SETTINGS = "tokenizer_config.json"
PANIC = "PanicException"  # pyo3's, which cannot be imported and is no Exception
SHOWN = 200  # characters of a message that is not ours
MODELS = ("WordPiece", "Unigram")  # the tokenizers of BERT, DistilBERT and ALBERT
# Settings of tokenizer_config.json and the name that tokenizer.json's BertNormalizer gives them.
BERT_SETTINGS = {"do_lower_case": "lowercase", "tokenize_chinese_chars": "handle_chinese_chars"}
PADS = ("[PAD]", "<pad>")  # which no text becomes, whether the file calls them special or not
CUNEIFORM = "\N{CUNEIFORM SIGN A}"  # in the vocabulary of none of these families: becomes the unknown token
LARGEST_VOCABULARY = 1 << 28  # bytes of vocab.txt or spiece.model
UNIGRAM_TYPE = 1  # TrainerSpec.ModelType.UNIGRAM, sentencepiece_model.proto


class TokenizerError(PocketbertError):
    """The tokenizer is missing, broken, or of a kind that no phone app here reads."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads the tokenizer of the checkpoint in `folder`. Raises TokenizerError."""
    settings = _read_settings(folder / SETTINGS)
    if (folder / TOKENIZER).exists():
        tokenizer = _read(folder / TOKENIZER, settings)
    elif (folder / VOCABULARY).exists():
        tokenizer = build_wordpiece(folder / VOCABULARY, settings.content)
    elif (folder / SENTENCEPIECE).exists():
        tokenizer = build_unigram(folder / SENTENCEPIECE, settings.content)
    else:
        raise TokenizerError(f"no tokenizer: expected {TOKENIZER}, {VOCABULARY} or {SENTENCEPIECE}")
    tokenizer.no_truncation()  # published files often carry the settings of their last training run
    tokenizer.no_padding()
    _encode_odd(tokenizer)
    return tokenizer


def check_pad_id(tokenizer: Tokenizer, pad_id: int) -> None:
    """Raises TokenizerError unless `pad_id` is a token that no text becomes: the model ignores it wherever it is."""
    token = tokenizer.id_to_token(pad_id)
    if token is None:
        raise TokenizerError(f"pad_token_id {pad_id} is unknown to the tokenizer: set it in config.json")
    added = tokenizer.get_added_tokens_decoder().get(pad_id)
    kept_apart = token in PADS or (added is not None and added.special)
    if not kept_apart or pad_id in _encode_odd(tokenizer):
        raise TokenizerError(f"pad_token_id {pad_id} is {token!r}, which texts are made of: set it in config.json")


def largest_id(tokenizer: Tokenizer) -> int:
    """The largest id that a text can have: of the vocabulary, or of the tokens put around texts."""
    around_two = _encode_odd(tokenizer, CUNEIFORM)
    return max(*tokenizer.get_vocab(with_added_tokens=True).values(), *_encode_odd(tokenizer), *around_two, -1)


def find_separator(tokenizer: Tokenizer, typed: bool) -> int:
    """The id of the token that stands between two texts, and nowhere before.

    `typed`: the model tells texts apart, and has to be told by the tokenizer what its graph will find: type 1 behind
    the first separator. Raises TokenizerError.
    """
    with _library_errors("the tokenizer does not take two texts"):
        both = tokenizer.encode(CUNEIFORM, CUNEIFORM)
    second = both.sequence_ids.index(1) if 1 in both.sequence_ids else 0
    between = [i for i in range(second) if both.sequence_ids[i] is None and 0 in both.sequence_ids[:i]]
    separator = both.ids[between[0]] if between else None
    if separator is None or separator in both.ids[: between[0]]:
        raise TokenizerError("the tokenizer puts no token of its own between two texts: pairs need a separator")
    types = [int(separator in both.ids[:place]) for place in range(len(both.ids))]
    if typed and both.type_ids != types:
        raise TokenizerError(f"the tokenizer gives two texts the token types {both.type_ids}, not {types}")
    return separator


def _encode_odd(tokenizer: Tokenizer, second: str | None = None) -> list[int]:
    """The ids of a text that is in no vocabulary: the special tokens around it, and the unknown one."""
    with _library_errors("the tokenizer does not work"):
        return list(tokenizer.encode(CUNEIFORM, second).ids)


@contextlib.contextmanager
def _library_errors(message: str) -> Iterator[None]:
    """tokenizers raises plain Exception, and where it has not looked at a file it panics, with a page on stderr."""
    try:
        with silence_native_logs():
            yield
    except BaseException as problem:
        if not isinstance(problem, Exception) and type(problem).__name__ != PANIC:
            raise
        raise TokenizerError(f"{message}: {' '.join(str(problem).split())[:SHOWN]}") from problem


def build_wordpiece(vocabulary: Path, config: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer over vocab.txt, one piece per line, as transformers' BertTokenizer builds it.

    `config`: what tokenizer_config.json holds.
    """
    settings = JsonObject(config, SETTINGS)
    try:
        lines = read_regular(vocabulary, LARGEST_VOCABULARY).decode("utf-8").split("\n")
    except (OSError, ValueError) as problem:
        raise TokenizerError(f"cannot read {vocabulary.name}: {problem}") from problem
    pieces = {piece.removesuffix("\r"): index for index, piece in enumerate(lines) if piece or index < len(lines) - 1}
    unknown = settings.token("unk_token", "[UNK]")
    with _library_errors(f"cannot read {vocabulary.name}"):
        tokenizer = Tokenizer(WordPiece(pieces, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=settings.optional_flag("strip_accents"),
        lowercase=settings.flag("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    _add_special_tokens(tokenizer, settings, pad="[PAD]", unknown=unknown)
    return tokenizer


def build_unigram(model: Path, config: Mapping[str, Any]) -> Tokenizer:
    """ALBERT's tokenizer over a SentencePiece model, as transformers' converter builds it.

    `config`: what tokenizer_config.json holds.
    """
    settings = JsonObject(config, SETTINGS)
    proto = _read_sentencepiece(model)
    pieces, unk_id = [(piece.piece, piece.score) for piece in proto.pieces], proto.trainer_spec.unk_id
    if not 0 <= unk_id < len(pieces):
        raise TokenizerError(f"{model.name} has {len(pieces)} pieces and unk_id {unk_id}")
    with _library_errors(f"cannot read {model.name}"):
        tokenizer = Tokenizer(Unigram(pieces, unk_id=unk_id, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence(_albert_normalizers(proto, settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]  # ▁, always prepended
    )
    tokenizer.decoder = decoders.Metaspace()
    _add_special_tokens(tokenizer, settings, pad="<pad>", unknown=pieces[unk_id][0])
    return tokenizer


def _albert_normalizers(proto: Any, settings: JsonObject) -> list[normalizers.Normalizer]:
    chain: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.flag("keep_accents"):
        chain += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.flag("do_lower_case", True):
        chain.append(normalizers.Lowercase())
    if proto.normalizer_spec.precompiled_charsmap:
        chain.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    return [*chain, normalizers.Replace(Regex(" {2,}"), " ")]


def _read(file: Path, settings: JsonObject) -> Tokenizer:
    content = read_object(file).content
    with _library_errors(f"cannot read {file.name}"):
        tokenizer = Tokenizer.from_str(json.dumps(content))
    kind = content["model"].get("type")
    if kind not in MODELS:
        raise TokenizerError(f"{file.name} is a {kind} tokenizer: only {' and '.join(MODELS)} are supported")
    _refuse_contradiction(JsonObject(content.get("normalizer") or {}, file.name), settings)
    return tokenizer


def _refuse_contradiction(normalizer: JsonObject, settings: JsonObject) -> None:
    """transformers lets tokenizer_config.json overrule tokenizer.json in part: two answers are no answer."""
    if normalizer.content.get("type") != "BertNormalizer":
        return
    for setting, name in BERT_SETTINGS.items():
        said, wanted = normalizer.optional_flag(name), settings.optional_flag(setting)
        if wanted is not None and said != wanted:
            raise TokenizerError(
                f"tokenizer.json says {name}={said}, tokenizer_config.json says {setting}={wanted}: "
                "correct the wrong one"
            )


def _read_settings(file: Path) -> JsonObject:
    try:
        return read_object(file)
    except FileNotFoundError:
        return JsonObject({}, file.name)


def _read_sentencepiece(file: Path) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(read_regular(file, LARGEST_VOCABULARY))
    except (OSError, DecodeError) as problem:
        raise TokenizerError(f"cannot read {file.name}: not a SentencePiece model") from problem
    if proto.trainer_spec.model_type != UNIGRAM_TYPE:
        raise TokenizerError(f"{file.name} is not a Unigram model, the only kind that ALBERT uses")
    return proto


def _add_special_tokens(tokenizer: Tokenizer, settings: JsonObject, pad: str, unknown: str) -> None:
    first, last = settings.token("cls_token", "[CLS]"), settings.token("sep_token", "[SEP]")
    names = [settings.token("pad_token", pad), unknown, first, last, settings.token("mask_token", "[MASK]")]
    missing = [name for name in (first, last) if tokenizer.token_to_id(name) is None]
    if missing:
        raise TokenizerError(f"the vocabulary has no {missing[0]!r}")
    tokenizer.add_special_tokens([name for name in names if tokenizer.token_to_id(name) is not None])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (first, last)],
    )
