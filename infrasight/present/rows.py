"""Rows of a batch, for whoever shows events one by one. Never on the way to the store: that stays columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infrasight.present.safe import text_of
from infrasight.schema.columns import Column, Type
from infrasight.schema.kinds import KINDS

if TYPE_CHECKING:
    import pyarrow as pa


def rows_of(kind: str, batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Each event of a batch of `kind` as a plain dict, in the order of the columns.

    Text is str (a byte that is not UTF-8 as \\xNN), WORDS and LINEAGE are lists of str, times are int nanoseconds since the epoch.
    """
    columns = KINDS[kind].columns
    names = [column.name for column in columns]
    for values in zip(*(_values(column, batch.column(column.name)) for column in columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _values(column: Column, array: Any) -> list[Any]:
    if column.type in (Type.NAME, Type.TEXT):
        return _by_distinct(array, text_of)
    if column.type is Type.LINEAGE:
        return _by_distinct(array, _lineage)
    if column.type is Type.WORDS:
        return [[text_of(word) for word in words] for words in array.to_pylist()]
    if column.type is Type.TIME:
        return list(array.cast("int64").to_pylist())
    return list(map(bool, array.to_pylist())) if column.type is Type.BOOL else list(array.to_pylist())


def _by_distinct(array: Any, convert: Any) -> list[Any]:
    """Convert each distinct value of a dictionary array once."""
    distinct = [convert(value) for value in array.dictionary.to_pylist()]
    return [distinct[index] for index in array.indices.to_pylist()]


def _lineage(joined: bytes) -> list[str]:
    return [text_of(name) for name in joined.split(b"\0") if name]
