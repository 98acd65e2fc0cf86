"""Just enough of BTF, the kernel's description of its own types, to find where the members of a structure lie.

The format is Documentation/bpf/btf.rst of the kernel. No library for it is packaged for both Debian and PyPI, and this is all that is needed of one.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from infrasight.errors import KernelError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_STRUCT, _UNION, _ENUM, _TYPEDEF = 4, 5, 6, 8
_POINTER, _ARRAY, _FUNCTION_PROTOTYPE = 2, 3, 13
_NAMES_FOR = {8, 9, 10, 11, 18}
"""Typedef, volatile, const, restrict, type tag: their size field is the id of the type they stand for."""
_TAIL = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes that follow a type of this kind: int, array, variable, declaration tag."""
_TAIL_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""Bytes for each member: struct, union, enum, function prototype, data section, 64-bit enum."""
_DAMAGED = "the kernel's type information (BTF) cannot be understood"


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Whatever is wrong with the bytes, a type that stands for itself included, is one KernelError."""
    try:
        yield
    except (struct.error, ValueError, IndexError, RecursionError) as error:
        raise KernelError(_DAMAGED) from error


class Btf:
    """The types of one kernel. `raw` is the content of /sys/kernel/btf/vmlinux; KernelError when it is not that."""

    @_understood()
    def __init__(self, raw: bytes) -> None:
        header, types, types_bytes, strings, strings_bytes = struct.unpack_from("<IIIII", raw, 4)
        if struct.unpack_from("<H", raw)[0] != _MAGIC or header + strings + strings_bytes > len(raw):
            raise KernelError(_DAMAGED)
        self._raw, self._strings = raw, header + strings
        self._at = [0]
        self._by_name: dict[tuple[int, bytes], int] = {}
        self._index(header + types, header + types + types_bytes)

    @classmethod
    def of_kernel(cls, path: Path = VMLINUX) -> Btf:
        """The running kernel's types."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise KernelError(f"the kernel's type information is not readable at {path}: {error.strerror}") from error

    def _index(self, at: int, end: int) -> None:
        raw = self._raw
        while at < end:
            name, info, _ = struct.unpack_from("<III", raw, at)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            if name and kind in (_STRUCT, _UNION, _ENUM, _TYPEDEF):
                self._by_name.setdefault((kind, self._string(name)), len(self._at))
            self._at.append(at)
            at += 12 + _TAIL.get(kind, 0) + _TAIL_PER_MEMBER.get(kind, 0) * members
        if at != end or end > len(raw):
            raise KernelError(_DAMAGED)

    def _string(self, offset: int) -> bytes:
        start = self._strings + offset
        return self._raw[start : self._raw.index(b"\0", start)]

    def _type(self, number: int) -> tuple[int, int, int]:
        """Kind, number of members and size (or type pointed to) of a type."""
        _, info, size = struct.unpack_from("<III", self._raw, self._at[number])
        return info >> 24 & 0x1F, info & 0xFFFF, size

    def _plain(self, number: int) -> int:
        """The type behind typedefs and qualifiers."""
        kind, _, target = self._type(number)
        return self._plain(target) if kind in _NAMES_FOR else number

    def _members(self, number: int) -> Iterator[tuple[bytes, int, int]]:
        """Name, type and bit offset of each member of a structure or union."""
        number = self._plain(number)
        kind, count, _ = self._type(number)
        if kind not in (_STRUCT, _UNION):
            return
        (info,) = struct.unpack_from("<I", self._raw, self._at[number] + 4)
        for at in range(self._at[number] + 12, self._at[number] + 12 + 12 * count, 12):
            name, member_type, offset = struct.unpack_from("<III", self._raw, at)
            yield self._string(name), member_type, offset & 0xFFFFFF if info >> 31 else offset

    def _find(self, number: int, member: bytes) -> tuple[int, int] | None:
        """Type and bit offset of a member, looked for inside anonymous members too."""
        for name, member_type, offset in self._members(number):
            if name == member:
                return member_type, offset
            if not name and (found := self._find(member_type, member)):
                return found[0], offset + found[1]
        return None

    def _member(self, structure: str, path: str) -> tuple[int, int]:
        """Type and bit offset of the member at `path`."""
        number, bits = self._structure(structure), 0
        for part in path.split("."):
            found = self._find(number, part.encode())
            if not found:
                raise KernelError(f"this kernel's struct {structure} has no member {path}")
            number, bits = found[0], bits + found[1]
        return number, bits

    @_understood()
    def offset(self, structure: str, path: str) -> int:
        """Bytes from the start of `structure` to the member at `path` (`a.b` goes into structures). KernelError when this kernel has none such."""
        return self._member(structure, path)[1] // 8

    @_understood()
    def has(self, structure: str, path: str) -> bool:
        """Whether there is such a member."""
        try:
            self._member(structure, path)
        except KernelError:
            return False
        return True

    @_understood()
    def member_size(self, structure: str, path: str) -> int:
        """Size in bytes of a member that is a number, a structure, a union, or an array of numbers."""
        return self._size(self._member(structure, path)[0])

    def _size(self, number: int) -> int:
        kind, _, size = self._type(self._plain(number))
        if kind != _ARRAY:
            return size
        element, _, count = struct.unpack_from("<III", self._raw, self._at[self._plain(number)] + 12)
        return self._size(element) * int(count)

    @_understood()
    def mentions(self, name: str) -> bool:
        """Whether anything is called so: a type, a member, an enumerator."""
        return b"\0" + name.encode() + b"\0" in self._raw[self._strings :]

    @_understood()
    def enumerator(self, enumeration: str, name: str) -> int | None:
        """The value, 32 bits and unsigned, of one name of an enumeration; None when there is no such."""
        number = self._by_name.get((_ENUM, enumeration.encode()))
        if number is None:
            return None
        at = self._at[number] + 12
        members = (struct.unpack_from("<II", self._raw, at + 8 * place) for place in range(self._type(number)[1]))
        return next((value for text, value in members if self._string(text) == name.encode()), None)

    def size(self, structure: str) -> int:
        """Size of a structure in bytes."""
        return self._type(self._structure(structure))[2]

    @_understood()
    def arguments(self, typedef: str) -> int:
        """Number of arguments of a function type that has a name, such as `btf_trace_sched_process_exit`; 0 when there is none such."""
        number = self._by_name.get((_TYPEDEF, typedef.encode()))
        if number is None:
            return 0
        kind, count, target = self._type(self._plain(number))
        if kind == _POINTER:
            kind, count, _ = self._type(self._plain(target))
        return count if kind == _FUNCTION_PROTOTYPE else 0

    def _structure(self, name: str) -> int:
        try:
            return self._by_name[_STRUCT, name.encode()]
        except KeyError:
            raise KernelError(f"this kernel has no struct {name}") from None
