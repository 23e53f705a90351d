"""The frozen answers of the contract, runtime/contract/answer_cases.jsonl: what transformers 4 makes of logits.

    python3.11 -m venv transformers4
    transformers4/bin/pip install 'transformers<5' torch
    transformers4/bin/python tests/freeze_answers.py       # writes the file again: the same bytes
    transformers4/bin/python tests/freeze_answers.py --checkpoint CHECKPOINT --data SQUAD.json --out ANSWERS.jsonl

transformers 5 has no question-answering pipeline; 4.57.6 made the file. Texts are our own, tokenizers are the demo
checkpoints', logits are random, with peaks where an answer could be. The second form asks a real checkpoint about real
texts, in fp32, and writes the same lines; tests/compare_answers.py reads them. Neither belongs into the repository.

Each line is a case: question and text; `max_length` of a window and `stride`, null where nobody asked for one;
`question_tokens`, and of each of the text's `tokens` start, end (code points) and word number; `windows`, from the
first to behind the last token of the text that each holds; their `start` and `end` logits: of the first special token,
the question, a special token, the text, a special token. `answers` holds the longest answer in tokens, whether none is
allowed, and what is answered then: start, end, score, or null. The JSON is ASCII.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
FILE = REPOSITORY / "runtime/contract/answer_cases.jsonl"
TOKENIZERS = ("distilbert", "albert")
SETTINGS = ((15, False), (15, True), (2, False), (40, True))  # longest answer, whether none is allowed
LENGTHS = ((384, None), (48, None), (32, 6), (25, 0))  # max_length, stride
REAL_LENGTHS = ((384, None), (128, None), (96, 20))
DIGITS = 2  # of a logit
LEAD = 9.0  # of a peak, at most
WIDTH = 4.0  # from the lowest to the highest of other logits
NEAR = 1e-4  # two best answers whose scores are nearer than this are a matter of rounding
TEXTS = {
    "Who wrote the first program?": (
        "Ada Lovelace wrote the first program, for a machine of Charles Babbage's. It was never built. In those days a "
        "program was a table; Ada wrote hers in 1843, as a note to a paper that she translated. The machine, had it "
        "been built, would have needed steam.",
        "ada Ada ADA ada lovelace, Ada Lovelace; ada-lovelace: ADA LOVELACE!",
    ),
    "Where is the café?": (
        "The cafe\u0301 is in Co\u0302te d'Azur, by the harbour; the other café is in Zürich\u2019s old town, behind "
        "the Straßenbahn depot. Neither opens on Mondays.",
        "😍 in Paris 👩‍🚀👍🏽, or was it the Moon? 🇫🇷 nobody knows… the moon, THE MOON.",
        "東京タワーの中にあります。カフェは二階です。 second floor",
        "קפה ביפו, מقهى في يافا, and İstanbul ŁÓDŹ",
    ),
    "how long do i have to wait for the parcel that you sent on friday": (
        "A parcel takes two days. Letters take one day; with a stamp of the second class, three. On Sundays nothing "
        "moves. A parcel that was sent on Friday comes on Monday, if it is not too large, else on Tuesday. "
        "Two days, then, or three. Ask again on Tuesday if there is no parcel: two days are two days.",
        "[SEP] two days [CLS] <unk> ##s [UNK] three\u00a0days\u200b\u00ad, don't   stop\tthe\nparcel",
        "word",
        " \t ",
    ),
    "?": ("a b a b a b", "antidisestablishmentarianism" * 3),
}


def make_pipeline(name: str) -> Any:
    """transformers' pipeline with a demo checkpoint's tokenizer, around the smallest model there is."""
    from transformers import DistilBertConfig, DistilBertForQuestionAnswering, PreTrainedTokenizerFast
    from transformers.pipelines import QuestionAnsweringPipeline

    file = REPOSITORY / "export/demo" / name / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), cls_token="[CLS]", sep_token="[SEP]")
    config = DistilBertConfig(vocab_size=1, dim=4, hidden_dim=4, n_layers=1, n_heads=1)
    return QuestionAnsweringPipeline(model=DistilBertForQuestionAnswering(config), tokenizer=tokenizer)


def split(pipeline: Any, question: str, text: str, max_length: int, stride: int | None) -> list[dict[str, Any]] | None:
    """The pipeline's windows; None where the question leaves no room for them."""
    sample = pipeline.create_sample(question=question, context=text)
    try:
        return list(pipeline.preprocess(sample, max_seq_len=max_length, doc_stride=stride))
    except BaseException as problem:  # tokenizers' panics are no Exception
        if type(problem).__name__ not in ("PanicException", "Exception"):
            raise
        return None


def describe(pipeline: Any, text: str, windows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens of the question and the text, and which of the text's each window holds."""
    whole = pipeline.tokenizer._tokenizer
    whole.no_truncation()
    tokens = _tokens(whole.encode(text, add_special_tokens=False))
    held: list[tuple[int, int]] = []
    for window in windows:
        part = _tokens(window["encoding"], sequence=1)
        after = held[-1][0] + 1 if held else 0
        begin = next(i for i in range(after, len(tokens) + 1) if tokens[i : i + len(part)] == part)
        held.append((begin, begin + len(part)))
    return {
        "question_tokens": windows[0]["encoding"].sequence_ids.count(0),
        "tokens": [token[1:] for token in tokens],
        "windows": held,
    }


def _tokens(encoding: Any, sequence: int | None = None) -> list[tuple[int, ...]]:
    """Id, start, end and word number; of all, or of one text's."""
    columns = zip(encoding.ids, encoding.offsets, encoding.word_ids, encoding.sequence_ids, strict=True)
    return [(id_, *span, word) for id_, span, word, own in columns if sequence is None or own == sequence]


def random_logits(source: random.Random, windows: list[dict[str, Any]], held: Any) -> list[list[list[float]]]:
    """Start and end logits of each window: two peaks in the text, which all windows that hold them see about alike, and
    more or less of one at the first token."""
    tokens = max(end for _, end in held)
    peaks = [[WIDTH * source.random() for _ in range(tokens)] for _ in range(2)]
    for _ in range(2 if tokens else 0):
        first = int(source.random() * tokens)
        last = min(first + int(source.random() * 6), tokens - 1)
        peaks[0][first] += LEAD * source.random()
        peaks[1][last] += LEAD * source.random()
    found = []
    for window, (begin, _) in zip(windows, held, strict=True):
        sequences = window["encoding"].sequence_ids
        logits = [[source.random() for _ in sequences] for _ in range(2)]
        for row, peak in zip(logits, peaks, strict=True):
            row[0] += LEAD * source.random()
            for place, sequence in enumerate(sequences):
                row[place] += peak[begin + place - sequences.index(1)] if sequence == 1 else 0
        found.append([[round(value, DIGITS) for value in row] for row in logits])
    return found


def ask(pipeline: Any, windows: list[dict[str, Any]], logits: Any, longest: int, allow_none: bool) -> Any:
    """Start, end and score of the pipeline's answer; None for none, and False where two are as good."""
    import torch

    outputs = [
        {**window, "start": torch.tensor([start]), "end": torch.tensor([end])}
        for window, (start, end) in zip(windows, logits, strict=True)
    ]
    settings = {"handle_impossible_answer": allow_none, "max_answer_len": longest}
    best = pipeline.postprocess(outputs, **settings)
    two = pipeline.postprocess(outputs, top_k=2, **settings)
    if isinstance(two, list) and len(two) > 1 and two[0]["score"] - two[1]["score"] < NEAR * two[0]["score"]:
        return False
    return [best["start"], best["end"], round(best["score"], 6)] if best and best["answer"] else None


def compute() -> Iterator[dict[str, Any]]:
    """Every case of our own texts."""
    source = random.Random(1)
    for name in TOKENIZERS:
        pipeline = make_pipeline(name)
        for question, texts in TEXTS.items():
            for text, (max_length, stride) in itertools.product(texts, LENGTHS):
                windows = split(pipeline, question, text, max_length, stride)
                if windows is None:
                    continue
                logits = random_logits(source, windows, describe(pipeline, text, windows)["windows"])
                asked = [(*setting, ask(pipeline, windows, logits, *setting)) for setting in SETTINGS]
                yield case(pipeline, question, text, max_length, stride, windows, logits, asked)


def case(
    pipeline: Any, question: str, text: str, max_length: int, stride: int | None, windows: Any, logits: Any, asked: Any
) -> dict[str, Any]:
    return {
        "question": question,
        "text": text,
        "max_length": max_length,
        "stride": stride,
        **describe(pipeline, text, windows),
        "start": [start for start, _ in logits],
        "end": [end for _, end in logits],
        "answers": [each for each in asked if each[-1] is not False],
    }


def compute_real(checkpoint: str, data: Path) -> Iterator[dict[str, Any]]:
    """Every question of a file in SQuAD's form, of its paragraph and of its whole article, to a real checkpoint."""
    import torch
    from transformers import pipeline as load

    pipeline = load("question-answering", model=checkpoint, dtype=torch.float32)
    pipeline.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # DistilBERT has no token types
    said: list[Any] = []
    pipeline.model.register_forward_hook(lambda *call: said.append(call[-1]))
    for article in json.loads(data.read_text(encoding="utf-8"))["data"]:
        whole = "\n".join(paragraph["context"] for paragraph in article["paragraphs"])
        for paragraph in article["paragraphs"]:
            for number, question in enumerate(paragraph["qas"]):
                own = [(paragraph["context"], *length) for length in REAL_LENGTHS]
                for text, *length in [*own, *([(whole, 384, None)] if number == 0 else [])]:
                    yield _real_case(pipeline, said, question["question"], text, *length)


def _real_case(pipeline: Any, said: list[Any], question: str, text: str, max_length: int, stride: int | None) -> Any:
    """What the pipeline answers when it is called as anyone calls it, and for other settings from the same logits."""
    said.clear()
    best = pipeline(question=question, context=text, max_seq_len=max_length, doc_stride=stride)
    logits = [(output.start_logits[0].tolist(), output.end_logits[0].tolist()) for output in said]
    windows = split(pipeline, question, text, max_length, stride)
    asked = [(*SETTINGS[0], [best["start"], best["end"], best["score"]])]
    asked += [(*setting, ask(pipeline, windows, logits, *setting)) for setting in SETTINGS[1:]]
    return case(pipeline, question, text, max_length, stride, windows, logits, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="a real one, for --data and --out")
    parser.add_argument("--data", type=Path, help="questions in SQuAD's form")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    cases = compute_real(options.checkpoint, options.data) if options.checkpoint else compute()
    lines = [json.dumps(each, separators=(",", ":")) + "\n" for each in cases]
    options.out.write_text("".join(lines), encoding="ascii")
    print(f"{options.out}: {len(lines)} cases, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
