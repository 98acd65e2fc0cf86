"""Record layouts, derived: where each member of a record lies, and the numpy dtype that reads it. `infrasight.schema.c` makes the C structs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from infrasight.schema.columns import Kind
from infrasight.schema.parts import HEAD

RECORD_HEADER_BYTES = 8
"""Bytes of the kernel's own header before each ring buffer record (struct bpf_ringbuf_hdr, kernel/bpf/ringbuf.c)."""
CTYPES: dict[str, str] = {"u16": "<u2", "s16": "<i2", "u32": "<u4", "s32": "<i4", "u64": "<u8", "s64": "<i8"}
ARRAY = re.compile(r"(char|u8)\[(\d+)\]")
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
    """One record size of one kind. `size` is the record's, `stride` the distance in the ring to the next one, both in bytes."""

    kind: Kind
    long: bool
    members: tuple[Member, ...]
    size: int

    @property
    def name(self) -> str:
        """Name of the C struct and of its ring: `open`, `open_long`."""
        return f"{self.kind.name}_long" if self.long else self.kind.name

    @property
    def stride(self) -> int:
        """Record header and record, rounded up to the ring buffer's 8-byte alignment."""
        return (RECORD_HEADER_BYTES + self.size + 7) // 8 * 8

    @property
    def ring_bytes(self) -> int:
        """Size of the ring these records go through."""
        return self.kind.long_ring_bytes if self.long else self.kind.ring_bytes

    def member(self, name: str) -> Member:
        """The member called `name`; KeyError when there is none."""
        for member in self.members:
            if member.name == name:
                return member
        raise KeyError(name)

    @property
    def plain(self) -> list[str]:
        """Names of the members that are no slots."""
        slots = {slot.name for slot in self.kind.slots}
        return [member.name for member in self.members if member.name not in slots]

    def dtype(self) -> np.dtype[np.void]:
        """The dtype of one slot of the ring: the kernel's header as `_length`, then the members; itemsize is the stride."""
        names, formats, offsets = ["_length"], ["<u4"], [0]
        for member in self.members:
            names.append(member.name)
            formats.append(_numpy_format(member))
            offsets.append(RECORD_HEADER_BYTES + member.offset)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.stride})


def _numpy_format(member: Member) -> str:
    if member.ctype in CTYPES:
        return CTYPES[member.ctype]
    return f"S{member.size}" if member.ctype.startswith("char[16") else f"({member.size},)u1"


def _sizes(ctype: str) -> tuple[int, int]:
    """Size and alignment in bytes."""
    array = ARRAY.fullmatch(ctype)
    if array:
        return int(array[2]), 1
    size = np.dtype(CTYPES[ctype]).itemsize
    return size, size


def _walk(kind: Kind, long: bool) -> Iterator[tuple[str, str]]:
    for field in (*HEAD, *kind.fields):
        yield field.name, field.ctype
    for slot in kind.slots:
        yield f"{slot.name}_len", "u32"
    for slot in kind.slots:
        yield slot.name, f"u8[{slot.long if long else slot.short}]"


def layout(kind: Kind, long: bool = False) -> Layout:
    """The layout of `kind`'s short (or only) or long record. ValueError for a kind that does not come from the kernel, or has no long one."""
    if kind.origin != "kernel" or (long and not kind.two_sizes):
        raise ValueError(f"{kind.name} has no such record")
    members, offset, widest = [], 0, 8
    for name, ctype in _walk(kind, long):
        size, alignment = _sizes(ctype)
        offset = (offset + alignment - 1) // alignment * alignment
        members.append(Member(name, ctype, offset, size))
        offset += size
    return Layout(kind, long, tuple(members), (offset + widest - 1) // widest * widest)


def layouts(kind: Kind) -> tuple[Layout, ...]:
    """All record sizes of a kind, the short one first."""
    return (layout(kind), layout(kind, long=True)) if kind.two_sizes else (layout(kind),)
