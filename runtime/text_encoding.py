"""Which Unicode encoding bytes are in: UTF-8, or the UTF-16 and UTF-32 that Windows programs write, marked or not.

Takes the first bytes of a file or pipe. Returns the name of a codec, or None where they are in none of these. Leaves
out: encodings of one language (Latin-1, GBK, Shift JIS), which cannot be told from each other for sure.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable, Iterator

SAMPLE = 1 << 14  # bytes that are looked at
# Longest first: UTF-32's mark begins with that of UTF-16. These codecs read the mark and leave it out.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
UTF_8 = "utf-8-sig"  # with a mark or without
SPACES = "\t\n\r"
NO_TEXT = {"Cc", "Cn", "Co", "Cs"}  # controls, characters of nobody, undecoded bytes
ODD_SHARE = 0.25  # of characters that may be none: a stray control or broken byte, not every other letter
# What `surrogateescape` makes of a byte that is no UTF-8; escapes inside JSON are still ASCII when this is looked for.
UNDECODED = range(0xDC80, 0xDD00)


def detect_encoding(sample: bytes) -> str | None:
    """The codec for bytes that begin with `sample`, of which those of SAMPLE bytes may end inside a character."""
    for mark, codec in MARKS.items():
        if sample.startswith(mark):
            return codec
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(sample, final=len(sample) < SAMPLE)
    if _odd_share(text) <= ODD_SHARE and not _is_foreign(text):
        return UTF_8
    return _detect_utf_16(sample)


def _detect_utf_16(sample: bytes) -> str | None:
    """Without a mark: the order of bytes in which ASCII's zero bytes are where they belong, and all is text."""
    whole = sample[: len(sample) // 2 * 2]
    zeros = {"utf-16-le": whole[1::2].count(0), "utf-16-be": whole[::2].count(0)}
    codec = max(zeros, key=lambda name: zeros[name])
    is_text = _odd_share(whole.decode(codec, "surrogatepass")) <= ODD_SHARE
    return codec if zeros[codec] and is_text else None


def _odd_share(text: str) -> float:
    odd = sum(unicodedata.category(letter) in NO_TEXT and letter not in SPACES for letter in text)
    return odd / max(len(text), 1)


def _is_foreign(text: str) -> bool:
    """Whether most lines that are not ASCII are not UTF-8 either: an encoding of one language."""
    lines = [line for line in text.split("\n") if not line.isascii()]
    return 2 * sum(map(is_undecoded, lines)) > len(lines)


def is_undecoded(text: str) -> bool:
    """Whether `text`, read with the error handler `surrogateescape`, holds bytes that are no UTF-8."""
    return not text.isascii() and any(ord(letter) in UNDECODED for letter in text)


def error_handler(codec: str) -> str:
    """What a decoder does with bytes that are not in `codec`: only UTF-8 has escapes for them."""
    return "surrogateescape" if codec == UTF_8 else "replace"


def decode_lines(chunks: Iterable[bytes], codec: str) -> Iterator[str]:
    """Lines without their ends, each as soon as it is whole.

    Bytes that are no UTF-8 are escaped, see `is_undecoded`; what is neither UTF-16 nor UTF-32 becomes U+FFFD.
    """
    decoder, rest = codecs.getincrementaldecoder(codec)(error_handler(codec)), ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from (line.rstrip("\r") for line in lines)
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest.rstrip("\r")
