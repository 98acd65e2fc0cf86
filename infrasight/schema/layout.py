"""Record layouts, derived: where each member of a record lies, and the numpy dtype that reads it. `infrasight.schema.c` makes the C structs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from infrasight.schema.columns import Field, Kind, Length, Source
from infrasight.schema.parts import HEAD

RECORD_HEADER_BYTES = 8
"""Bytes of the kernel's own header before each ring buffer record (struct bpf_ringbuf_hdr, kernel/bpf/ringbuf.c)."""
CTYPES: dict[str, str] = {"u16": "<u2", "s16": "<i2", "u32": "<u4", "s32": "<i4", "u64": "<u8", "s64": "<i8"}
ARRAY = re.compile(r"(char|u8|u32)\[(\d+)\]")
"""A C array type: element, count."""


@dataclass(frozen=True)
class Member:
    """One member of a record: name, C type, offset and size in bytes."""

    name: str
    ctype: str
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """The records of one kind and length; `size` in bytes, a multiple of 8."""

    kind: Kind
    length: Length
    members: tuple[Member, ...]
    size: int

    @property
    def name(self) -> str:
        """Name of the C struct: `open`, `open_medium`, `open_long`."""
        return self.kind.name if self.length is Length.SHORT else f"{self.kind.name}_{self.length.value}"

    @property
    def ring(self) -> str:
        """The buffer these records go through."""
        return self.kind.ring if self.length is Length.SHORT else self.length.value

    def member(self, name: str) -> Member:
        """The member called `name`; KeyError when there is none."""
        for member in self.members:
            if member.name == name:
                return member
        raise KeyError(name)

    @cached_property
    def areas(self) -> dict[str, int]:
        """The areas for strings, and how many bytes each has."""
        return {area.name: area.room(self.length) for area in self.kind.areas}

    @cached_property
    def plain(self) -> list[str]:
        """Names of the members that are no areas for strings."""
        return [member.name for member in self.members if member.name not in self.areas and not member.name.startswith("_")]

    def dtype(self, stride: int) -> np.dtype[np.void]:
        """The dtype of one record in a ring whose records are `stride` bytes apart: the kernel's header as `_length`, then the members."""
        names, formats, offsets = ["_length"], ["<u4"], [0]
        for member in self.members:
            names.append(member.name)
            formats.append(_numpy_format(member))
            offsets.append(RECORD_HEADER_BYTES + member.offset)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": stride})


def _numpy_format(member: Member) -> str:
    if member.ctype in CTYPES:
        return CTYPES[member.ctype]
    if member.ctype.startswith("u32["):
        return f"({member.size // 4},)<u4"
    return f"S{member.size}" if member.ctype.startswith("char[16") else f"({member.size},)u1"


def _sizes(ctype: str) -> tuple[int, int]:
    """Size and alignment in bytes."""
    array = ARRAY.fullmatch(ctype)
    if array:
        width = 4 if array[1] == "u32" else 1
        return width * int(array[2]), width
    size = np.dtype(CTYPES[ctype]).itemsize
    return size, size


def _end(fields: Iterable[Field], offset: int = 0) -> int:
    """Where the last of these fields ends."""
    for field in fields:
        size, alignment = _sizes(field.ctype)
        offset = _aligned(offset, alignment) + size
    return offset


def _aligned(offset: int, alignment: int) -> int:
    return (offset + alignment - 1) // alignment * alignment


HEAD_BYTES = _aligned(_end(HEAD), 8)
"""Size of what every record begins with."""


def payload_bytes(kind: Kind) -> int:
    """Size of a kind's own fields, which follow the head: a multiple of 8."""
    return _aligned(_end(kind.fields), 8)


def _walk(kind: Kind, length: Length) -> Iterator[tuple[str, str]]:
    for field in (*HEAD, *kind.fields):
        yield field.name, field.ctype
    if padding := payload_bytes(kind) - _end(kind.fields):
        yield "_padding", f"u8[{padding}]"
    for area in kind.areas:
        yield f"{area.name}_len", "u32"
    for slot in kind.slots:
        if slot.source is Source.PATH:
            yield f"{slot.name}_whole", "u32"
        elif slot.source is Source.PLACE:
            yield f"{slot.name}_cut", "u32"
    for area in kind.areas:
        yield area.name, f"u8[{area.room(length)}]"


@cache
def layout(kind: Kind, length: Length = Length.SHORT) -> Layout:
    """The layout of `kind`'s records of a length. ValueError for a kind that does not come from the kernel, or has none so long."""
    if kind.origin != "kernel" or length not in kind.lengths:
        raise ValueError(f"{kind.name} has no such record")
    members, offset = [], 0
    for name, ctype in _walk(kind, length):
        size, alignment = _sizes(ctype)
        offset = _aligned(offset, alignment)
        members.append(Member(name, ctype, offset, size))
        offset += size
    return Layout(kind, length, tuple(members), _aligned(offset, 8))


@cache
def layouts(kind: Kind) -> tuple[Layout, ...]:
    """Those of all lengths of a kind, the short one first."""
    return tuple(layout(kind, length) for length in kind.lengths)


def stride(records: Iterable[Layout]) -> int:
    """How many bytes the records of a ring are apart: the kernel's header and the largest record, in the ring buffer's 8-byte alignment."""
    return RECORD_HEADER_BYTES + max(record.size for record in records)
