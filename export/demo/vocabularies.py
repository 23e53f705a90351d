"""The two demo vocabularies: a lower-casing WordPiece as DistilBERT has it, a SentencePiece Unigram as ALBERT has it.

Takes texts. Returns `tokenizers.Tokenizer`s; the same texts give the same pieces.
Leaves out: students and training (train.py).
"""

from __future__ import annotations

import io
import string
from collections import Counter
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PIECES = 8000  # vocabulary size; its table is about half of each checkpoint's bytes
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALBERT_SPECIALS = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET = 120  # characters of SST-2 worth a piece of their own; what is rarer becomes [UNK]
TYPED = set(string.ascii_lowercase + string.digits + string.punctuation)  # what a phone's keyboard has is never unknown


def wordpiece(texts: Sequence[str]) -> Tokenizer:
    """BERT's lower-casing WordPiece over a vocabulary of our own."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    learned = wordpieces(texts, tokenizer)
    vocabulary = {piece: number for number, piece in enumerate([*BERT_SPECIALS, *learned])}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    return add_special_tokens(tokenizer, BERT_SPECIALS)


def wordpieces(texts: Sequence[str], cutter: Tokenizer) -> list[str]:
    """The learned pieces in alphabetical order. The trainer meets letters in random order and breaks ties by
    it, so the letters are fixed beforehand: alone, and as special tokens where they continue a word."""
    counts = Counter("".join(map(cutter.normalizer.normalize_str, texts)))
    letters = sorted(TYPED | {letter for letter, _ in counts.most_common(ALPHABET) if not letter.isspace()})
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = cutter.normalizer, cutter.pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=PIECES, initial_alphabet=letters, limit_alphabet=len(letters), show_progress=False,
        special_tokens=[*BERT_SPECIALS, *("##" + letter for letter in letters if letter.isalnum())],
    )  # fmt: skip
    scratch.train_from_iterator(texts, trainer)
    return sorted(set(scratch.get_vocab()) - set(BERT_SPECIALS))


def unigram(texts: Sequence[str]) -> Tokenizer:
    """ALBERT's tokenizer, rewritten from a SentencePiece model as transformers does it."""
    import sentencepiece
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    clean = normalizers.Sequence(ALBERT_CLEANING)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=map(clean.normalize_str, texts), model_writer=written, model_type="unigram",
        vocab_size=PIECES, normalization_rule_name="nmt_nfkc", control_symbols=ALBERT_SPECIALS[2:],
        character_coverage=1.0, required_chars="".join(sorted(TYPED)), pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
        pad_piece="<pad>", unk_piece="<unk>", num_threads=1, minloglevel=2,
    )  # fmt: skip
    model = ModelProto.FromString(written.getvalue())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=1))
    charsmap = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    tokenizer.normalizer = normalizers.Sequence([*ALBERT_CLEANING, charsmap, ONE_BLANK])
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    tokenizer.decoder = decoders.Metaspace()
    return add_special_tokens(tokenizer, ALBERT_SPECIALS)


ALBERT_CLEANING = [
    normalizers.Replace("``", '"'), normalizers.Replace("''", '"'),
    normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
]  # fmt: skip
ONE_BLANK = normalizers.Replace(Regex(" {2,}"), " ")


def add_special_tokens(tokenizer: Tokenizer, specials: Sequence[str]) -> Tokenizer:
    """The special tokens, and [CLS] text [SEP] around each text."""
    tokenizer.add_special_tokens(list(specials))
    frame = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame
    )
    return tokenizer
