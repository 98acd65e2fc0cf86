"""Records to columns: pure functions from a structured array to Arrow arrays, with no work per row in Python, unless there are few."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infrasight.kernel import Records

_WORD = 8
_KEEP = np.array([(1 << (8 * count)) - 1 for count in range(_WORD)] + [2**64 - 1], np.uint64)
"""What to keep of a word of which only so many bytes belong to the string (little endian)."""
_HEAD = struct.Struct("<HHH")
"""What a pair begins with while it is looked for: two lengths and the number."""
FEW = 128
"""Rows up to which Python is done with them before numpy and Arrow have been called, whose calls cost the same for one row as for a thousand."""

FEW_TEXTS = 768
"""The same for strings in areas, which numpy needs more calls for."""


def numbers(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """`values` (n,), whose memory is what an Arrow array of `kind` holds, as that array. Not `pa.array`, which asks pandas, which is large."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def numbers_of(array: pa.Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """What an array without nulls holds, which may be a slice; the other way round."""
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * np.dtype(dtype).itemsize) if len(array) else np.zeros(0, dtype)


def _dictionary(codes: npt.NDArray[np.int32], values: pa.BinaryArray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(numbers(codes, pa.int32()), values)


def _binary(offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8] | bytes) -> pa.BinaryArray:
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def strings(values: Sequence[bytes]) -> pa.BinaryArray:
    """A list of byte strings as a binary array; not `pa.array`, for the same reason."""
    return _binary(_ends(values), b"".join(values))


def _ends(values: Sequence[Sequence[Any]]) -> npt.NDArray[np.int32]:
    return np.fromiter(accumulate(map(len, values), initial=0), np.int32, len(values) + 1)


def _offsets(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def pack(cells: npt.NDArray[np.uint8], lengths: npt.NDArray[np.integer]) -> pa.BinaryArray:
    """Rows of `cells` (n, width), cut to `lengths` (n,), as a binary array."""
    inside = np.arange(cells.shape[1], dtype=np.uint32) < lengths[:, None]
    return _binary(_offsets(lengths), cells[inside])


def _padded(values: pa.FixedSizeBinaryArray, width: int) -> pa.BinaryArray:
    """Fixed-size strings without their padding of zero bytes."""
    cells = np.frombuffer(values.buffers()[1], np.uint8, len(values) * width).reshape(-1, width)
    return pack(cells, np.count_nonzero(cells, axis=1))


def encode_padded(cells: npt.NDArray[np.uint8]) -> pa.DictionaryArray:
    """Dictionary of strings that are padded with zero bytes: `cells` is (n, width) and contiguous."""
    width = cells.shape[1]
    if len(cells) <= FEW:
        return encode(cells.view(f"S{width}").ravel().tolist())
    encoded = pa.Array.from_buffers(pa.binary(width), len(cells), [None, pa.py_buffer(cells)]).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices, _padded(encoded.dictionary, width))


def encode(values: Sequence[bytes]) -> pa.DictionaryArray:
    """Dictionary of a few strings."""
    distinct = Distinct.among(values)
    return distinct.name(distinct.values)


def few(records: Records, area: str) -> list[bytes]:
    """The strings of an area, one a row."""
    lengths = records[f"{area}_len"].tolist()
    cells = records[area][:, : max([1, *lengths])]
    width, data = cells.shape[1], cells.tobytes()
    return [data[start : start + length] for start, length in zip(range(0, len(data), width), lengths, strict=True)]


def encode_c_strings(records: Records, slot: str) -> pa.DictionaryArray:
    """Dictionary of a slot whose strings hold no NUL. What lies behind a string is whatever was in the ring before, and is masked out first."""
    if len(records) <= FEW_TEXTS:
        return encode(few(records, slot))
    cells = _masked(records, slot)
    return encode_padded(cells) if cells.shape[1] else constant(b"", len(records))


def encode_bytes(records: Records, slot: str) -> pa.DictionaryArray:
    """Dictionary of a slot whose strings may hold any byte."""
    if len(records) <= FEW:
        return encode(few(records, slot))
    lengths = records[f"{slot}_len"]
    return pack(records[slot][:, : int(lengths.max(initial=0))], lengths).dictionary_encode()


def encode_pairs(records: Records, one: str, other: str, number: str) -> Distinct:
    """The distinct combinations of two areas and a number below 256."""
    if len(records) <= FEW_TEXTS:
        return Distinct.among(list(zip(few(records, one), few(records, other), records[number].tolist(), strict=True)))
    parts = [_masked(records, area) for area in (one, other)]
    heads = np.stack([records[f"{one}_len"], records[f"{other}_len"], records[number]], axis=1).astype(np.uint16).view(np.uint8)
    cells = np.hstack([heads, *parts])
    width, middle = cells.shape[1], _HEAD.size + parts[0].shape[1]
    encoded = pa.Array.from_buffers(pa.binary(width), len(cells), [None, pa.py_buffer(cells)]).dictionary_encode()
    values = []
    for cell in encoded.dictionary.to_pylist():
        first, second, flags = _HEAD.unpack_from(cell)
        values.append((cell[_HEAD.size : _HEAD.size + first], cell[middle : middle + second], flags))
    return Distinct(numbers_of(encoded.indices, np.int32), values)


def _masked(records: Records, area: str) -> npt.NDArray[np.uint8]:
    """The bytes of an area (n, width), as wide as its longest string, with zero bytes behind each string."""
    lengths = records[f"{area}_len"]
    words = -(-int(lengths.max(initial=0)) // _WORD)
    cells = records[area][:, : words * _WORD].view(np.uint64).copy()
    short = int(lengths.min()) // _WORD if len(lengths) else 0
    for word in range(short, words):
        cells[:, word] &= _KEEP[np.clip(lengths.astype(np.int64) - word * _WORD, 0, _WORD)]
    masked: npt.NDArray[np.uint8] = cells.view(np.uint8)
    return masked


def split_words(records: Records, slot: str) -> pa.ListArray:
    """A slot of strings that each end with a NUL (the last one need not, when it was cut), as lists of words."""
    if len(records) <= FEW:
        return words([text.removesuffix(b"\0").split(b"\0") if text else [] for text in few(records, slot)])
    lengths = records[f"{slot}_len"].astype(np.int64)
    cells = records[slot][:, : int(lengths.max(initial=0))]
    inside = np.arange(cells.shape[1]) < lengths[:, None]
    data, row = cells[inside], np.repeat(np.arange(len(records)), lengths)
    # A word ends at each NUL, and at the end of a row that has none there.
    end_of_row = np.zeros(len(data), bool)
    end_of_row[(np.cumsum(lengths) - 1)[lengths > 0]] = True
    ends, is_nul = np.flatnonzero((data == 0) | end_of_row), data == 0
    kept = ~is_nul
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = np.cumsum(kept)[ends]
    words_per_row = np.bincount(row[ends], minlength=len(records))
    places = [None, pa.py_buffer(_offsets(words_per_row))]
    return pa.Array.from_buffers(pa.list_(pa.binary()), len(records), places, children=[_binary(offsets, data[kept])])


def words(lists: Sequence[Sequence[bytes]]) -> pa.ListArray:
    """Lists of byte strings, one a row."""
    flat = strings([word for row in lists for word in row])
    return pa.Array.from_buffers(pa.list_(pa.binary()), len(lists), [None, pa.py_buffer(_ends(lists))], children=[flat])


def renamed(column: pa.DictionaryArray, name: Callable[[bytes], bytes]) -> pa.DictionaryArray:
    """The column with each distinct value replaced by `name(value)`; what becomes equal becomes one."""
    return Distinct.of(column).name([name(value) for value in column.dictionary.to_pylist()])


class Distinct:
    """The distinct values of a column: `values` (k,), and `codes` (n,) that say which of them each row has."""

    def __init__(self, codes: npt.NDArray[np.int32], values: Sequence[Any]) -> None:
        self.codes, self.values = codes, values

    @classmethod
    def among(cls, values: Sequence[Hashable]) -> Distinct:
        """Of a few values."""
        places: dict[Hashable, int] = {}
        codes = [places.setdefault(value, len(places)) for value in values]
        return cls(np.array(codes, np.int32), list(places))

    @classmethod
    def of(cls, column: npt.NDArray[np.integer] | pa.DictionaryArray) -> Distinct:
        """Of an integer column, or of one that is encoded already (whose `values` are then left empty)."""
        if isinstance(column, pa.DictionaryArray):
            return cls(numbers_of(column.indices, np.int32), [])
        if len(column) and (column == column[0]).all():
            return cls(np.zeros(len(column), np.int32), column[:1].tolist())
        if len(column) <= FEW:
            return cls.among(column.tolist())
        encoded = numbers(column, pa.from_numpy_dtype(column.dtype)).dictionary_encode()
        return cls(numbers_of(encoded.indices, np.int32), numbers_of(encoded.dictionary, column.dtype).tolist())

    def first(self) -> npt.NDArray[np.int64]:
        """The row that each value is first seen in (k,)."""
        first = np.zeros(len(self.values), np.int64)
        first[self.codes[::-1]] = np.arange(len(self.codes) - 1, -1, -1)
        return first

    def name(self, names: Sequence[bytes]) -> pa.DictionaryArray:
        """A dictionary column that holds `names` (k,), one for each distinct value."""
        if len(set(names)) == len(names):
            return _dictionary(self.codes, strings(names))
        new = Distinct.among(names)
        return _dictionary(new.codes[self.codes], strings(new.values))


def trimmed(column: pa.Array) -> pa.Array:
    """The column; if it is a dictionary column of fewer rows than it has values, with those values alone that its rows have."""
    if not isinstance(column, pa.DictionaryArray) or len(column.dictionary) <= len(column):
        return column
    distinct = Distinct.among(numbers_of(column.indices, np.int32).tolist())
    return _dictionary(distinct.codes, column.dictionary.take(numbers(np.array(distinct.values, np.int32), pa.int32())))


def named(column: npt.NDArray[np.integer], name: Callable[[int], bytes]) -> pa.DictionaryArray:
    """A dictionary column with `name(value)` for each value, asked once for each distinct one."""
    distinct = Distinct.of(column)
    return distinct.name([name(value) for value in distinct.values])


def constant(value: bytes, rows: int) -> pa.DictionaryArray:
    """A dictionary column of one value."""
    return _dictionary(np.zeros(rows, np.int32), strings([value]))
