"""The frozen entities of the contract, runtime/contract/entity_cases.jsonl: what transformers makes of token logits.

    python tests/freeze_entities.py      # writes the file again: the same bytes, while transformers answers the same

Texts are our own, or code points of tokenizer_texts.py; tokenizers are the demo checkpoints', one that marks pieces
that continue a word and one that does not, and at the end one whose pieces hold the space before them; logits are
random, and lean to entities of several tokens. The entities come from the `token-classification` pipeline of the
installed transformers, whose model is asked nothing.

The first line holds the lists of labels. Each other line is a case: the number of its labels; the text; whether pieces
mark that they continue a word; by token its piece, start and end in code points, 1 for a special token and 1 for an
unknown one; the logits by token; and what becomes of them by the strategies "first" and "simple": label, start, end,
score. The JSON is ASCII.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizer_kinds import DEMO
from tokenizer_texts import ODD, random_texts
from tokenizers import Tokenizer, pre_tokenizers

FILE = Path(__file__).resolve().parents[1] / "runtime/contract/entity_cases.jsonl"
STRATEGIES = ("first", "simple")
LABELS = (
    ("O", "B-person", "I-person", "B-place", "I-place", "B-creative-work", "I-creative-work"),
    ("name", "O", "I-date", "B-O", "I-name", "B-date"),  # out of order, half a pair, none at all
)
TEXTS = (
    "Ada Lovelace met Charles Babbage in London",
    "i love New  York,not newark!",
    "Dvořák's Rusalka at the Teatro alla Scala, Milano",
    "Jose\u0301 and Zoe\u0308 went to Co\u0302te d'Azur",
    "the café by the river: naïve? re\u0301sume\u0301",
    "she said: 'see you @ Kew Gardens @ 10' #kew",
    "東京タワー in 東京",
    "קפה ביפו with Dana, مقهى في يافا",
    "😍 Paris 👩‍🚀 mission to the Moon 🇫🇷",
    "a\u0301 [SEP] Ada [UNK] <unk> ##ing ▁under",
    "İstanbul, ŁÓDŹ, Straße",
    "don't   stop\tthe\nmusic",
)
RANDOM = 60  # texts of each tokenizer
LONGEST = 8  # pieces of a random text
LONG = 60  # code points of a text that would make the file large
LEAN = 3.0  # what is added to the logit of the label that fits
STAYS = 0.6  # how often that is the label of the token before


def tokenizers() -> dict[str, Tokenizer]:
    return {name: Tokenizer.from_file(str(DEMO / name / "tokenizer.json")) for name in ("distilbert", "albert")}


def make_pipeline(tokenizer: Tokenizer, labels: Sequence[str], max_length: int = 512) -> Any:
    """transformers' pipeline for `tokenizer` and `labels`, around the smallest model there is."""
    from transformers import DistilBertConfig, DistilBertForTokenClassification, PreTrainedTokenizerFast
    from transformers.pipelines import TokenClassificationPipeline

    unknown = "[UNK]" if tokenizer.token_to_id("[UNK]") is not None else "<unk>"
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, model_max_length=max_length)
    config = DistilBertConfig(
        vocab_size=1, dim=4, hidden_dim=4, n_layers=1, n_heads=1, id2label=dict(enumerate(labels)), label2id={}
    )
    return TokenClassificationPipeline(model=DistilBertForTokenClassification(config), tokenizer=wrapped)


def ask(pipeline: Any, text: str, logits: NDArray[np.float32], strategy: str) -> list[tuple[str, int, int, float]]:
    """Label, start, end and score of each entity that the pipeline finds in logits, float32 (tokens, labels)."""
    import torch
    from transformers.pipelines.token_classification import AggregationStrategy

    (inputs,) = pipeline.preprocess(text, is_split_into_words=False)
    outputs = {**inputs, "logits": torch.from_numpy(logits)[None]}
    found = pipeline.postprocess([outputs], AggregationStrategy[strategy.upper()])
    return [(e["entity_group"], e["start"], e["end"], float(e["score"])) for e in found]


def random_logits(source: random.Random, tokens: int, labels: int) -> NDArray[np.float32]:
    """float32 (tokens, labels), a label keeping its lead over some tokens."""
    rows, leader = [], 0
    for _ in range(tokens):
        leader = leader if source.random() < STAYS else int(source.random() * labels)
        rows.append([round(4 * source.random() - 2 + LEAN * (i == leader), 2) for i in range(labels)])
    return np.array(rows, np.float32)


def compute() -> Iterator[list[Any]]:
    """Every case."""
    source = random.Random(1)
    for number, labels in enumerate(LABELS):
        for name, tokenizer in tokenizers().items():
            pipeline = make_pipeline(tokenizer, labels)
            mixed = random_texts(RANDOM, seed=number, longest=LONGEST)
            for text in ("", *TEXTS, *ODD[::2], *mixed):
                # transformers refuses unpaired surrogates.
                if len(text) < LONG and not any(0xD800 <= ord(c) < 0xE000 for c in text):
                    yield [number, *_case(source, pipeline, tokenizer, name == "distilbert", text)]
    spaced = tokenizers()["albert"]
    spaced.pre_tokenizer = pre_tokenizers.Metaspace()  # whose pieces begin with the space before them
    pipeline = make_pipeline(spaced, LABELS[0])
    for text in TEXTS:
        yield [0, *_case(source, pipeline, spaced, False, text)]


def _case(source: random.Random, pipeline: Any, tokenizer: Tokenizer, marks: bool, text: str) -> list[Any]:
    encoding, unknown = tokenizer.encode(text), pipeline.tokenizer.unk_token_id
    logits = random_logits(source, len(encoding.ids), len(pipeline.model.config.id2label))
    columns = zip(encoding.tokens, encoding.offsets, encoding.special_tokens_mask, encoding.ids, strict=True)
    tokens = [[piece, *span, special, int(id_ == unknown)] for piece, span, special, id_ in columns]
    shown = [[round(value, 2) + 0.0 for value in row] for row in logits.tolist()]
    found = [[[*e[:3], round(e[3], 6)] for e in ask(pipeline, text, logits, strategy)] for strategy in STRATEGIES]
    return [text, marks, tokens, shown, *found]


def write() -> str:
    """The content of the file."""
    lines = [{"labels": LABELS}, *compute()]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def read() -> tuple[list[list[str]], list[list[Any]]]:
    """The lists of labels, and the cases."""
    header, *cases = map(json.loads, FILE.read_text(encoding="ascii").splitlines())
    return header["labels"], cases


if __name__ == "__main__":
    FILE.write_text(write(), encoding="ascii")
    print(f"{FILE}: {len(read()[1])} cases, {FILE.stat().st_size} bytes")
