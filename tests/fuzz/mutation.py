"""Damages bytes so that they get past a reader's first check: JSON mostly stays JSON, protobuf stays protobuf.

Takes bytes and a random generator. Returns other bytes; the same seed gives the same ones.
Leaves out: what is run on them (targets.py), and learning from coverage (atheris and Jazzer do that).
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from pocketbert.runtime.engines.coreml.mil.protobuf import LENGTH_DELIMITED, VARINT, UnreadableProgram, _read_varint

WIRE_TYPE = 7  # low bits of a tag
DEEP = 5  # messages inside each other that a mutation goes down into
# What readers stumble over; each takes the place of any value.
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 255, 2**31 - 1, 2**31, -(2**31), 2**63, -(2**63) - 1, 2**64, 10**400),
    *(0.5, -0.0, 1.0, 1e39, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "\0", "..", "/", "\ud800", "\udc80", "a\nb", "é", "{length}", "1", "x" * 5000, "../" * 30, "CON", "C:x"),
    *([], {}, [[]], [None], [1, [2]], {"": ""}, [0] * 300),
)
INTEGERS = (0, 1, 2, 7, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flips, inserts, cuts, repeats."""
    place, size = chance.randrange(len(data) + 1), chance.choice((1, 1, 2, 4, 8, 64))
    kind = chance.randrange(6)
    if kind == 0:
        return data[:place] + data[place + size :]
    if kind == 1:
        return data[:place] + chance.randbytes(size) + data[place:]
    if kind == 2:
        return data[:place] + chance.choice(INTEGERS).to_bytes(8, "little")[:size] + data[place + min(size, 8) :]
    if kind == 3:
        return data[:place] + data[place : place + size] * 2 + data[place + size :]
    if kind == 4:
        return data[:place]
    flipped = bytes(byte ^ 1 << chance.randrange(8) for byte in data[place : place + 1])
    return data[:place] + flipped + data[place + 1 :]


def mutate_json(data: bytes, chance: random.Random) -> bytes:
    """Changes one to three values of a JSON text; one time in eight its bytes."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, chance)
    if not chance.randrange(8):
        return mutate_bytes(data, chance)
    for _ in range(chance.randint(1, 3)):
        content = _changed(content, chance)
    return json.dumps(content, indent=1, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def _changed(value: Any, chance: random.Random) -> Any:
    """`value` with something in it, at any depth, changed."""
    if isinstance(value, (dict, list)) and value and chance.random() < 0.85:
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        return _edited(value, key, chance)
    if isinstance(value, str) and value and chance.random() < 0.4:
        place = chance.randrange(len(value))
        return value[:place] + chance.choice(("", "\0", "/", "é", "\ud800", "}", value)) + value[place + 1 :]
    if isinstance(value, int) and chance.random() < 0.4:
        return value + chance.choice((-2, -1, 1, 2, 2**31))
    return copy.deepcopy(chance.choice(JSON_VALUES))


def _edited(value: Any, key: Any, chance: random.Random) -> Any:
    kind = chance.randrange(12)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, list):
        value.insert(key, copy.deepcopy(value[key]))
    elif kind == 1:
        value[chance.choice(("", "x", "\0", f"{key}2"))] = copy.deepcopy(value[key])
    elif kind == 2:
        other = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        value[key], value[other] = value[other], value[key]
    else:
        value[key] = _changed(value[key], chance)
    return value


def mutate_protobuf(data: bytes, chance: random.Random, depth: int = DEEP) -> bytes:
    """Changes a field of a message or of a message in it, and the sizes around it; one time in eight its bytes."""
    try:
        fields = _fields(data)
    except UnreadableProgram:
        return mutate_bytes(data, chance)
    if not fields or (depth == DEEP and not chance.randrange(8)):
        return mutate_bytes(data, chance)
    place = chance.randrange(len(fields))
    tag, value = fields[place]
    kind = chance.randrange(10)
    if kind == 0:
        del fields[place]
    elif kind == 1:
        fields.insert(place, chance.choice(fields))
    elif kind == 2:
        fields[place] = (chance.choice((tag ^ 2, tag + 8, tag - 8 if tag > 15 else tag)), value)
    elif isinstance(value, int):
        fields[place] = (tag, chance.choice((*INTEGERS, value + 1, max(0, value - 1))))
    elif depth and chance.random() < 0.9:
        fields[place] = (tag, mutate_protobuf(value, chance, depth - 1))
    else:
        fields[place] = (tag, mutate_bytes(value, chance))
    return b"".join(_written(tag, value) for tag, value in fields)


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """(tag, value) of each field; raises UnreadableProgram for what is no message."""
    found: list[tuple[int, int | bytes]] = []
    view, at = memoryview(data), 0
    while at < len(data):
        tag, at = _read_varint(view, at)
        size, start = _read_varint(view, at) if tag & WIRE_TYPE in (VARINT, LENGTH_DELIMITED) else (8, at)
        if tag & WIRE_TYPE == VARINT:
            found.append((tag, size))
            at = start
        else:
            if tag & WIRE_TYPE == 5:
                size = 4
            if tag & WIRE_TYPE not in (1, 2, 5) or start + size > len(data):
                raise UnreadableProgram("no message")
            found.append((tag, data[start : start + size]))
            at = start + size
    return found


def _written(tag: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(tag & ~WIRE_TYPE) + _varint(value)
    if tag & WIRE_TYPE == LENGTH_DELIMITED:
        return _varint(tag) + _varint(len(value)) + value
    return _varint(tag) + value


def _varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
