"""A batch as bytes: an Arrow IPC stream of one record batch, bodies compressed with LZ4. Decoding believes nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from infrasight.errors import InvalidBatch
from infrasight.schema import KINDS, SHIPPED, arrow_schema
from infrasight.wire.flat import sizes

MAX_BATCH_BYTES = 16 << 20
"""Encoded size that a server takes, told to nodes in its Welcome."""
MAX_DECODED_BYTES = 64 << 20
"""Decompressed size that a server takes."""
MAX_ROWS = 1 << 20
"""Rows of one batch that a server takes."""
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


def encode(batch: pa.RecordBatch) -> bytes:
    """`batch` as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_WRITE) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of several of the same schema; their dictionaries become one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


@dataclass(frozen=True)
class Claim:
    """What a payload says of itself."""

    bytes: int
    """After decompression."""
    nulls: bool
    """Whether there may be any."""


def decode(kind: str, payload: bytes, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_DECODED_BYTES) -> pa.RecordBatch:
    """The batch of `kind` in `payload`, whoever made it: nodes ship the kind, its schema is exactly the kind's, no value is null, every index and
    offset is in range.

    At most `max_rows` rows, and at most `max_bytes` bytes after decompression, which is checked before anything is decompressed.
    InvalidBatch says in one line what is wrong. The batch's columns may refer to `payload`'s memory.
    """
    return read(kind, payload, weigh(kind, payload, max_rows=max_rows, max_bytes=max_bytes))


def weigh(kind: str, payload: bytes, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_DECODED_BYTES) -> Claim:
    """The first half of `decode`: what is to be known before anything is decompressed. InvalidBatch when it is too much."""
    if kind not in SHIPPED:
        raise InvalidBatch(f"there is no event kind {kind[:64]!r}" if kind not in KINDS else f"{kind}: the server's own, not for nodes to ship")
    with _translated(kind):
        return _weigh(kind, payload, max_rows, max_bytes)


def read(kind: str, payload: bytes, claim: Claim) -> pa.RecordBatch:
    """The other half, of what was weighed."""
    with _translated(kind):
        return _read(kind, payload, claim.nulls)


@contextmanager
def _translated(kind: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, OSError, struct.error, OverflowError, MemoryError, StopIteration) as error:
        raise InvalidBatch(f"not an Arrow stream of {kind}: {_one_line(error)}") from None


def _read(kind: str, payload: bytes, nulls: bool) -> pa.RecordBatch:
    with pa.ipc.open_stream(payload, options=_READ) as reader:
        if not reader.schema.equals(arrow_schema(kind), check_metadata=True):
            raise InvalidBatch(f"the columns are not those of {kind}: {_difference(reader.schema, arrow_schema(kind))}")
        batch = reader.read_next_batch()
    batch.validate(full=True)
    if nulls:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if _has_null(column):
                raise InvalidBatch(f"{kind}.{name} has nulls")
    return batch


def _weigh(kind: str, payload: bytes, max_rows: int, max_bytes: int) -> Claim:
    """Check, without decompressing, that there is one schema, one batch, at most one dictionary a column, and that all of it is within
    bounds. Arrow takes the counts in the metadata for true."""
    total, batches, dictionaries, nulls = 0, 0, 0, False
    messages = pa.ipc.MessageReader.open_stream(payload)
    messages.read_next_message()
    for message in messages:
        rows, size, has_nulls = sizes(message)
        total += size
        nulls |= has_nulls
        batches += message.type == "record batch"
        dictionaries += message.type == "dictionary"
        if rows < 0 or rows > max_rows:
            raise InvalidBatch(f"{kind}: {rows} rows in one batch, at most {max_rows} are taken")
        if total > max_bytes:
            raise InvalidBatch(f"{kind}: more than {max_bytes} bytes when decompressed")
    if batches != 1 or dictionaries > len(KINDS[kind].columns):
        raise InvalidBatch(f"{kind}: {batches} batches and {dictionaries} dictionaries in one payload")
    return Claim(total, nulls)


def _has_null(column: pa.Array) -> bool:
    if isinstance(column, pa.DictionaryArray):
        return bool(column.indices.null_count or column.dictionary.null_count)
    if isinstance(column, pa.ListArray):
        return bool(column.null_count or column.values.null_count)
    return bool(column.null_count)


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    for mine, its in zip(wanted, found, strict=False):
        if mine != its:
            return _one_line(f"{its.name[:64]!r} {str(its.type)[:64]} in place of {mine.name!r} {mine.type}")
    if len(found) != len(wanted):
        return f"{len(found)} columns, not {len(wanted)}"
    return "there is metadata, or a field is nullable"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
