"""Batches of every kind, made of values that are hard to carry."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from infrasight.schema import KINDS, Column, Type, arrow_schema
from infrasight.schema.ddl import MARK_GIVEN
from infrasight.store import batches

START_NS = 1_790_000_000_123_456_789
HOSTILE = [
    b"",
    b"plain",
    b"nul\0inside",
    b"\xff\xfe not utf-8",
    b"new\nline\ttab",
    b"quote ' \" ` \\ end",
    b"\x1b[31mred",
    b"x" * 5000,
    b"\0",
    "καλημέρα".encode(),
]
_INTEGERS = {
    Type.BOOL: (0, 1),
    Type.U16: (0, 2**16 - 1),
    Type.U32: (0, 2**32 - 1),
    Type.U64: (0, 2**64 - 1),
    Type.I32: (-(2**31), 2**31 - 1),
    Type.I64: (-(2**63), 2**63 - 1),
}


def value(column: Column, row: int) -> Any:
    """The value of a column in a row, as Arrow takes it."""
    if column.type in _INTEGERS:
        return _INTEGERS[column.type][row % 2]
    if column.type is Type.TIME:
        return START_NS + row
    if column.type is Type.F64:
        return (0.1, -math.inf, 5e-324, -0.0)[row % 4]
    if column.type is Type.WORDS:
        return [HOSTILE[(row + i) % len(HOSTILE)] for i in range(row % 4)]
    if column.type is Type.LINEAGE:
        return b"\0".join([b"sh", b"\xff bad", b"", b"systemd"][: row % 5])
    return HOSTILE[row % len(HOSTILE)]


def array(column: Column, values: list[Any]) -> pa.Array:
    """The Arrow array of a column; a dictionary gets an entry twice and one that no row uses."""
    type = arrow_schema_type(column)
    if not pa.types.is_dictionary(type):
        return pa.array(values, pa.int64()).cast(type) if column.type is Type.TIME else pa.array(values, type)
    distinct = list(dict.fromkeys(values))
    entries = [b"no row has this", *distinct, *distinct]
    indices = [1 + distinct.index(each) + (len(distinct) if row % 2 else 0) for row, each in enumerate(values)]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(entries, pa.binary()))


def arrow_schema_type(column: Column) -> pa.DataType:
    """The Arrow type of a column of any kind."""
    return next(arrow_schema(kind.name).field(column.name).type for kind in KINDS.values() if column in kind.columns)


def batch(kind: str, rows: int, first: int = 0, **fixed: Any) -> pa.RecordBatch:
    """`rows` rows of a kind, `first` being the number of the first; `fixed` columns have one value."""
    columns = KINDS[kind].columns
    arrays = [array(c, [fixed.get(c.name, value(c, first + row)) for row in range(rows)]) for c in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(kind))


def expected(kind: str, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """What the store has to give back for a batch."""
    rows = batch.cast(pa.schema([f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in batch.schema])).to_pylist()
    for row in rows:
        for column in KINDS[kind].columns:
            if column.type is Type.LINEAGE:
                joined = row[column.name]
                row[column.name] = joined.split(b"\0") if joined else []
    return rows


def as_stored(kind: str, batch: pa.RecordBatch, stored_s: int, mark: int = 1) -> pa.RecordBatch:
    """The batch as it goes into its table, all rows with the same mark."""
    marked = batch.append_column(MARK_GIVEN, pa.array([mark] * batch.num_rows, pa.uint64()))
    return batches.as_stored(kind, marked, stored_s)
