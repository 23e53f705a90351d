"""Golden cases: texts that travel in a bundle with the ids and logits they must give, on every platform.

Takes the checkpoint, its fp32 encoder and its oracles by name. Writes golden.json.
Leaves out: judging an engine by them (runtime/self_check.py), and what a text is worth as evidence (steadiness.py).

`logits` are the fp32 checkpoint's. `oracle` holds what artifacts must reproduce; each names the one for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.export.architectures import EncoderConfig
from pocketbert.export.encoder import Encoder, compute_logits
from pocketbert.export.quantize import is_quantized, unpack
from pocketbert.export.steadiness import find_steady, measure_moves
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION
from pocketbert.runtime.scores import task_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from pocketbert.export.checkpoint import Checkpoint

GOLDEN = "golden.json"
# How far an engine's probabilities may be from its oracle's before it is refused. Kernels round halves and add up in
# other orders, which moves an int8 step here and there: up to 0.017 in probability on the real checkpoints measured.
# A wrong kernel moves tenths: one that takes the first scale for all channels 0.71, in one linear alone 0.15.
TOLERANCE = 0.05
# A text whose probabilities rounding alone moves by more is no evidence about an engine: where two answers tie, a right
# kernel is off by up to 0.054. Half the tolerance, because an engine's roundings are others than those that were tried.
STEADY = TOLERANCE / 2
SHOWN = 40  # characters of a text in a message

# Short, long, empty, accented, emoji, scripts, controls: what a phone's keyboard and clipboard can hold.
TEXTS = (
    "",
    " ",
    "ok",
    "No.",
    "what a lovely film",
    "not bad at all!",
    "i wouldn't watch it again, even for free...",
    "THE WORST APP EVER!!!",
    "Une comédie légère, très réussie: déjà vu ?",
    "naïve café, Ångström, Dvořák, e\u0301 as two code points",
    "Fußball & Straße, İstanbul, ŁÓDŹ, ǅ",
    "I love it 😍😍 👍🏽 👩‍👩‍👧‍👦 🇫🇷",
    "这部电影太好看了",
    "映画はとても面白かったです。",
    "정말 재미있는 영화였어요",
    "فيلم جميل جدا",
    "यह फिल्म बहुत अच्छी है",
    "tabs\tand\nnew\r\nlines, zero\u200bwidth, soft\u00adhyphen, nbsp\u00a0here, control\u0007bell",
    "call 0800-123-4567 or visit www.example.com/free?win=1 NOW £1000",
    "``quoted'' and \"quoted\" and ‘curly’ — dash… ½ ﬁ ｆｕｌｌ",
    "antidisestablishmentarianism" * 4,
    "[CLS] [SEP] [UNK] <unk> ##ing ▁under",
    "the acting , costumes , music , cinematography and sound are all astounding",
    "it is slow , and then it is slower , and then there is nothing at all . " * 4,
    "a film that goes on for ever and a day without ever once finding its feet . " * 40,
)


# Text, and a question first where it is answered from the text; else two texts that are judged together.
PAIRED_TEXTS = (
    ("", ""),
    ("?", ""),
    ("", "no question at all"),
    ("what time does the shop open ?", "We open at 9:30 and close at six, every day but Sunday."),
    ("Who wrote it?", "The Trial was written by Franz Kafka in 1914 and 1915, and published after his death."),
    ("can i get my money back", "Refunds are paid within 14 days 💶👍🏽. Ask at the till!"),
    ("Où habite-t-elle ?", "Zoë Ångström habite à Zürich, près de l\u2019église. e\u0301t\u00e9 comme hiver."),
    ("它什么时候开门?", "商店早上九点开门，晚上六点关门。"),
    ("متى يفتح المتجر؟", "يفتح المتجر في الساعة التاسعة صباحا"),
    ("where is the key", "first [SEP] the key is under the mat [SEP] or not"),
    ("what is it about ?", "It is about a man who wakes up as a beetle. " * 4),
    ("who ?", "The boat went on , and on it went the captain and his dog , up the river . " * 40),
)
# JSON's numbers that a file may hold: some megabytes, which a phone reads in a second. Texts that would make it more
# are left out, the longest first: a token classifier of thousands of labels has few golden texts.
MOST_NUMBERS = 400_000


@dataclass(frozen=True)
class Case:
    """A text, or two, with the ids that they become."""

    texts: tuple[str, ...]
    ids: list[int]


def write_golden(
    folder: Path, checkpoint: Checkpoint, encoder: Encoder, oracles: Mapping[str, Encoder], max_length: int
) -> int:
    """Writes golden.json, gives the number of cases: {"tolerance", "cases": [{"text", "text_pair", "input_ids",
    "logits", "oracle": {name: logits}}]}, `text_pair` where there are two. Logits have the shapes of `compute_logits`.

    Leaves out cases that rounding alone moves by more than STEADY with any of the oracles. Where those are more than a
    third of all, the steadiest two thirds stay, and an engine may be refused that is right.

    Raises PocketbertError for logits that are NaN or infinite.
    """
    made = _make_cases(checkpoint.tokenizer, encoder.config.task, max_length, checkpoint.pairs)
    cases = _keep_few(made, encoder.config, len(oracles) + 1)
    ids_list = [case.ids for case in cases]
    logits = compute_logits(encoder, ids_list)
    oracles = {name: unpack(oracle) for name, oracle in oracles.items()}
    expected = {name: compute_logits(oracle, ids_list) for name, oracle in oracles.items()}
    for name, rows in {"the checkpoint": logits, **expected}.items():
        _check_finite(name, cases, rows)
    read = partial(task_probabilities, task=encoder.config.task, multi_label=checkpoint.multi_label)
    steady = _find_steady(oracles, ids_list, expected, read)
    described = [_describe(cases[i], logits[i], {name: rows[i] for name, rows in expected.items()}) for i in steady]
    content = json.dumps({"tolerance": TOLERANCE, "cases": described}, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / GOLDEN).write_text(content + "\n", encoding="utf-8")
    return len(described)


def _describe(case: Case, logits: NDArray[np.float32], expected: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    return {
        **dict(zip(("text", "text_pair"), case.texts, strict=False)),
        "input_ids": case.ids,
        "logits": logits.tolist(),
        "oracle": {name: row.tolist() for name, row in expected.items()},
    }


def _find_steady(
    oracles: Mapping[str, Encoder],
    ids_list: Sequence[Sequence[int]],
    expected: Mapping[str, Sequence[NDArray[np.float32]]],
    probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> list[int]:
    """The places of the cases that no oracle's rounding tips; only those of int8 activations round."""
    moves = [np.zeros(len(ids_list))]
    for name, oracle in oracles.items():
        if is_quantized(oracle):
            moves.append(measure_moves(oracle, ids_list, expected[name], probabilities))
    return find_steady(np.max(moves, axis=0), STEADY)


def _make_cases(tokenizer: Tokenizer, task: str, max_length: int, pairs: bool) -> list[Case]:
    """One text where one may come, two where two may; questions that leave the text at least half of the room, where
    cutting the longest first cuts the text alone, as it is cut for an answer."""
    answers = task == QUESTION_ANSWERING
    texts: list[tuple[str, ...]] = [] if answers else [(text,) for text in TEXTS]
    texts += PAIRED_TEXTS if pairs else ()
    room = max_length - tokenizer.num_special_tokens_to_add(is_pair=True)
    fitting = [each for each in texts if not answers or 2 * len(_ids(tokenizer, each[0])) <= room]
    return [Case(each, encode(tokenizer, *each, max_length=max_length)) for each in fitting]


def _keep_few(cases: list[Case], config: EncoderConfig, kinds: int) -> list[Case]:
    """Without the longest, as far as the logits, `kinds` of them, would be more than MOST_NUMBERS."""
    by_token = config.task != SEQUENCE_CLASSIFICATION
    left = MOST_NUMBERS
    kept: set[int] = set()
    for place in sorted(range(len(cases)), key=lambda place: len(cases[place].ids)):
        left -= kinds * config.num_labels * (len(cases[place].ids) if by_token else 1)
        if left >= 0 or not kept:
            kept.add(place)
    return [case for place, case in enumerate(cases) if place in kept]


def _check_finite(name: str, cases: Sequence[Case], logits: Sequence[NDArray[np.float32]]) -> None:
    """Weights may all be finite and so large that their products are not."""
    for case, found in zip(cases, logits, strict=True):
        if not np.isfinite(found).all():
            raise PocketbertError(
                f"{name} answers {shorten(' / '.join(case.texts), SHOWN)!r} with logits that are no numbers: its "
                "weights are too large"
            )


def mean_drift(folder: Path, oracle: str) -> float:
    """How far the oracle `oracle` is from the checkpoint: mean absolute difference of a logit over the cases."""
    cases = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))["cases"]
    drifts = [np.abs(np.subtract(case["logits"], case["oracle"][oracle])).ravel() for case in cases]
    return float(np.concatenate(drifts).mean())


def encode(tokenizer: Tokenizer, text: str, text_pair: str | None = None, *, max_length: int) -> list[int]:
    """The ids of one text or two, cut to `max_length`, the longest first, with the special tokens kept."""
    tokenizer.enable_truncation(max_length)
    ids = tokenizer.encode(text, text_pair).ids
    tokenizer.no_truncation()
    return list(ids)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Of the text alone, without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)
