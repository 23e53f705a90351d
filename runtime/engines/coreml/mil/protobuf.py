"""Reads the protobuf wire format: a message becomes field number -> the values found under it.

Takes the bytes of one message. Returns `Message`, whose getters are named for what a .proto file calls the field.
Leaves out: .proto files, writing, groups (deprecated), and merging a message that occurs twice: the last counts.

Written here because the protobuf package would be this runtime's largest dependency after numpy, for one
format that is described in two pages: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from pocketbert.runtime.errors import EngineError

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
FIXED_SIZE = {FIXED64: 8, FIXED32: 4}  # bytes
WIRE_TYPE_BITS = 3  # low bits of a tag; the field number is above them
PAYLOAD_BITS = 7  # of a varint's byte; the eighth says that another byte follows
VARINT_MAX_BYTES = 10  # 64 bits, 7 to a byte
INT64_RANGE = 1 << 64  # a negative int32 or int64 is written as its 64-bit two's complement


class UnreadableProgram(EngineError):
    """The package is damaged, cut short, or not a Core ML program; the message says where and how."""


class Message:
    """One message: `data` in wire format. Raises UnreadableProgram if it is cut short or malformed.

    A getter gives protobuf's default (0, empty) for an absent field; `field in message` tells them apart.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._fields: dict[int, list[int | memoryview]] = {}
        data, at = memoryview(data), 0
        while at < len(data):
            tag, at = _read_varint(data, at)
            value, at = _read_value(data, at, tag & ((1 << WIRE_TYPE_BITS) - 1))
            self._fields.setdefault(tag >> WIRE_TYPE_BITS, []).append(value)

    def __contains__(self, field: int) -> bool:
        return field in self._fields

    def integer(self, field: int) -> int:
        """A bool, an enum, or any integer of at most 63 bits."""
        value = self._fields.get(field, [0])[-1]
        if isinstance(value, memoryview):
            raise UnreadableProgram(f"protobuf field {field} holds bytes where an integer belongs")
        return _signed(value)

    def integers(self, field: int) -> list[int]:
        """A repeated integer, packed or not."""
        found: list[int] = []
        for value in self._fields.get(field, []):
            found += [value] if isinstance(value, int) else _unpack_varints(value)
        return [_signed(value) for value in found]

    def chunks(self, field: int) -> list[memoryview]:
        """Every value of a repeated bytes field, or of repeated floats: little-endian, packed or not."""
        values = self._fields.get(field, [])
        if any(isinstance(value, int) for value in values):
            raise UnreadableProgram(f"protobuf field {field} holds an integer where bytes belong")
        return [value for value in values if isinstance(value, memoryview)]

    def text(self, field: int) -> str:
        """A string."""
        return (self.texts(field) or [""])[-1]

    def texts(self, field: int) -> list[str]:
        """A repeated string."""
        try:
            return [str(chunk, "utf-8") for chunk in self.chunks(field)]
        except UnicodeDecodeError as error:
            raise UnreadableProgram(f"protobuf field {field} is not UTF-8 text: {error.reason}") from None

    def message(self, field: int) -> Message:
        """An embedded message; an absent one reads as one with every field absent."""
        return Message((self.chunks(field) or [memoryview(b"")])[-1])

    def messages(self, field: int) -> list[Message]:
        """A repeated embedded message."""
        return [Message(chunk) for chunk in self.chunks(field)]

    def table(self, field: int) -> dict[str, Message]:
        """A map<string, message>: on the wire a repeated message with the key in field 1, the value in 2."""
        return {entry.text(1): entry.message(2) for entry in self.messages(field)}


def _read_value(data: memoryview, at: int, wire_type: int) -> tuple[int | memoryview, int]:
    """Returns the value that starts at `at`, and where the next field starts."""
    if wire_type == VARINT:
        return _read_varint(data, at)
    if wire_type == LENGTH_DELIMITED:
        size, at = _read_varint(data, at)
    elif wire_type in FIXED_SIZE:
        size = FIXED_SIZE[wire_type]
    else:
        raise UnreadableProgram(f"protobuf wire type {wire_type} is not one of the format's")
    if size > len(data) - at:
        raise UnreadableProgram(f"a protobuf field of {size} bytes has only {len(data) - at}: cut short or damaged")
    return data[at : at + size], at + size


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + VARINT_MAX_BYTES]):
        value |= (byte & ((1 << PAYLOAD_BITS) - 1)) << (PAYLOAD_BITS * index)
        if not byte >> PAYLOAD_BITS:
            return value % INT64_RANGE, at + index + 1
    raise UnreadableProgram("a protobuf integer does not end: cut short or damaged")


def _unpack_varints(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _read_varint(data, at)
        values.append(value)
    return values


def _signed(value: int) -> int:
    return value - INT64_RANGE if value >= INT64_RANGE // 2 else value
