"""Batches to test with, made from the declaration so that a new kind or column is in them at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from infrasight.schema import KINDS, Column, Type, arrow_schema

START_NS = 1_763_922_600_000_000_000
HOSTILE = [b"bash", b"\xff\xfe not utf-8", b"new\nline", b"\x1b[31mred", "žluťoučký".encode(), b""]


def batch(kind: str, rows: int, *, first: int = 0) -> pa.RecordBatch:
    """`rows` events of `kind`. Row i is number first + i: its time is START_NS plus that, and its other values derive from it."""
    numbers = np.arange(first, first + rows)
    return pa.RecordBatch.from_arrays([_column(column, numbers) for column in KINDS[kind].columns], schema=arrow_schema(kind))


def with_column(source: pa.RecordBatch, name: str, values: list[object]) -> pa.RecordBatch:
    """`source` with a column's values replaced."""
    place = source.schema.get_field_index(name)
    columns = list(source.columns)
    kind = source.schema.field(name).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    array = pa.array(values, plain)
    columns[place] = array.dictionary_encode() if pa.types.is_dictionary(kind) else array
    return pa.RecordBatch.from_arrays(columns, schema=source.schema)


def _column(column: Column, numbers: np.ndarray) -> pa.Array:
    match column.type:
        case Type.TIME:
            return pa.array(START_NS + numbers).cast(pa.timestamp("ns", "UTC"))
        case Type.NAME | Type.TEXT:
            return pa.DictionaryArray.from_arrays(pa.array(numbers % len(HOSTILE), pa.int32()), pa.array(HOSTILE, pa.binary()))
        case Type.LINEAGE:
            lines = pa.array([b"", b"sshd", b"bash\0sshd\0systemd"], pa.binary())
            return pa.DictionaryArray.from_arrays(pa.array(numbers % 3, pa.int32()), lines)
        case Type.WORDS:
            return pa.array([[b"ls", b"-l", HOSTILE[n % len(HOSTILE)]][: n % 4] for n in numbers], pa.list_(pa.binary()))
        case Type.BOOL:
            return pa.array(numbers % 2, pa.uint8())
        case Type.F64:
            return pa.array((numbers - 3) / 7)
        case Type.I32 | Type.I64:
            return pa.array(numbers % 300 - 150).cast(arrow_schema_type(column))
        case _:
            return pa.array(numbers % 60_000).cast(arrow_schema_type(column))


def arrow_schema_type(column: Column) -> pa.DataType:
    from infrasight.schema.arrow import TYPES

    return TYPES[column.type]
