"""Socket addresses as system calls take them and as records hold them, and calls that Python's own socket module does not make."""

import ctypes
import os
import socket
import struct

from tests.kernel.tap import Record

_libc = ctypes.CDLL(None, use_errno=True)


def in4(port: int, host: str = "127.0.0.1") -> bytes:
    """struct sockaddr_in."""
    return struct.pack("<H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)


def un(path: bytes) -> bytes:
    """struct sockaddr_un, no longer than it has to be."""
    return struct.pack("<H", socket.AF_UNIX) + path


def address_of(record: Record, which: str, family: int) -> str:
    """An address of a record, as text."""
    return socket.inet_ntop(family, record[which][: 4 if family == socket.AF_INET else 16])


def ends_of(record: Record) -> tuple[tuple[str, int], tuple[str, int]]:
    """The other end and the own one."""
    family = record["socket_family"]
    return (address_of(record, "daddr", family), record["dport"]), (address_of(record, "saddr", family), record["sport"])


def call(name: str, *arguments: object) -> int:
    """A function of libc: what it returned, or a negative errno."""
    value = int(getattr(_libc, name)(*arguments))
    return value if value >= 0 else -ctypes.get_errno()


def bound(path: bytes, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A unix socket at a path, made anew."""
    made = socket.socket(socket.AF_UNIX, kind)
    if path[:1] not in (b"", b"\0") and os.path.lexists(path):
        os.unlink(path)
    assert call("bind", made.fileno(), un(path), 2 + len(path)) == 0
    return made
