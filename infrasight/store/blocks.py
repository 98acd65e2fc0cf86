"""A batch as a block of ClickHouse's Native format: column by column, straight from Arrow's buffers, nothing row by row.

What a column becomes is the server's to say: it names its types before it takes rows, so the same batch goes into a LowCardinality(String) or a
String, a DateTime64 or the Int64 under it. The layout is that of ClickHouse's Serialization*.cpp (serializeBinaryBulk), little-endian throughout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infrasight.errors import InvalidBatch, StoreIncompatible

Bytes: TypeAlias = "bytes | memoryview"
MAX_TEXT_BYTES = 1 << 30
"""Of one column, written out row by row. A few kilobytes of dictionary, repeated often enough, would be more than any machine has."""
_TIME = pa.timestamp("ns", "UTC")
_NUMBERS: dict[str, tuple[pa.DataType, ...]] = {
    "UInt8": (pa.uint8(),),
    "UInt16": (pa.uint16(),),
    "UInt32": (pa.uint32(),),
    "UInt64": (pa.uint64(),),
    "Int32": (pa.int32(),),
    "Int64": (pa.int64(), _TIME),
    "Float64": (pa.float64(),),
}
"""ClickHouse's types that are Arrow's buffers as they are."""
_SECONDS = re.compile(r"DateTime(\('[^']*'\))?")
_NANOSECONDS = re.compile(r"DateTime64\(9(, '[^']*')?\)")
_DICTIONARY = pa.dictionary(pa.int32(), pa.binary())
_KEYS_VERSION = 1
"""SerializationLowCardinality::KeysSerializationVersion: SharedDictionariesWithAdditionalKeys."""
_KEYS_HERE = 1 << 9 | 1 << 10
"""Its IndexesSerializationType: HasAdditionalKeysBit, NeedUpdateDictionary; the lowest byte says how wide an index is."""
_FEW = 128
"""Entries of a dictionary."""
_INDEXES: tuple[type[np.unsignedinteger], ...] = (np.uint8, np.uint16, np.uint32)


def block(batch: pa.RecordBatch, columns: Sequence[tuple[str, str]]) -> list[Bytes]:
    """A block of all rows, in pieces to be sent one after the other: of `batch` the columns that are named, each as the type beside its name.

    Raises StoreIncompatible for a type that a column cannot become, InvalidBatch for more text than `MAX_TEXT_BYTES`.
    """
    pieces: list[Bytes] = [_varint(len(columns)) + _varint(batch.num_rows)]
    for name, type in columns:
        pieces.append(_string(name) + _string(type))
        pieces += column(batch.column(name), type, name)
    return pieces


def column(values: pa.Array, type: str, name: str) -> list[Bytes]:
    """The values as ClickHouse's `type`, in pieces. `name` is for the errors, which are those of `block`."""
    if values.type in _NUMBERS.get(type, ()) or (values.type == _TIME and _NANOSECONDS.fullmatch(type)):
        return [_numbers(values)]
    if values.type == pa.uint32() and _SECONDS.fullmatch(type):
        return [_numbers(values)]
    if type == "Bool" and values.type == pa.uint8():
        return [_view(np.frombuffer(_numbers(values), np.uint8) != 0)]
    if values.type == _DICTIONARY:
        if type == "LowCardinality(String)":
            return _low_cardinality(values)
        if type == "String":
            return [_content(_repeated(values, name))]
    if type == "Array(String)" and values.type == pa.list_(pa.binary()):
        return _lists(values)
    raise StoreIncompatible(f"the column {name} is {type} on the server, which this version cannot write")


def _numbers(values: pa.Array) -> memoryview:
    width = values.type.bit_width // 8
    return memoryview(values.buffers()[1] or b"")[values.offset * width : (values.offset + len(values)) * width]


def _low_cardinality(values: pa.DictionaryArray) -> list[Bytes]:
    """The entries, then each row's number among them, as narrow as they are few. An entry may be there twice; ClickHouse makes one of them."""
    if not len(values):
        return [_u64(_KEYS_VERSION)]
    if len(values.dictionary) > len(values):
        values = values.dictionary.take(values.indices).dictionary_encode()  # most of it belongs to other rows
    width = 0 if len(values.dictionary) <= 1 << 8 else 1 if len(values.dictionary) <= 1 << 16 else 2
    indexes = np.frombuffer(_numbers(values.indices), np.int32).astype(_INDEXES[width])
    head = _u64(_KEYS_VERSION) + _u64(_KEYS_HERE | width) + _u64(len(values.dictionary))
    return [head, _entries(values.dictionary), _u64(len(values)), _view(indexes)]


def _entries(values: pa.BinaryArray) -> Bytes:
    """What `_prefixed` makes of them; a few are written one by one, which costs less than calling for all."""
    if len(values) > _FEW:
        return _content(_prefixed(values))
    return b"".join([_varint(len(value)) + value for value in values.to_pylist()])


def _repeated(values: pa.DictionaryArray, name: str) -> pa.Array:
    """Each row's entry with its length before it."""
    entries, indices = values.dictionary, values.indices
    if len(entries) > len(values):
        entries, indices = entries.take(indices), None
    lengths = pc.binary_length(entries)
    if (pc.sum(lengths if indices is None else lengths.take(indices), min_count=0).as_py()) > MAX_TEXT_BYTES:
        raise InvalidBatch(f"more than {MAX_TEXT_BYTES >> 20} MiB of text in {name}")
    prefixed = _prefixed(entries)
    return prefixed if indices is None else prefixed.take(indices)


def _lists(values: pa.ListArray) -> list[Bytes]:
    """Where each list ends, then what is in them."""
    offsets = _offsets(values)
    return [_view((offsets[1:] - offsets[0]).astype(np.uint64)), _content(_prefixed(values.flatten()))]


def _prefixed(values: pa.BinaryArray) -> pa.BinaryArray:
    """Each value with its length before it."""
    return pc.binary_join_element_wise(_varints(pc.binary_length(values).to_numpy().astype(np.uint32)), values, b"")


def _varints(numbers: npt.NDArray[np.uint32]) -> pa.BinaryArray:
    """Each number in LEB128: seven bits a byte, the lowest first, the highest bit set in all but the last."""
    widths = np.ones(len(numbers), np.int32)
    for bits in (7, 14, 21, 28):
        widths += numbers >> bits != 0
    offsets = np.zeros(len(numbers) + 1, np.int32)
    np.cumsum(widths, out=offsets[1:])
    data = np.empty(offsets[-1], np.uint8)
    for place in range(widths.max(initial=0)):
        chosen = widths > place
        more = (widths[chosen] > place + 1).astype(np.uint8) << 7
        data[offsets[:-1][chosen] + place] = (numbers[chosen] >> 7 * place & 0x7F).astype(np.uint8) | more
    return pa.Array.from_buffers(pa.binary(), len(numbers), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _content(values: pa.BinaryArray) -> memoryview:
    """What the values hold, one after the other."""
    offsets = _offsets(values)
    return memoryview(values.buffers()[2] or b"")[offsets[0] : offsets[-1]]


def _offsets(values: pa.Array) -> npt.NDArray[np.int32]:
    return np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, 4 * values.offset) if len(values) else np.zeros(1, np.int32)


def _view(numbers: npt.NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(numbers).view(np.uint8).data


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _varint(number: int) -> bytes:
    """One number, as `_varints`."""
    more = bytearray()
    while number > 0x7F:
        more.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*more, number])


def _string(text: str) -> bytes:
    return _varint(len(text.encode())) + text.encode()
