"""Records of opens, made by the running kernel, against what the opener knows."""

import ctypes
import errno
import mmap
import os
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import workloads
from tests.kernel.calls import AT_FDCWD, call, me, openat, openat2, start_ticks
from tests.kernel.conftest import PageOnDisk
from tests.kernel.maps import calls_of, maps_of
from tests.kernel.tap import Interval, Tap
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
DEEP = b"a/" * 4096


def unique(request: pytest.FixtureRequest) -> bytes:
    """A name that nobody else opens."""
    return f"{request.node.name}-{os.getpid()}-{os.urandom(4).hex()}".encode()


def test_every_field(tap: Tap, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name, directory = unique(request), os.open(tmp_path, os.O_RDONLY)
    with Interval() as interval:
        fd = openat(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640, directory)
    record = tap.one("open", path=name)
    os.close(directory)
    assert fd > 0
    expected = {**me(), "ret": fd, "flags": os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, "mode": 0o640, "dirfd": directory}
    assert {key: record[key] for key in expected} == expected
    assert interval.holds(record)
    assert record["start_ns"] // 10_000_000 == start_ticks(os.getpid())


def test_failures_tell_their_error(tap: Tap, tmp_path: Path) -> None:
    for path, error in ((tmp_path / "absent", errno.ENOENT), (tmp_path, errno.EISDIR), (tmp_path / "file" / "below", errno.ENOTDIR)):
        (tmp_path / "file").touch()
        assert openat(bytes(path), os.O_WRONLY) == -error
        assert tap.one("open", path=bytes(path), flags=os.O_WRONLY)["ret"] == -error


@pytest.mark.parametrize("length", [1, 78, 79, 80, 81, 150, 255, 256, 510, 511, 512, 513, 4094, 4095])
def test_paths_of_any_length(tap: Tap, length: int, request: pytest.FixtureRequest) -> None:
    path = (unique(request) + b"/" + DEEP)[:length] if length > 70 else b"\x01"
    with Interval() as interval:
        assert openat(path) == -errno.ENOENT
    (record,) = [each for each in tap.records("open", path=path, pid=os.getpid()) if interval.holds(each)]
    assert (len(record["path"]), record["path_len"], record["dirfd"]) == (length, length, AT_FDCWD)
    assert record["layout"] == ("open" if length < 79 else "open_medium" if length < 511 else "open_long")


def test_a_path_that_is_too_long_is_cut(tap: Tap, request: pytest.FixtureRequest) -> None:
    path = (unique(request) + b"/" + DEEP)[:5000]
    assert openat(path) == -errno.ENAMETOOLONG
    assert tap.one("open", path=path[:4095])["ret"] == -errno.ENAMETOOLONG


@pytest.mark.parametrize("path", [b"", 1, None], ids=["empty", "bad pointer", "null"])
def test_no_path(tap: Tap, path: bytes | int | None) -> None:
    error = errno.ENOENT if path == b"" else errno.EFAULT
    with Interval() as interval:
        assert openat(path, os.O_RDONLY | os.O_NOATIME) == -error
    (record,) = [each for each in tap.records("open", **me(), ret=-error, flags=os.O_NOATIME) if interval.holds(each)]
    assert (record["path"], record["path_len"]) == (b"", 0)


def test_a_short_path_after_a_long_one(tap: Tap, request: pytest.FixtureRequest) -> None:
    """Ring memory is used again and not cleared: the length says where the string ends."""
    name = unique(request)
    for k in range(100):
        openat(name + b"/%03d/" % k + DEEP[: 20 * (k % 7)])
    assert [len(each["path"]) for each in tap.records("open", pid=os.getpid()) if each["path"].startswith(name)] == [
        len(name) + 5 + 20 * (k % 7) for k in range(100)
    ]


def test_any_byte_may_be_in_a_path(tap: Tap, tmp_path: Path) -> None:
    path = bytes(tmp_path) + b"/" + bytes(range(1, 47)) + bytes(range(48, 100)) + b"\xff\xfe\x80"
    assert openat(path, os.O_CREAT | os.O_WRONLY, 0o600) > 0
    assert tap.one("open", path=path)["mode"] == 0o600


def test_openat2(tap: Tap, tmp_path: Path) -> None:
    path = bytes(tmp_path / "new")
    fd = openat2(path, struct.pack("<QQQ", os.O_CREAT | os.O_RDWR, 0o604, 0))
    record = tap.one("open", path=path)
    assert (record["ret"], record["flags"], record["mode"], record["dirfd"]) == (fd, os.O_CREAT | os.O_RDWR, 0o604, AT_FDCWD)


def test_how_of_openat2_need_not_be_in_memory_before(tap: Tap, tmp_path: Path, page_on_disk: PageOnDisk) -> None:
    path = bytes(tmp_path / "paged")
    fd = openat2(path, page_on_disk(struct.pack("<QQQ", os.O_CREAT | os.O_WRONLY, 0o611, 0)))
    assert fd > 0
    record = tap.one("open", path=path)
    assert (record["ret"], record["flags"], record["mode"]) == (fd, os.O_CREAT | os.O_WRONLY, 0o611)


def test_a_path_need_not_be_in_memory_before(tap: Tap, page_on_disk: PageOnDisk) -> None:
    assert openat(page_on_disk(b"/nonexistent/paged-path")) == -errno.ENOENT
    assert tap.one("open", path=b"/nonexistent/paged-path")["ret"] == -errno.ENOENT


def test_an_open_in_flight(tap: Tap, tmp_path: Path) -> None:
    """It waits in its place for its end: a fifo for its other side. When it is killed, it is told; when its thread has ended, the place is free."""
    os.mkfifo(tmp_path / "fifo")
    mark = int.from_bytes(os.urandom(3), "little") | 1 << 30  # as the directory, which an absolute path does not need
    child = subprocess.Popen([sys.executable, "-S", "-c", f"import os; os.open({str(tmp_path / 'fifo')!r}, os.O_WRONLY, dir_fd={mark})"])
    with maps_of(tap.tracing) as maps:

        def in_flight() -> bool:
            return any(call.in_flight and mark in call.args for call in calls_of(maps))

        eventually(in_flight)
        child.kill()
        child.wait()
        assert not in_flight()
    assert tap.one("open", path=bytes(tmp_path / "fifo"))["ret"] < 0


def test_all_calls_are_counted(tap: Tap, tmp_path: Path) -> None:
    mix = ("--mix", "openat:3,open:1,openat2:1,creat:1") if os.uname().machine == "x86_64" else ("--mix", "openat:3,openat2:1")
    with Interval() as interval:
        said = workloads.run("opens", "--dir", tmp_path, "--count", 1009, "--enoent", 101, "--distinct", 7, *mix)
    records = [each for each in tap.records("open", pid=said["pid"]) if each["path"].startswith(bytes(tmp_path))]
    assert len(records) == said["opens"]
    assert sum(each["ret"] == -errno.ENOENT for each in records) == sum(said["enoent"].values())
    assert sum(each["ret"] > 0 for each in records) == sum(said["ok"].values())
    creat = said["ok"]["creat"] + said["enoent"]["creat"]
    assert Counter(each["flags"] for each in records)[os.O_CREAT | os.O_WRONLY | os.O_TRUNC] == creat
    assert len({each["path"] for each in records if each["ret"] > 0}) == 7
    assert all(interval.holds(each) and each["comm"] == b"opens" and each["tid"] == said["pid"] for each in records)
    assert [each["ppid"] for each in records[:1]] == [os.getpid()]


def test_threads_are_told_apart(tap: Tap, tmp_path: Path) -> None:
    said = workloads.run("threads", "--dir", tmp_path, "--threads", 5, "--opens", 11, "--early", 2)
    for thread in said["threads"]:
        records = tap.records("open", tid=thread["tid"], path=thread["path"].encode())
        assert len(records) == thread["opens"]
        assert {(each["pid"], each["comm"]) for each in records} == {(said["pid"], thread["comm"].encode())}
        assert len({each["start_ns"] for each in records}) == 1, "of the process, not of the thread"


def test_by_handle(tap: Tap, tmp_path: Path) -> None:
    """What is opened without a path is where the kernel found it."""
    (tmp_path / "file").touch()
    handle, mount_id = ctypes.create_string_buffer((128).to_bytes(4, "little"), 136), ctypes.create_string_buffer(8)
    assert call("name_to_handle_at", AT_FDCWD, bytes(tmp_path / "file"), handle, mount_id, 0) == 0
    there = os.open(tmp_path, os.O_RDONLY)
    with Interval() as interval:
        fd = call("open_by_handle_at", there, handle, os.O_RDONLY)
        assert call("open_by_handle_at", 9999, handle, os.O_RDWR) == -errno.EBADF
        os.unlink(tmp_path / "file")
        os.close(fd)
        assert call("open_by_handle_at", there, handle, os.O_WRONLY) == -errno.ESTALE
    records = [each for each in tap.records("open", pid=os.getpid(), path=b"") if interval.holds(each)]
    assert [(each["ret"], each["dirfd"], each["flags"], each["path_resolved"]) for each in records] == [
        (fd, there, os.O_RDONLY, bytes(tmp_path / "file")),
        (-errno.EBADF, 9999, os.O_RDWR, b""),
        (-errno.ESTALE, there, os.O_WRONLY, bytes(tmp_path)),
    ]
    os.close(there)


@pytest.mark.parametrize("length", range(71))
def test_strings_around_what_is_read_at_once(tap: Tap, length: int) -> None:
    """64 bytes are read first, and searched word by word for the end."""
    path = (os.urandom(8).hex().encode() * 5)[:length]
    with Interval() as interval:
        assert openat(path) < 0
    (record,) = [each for each in tap.records("open", pid=os.getpid()) if interval.holds(each) and each["path"] == path]
    assert record["ret"] < 0


@pytest.mark.parametrize("length", [2, 30, 63, 64, 65])
def test_a_string_at_the_very_end_of_memory(tap: Tap, length: int) -> None:
    """What lies behind its page is not there, so it cannot be read 64 bytes at once."""
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + page), page, 0) == 0
    path = b"/" + os.urandom(40).hex().encode()[: length - 1]
    area[page - length - 1 : page] = path + b"\0"
    assert openat(start + page - length - 1) < 0
    assert tap.one("open", path=path)["ret"] < 0
