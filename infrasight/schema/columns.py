"""What a column of an event is: its type in every world it travels through, its meaning and its unit."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

RESOLVED = "_resolved"
"""What the name of a column ends in that says where a path leads."""


class Type(enum.Enum):
    """A column's type. Each engine's own name for it is in one table: `arrow.TYPES`, `ddl.TYPES`, `protobuf.TYPES`."""

    BOOL = "bool"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    I32 = "i32"
    I64 = "i64"
    F64 = "f64"
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


class Source(enum.Enum):
    """Where the bytes of a slot come from."""

    USER = "user"
    """A string in the caller's memory."""
    PATH = "path"
    """The same, and where it leads: a second area, `<name>_place`, has the names of the file or of the directory it starts from."""
    PLACE = "place"
    """Where a file is that the kernel has open: its names from the file's own up to the root, each ended by a NUL; `<name>_cut`: there were more."""
    OWN = "own"
    """The probe's own program fills it in."""


class Length(enum.Enum):
    """How much a record has room for. An event goes into the first that it fits into, or what fits of it into the last."""

    SHORT = "short"
    """Nearly every event: in the ring of its kind."""
    MEDIUM = "medium"
    """Paths of some hundred bytes."""
    LONG = "long"
    """As much as the kernel takes."""


MEDIUM_BYTES = 1024
"""What the areas of a medium record share."""


@dataclass(frozen=True)
class Area:
    """Bytes at a fixed place of a record, with their length in the field `<name>_len`: so many of them in a record of each length."""

    name: str
    short: int
    medium: int
    long: int

    def room(self, length: Length) -> int:
        """Bytes of it in a record of this length."""
        return {Length.SHORT: self.short, Length.MEDIUM: self.medium, Length.LONG: self.long}[length]


@dataclass(frozen=True)
class Slot:
    """A byte string that the kernel copies into a record.

    A short record holds `short` bytes of it, a long one `long`, and a medium one its part of `MEDIUM_BYTES`; equal numbers mean that there is one
    length only. Of a PATH, `place` and `place_long` are the same for its second area; a name of 255 bytes has room there behind any path of PATH_MAX.
    Both are multiples of 8.
    """

    name: str
    short: int
    long: int
    doc: str
    source: Source = Source.USER
    place: int = 80
    place_long: int = 4352

    @property
    def rooms(self) -> tuple[tuple[str, int, int], ...]:
        """What it takes in a record: name, bytes in a short one, bytes in a long one."""
        own = (self.name, self.short, self.long)
        return (own, (f"{self.name}_place", self.place, self.place_long)) if self.source is Source.PATH else (own,)


@dataclass(frozen=True)
class Buffer:
    """A ring buffer, for the kinds that name it: `bytes` is a power of two. All records in it take as much room as the largest of them."""

    name: str
    bytes: int
    doc: str


class Lane(enum.Enum):
    """What a kind is worth when a node cannot keep everything, the most valuable first: it ships in this order, and gives up in the other."""

    SECURITY = "security"
    """Who ran what, and what few programs have reason to do; and what was lost."""
    ACTIVITY = "activity"
    """What every program does."""
    TELEMETRY = "telemetry"
    """Sums."""


@dataclass(frozen=True, eq=False)
class Kind:
    """One event kind, equal to itself only: one table, one protobuf message, and, where `fields` and `slots` say so, one record layout.

    `origin` is "kernel" for kinds read from a ring, "node" for kinds that the node itself makes, "server" for kinds that the server makes and no node
    may ship. `ring` is the buffer that its records go through. `lane` is what it is worth to a node.

    `composed`: the probe's own program makes the record, out of more than fields, strings and paths.
    `account`: a record of all that a process has done, kept and summed up in the kernel; its rows are what has come to be since the last.
    `selective`: unless all is asked for, only some of what the probe sees is told, as `doc` says.
    """

    name: str
    number: int
    doc: str
    columns: tuple[Column, ...]
    fields: tuple[Field, ...] = ()
    slots: tuple[Slot, ...] = ()
    ring: str = "call"
    origin: str = "kernel"
    composed: bool = False
    account: bool = False
    selective: bool = False
    lane: Lane = Lane.ACTIVITY

    @property
    def areas(self) -> tuple[Area, ...]:
        """The areas of all slots."""
        rooms = [room for slot in self.slots for room in slot.rooms]
        part = MEDIUM_BYTES // max(1, sum(short != long for _, short, long in rooms)) // 8 * 8
        return tuple(Area(name, short, max(short, min(long, part)), long) for name, short, long in rooms)

    @property
    def lengths(self) -> tuple[Length, ...]:
        """The lengths its records come in, the shortest first. Who composes its own leaves out the medium one."""
        more = (Length.LONG,) if self.composed else (Length.MEDIUM, Length.LONG)
        return (Length.SHORT, *more) if any(area.short != area.long for area in self.areas) else (Length.SHORT,)

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the columns that are paths: each as given, and where it leads."""
        names = {column.name for column in self.columns}
        return tuple(column.name for column in self.columns if column.name.endswith(RESOLVED) or column.name + RESOLVED in names)

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
