"""Golden cases: texts that travel in a bundle with the ids and logits they must give, on every platform.

Takes the checkpoint's tokenizer, the fp32 encoder and its oracles by name. Gives golden.json.
Leaves out: judging an engine by them (runtime).

`logits` are the fp32 checkpoint's. `oracle` holds what artifacts must reproduce; each names the one for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pocketbert.export.encoder import Encoder

GOLDEN = "golden.json"

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


def write(
    folder: Path, tokenizer: Tokenizer, encoder: Encoder, oracles: Mapping[str, Encoder], max_length: int
) -> None:
    """Writes golden.json: {"cases": [{"text", "input_ids", "logits", "oracle": {name: logits}}]}."""
    cases = []
    for text in TEXTS:
        ids = encode(tokenizer, text, max_length)
        expected = {name: _logits(oracle, ids) for name, oracle in oracles.items()}
        cases.append({"text": text, "input_ids": ids, "logits": _logits(encoder, ids), "oracle": expected})
    (folder / GOLDEN).write_text(json.dumps({"cases": cases}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def mean_drift(folder: Path, oracle: str) -> float:
    """How far the oracle `oracle` is from the checkpoint: mean absolute difference of a logit over the cases."""
    cases = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))["cases"]
    gaps = [abs(a - b) for case in cases for a, b in zip(case["logits"], case["oracle"][oracle], strict=True)]
    return sum(gaps) / len(gaps)


def encode(tokenizer: Tokenizer, text: str, max_length: int) -> list[int]:
    """The ids of `text`, cut to `max_length` with its special tokens kept."""
    tokenizer.enable_truncation(max_length)
    ids = tokenizer.encode(text).ids
    tokenizer.no_truncation()
    return list(ids)


def _logits(encoder: Encoder, ids: list[int]) -> list[float]:
    import torch

    with torch.inference_mode():
        logits: Any = encoder(torch.tensor([ids], dtype=torch.int32))[0]
    return [float(value) for value in logits]
