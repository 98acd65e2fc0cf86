"""What an Arrow IPC message says about its own size, read before anything is decompressed.

pyarrow has verified the flatbuffer by the time we see it, but neither shows what is in it nor bounds what it will allocate: a kilobyte of
LZ4 may claim a gigabyte. The field numbers are those of Message.fbs and Schema.fbs (Arrow format 1.5).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import pyarrow as pa

_HEADER = 2  # Message.header, a table
_BATCH_LENGTH, _BATCH_NODES, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 1, 2, 3  # RecordBatch
_DICTIONARY_DATA = 1  # DictionaryBatch.data, a RecordBatch
_PAIR_BYTES = 16
"""Of a FieldNode (length, null count), and of a Buffer (offset in the body, length): two int64 each."""
_STORED = -1
"""In place of the decompressed size: this buffer is not compressed."""
_u16, _u32, _i32, _i64 = (struct.Struct(form).unpack_from for form in ("<H", "<I", "<i", "<q"))


class Sizes(NamedTuple):
    """What a message claims."""

    rows: int
    bytes: int
    """Of all buffers, once decompressed."""
    nulls: bool
    """Whether there may be any."""


def sizes(message: pa.ipc.Message) -> Sizes:
    """Of a record batch or dictionary message. ValueError or struct.error when it lies. Called for each dictionary of each batch, so it does not
    look twice."""
    metadata, body = memoryview(message.metadata), memoryview(message.body)
    batch = _table(metadata, _u32(metadata, 0)[0], _HEADER)
    if message.type == "dictionary":
        batch = _table(metadata, batch, _DICTIONARY_DATA)
    length = _field(metadata, batch, _BATCH_LENGTH)
    compressed = _field(metadata, batch, _BATCH_COMPRESSION)
    nulls = any(_pairs(metadata, _field(metadata, batch, _BATCH_NODES))[1::2])
    buffers = _pairs(metadata, _field(metadata, batch, _BATCH_BUFFERS))
    end, total = len(body), 0
    for offset, size in zip(buffers[::2], buffers[1::2], strict=True):
        if offset < 0 or size < 0 or offset + size > end:
            raise ValueError("a buffer lies outside the message")
        if compressed and size:
            claimed = _i64(body, offset)[0]
            if claimed < _STORED:
                raise ValueError("a buffer has a negative size")
            if claimed != _STORED:
                size = claimed
        total += size
    return Sizes(_i64(metadata, length)[0] if length else 0, total, nulls)


def _pairs(metadata: memoryview, place: int) -> tuple[int, ...]:
    """The items of a vector of pairs, one number after the other."""
    if not place:
        return ()
    vector = place + _u32(metadata, place)[0]
    return struct.unpack_from(f"<{2 * _bounded(_u32(metadata, vector)[0], metadata)}q", metadata, vector + 4)


def _bounded(pairs: int, metadata: memoryview) -> int:
    if pairs * _PAIR_BYTES > len(metadata):
        raise ValueError("a vector is cut off")
    return pairs


def _field(metadata: memoryview, table: int, number: int) -> int:
    """Where the table's field is, 0 when it is not set."""
    vtable = table - _i32(metadata, table)[0]
    if vtable < 0:
        raise ValueError("an offset is negative")
    entry = 4 + 2 * number
    if entry >= _u16(metadata, vtable)[0]:
        return 0
    offset = _u16(metadata, vtable + entry)[0]
    return int(table + offset) if offset else 0


def _table(metadata: memoryview, table: int, number: int) -> int:
    place = _field(metadata, table, number)
    if not place:
        raise ValueError("a part is missing")
    return place + int(_u32(metadata, place)[0])
