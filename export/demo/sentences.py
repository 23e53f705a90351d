"""More sentences than SST-2 has: swapped words, spliced phrases, and chat lines from a small grammar.

Takes film-review phrases. Returns unlabelled texts; what they mean is for the teacher to say.
Leaves out: training (train.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

SWAPS, SPLICES, CHATS = 40_000, 20_000, 60_000  # invented sentences of each kind, about two to a row in all
SWAP = 0.25  # the chance that a word is swapped for another one
SPLICE_WORDS = 16  # longer phrases are not spliced: phone texts are short
JOINTS = [" ", " , ", " but ", " and ", " . ", " ! ", " , but ", " although ", " because ", " so "]


def invent(texts: Sequence[str], teacher_words: Sequence[str], rng: random.Random) -> list[str]:
    """Unlabelled sentences: phrases with swapped words, two phrases spliced, and chat lines."""
    words = sorted({word for text in texts for word in text.split()})
    short = [text for text in texts if len(text.split()) <= SPLICE_WORDS]
    swaps = (swap(rng.choice(texts), rng.choice([words, teacher_words]), rng) for _ in range(SWAPS))
    splices = (rng.choice(short) + rng.choice(JOINTS) + rng.choice(short) for _ in range(SPLICES))
    return [*swaps, *splices, *(chat(rng) for _ in range(CHATS))]


def swap(text: str, words: Sequence[str], rng: random.Random) -> str:
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
