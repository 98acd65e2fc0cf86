"""A batch on its way into a table: checked, then named as the table has it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infrasight.errors import InvalidBatch
from infrasight.schema import KINDS, arrow_schema
from infrasight.schema.ddl import DATABASE, insert_columns, inserted_columns, quoted, text

MAX_DAYS = 100
"""Days that one batch may span: each becomes a part of its own, and a broken clock must not make thousands."""
DAY_NS = 86_400 * 10**9


def check(kind: str, batch: pa.RecordBatch) -> None:
    """Raises InvalidBatch unless `batch` has the columns of `kind`, within `MAX_DAYS`."""
    if kind not in KINDS:
        raise InvalidBatch(f"no such event kind: {kind!r:.60}")
    expected = arrow_schema(kind)
    if not batch.schema.equals(expected) and (batch.schema.names != expected.names or batch.schema.types != expected.types):
        raise InvalidBatch(f"{kind}: not the columns that this version knows")
    times = pc.min_max(batch.column("ts").cast(pa.int64())).as_py()
    if batch.num_rows and times["max"] - times["min"] > MAX_DAYS * DAY_NS:
        raise InvalidBatch(f"{kind}: times more than {MAX_DAYS} days apart")


def check_nulls(kind: str, batch: pa.RecordBatch) -> None:
    """Raises InvalidBatch when there is one."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values = column.dictionary if pa.types.is_dictionary(column.type) else column.values if pa.types.is_list(column.type) else column
        if column.null_count or values.null_count:
            raise InvalidBatch(f"{kind}: nulls in {name}")


def file_statement(kind: str, token: str, file: str) -> str:
    """The INSERT for a batch that `as_stored` has named, as a block in a file, to be run by `Session.insert`."""
    settings = f"insert_deduplication_token = {text(token)}"
    return f"INSERT INTO {DATABASE}.{quoted(kind)} ({insert_columns(KINDS[kind])}) FROM INFILE {text(file)} SETTINGS {settings} FORMAT Native"


def native_statement(kind: str) -> str:
    """The INSERT for a batch that `as_stored` has named, to be run by `Connection.insert`; its token is a setting."""
    return f"INSERT INTO {DATABASE}.{quoted(kind)} ({insert_columns(KINDS[kind])}) VALUES"


def as_stored(kind: str, batch: pa.RecordBatch, stored_s: int) -> pa.RecordBatch:
    """The batch, marked (`joining`), its columns named as the table inserts them, and when it is stored (seconds since the epoch)."""
    stored = pa.array(np.full(batch.num_rows, stored_s, np.uint32))
    return pa.RecordBatch.from_arrays([*batch.columns, stored], [name for name, _ in stored_types(kind)])


@cache
def stored_types(kind: str) -> tuple[tuple[str, str], ...]:
    """Names and types of the columns that the table inserts."""
    return tuple((column.name, column.type) for column in inserted_columns(KINDS[kind]))
