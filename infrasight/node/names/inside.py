"""Names of users and groups inside of another mount namespace, from its own /etc/passwd and /etc/group.

Whoever made the namespace can have put anything there: links that lead out of it, pipes, devices, any number of bytes, a file system of their own
that never answers. So the files are found below the root of a process in there and nowhere else (openat2(2), RESOLVE_IN_ROOT), opened to be read only
once they are seen to be plain files, and read in part when they are large. What never answers hangs the thread that asks: `namespaces.py` sees to
that.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from infrasight.node.names.users import parsed
from infrasight.schema.events.process import MOUNT_NS_INODE

FILE_BYTES_MAX = 256 << 10
"""Of a file that are read; the rest is not."""
ENTRIES_MAX = 2048
"""Names kept of a file, the first in it."""
NAME_BYTES_MAX = 64
"""Of a name that are kept."""
_MAP_BYTES_MAX = 1 << 16
"""Of a uid_map, which has 340 lines at most."""
_STAT_BYTES_MAX = 4096
"""Of /proc/PID/stat, which has fifty numbers and a name."""
_OPENAT2 = 437
"""The same on every architecture."""
_IN_ROOT, _NO_MAGICLINKS = 0x10, 0x02
"""RESOLVE_* of include/uapi/linux/openat2.h."""
_AGAIN = 3
"""How often it is tried when something is renamed or mounted meanwhile."""

Stamp = tuple[int, int, int, int]
"""What tells one state of a file from another: device, inode, time of change in ns, size."""
Mapped = tuple[tuple[int, int, int], ...]
"""A user namespace's ids: the first inside, the first outside, how many."""


SAME: Mapped = ((0, 0, 2**32 - 1),)
"""Where there is no other user namespace."""
UNKNOWN = 0, 0
"""In place of a root."""


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class File:
    """The names in one file; `stamp` is None when there is none that can be read."""

    stamp: Stamp | None = None
    names: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inside:
    """What is known of a mount namespace. `root` (device, inode) is where the process from which it was read has its root."""

    root: tuple[int, int]
    users: File
    groups: File
    uids: Mapped
    gids: Mapped
    above: tuple[int, int] = field(default=UNKNOWN, compare=False)
    """Where the parent of that process has its root, where that is known."""

    @property
    def weight(self) -> int:
        """Names."""
        return 1 + len(self.users.names) + len(self.groups.names)

    def user(self, uid: int) -> bytes:
        """The name of a user by the id that the host has for it: in a user namespace of its own it is that of the id that it is there. Digits of the
        host's id when it has none."""
        return _name(uid, self.uids, self.users.names)

    def group(self, gid: int) -> bytes:
        """The same of a group."""
        return _name(gid, self.gids, self.groups.names)


def _name(number: int, mapped: Mapped, names: Mapping[int, bytes]) -> bytes:
    if mapped is SAME:
        name = names.get(number)
    else:
        inside = (first + number - outside for first, outside, count in mapped if outside <= number < outside + count)
        name = names.get(next(inside, -1))
    return str(number).encode() if name is None else name


def look(pid: int, namespace: int, before: Inside | None = None) -> Inside:
    """What a process finds in its mount namespace, which has to be this one (`mount_ns` of `infrasight.schema.events.process`). Files that have not
    changed since `before` are not read again. OSError when the process is gone or elsewhere. May block for as long as a file system there does."""
    with _opened(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY) as process:
        _check(process, namespace)
        with _opened("root", os.O_PATH | os.O_DIRECTORY, process) as root:
            _check(process, namespace)  # the root is of that namespace
            found = os.fstat(root)
            users = _file(root, b"etc/passwd", before.users if before else File())
            groups = _file(root, b"etc/group", before.groups if before else File())
        return Inside((found.st_dev, found.st_ino), users, groups, _map(process, "uid_map"), _map(process, "gid_map"), _above(process))


def _above(process: int) -> tuple[int, int]:
    """Where its parent has its root."""
    try:
        with _opened("stat", os.O_RDONLY, process) as file:
            parent = int(os.read(file, _STAT_BYTES_MAX).rpartition(b")")[2].split()[1])
        found = os.stat(f"/proc/{parent}/root")
    except (OSError, ValueError, IndexError):
        return UNKNOWN
    return found.st_dev, found.st_ino


def _check(process: int, namespace: int) -> None:
    if os.stat("ns/mnt", dir_fd=process).st_ino != namespace & MOUNT_NS_INODE:
        raise ProcessLookupError(errno.ESRCH, "it is in another namespace")


@contextlib.contextmanager
def _opened(path: str, flags: int, beside: int | None = None) -> Iterator[int]:
    opened = os.open(path, flags | os.O_CLOEXEC, dir_fd=beside)
    try:
        yield opened
    finally:
        os.close(opened)


def _file(root: int, path: bytes, before: File) -> File:
    try:
        place = _below(root, path)
    except OSError:
        return File()
    try:
        found = os.fstat(place)
        if not stat.S_ISREG(found.st_mode):
            return File()
        stamp = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
        if stamp == before.stamp:
            return before
        return File(stamp, parsed(_content(f"/proc/self/fd/{place}"), ENTRIES_MAX, NAME_BYTES_MAX))
    except OSError:
        return File()
    finally:
        os.close(place)


def _below(root: int, path: bytes) -> int:
    """The file that a path leads to for who has this root, opened as a place alone. Raises OSError."""
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGICLINKS)
    for _ in range(_AGAIN):
        place: int = _libc.syscall(_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how))
        if place >= 0:
            return place
        if (error := ctypes.get_errno()) != errno.EAGAIN:
            break
    raise OSError(error, os.strerror(error))


def _content(path: str, most: int = FILE_BYTES_MAX) -> bytes:
    """As much as may be of a file, in whole lines where that is not all."""
    content = bytearray()
    with _opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as file:
        while len(content) <= most and (piece := os.read(file, 1 << 16)):
            content += piece
    return bytes(content) if len(content) <= most else bytes(content[: content.rfind(b"\n", 0, most) + 1])


def _map(process: int, name: str) -> Mapped:
    with _opened(name, os.O_RDONLY, process) as file:
        lines = os.read(file, _MAP_BYTES_MAX).splitlines()
    mapped = tuple((int(first), int(outside), int(count)) for first, outside, count in map(bytes.split, lines))
    return SAME if mapped == SAME else mapped
