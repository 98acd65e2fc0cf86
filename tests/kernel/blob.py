"""BTF written by hand, after Documentation/bpf/btf.rst of the kernel."""

import struct

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = (
    range(1, 20)
)


class Blob:
    """Types, each added under the next number; 0 is void."""

    def __init__(self) -> None:
        self._strings = b"\0"
        self._types = b""
        self._count = 0

    def string(self, text: str) -> int:
        if not text:
            return 0
        at = len(self._strings)
        self._strings += text.encode() + b"\0"
        return at

    def add(self, kind: int, name: str = "", size: int = 0, *, members: int = 0, flag: bool = False, tail: bytes = b"") -> int:
        """Any type; `size` is the type pointed to where the kind has one."""
        self._types += struct.pack("<III", self.string(name), flag << 31 | kind << 24 | members, size) + tail
        self._count += 1
        return self._count

    def add_int(self, name: str = "int", size: int = 4) -> int:
        return self.add(INT, name, size, tail=struct.pack("<I", size * 8))

    def add_struct(self, name: str, size: int, members: list[tuple[str, int, int]], *, kind: int = STRUCT, bitfields: bool = False) -> int:
        """`members`: name, type, bit offset (with `bitfields`, its size in the top byte)."""
        tail = b"".join(struct.pack("<III", self.string(name), number, offset) for name, number, offset in members)
        return self.add(kind, name, size, members=len(members), flag=bitfields, tail=tail)

    def bytes(self) -> bytes:
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._strings))
        return header + self._types + self._strings
