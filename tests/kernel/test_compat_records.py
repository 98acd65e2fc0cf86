"""Records of calls that 32-bit programs make, whose numbers and arguments are others: made by the running kernel, against what their maker knows."""

import ctypes
import errno
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from infrasight.kernel import syscalls
from tests import workloads
from tests.kernel.calls import AT_FDCWD
from tests.kernel.tap import Interval, Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "gcc", "compat")]
TRUE = os.path.realpath("/bin/true")


class Said:
    """What the program says that it did, by call, and what was told of it."""

    def __init__(self, tap: Tap, directory: Path) -> None:
        self.directory = bytes(directory)
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = bound.getsockname()[1]
            said = workloads.run("compat", "--dir", directory, "--port", self.port, "--executable", TRUE)
        self.pid, self.fd = said["pid"], said["fd"]
        self.ret: dict[str, list[int]] = {}
        for call in said["calls"]:
            self.ret.setdefault(call["call"], []).append(call["ret"])
        self.calls = len(said["calls"])
        self._tap = tap

    def told(self, probe: str, **wanted: Any) -> list[Record]:
        return self._tap.records(probe, pid=self.pid, **wanted)

    def path(self, name: str) -> bytes:
        return self.directory + b"/" + name.encode()


@pytest.fixture
def said(tap: Tap, tmp_path: Path) -> Said:
    return Said(tap, tmp_path)


def test_opens(said: Said) -> None:
    made = [each for each in said.told("open") if each["path"].startswith(said.directory)]
    found = [(each["path"], each["path_resolved"], each["flags"], each["mode"], each["dirfd"], each["ret"]) for each in made]
    file, absent, new = (said.path(name) for name in ("file", "absent", "made"))
    assert found == [
        (file, file, os.O_CREAT | os.O_RDWR, 0o640, AT_FDCWD, said.ret["open"][0]),
        (absent, absent, os.O_WRONLY, 0, AT_FDCWD, -errno.ENOENT),
        (file, file, os.O_RDONLY | os.O_NOFOLLOW, 0, AT_FDCWD, said.ret["openat2"][0]),
        (new, new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o604, AT_FDCWD, said.ret["creat"][0]),
    ]
    assert min(said.ret["open"] + said.ret["openat2"] + said.ret["creat"]) > 0


def test_chmods(said: Said) -> None:
    found = [(each["path"], each["path_resolved"], each["mode"], each["dirfd"], each["fd"], each["ret"]) for each in said.told("chmod")]
    assert found == [
        (said.path("file"), said.path("file"), 0o611, AT_FDCWD, -1, 0),
        (b"", said.path("file"), 0o612, AT_FDCWD, said.ret["open"][0], 0),
        (said.path("absent"), said.path("absent"), 0o613, AT_FDCWD, -1, -errno.ENOENT),
    ]


def test_mounts(said: Said) -> None:
    (mount,) = said.told("mount")
    expected = {"source": b"a name", "target": said.path("absent"), "fstype": b"tmpfs", "flags": 6, "ret": -errno.ENOENT}
    assert {name: mount[name] for name in expected} == expected
    assert [(each["target"], each["flags"], each["ret"]) for each in said.told("umount")] == [
        (said.path("file"), 0, -errno.EINVAL),
        (said.path("absent"), 2, -errno.ENOENT),
    ]


def test_connects(said: Said) -> None:
    """By a call of its own, and through the one that all socket calls once shared."""
    first, second = said.told("connect")
    for record in (first, second):
        expected = {"family": socket.AF_INET, "dport": said.port, "ret": -errno.ECONNREFUSED, "socket_type": socket.SOCK_STREAM, "socket_protocol": 6}
        assert {name: record[name] for name in expected} == expected
        assert socket.inet_ntoa(record["daddr"][:4]) == "127.0.0.1"
    assert (first["fd"] == second["fd"] > said.fd, said.ret["connect"]) == (True, [-errno.ECONNREFUSED] * 2)


def test_mappings(said: Said) -> None:
    """The oldest one gives its arguments in memory, the newer one its offset in pages."""
    made = [each for each in said.told("mmap") if each["fd"] == said.fd and each["addr"] == 0]
    assert [(each["length"], each["prot"], each["flags"], each["offset"]) for each in made] == [(4096, 5, 2, 4096), (8192, 5, 2, 8192)]
    assert [each["ret"] & 0xFFFFFFFF for each in made] == [ret & 0xFFFFFFFF for ret in said.ret["mmap"]]
    assert all(each["ret"] > 0 for each in made)


def test_a_failing_exec(said: Said) -> None:
    (record,) = said.told("execve", ret=-errno.ENOENT)
    assert (record["path"], record["path_resolved"]) == (said.path("absent"), said.path("absent"))
    assert (record["argv"], record["argv_truncated"]) == ([b"this", b"fails", b""], 0), "pointers have 4 bytes there"


def test_a_ptrace(said: Said) -> None:
    (record,) = said.told("ptrace")
    assert [record[name] for name in ("request", "target_pid", "addr", "data", "ret")] == [16, 2**22 + 5, 7, 11, -errno.ESRCH]


def test_every_call_is_told_once(said: Said) -> None:
    probes = ("chmod", "mount", "umount", "connect", "ptrace")
    told = sum(len(said.told(probe)) for probe in probes)
    opens = [each for each in said.told("open") if each["path"].startswith(said.directory)]
    maps = [each for each in said.told("mmap") if each["fd"] == said.fd and each["addr"] == 0]
    assert told + len(opens) + len(maps) + len(said.told("execve", ret=-errno.ENOENT)) == said.calls == 16


X32 = 0x40000000
"""Bit of the numbers that x32 programs have, which most kernels refuse (ENOSYS)."""


def test_calls_of_x32_programs(tap: Tap, tmp_path: Path) -> None:
    """They are told too, whatever becomes of them: to be refused, or not, is no way round."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    low = libc.mmap(None, 4096, 3, 0x62, -1, 0)  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT
    absent, words = bytes(tmp_path / "absent"), [b"this", b"fails"]
    texts = b"".join(word + b"\0" for word in [absent, *words])
    ctypes.memmove(low, texts, len(texts))
    places = [low + len(absent) + 1, low + len(absent) + 1 + len(words[0]) + 1]
    argv = low + 2048
    ctypes.memmove(argv, struct.pack("=3I", *places, 0), 12)

    def made(number: int, *arguments: int) -> int:
        ret = libc.syscall(ctypes.c_long(X32 | number), *map(ctypes.c_long, arguments))
        return ret if ret >= 0 else -ctypes.get_errno()

    with Interval() as interval:
        returned = [made(syscalls.number("openat") or 0, AT_FDCWD, low, os.O_RDWR), made(520, low, argv, 0), made(545, AT_FDCWD, low, argv, 0, 0)]
        made(999), made(511), made(X32 - 1)
    assert set(returned) <= {-errno.ENOSYS, -errno.ENOENT}
    (opened,) = tap.records("open", pid=os.getpid(), path=absent)
    assert (opened["ret"], opened["flags"], opened["path_resolved"]) == (returned[0], os.O_RDWR, absent)
    executed = [each for each in tap.records("execve", pid=os.getpid()) if interval.holds(each)]
    assert [(each["path"], each["argv"], each["ret"]) for each in executed] == [(absent, words, ret) for ret in returned[1:]]
