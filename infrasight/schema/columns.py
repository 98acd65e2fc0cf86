"""What a column of an event is: its type in every world it travels through, its meaning and its unit."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Type(enum.Enum):
    """A column's type. Each engine's own name for it is in one table: `arrow.TYPES`, `ddl.TYPES`, `protobuf.TYPES`."""

    BOOL = "bool"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    I32 = "i32"
    I64 = "i64"
    TIME = "time"
    """Nanoseconds since the epoch, UTC."""
    NAME = "name"
    """Bytes with few distinct values (a program, a user, an address): dictionary-encoded everywhere."""
    TEXT = "text"
    """Bytes with many distinct values (a path): a dictionary on the wire, plain in the store."""
    WORDS = "words"
    """A list of byte strings (argv)."""
    LINEAGE = "lineage"
    """A list of names with few distinct values, repeated over many rows: one NUL-joined NAME on the wire and in the store."""


@dataclass(frozen=True)
class Column:
    """One column of an event kind.

    `number` is the field's tag in the derived protobuf message and never changes once released. `unit` is empty where the value has none.
    `codec` is the ClickHouse codec, chosen by what the values look like.
    """

    name: str
    type: Type
    number: int
    doc: str
    unit: str = ""
    codec: str = ""
    names: Mapping[int, str] | None = None
    """For a NAME that the kernel has as a number, in the field of the same name: what each is called; others are shown in digits."""


@dataclass(frozen=True)
class Field:
    """A fixed-size field that the kernel writes into a record.

    `ctype` is one of `layout.CTYPES` or `char[N]` / `u8[N]`. A field with the name of a column becomes that column as it is; any other field is
    raw material for the node (`infrasight.node.columns`).
    """

    name: str
    ctype: str
    doc: str


@dataclass(frozen=True)
class Slot:
    """A byte string that the kernel copies into a record, at a fixed place, with its length (bytes, no NUL) in the field `<name>_len`.

    A record comes in two sizes. The short one holds `short` bytes of this string and is what nearly every event needs; when a string does not fit,
    the long record with `long` bytes is sent instead, through a ring of its own. Equal numbers mean that there is one size only.
    """

    name: str
    short: int
    long: int
    doc: str


@dataclass(frozen=True)
class Kind:
    """One event kind: one table, one protobuf message, and, where `fields` and `slots` say so, one record layout and its ring buffers.

    `origin` is "kernel" for kinds read from a ring, "node" for kinds that the node itself makes. `ring_bytes` and `long_ring_bytes`: powers of two.
    """

    name: str
    number: int
    doc: str
    columns: tuple[Column, ...]
    fields: tuple[Field, ...] = ()
    slots: tuple[Slot, ...] = ()
    ring_bytes: int = 1 << 20
    long_ring_bytes: int = 1 << 20
    origin: str = "kernel"

    @property
    def two_sizes(self) -> bool:
        """Whether records come in a short and a long size."""
        return any(slot.short != slot.long for slot in self.slots)

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
