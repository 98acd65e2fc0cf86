"""What an Arrow IPC message says about its own size, read before anything is decompressed.

pyarrow has verified the flatbuffer by the time we see it, but neither shows what is in it nor bounds what it will allocate: a kilobyte of
LZ4 may claim a gigabyte. The field numbers are those of Message.fbs and Schema.fbs (Arrow format 1.5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyarrow as pa

_HEADER = 2  # Message.header, a table
_BATCH_LENGTH, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 2, 3  # RecordBatch
_DICTIONARY_DATA = 1  # DictionaryBatch.data, a RecordBatch
_BUFFER = struct.Struct("<qq")  # offset in the body, length
_STORED = -1
"""In place of the decompressed size: this buffer is not compressed."""


def sizes(message: pa.ipc.Message) -> tuple[int, int]:
    """Rows, and bytes of all buffers once decompressed, of a record batch or dictionary message. ValueError or struct.error when it
    lies."""
    metadata, body = memoryview(message.metadata), memoryview(message.body)
    batch = _table(metadata, _root(metadata), _HEADER)
    if message.type == "dictionary":
        batch = _table(metadata, batch, _DICTIONARY_DATA)
    place = _field(metadata, batch, _BATCH_LENGTH)
    rows = _unpack("<q", metadata, place) if place else 0
    compressed = _field(metadata, batch, _BATCH_COMPRESSION) != 0
    return rows, sum(_decompressed(body, offset, length, compressed) for offset, length in _buffers(metadata, batch))


def _buffers(metadata: memoryview, batch: int) -> Iterator[tuple[int, int]]:
    place = _field(metadata, batch, _BATCH_BUFFERS)
    if place:
        vector = place + _unpack("<I", metadata, place)
        for number in range(_unpack("<I", metadata, vector)):
            yield _BUFFER.unpack_from(metadata, vector + 4 + number * _BUFFER.size)


def _decompressed(body: memoryview, offset: int, length: int, compressed: bool) -> int:
    if offset < 0 or length < 0 or offset + length > len(body):
        raise ValueError("a buffer lies outside the message")
    if not compressed or length == 0:
        return length
    claimed = _unpack("<q", body, offset)
    if claimed < _STORED:
        raise ValueError("a buffer has a negative size")
    return length if claimed == _STORED else claimed


def _root(metadata: memoryview) -> int:
    return _unpack("<I", metadata, 0)


def _field(metadata: memoryview, table: int, number: int) -> int:
    """Where the table's field is, 0 when it is not set."""
    vtable = table - _unpack("<i", metadata, table)
    entry = 4 + 2 * number
    if entry >= _unpack("<H", metadata, vtable):
        return 0
    offset = _unpack("<H", metadata, vtable + entry)
    return table + offset if offset else 0


def _table(metadata: memoryview, table: int, number: int) -> int:
    place = _field(metadata, table, number)
    if not place:
        raise ValueError("a part is missing")
    return place + _unpack("<I", metadata, place)


def _unpack(form: str, data: memoryview, place: int) -> int:
    if place < 0:
        raise ValueError("an offset is negative")
    value: int = struct.unpack_from(form, data, place)[0]
    return value
