"""Rows that the server makes itself, as a batch of their kind. Not for many: they are made one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from infrasight.schema import arrow_schema


def made(kind: str, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """A batch of `kind`: each row has every column by name, text as str or bytes."""
    schema = arrow_schema(kind)
    return pa.RecordBatch.from_arrays([_array(field.type, [row[field.name] for row in rows]) for field in schema], schema=schema)


def _array(type: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_dictionary(type):
        return pa.array(values, type.value_type).dictionary_encode()
    return pa.array(values, pa.int64()).cast(type) if pa.types.is_timestamp(type) else pa.array(values, type)
