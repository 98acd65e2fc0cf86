"""`proto/infrasight/v1/events.proto`, derived: one typed message per event kind, for ordinary gRPC clients."""

from __future__ import annotations

from infrasight.schema.columns import Column, Kind, Type
from infrasight.schema.kinds import KINDS

TYPES: dict[Type, str] = {
    Type.BOOL: "bool",
    Type.U16: "uint32",
    Type.U32: "uint32",
    Type.U64: "uint64",
    Type.I32: "int32",
    Type.I64: "int64",
    Type.F64: "double",
    Type.TIME: "fixed64",
    Type.NAME: "string",
    Type.TEXT: "string",
    Type.WORDS: "repeated string",
    Type.LINEAGE: "repeated string",
}
_PREFACE = """// Derived from infrasight/schema by `make proto`: edit the declaration, not this file.
// Text that is not UTF-8 arrives with each such byte written as \\xNN.
syntax = "proto3";
package infrasight.v1;
"""


def message_name(kind: Kind) -> str:
    """`execve` -> `Execve`."""
    return "".join(part.capitalize() for part in kind.name.split("_"))


def _field(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"  // {column.doc}{unit}\n  {TYPES[column.type]} {column.name} = {column.number};"


def _message(kind: Kind) -> str:
    fields = "\n".join(_field(column) for column in kind.columns)
    return f"// {kind.doc}\nmessage {message_name(kind)} {{\n{fields}\n}}\n"


def events_proto() -> str:
    """The whole file."""
    choices = "\n".join(f"    {message_name(kind)} {kind.name} = {kind.number};" for kind in KINDS.values())
    event = f"// One event of any kind.\nmessage Event {{\n  oneof kind {{\n{choices}\n  }}\n}}\n"
    return "\n".join([_PREFACE, event, *(_message(kind) for kind in KINDS.values())])
