"""Arrow schemas, derived: what a batch of one kind looks like on the wire and inside node and server."""

from __future__ import annotations

from functools import cache

import pyarrow as pa

from infrasight.schema.columns import Type
from infrasight.schema.kinds import KINDS

DICTIONARY = pa.dictionary(pa.int32(), pa.binary())
TYPES: dict[Type, pa.DataType] = {
    Type.BOOL: pa.uint8(),
    Type.U16: pa.uint16(),
    Type.U32: pa.uint32(),
    Type.U64: pa.uint64(),
    Type.I32: pa.int32(),
    Type.I64: pa.int64(),
    Type.F64: pa.float64(),
    Type.TIME: pa.timestamp("ns", "UTC"),
    Type.NAME: DICTIONARY,
    Type.TEXT: DICTIONARY,
    Type.WORDS: pa.list_(pa.binary()),
    Type.LINEAGE: DICTIONARY,
}
"""Text is bytes, since the kernel's is: names and paths need not be UTF-8."""


@cache
def arrow_schema(kind: str) -> pa.Schema:
    """The schema of a batch of `kind`; its columns in the order of the declaration, none nullable. KeyError for an unknown kind."""
    return pa.schema([pa.field(column.name, TYPES[column.type], nullable=False) for column in KINDS[kind].columns])
