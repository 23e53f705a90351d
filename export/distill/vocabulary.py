"""The student's vocabulary: the teacher's, the most used part of it, or another tokenizer's.

Takes `tokenizers.Tokenizer`s of the kinds that phones read (WordPiece, Unigram). Returns a pruned tokenizer, the
teacher's rows that a piece of the student's stands for, and which tokens of two segmentations cover the same text.
Leaves out: training a vocabulary (demo/).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

from pocketbert.export.distill.options import DistillError

CONTINUES, WORD_START = "##", "▁"  # how WordPiece and Unigram mark where a word goes on, or starts
# The same special token has two names in the two kinds of vocabulary.
TWINS = {"<pad>": "[PAD]", "[PAD]": "<pad>", "<unk>": "[UNK]", "[UNK]": "<unk>"}
Span = tuple[int, int]


def prune_vocabulary(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> Tokenizer:
    """The tokenizer with the `size` pieces that `texts` use most.

    Special tokens stay, and so does every piece of one character, with which any word that the whole vocabulary
    could spell can still be spelled. Raises DistillError where these alone are more than `size`.
    """
    content = json.loads(tokenizer.to_str())
    pieces = _pieces(content["model"])
    counts: Counter[int] = Counter()
    for encoding in tokenizer.encode_batch(list(texts)):
        counts.update(encoding.ids)
    special = {token["content"] for token in content["added_tokens"]} | {_unknown(content["model"])}
    needed = [i for i, piece in enumerate(pieces) if piece in special or _is_letter(piece)]
    if len(needed) > size:
        raise DistillError(f"--vocab-size {size} is too small: special tokens and single characters are {len(needed)}")
    spare = set(range(len(pieces))) - set(needed)
    used = sorted(spare, key=lambda i: (-counts[i], i))[: size - len(needed)]
    kept = sorted([*needed, *used])
    return Tokenizer.from_str(json.dumps(_keep(content, pieces, kept)))


def find_rows(student: Tokenizer, teacher: Tokenizer) -> list[list[int]]:
    """For each piece of the student's, the ids that the teacher has for it: the same piece, or its spelling."""
    special = {token.content for token in student.get_added_tokens_decoder().values()}
    known = {_key(piece, _marks_continuation(teacher)): i for piece, i in teacher.get_vocab().items()}
    unknown = _unknown_id(teacher)
    rows = []
    for i in range(student.get_vocab_size()):
        piece = str(student.id_to_token(i))
        key = _key(piece, _marks_continuation(student))
        same = find_special(piece, teacher) if piece in special else known.get(key)
        spelled = teacher.encode(key[1], add_special_tokens=False).ids if same is None else [same]
        rows.append(spelled or [unknown])
    return rows


def find_special(piece: str, tokenizer: Tokenizer) -> int | None:
    """The id of a special token, by the name that either kind of vocabulary gives it."""
    same = tokenizer.token_to_id(piece)
    return tokenizer.token_to_id(TWINS[piece]) if same is None and piece in TWINS else same


def align_tokens(text: str, student: Encoding, teacher: Encoding) -> list[tuple[int, int]]:
    """Positions (student, teacher) of the tokens that cover the same characters, [CLS] and [SEP] included."""
    mine, theirs = (
        {span: position for position, span in enumerate(_spans(text, encoding)) if span is not None}
        for encoding in (student, teacher)
    )  # of tokens on the same characters, a lone word mark before its letter, the last counts
    pairs = [(position, theirs[span]) for span, position in mine.items() if span in theirs]
    return [(0, 0), *sorted(pairs), (len(student.ids) - 1, len(teacher.ids) - 1)]


def _spans(text: str, encoding: Encoding) -> list[Span | None]:
    """Where each token lies in the text, without blanks before it; None for special tokens."""
    spans: list[Span | None] = []
    for (start, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        while start < end and text[start].isspace():
            start += 1
        spans.append(None if special or start == end else (start, end))
    return spans


def _pieces(model: Mapping[str, Any]) -> list[str]:
    """The pieces by id."""
    if model["type"] == "Unigram":
        return [piece for piece, _ in model["vocab"]]
    return sorted(model["vocab"], key=model["vocab"].__getitem__)


def _unknown(model: Mapping[str, Any]) -> str:
    return str(model["vocab"][model["unk_id"]][0] if model["type"] == "Unigram" else model["unk_token"])


def _unknown_id(tokenizer: Tokenizer) -> int:
    unknown = tokenizer.token_to_id(_unknown(json.loads(tokenizer.to_str())["model"]))
    return 0 if unknown is None else int(unknown)


def _is_letter(piece: str) -> bool:
    return len(piece.removeprefix(CONTINUES).removeprefix(WORD_START)) <= 1


def _keep(content: dict[str, Any], pieces: Sequence[str], kept: Sequence[int]) -> dict[str, Any]:
    """tokenizer.json with the ids of `kept` only, renumbered wherever the file names one."""
    place = {pieces[old]: new for new, old in enumerate(kept)}
    model = content["model"]
    if model["type"] == "Unigram":
        unknown = model["vocab"][model["unk_id"]][0]
        model["vocab"] = [model["vocab"][old] for old in kept]
        model["unk_id"] = place[unknown]
    else:
        model["vocab"] = place
    for token in content["added_tokens"]:
        token["id"] = place[token["content"]]
    template = content.get("post_processor") or {}
    for name, entry in template.get("special_tokens", {}).items():
        entry["ids"] = [place[name]]
    for part in ("sep", "cls"):  # BertProcessing
        if part in template:
            template[part] = [template[part][0], place[template[part][0]]]
    return content


def _marks_continuation(tokenizer: Tokenizer) -> bool:
    return bool(type(tokenizer.model).__name__ == "WordPiece")


def _key(piece: str, continued: bool) -> tuple[bool, str]:
    """Whether a piece goes on with a word, and its letters, however its vocabulary marks it."""
    if continued:
        return piece.startswith(CONTINUES), piece.removeprefix(CONTINUES)
    return not piece.startswith(WORD_START), piece.removeprefix(WORD_START)
