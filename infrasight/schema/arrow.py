"""Arrow schemas, derived: what a batch of one kind looks like on the wire and inside node and server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

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


class _Hidden(MetaPathFinder):
    """A package that is not found."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname == self._name:
            raise ModuleNotFoundError(f"{fullname} is not to be found", name=fullname)
        return None


def without_pandas() -> None:
    """Have pyarrow believe that there is no pandas, for as long as this process lives. It looks for it once, when it makes its first array, and then
    imports it, which is large. Who imports pandas themselves has it all the same."""
    hidden = _Hidden("pandas")
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)
