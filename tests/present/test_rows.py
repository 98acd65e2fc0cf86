"""Rows say what the batch says."""

from __future__ import annotations

import pyarrow as pa
import pytest

from infrasight.present.lines import compact_line, json_line
from infrasight.present.rows import rows_of
from infrasight.schema import KINDS, Type, arrow_schema

VALUES: dict[Type, list[object]] = {
    Type.BOOL: [0, 1, 0],
    Type.U16: [443, 0, 65535],
    Type.U32: [7, 8, 2**32 - 1],
    Type.U64: [1, 2**64 - 1, 2**53 + 1],
    Type.I32: [-100, 0, 1],
    Type.I64: [-2, 0, 3],
    Type.F64: [-0.5, 0.0, 1e300],
    Type.TIME: [1_700_000_000_000_000_007, 0, 1],
    Type.NAME: [b"a", b"\xff", b"a"],
    Type.TEXT: [b"/x", b"/\n\xe9", b""],
    Type.WORDS: [[b"ls", b"\xfe"], [], [b""]],
    Type.LINEAGE: [b"sh\0sshd", b"", b"\xff"],
}
READ: dict[Type, list[object]] = {
    Type.BOOL: [False, True, False],
    Type.NAME: ["a", "\\xff", "a"],
    Type.TEXT: ["/x", "/\n\\xe9", ""],
    Type.WORDS: [["ls", "\\xfe"], [], [""]],
    Type.LINEAGE: [["sh", "sshd"], [], ["\\xff"]],
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_of_a_batch(kind: str) -> None:
    schema = arrow_schema(kind)
    columns = KINDS[kind].columns
    arrays = [pa.array(VALUES[column.type], type=field.type) for column, field in zip(columns, schema, strict=True)]
    rows = list(rows_of(kind, pa.record_batch(arrays, schema=schema)))
    assert len(rows) == 3
    for column in columns:
        assert [row[column.name] for row in rows] == READ.get(column.type, VALUES[column.type])
    for row in rows:
        assert compact_line(kind, row).isprintable()
        assert json_line(kind, row).isascii()


def test_no_rows() -> None:
    assert list(rows_of("open", pa.RecordBatch.from_pylist([], schema=arrow_schema("open")))) == []
