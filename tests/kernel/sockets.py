"""Socket addresses as system calls take them and as records hold them, what is told of a thread, and calls that Python's own module does not make."""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.calls import me
from tests.kernel.tap import Interval, Record, Tap

_libc = ctypes.CDLL(None, use_errno=True)
FAMILIES = pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=pytest.mark.needs("ipv6"))], ids=["ipv4", "ipv6"]
)
NOTHING = bytes(16)


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


@contextmanager
def told(tap: Tap, probe: str, count: int = 1) -> Iterator[list[Record]]:
    """What is told of this thread while the block runs, in the list afterwards; exactly so many."""
    found: list[Record] = []
    with Interval() as interval:
        yield found
    found += [each for each in tap.records(probe, **me()) if interval.holds(each)]
    assert len(found) == count, found


def has(record: Record, **wanted: Any) -> None:
    """These members are so."""
    found = {name: record[name] for name in wanted}
    assert found == wanted, f"{found} is not {wanted}"


def path_of(record: Record) -> bytes:
    """The address of a unix socket without the NUL behind a path."""
    return record["path"] if record["path"][:1] == b"\0" else record["path"].rstrip(b"\0")
