"""Trains the two embedded demo checkpoints: a small DistilBERT and a small ALBERT that tell sentiment.

Takes  SST-2 (train.tsv, dev.tsv with the columns text, label) and a teacher: a DistilBERT classifier folder.
Gives  OUT/distilbert and OUT/albert: config.json, model.safetensors (fp16), tokenizer.json,
       tokenizer_config.json, as transformers and PocketBERT read them.
Leaves out pre-training, any text but SST-2's and the invented, and tuning: the constants are the recipe.

The road: invent more sentences, let the teacher judge them all, train a vocabulary, start the student's
embeddings from the teacher's, distill, keep the weights that are best on held-out rows, report dev.

    python -m pocketbert.export.demo.train --data ../shared/data/sst2 \\
        --teacher ../shared/models/distilbert-l6-h384-sst2 --out export/demo
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.progress import Progress, TimeElapsedColumn
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional

LABELS = ["NEGATIVE", "POSITIVE"]
NO_LABEL = -100  # what cross-entropy skips: an invented sentence has the teacher's answer only
HELD_OUT = 2000  # rows of train that choose which weights to keep, so that dev is only reported
PIECES = 8000  # vocabulary size; its table is about half of each checkpoint's bytes
POSITIONS = 128  # longest text the demo reads, [CLS] and [SEP] included
BATCH = 64  # small enough for several thousand steps, large enough for a CPU's matrix units
CHUNK = 64  # batches sorted by length together: little padding, still well shuffled


# ---- sentences ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    text: str
    label: int


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Row(row["text"], LABELS.index(row["label"])) for row in table]


def split(rows: list[Row], rng: random.Random) -> tuple[list[Row], list[Row]]:
    """Train and held-out rows. SST-2 lists a sentence and its phrases, so whole families are held out."""
    held: set[str] = set()
    for sentence in rng.sample([row.text for row in rows if row.text.endswith(" .")], HELD_OUT):
        held.update(row.text for row in rows if " " in row.text and row.text in sentence)
        if len(held) >= HELD_OUT:
            break
    return [row for row in rows if row.text not in held], [row for row in rows if row.text in held]


SWAPS, SPLICES, CHATS = 60_000, 50_000, 50_000  # invented sentences of each kind, about 2.5 to a row in all
SWAP = 0.25  # the chance that a word is swapped for another one
SPLICE_WORDS = 16  # longer phrases are not spliced: phone texts are short
TEACHER_WORDS = 9000  # the teacher's most frequent words, for words no film review holds ("app", "phone")
JOINTS = [" ", " , ", " but ", " and ", " . ", " ! ", " , but ", " although ", " because ", " so "]


def invent(rows: list[Row], teacher_words: list[str], rng: random.Random) -> list[str]:
    """Unlabelled sentences: phrases with swapped words, two phrases spliced, and chat lines."""
    texts = [row.text for row in rows]
    words = sorted({word for text in texts for word in text.split()})
    short = [text for text in texts if len(text.split()) <= SPLICE_WORDS]
    swaps = (swap(rng.choice(texts), rng.choice([words, teacher_words]), rng) for _ in range(SWAPS))
    splices = (rng.choice(short) + rng.choice(JOINTS) + rng.choice(short) for _ in range(SPLICES))
    return [*swaps, *splices, *(chat(rng) for _ in range(CHATS))]


def swap(text: str, words: list[str], rng: random.Random) -> str:
    return " ".join(rng.choice(words) if rng.random() < SWAP else word for word in text.split())


# A small grammar of chat lines: a part in {braces} is drawn from its row, "|" parts the choices, and nothing
# between two "|" leaves the part out. What a line means is for the teacher to say.
GRAMMAR = {
    "line": (
        "{say}{end}|{say}{end}|{say}{end}|{say}{end}|{say}, {say}{end}|{say} {joint} {say}{end}|{hello}, {say}{end}"
    ),
    "say": "{claim}|{claim}|{feeling}|{feeling}|{cry}|{deed}|{mood}",
    "claim": (
        "{thing} {is} {very} {quality}|{it} {is} {very} {quality}|{it} {isnt} {very} {quality}|"
        "{thing} {isnt} {very} {quality}|{it} {is} a {quality} {noun}|{it} {isnt} a {quality} {noun}"
    ),
    "feeling": (
        "i {very} {like} {object}|i {dont} {like} {object}|we {like} {object}|"
        "i {dont} {very} {like} {object}|i {cant} {stand} {object}|my friends {like} {object}"
    ),
    "cry": (
        "{most} {noun} ever|{most} {noun} i have ever had|what a {quality} {noun}|so {quality}|"
        "{not} {quality}|{not} {quality} at all|{very} {quality}|{quality} {noun}|my {most} {noun}|"
        "not my {liked} {noun}|my {liked} {noun}|not the {most} {noun}|never {again}|no {noun}"
    ),
    "deed": (
        "{it} {works}|{thing} {works}|{it} {doesnt} work|nothing {works}|everything {works}|"
        "would {not} recommend {object}|{waste} my {noun}|a {waste} of {noun}|{made} my {noun}|"
        "can't wait to {stand} {object}|no {problem}|no {problem} with {object}|so much {problem}|"
        "i want my money back|looking forward to {object}|don't waste your {noun}"
    ),
    "mood": (
        "i'm {very} {state}|i am {very} {state}|i'm not {very} {state}|you are {very} {quality}|"
        "you're {very} {quality}|you're not {quality}|feeling {state}|so {state} right now"
    ),
    "thing": "the {noun}|this {noun}|that {noun}|my {noun}|your {noun}|the new {noun}",
    "it": "it|this|that|everything|he|she",
    "object": "it|it|this|that|you|him|her|them|{thing}|{thing}",
    "noun": (
        "app|phone|day|movie|film|food|game|song|weather|place|service|idea|party|trip|update|battery|"
        "camera|screen|time|job|boss|friend|news|show|book|dinner|team|school|weekend|present|message|"
        "photo|train|hotel"
    ),
    "is": "is|was|'s|looks|feels|seems|are|has been|will be",
    "isnt": "isn't|wasn't|is not|was not|is never|is no longer|won't be|isnt|aint",
    "dont": "don't|do not|didn't|did not|never|dont|no longer|really don't",
    "doesnt": "doesn't|does not|didn't|won't|doesnt|never",
    "cant": "can't|cannot|could not|couldn't|cant",
    "stand": "stand|see|use|wait for|believe|recommend|meet|watch",
    "very": "||||so|really|very|too|pretty|just|totally|kinda|super",
    "not": "not|not|not so|not very|not too|never|hardly",
    "like": ("love|like|hate|enjoy|adore|miss|recommend|dislike|regret|loved|hated|liked|enjoyed|trust|want|need"),
    "liked": "favorite|favourite|fav|best|worst|type of|kind of",
    "quality": (
        "good|great|nice|awesome|amazing|cool|fun|lovely|perfect|wonderful|beautiful|brilliant|sweet|kind|"
        "funny|helpful|fast|easy|excellent|fantastic|cute|happy|useful|delicious|okay|fine|interesting|"
        "exciting|bad|boring|awful|terrible|annoying|slow|broken|horrible|ugly|stupid|useless|"
        "disappointing|lame|rude|sad|cold|hard|dull|gross|disgusting|pathetic|expensive|crap|trash|mean|"
        "late|dumb|weird|wrong|noisy"
    ),
    "state": (
        "happy|sad|excited|angry|tired|bored|proud|annoyed|grateful|disappointed|glad|upset|lonely|worried|"
        "thankful|sick|in love|sorry|scared|relaxed"
    ),
    "most": "best|worst|coolest|nicest|dumbest|greatest|most {quality}|most {quality}",
    "works": (
        "works|works great|works well|works perfectly|rocks|sucks|keeps crashing|failed|made me smile|"
        "made me cry|saved my day|ruined my day|gets better|gets worse"
    ),
    "waste": "waste|total waste|wasted|complete waste",
    "made": "made|you made|it made|ruined|this ruined|you ruined|saved",
    "problem": "problem|problems|complaints|complaint|issues|bugs|fun|help|hope|trouble",
    "again": "again|again in my life|going back|buying this again|been better|been so {state}",
    "hello": (
        "thanks|thank you|ugh|omg|wow|lol|hey|sorry|yes|no|well|haha|yay|damn|great|oh no|congrats|honestly|hello"
    ),
    "joint": "and|but|because|so|and then",
    "end": "||||.|!|!!|!!!|...| :)| :(| lol| haha|?| tbh| today",
}


def chat(rng: random.Random) -> str:
    line = "{line}"
    while "{" in line:
        line = re.sub(r"\{(\w+)\}", lambda part: rng.choice(GRAMMAR[part[1]].split("|")), line)
    return re.sub(" +(?='s)|(?<= ) +|^ | $", "", line)


def typed(text: str) -> str:
    """As a phone user writes it: SST-2 puts blanks around punctuation and inside don't."""
    return re.sub(r" (?=[,.!?;:)]|n't\b|'(?:s|re|ve|ll|d|m)\b)", "", text).removesuffix(".")


# ---- the teacher ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    model: Any  # transformers' DistilBertForSequenceClassification
    tokenizer: Tokenizer

    def words(self) -> list[str]:
        """Its most frequent words: bert-base-uncased lists its vocabulary by frequency."""
        words = [piece for piece in in_order(self.tokenizer) if re.fullmatch("[a-z]{3,}", piece)]
        return words[:TEACHER_WORDS]


def load_teacher(folder: Path) -> Teacher:
    from transformers import AutoModelForSequenceClassification

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # published files carry both; here batches are padded by hand
    tokenizer.no_truncation()
    return Teacher(AutoModelForSequenceClassification.from_pretrained(folder).float().eval(), tokenizer)


def judge(teacher: Teacher, texts: list[str], progress: Progress, work: Path | None) -> torch.Tensor:
    """The teacher's logits, float32 (texts, labels); kept in the work folder, if there is one."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    kept = work / f"teacher-{digest}.npy" if work else None
    if kept and kept.is_file():
        return torch.from_numpy(np.load(kept))
    with bfloat16():
        answers = logits(teacher.model, encode(teacher.tokenizer, texts), progress)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, answers.numpy())
    return answers


def logits(model: Any, ids: list[list[int]], progress: Progress | None = None) -> torch.Tensor:
    """Logits (texts, labels), a batch of similar lengths at a time."""
    answers = torch.zeros(len(ids), len(LABELS))
    batches = by_length(ids, BATCH)
    model.eval()
    with torch.inference_mode():
        for batch in progress.track(batches, description="the teacher judges") if progress else batches:
            answers[batch] = model(**padded([ids[i] for i in batch])).logits.float()
    return answers


def bfloat16() -> torch.autocast:
    """bfloat16 products where the CPU has them (twice as fast here), fp32 elsewhere."""
    native = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def by_length(ids: list[list[int]], size: int) -> list[list[int]]:
    """Batches of row numbers, shortest rows first."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])  # (batch, seq); pad id is 0
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


# ---- vocabularies ---------------------------------------------------------------------------------------

BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALBERT_SPECIALS = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET = 120  # characters worth a piece of their own; what is rarer in SST-2 becomes [UNK]


def wordpiece(texts: list[str]) -> Tokenizer:
    """BERT's lower-casing WordPiece over a vocabulary of our own."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    learned = wordpieces(texts, tokenizer)
    vocabulary = {piece: number for number, piece in enumerate([*BERT_SPECIALS, *learned])}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    return framed(tokenizer, BERT_SPECIALS)


def wordpieces(texts: list[str], cutter: Tokenizer) -> list[str]:
    """The learned pieces in alphabetical order. The trainer meets letters in random order and breaks ties by
    it, so the letters are fixed beforehand: alone, and as special tokens where they continue a word."""
    counts = Counter("".join(map(cutter.normalizer.normalize_str, texts)))
    letters = sorted(letter for letter, _ in counts.most_common(ALPHABET) if not letter.isspace())
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = cutter.normalizer, cutter.pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=PIECES, initial_alphabet=letters, limit_alphabet=len(letters), show_progress=False,
        special_tokens=[*BERT_SPECIALS, *("##" + letter for letter in letters if letter.isalnum())],
    )  # fmt: skip
    scratch.train_from_iterator(texts, trainer)
    return sorted(set(scratch.get_vocab()) - set(BERT_SPECIALS))


def unigram(texts: list[str]) -> Tokenizer:
    """ALBERT's tokenizer, rewritten from a SentencePiece model as transformers does it."""
    import sentencepiece
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    clean = normalizers.Sequence(ALBERT_CLEANING)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=map(clean.normalize_str, texts), model_writer=written, model_type="unigram",
        vocab_size=PIECES, normalization_rule_name="nmt_nfkc", control_symbols=ALBERT_SPECIALS[2:],
        pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, pad_piece="<pad>", unk_piece="<unk>",
        num_threads=1, minloglevel=2,
    )  # fmt: skip
    model = ModelProto.FromString(written.getvalue())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=1))
    charsmap = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    tokenizer.normalizer = normalizers.Sequence([*ALBERT_CLEANING, charsmap, ONE_BLANK])
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    tokenizer.decoder = decoders.Metaspace()
    return framed(tokenizer, ALBERT_SPECIALS)


ALBERT_CLEANING = [
    normalizers.Replace("``", '"'), normalizers.Replace("''", '"'),
    normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
]  # fmt: skip
ONE_BLANK = normalizers.Replace(Regex(" {2,}"), " ")


def framed(tokenizer: Tokenizer, specials: list[str]) -> Tokenizer:
    """The special tokens, and [CLS] text [SEP] around each text."""
    tokenizer.add_special_tokens(specials)
    frame = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame
    )
    return tokenizer


# ---- students -------------------------------------------------------------------------------------------


def distilbert(pieces: int) -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=pieces, dim=128, n_layers=4, n_heads=4, hidden_dim=512, max_position_embeddings=POSITIONS,
        activation="gelu", pad_token_id=0, seq_classif_dropout=0.1, **named_labels(),
    )  # fmt: skip
    return DistilBertForSequenceClassification(config)


def albert(pieces: int) -> Any:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(
        vocab_size=pieces, embedding_size=64, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, hidden_act="gelu_new", max_position_embeddings=POSITIONS, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
        **named_labels(),
    )  # fmt: skip
    return AlbertForSequenceClassification(config)


def named_labels() -> dict[str, Any]:
    return {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}


EMBEDDING_SPREAD = 0.05  # standard deviation of the started embeddings, about that of a trained BERT's


def start_embeddings(student: Any, tokenizer: Tokenizer, teacher: Teacher) -> None:
    """A piece starts as the mean of its subwords' rows in the teacher, cut to the student's width by PCA."""
    table = teacher.model.get_input_embeddings().weight.detach()
    rows = torch.stack([table[subwords(piece, teacher.tokenizer)].mean(0) for piece in in_order(tokenizer)])
    rows = rows - rows.mean(0)
    target = student.get_input_embeddings().weight
    left, scale, _ = torch.linalg.svd(rows, full_matrices=False)
    cut = left[:, : target.shape[1]] * scale[: target.shape[1]]  # (pieces, width)
    target.data.copy_(cut * (EMBEDDING_SPREAD / cut.std()))


def in_order(tokenizer: Tokenizer) -> list[str]:
    return [str(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]


def subwords(piece: str, tokenizer: Tokenizer) -> list[int]:
    """The teacher's ids for a piece of a student's: the same piece where it has it, else its spelling."""
    same = tokenizer.token_to_id(piece.removeprefix("▁").replace("<pad>", "[PAD]"))
    spelled = tokenizer.encode(piece.replace("##", "").replace("▁", ""), add_special_tokens=False).ids
    return [same] if same is not None else spelled or tokenizer.encode("[UNK]", add_special_tokens=False).ids


# ---- distillation ---------------------------------------------------------------------------------------

STEPS = {"distilbert": 5000, "albert": 4000}  # ALBERT's wider layer costs twice as much a step
RATE = {"distilbert": 1e-3, "albert": 5e-4}  # ALBERT's one layer gathers the gradients of four
WARM_UP = 200  # steps until the full learning rate
CHECK = 500  # steps between two looks at the held-out rows
TEMPERATURE = 2.0  # how much the teacher's answers are softened
SOFT = 0.8  # the teacher's share of the loss; the labels have the rest


@dataclass(frozen=True)
class Lesson:
    """What a student learns from, and the rows that choose its best moment."""

    texts: list[str]
    labels: torch.Tensor  # (texts,), NO_LABEL for invented sentences
    answers: torch.Tensor  # the teacher's logits, (texts, labels)
    held_out: list[Row]


def distill(student: Any, tokenizer: Tokenizer, lesson: Lesson, rng: random.Random, progress: Progress) -> None:
    """Trains the student and leaves it with the weights that were best on the held-out rows."""
    name = student.config.model_type
    spellings = [encode(tokenizer, lesson.texts), encode(tokenizer, list(map(typed, lesson.texts)))]
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE[name], weight_decay=0.01)
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: speed(step, STEPS[name]))
    best, task = Best(), progress.add_task(name, total=STEPS[name])
    for step, batch in enumerate(islice(shuffled(spellings[0], rng), STEPS[name]), start=1):
        ids = [rng.choice(spellings)[row] for row in batch]
        loss = learn(student, ids, lesson.labels[batch], lesson.answers[batch], optimizer)
        pace.step()
        if step % CHECK == 0 or step == STEPS[name]:
            best = best.or_better(student, accuracy(student, tokenizer, lesson.held_out))
        progress.update(task, advance=1, description=f"{name} loss {loss:.3f}, held out {best.accuracy:.2%}")
    student.load_state_dict(best.weights)


def learn(student: Any, ids: list[list[int]], labels: torch.Tensor, answers: torch.Tensor, optimizer: Any) -> float:
    """One step: the teacher's softened answers (Kullback-Leibler), and the labels (cross-entropy)."""
    student.train()
    with bfloat16():
        scores = student(**padded(ids)).logits.float()
    softened = functional.log_softmax(scores / TEMPERATURE, 1), functional.softmax(answers / TEMPERATURE, 1)
    # The square undoes what the temperature takes from the gradient.
    soft = functional.kl_div(*softened, reduction="batchmean") * TEMPERATURE**2
    hard = functional.cross_entropy(scores, labels, ignore_index=NO_LABEL, reduction="sum") / len(ids)
    loss = SOFT * soft + (1 - SOFT) * hard
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def speed(step: int, steps: int) -> float:
    """The share of the learning rate: up in a straight line, then down to nothing."""
    return min(1.0, (step + 1) / WARM_UP) * max(0.0, 1 - step / steps)


def shuffled(ids: list[list[int]], rng: random.Random) -> Iterator[list[int]]:
    """Batches of row numbers without end, each of rows of similar length."""
    while True:
        order = rng.sample(range(len(ids)), len(ids))
        batches: list[list[int]] = []
        for start in range(0, len(order), BATCH * CHUNK):
            chunk = order[start : start + BATCH * CHUNK]
            batches += [[chunk[i] for i in batch] for batch in by_length([ids[i] for i in chunk], BATCH)]
        yield from rng.sample(batches, len(batches))


@dataclass(frozen=True)
class Best:
    accuracy: float = 0.0
    weights: dict[str, torch.Tensor] | None = None

    def or_better(self, student: Any, accuracy: float) -> Best:
        if accuracy < self.accuracy:
            return self
        return Best(accuracy, {name: tensor.clone() for name, tensor in student.state_dict().items()})


def accuracy(model: Any, tokenizer: Tokenizer, rows: list[Row]) -> float:
    answers = logits(model, encode(tokenizer, [row.text for row in rows])).argmax(1)
    return float((answers == torch.tensor([row.label for row in rows])).float().mean())


# ---- checkpoints ----------------------------------------------------------------------------------------

# Lines as people type them on a phone: what the film reviews of dev cannot show.
CASUAL = [Row(text, label) for label, texts in enumerate((
    ["worst app ever!!", "this is not good", "i hate this phone", "that was a waste of time", "ugh so boring",
     "i don't like it", "never again", "what a terrible idea", "it wasn't fun", "i can't stand him",
     "the food was cold and awful", "nothing works, i'm so annoyed", "not my favorite", "meh, expected more",
     "my boss yelled at me all day", "don't buy this", "it crashes every time i open it", "what a mess",
     "battery dies in an hour", "i'm not happy with this", "please stop calling me"],
    ["i love it", "not bad at all", "so happy right now", "thanks, you made my day", "best day ever!!!",
     "it's amazing", "works great, thank you", "pretty cool :)", "you are awesome", "this isn't bad",
     "can't wait to see you, it will be great", "no complaints, really nice place", "loving the new update",
     "i've never been happier", "you guys rock", "best pizza in town", "five stars", "had a blast tonight",
     "it wasn't bad"],
)) for text in texts]  # fmt: skip


def save(student: Any, tokenizer: Tokenizer, folder: Path) -> None:
    student.half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tokenizer_class = {"distilbert": "DistilBertTokenizer", "albert": "AlbertTokenizer"}
    pad, unknown, start, end, mask = in_order(tokenizer)[: len(BERT_SPECIALS)]
    described = {
        "tokenizer_class": tokenizer_class[student.config.model_type], "do_lower_case": True,
        "model_max_length": POSITIONS, "pad_token": pad, "unk_token": unknown, "cls_token": start,
        "sep_token": end, "mask_token": mask,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def report(folder: Path, dev: list[Row]) -> str:
    """What the saved files answer, read back as anyone would."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).float()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    answers = logits(model, encode(tokenizer, [row.text for row in CASUAL])).argmax(1).tolist()
    missed = [row.text for row, answer in zip(CASUAL, answers, strict=True) if answer != row.label]
    size = sum(file.stat().st_size for file in folder.iterdir())
    right = accuracy(model, tokenizer, dev)
    return f"{folder.name}: dev {right:.2%}, {size:,} bytes, casual lines missed: {missed or 'none'}"


class Student(str, Enum):
    distilbert = "distilbert"
    albert = "albert"


STUDENTS: dict[str, tuple[Callable[[list[str]], Tokenizer], Callable[[int], Any]]] = {
    "distilbert": (wordpiece, distilbert),
    "albert": (unigram, albert),
}


def lesson_of(data: Path, teacher: Teacher, seed: int, progress: Progress, work: Path | None) -> Lesson:
    rng = random.Random(seed)
    rows, held_out = split(read(data / "train.tsv"), rng)
    invented = invent(rows, teacher.words(), rng)
    texts = [row.text for row in rows] + invented
    labels = torch.tensor([row.label for row in rows] + [NO_LABEL] * len(invented))
    return Lesson(texts, labels, judge(teacher, texts, progress, work), held_out)


def train(name: str, lesson: Lesson, teacher: Teacher, seed: int, progress: Progress) -> tuple[Any, Tokenizer]:
    train_vocabulary, build = STUDENTS[name]
    torch.manual_seed(seed)
    tokenizer = train_vocabulary(lesson.texts + list(map(typed, lesson.texts)))
    student = build(tokenizer.get_vocab_size())
    start_embeddings(student, tokenizer, teacher)
    distill(student, tokenizer, lesson, random.Random(seed), progress)
    return student, tokenizer


def main(
    data: Annotated[Path, typer.Option(help="Folder with train.tsv and dev.tsv.")],
    teacher: Annotated[Path, typer.Option(help="Folder of the DistilBERT classifier to learn from.")],
    out: Annotated[Path, typer.Option(help="Folder that gets distilbert/ and albert/.")],
    only: Annotated[Student | None, typer.Option(help="Train this one alone.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, threads and machine: same bytes.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 takes all cores.")] = 0,
    work: Annotated[Path | None, typer.Option(help="Folder that keeps the teacher's answers.")] = None,
) -> None:
    """Train the embedded demo checkpoints."""
    checkpoint = [teacher / name for name in ("config.json", "model.safetensors", "tokenizer.json")]
    for needed in (data / "train.tsv", data / "dev.tsv", *checkpoint):
        if not needed.is_file():
            typer.echo(f"missing {needed}", err=True)
            raise typer.Exit(2)
    if threads:
        torch.set_num_threads(threads)
    judge_of_texts = load_teacher(teacher)
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        lesson = lesson_of(data, judge_of_texts, seed, progress, work)
        for name in [only.value] if only else list(STUDENTS):
            student, tokenizer = train(name, lesson, judge_of_texts, seed, progress)
            save(student, tokenizer, out / name)
            progress.console.print(report(out / name, read(data / "dev.tsv")))


if __name__ == "__main__":
    typer.run(main)
