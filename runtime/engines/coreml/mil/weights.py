"""Reads one array from a weight.bin, Core ML's MIL blob storage, version 2.

Takes where the blob's metadata lies: a file and a byte offset, as a program's BlobFileValue names them.
Returns the flat array; numbers of four bits as int8. Leaves out: writing, version 1 (Espresso), encryption, and types
narrower than four bits.

The file is a 64-byte header, then for each blob 64 bytes of metadata and the data. From coremltools,
mlmodel/src/MILBlob/Blob/StorageFormat.hpp and BlobDataType.hpp:

    storage_header   uint32 count, uint32 version, 56 bytes reserved
    blob_metadata    uint32 sentinel, uint32 type, uint64 size, uint64 offset, uint64 padding bits, 32 reserved
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pocketbert.runtime.engines.coreml.mil.protobuf import UnreadableProgram

HEADER = struct.Struct("<II")  # count, version
METADATA = struct.Struct("<IIQQQ")  # sentinel, type, size, offset, bits of the last byte that hold nothing
VERSION = 2
SENTINEL = 0xDEADBEEF
BLOB_TYPES = {1: "<f2", 2: "<f4", 3: "u1", 4: "i1", 6: "<i2", 7: "<u2", 8: "i1", 14: "<i4"}
INT4 = 8  # two in a byte


@dataclass(frozen=True)
class Blob:
    """An array in a blob file. Two equal blobs are one array, so a blob can be a dictionary's key."""

    path: Path
    offset: int  # of the metadata

    def read(self) -> NDArray[Any]:
        """Reads the data: (count,) in the stored type. Raises UnreadableProgram, naming file and offset."""
        try:
            with self.path.open("rb") as file:
                return self._read(file, self.path.stat().st_size)
        except OSError as error:
            raise UnreadableProgram(f"{self.path.name!r} cannot be read: {error.strerror}") from None

    def _read(self, file: BinaryIO, file_size: int) -> NDArray[Any]:
        _, version = HEADER.unpack(self._bytes(file, 0, HEADER.size, file_size))
        if version != VERSION:
            raise UnreadableProgram(f"{self.path.name!r} has version {version} of the blob format, not {VERSION}")
        metadata = self._bytes(file, self.offset, METADATA.size, file_size)
        sentinel, blob_type, size, offset, padding = METADATA.unpack(metadata)
        if sentinel != SENTINEL or blob_type not in BLOB_TYPES:
            raise UnreadableProgram(f"{self.path.name!r} has no blob at byte {self.offset}, or one of unknown type")
        dtype = np.dtype(BLOB_TYPES[blob_type])
        if size % dtype.itemsize:
            raise UnreadableProgram(f"{self.path.name!r}: {size} bytes at {offset} are no whole number of {dtype}")
        data = self._bytes(file, offset, size, file_size)
        if blob_type == INT4:
            return unpack_int4(data, odd=bool(padding))
        return np.frombuffer(data, dtype)

    def _bytes(self, file: BinaryIO, offset: int, size: int, file_size: int) -> bytes:
        # Compared before reading: a damaged size must not become an allocation of that size.
        if offset < 0 or offset + size > file_size:
            raise UnreadableProgram(f"{self.path.name!r} ends at byte {file_size}, before {offset} + {size}: cut short")
        file.seek(offset)
        return file.read(size)


def unpack_int4(data: bytes, odd: bool = False) -> NDArray[np.int8]:
    """Two numbers of -8 to 7 from each byte, that of the lower half first; `odd`: the last byte holds one."""
    pairs = np.frombuffer(data, np.int8)
    numbers = np.stack([pairs << 4 >> 4, pairs >> 4], axis=1).ravel()
    return numbers[:-1] if odd else numbers
