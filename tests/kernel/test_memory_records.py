"""Records of memory that is mapped, made executable, shared, read and written, against what their maker and /proc know."""

import ctypes
import errno
import itertools
import mmap
import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infrasight.kernel.rules import Rules
from infrasight.kernel.syscalls import number
from infrasight.schema import PROBES
from tests.kernel.calls import call, me
from tests.kernel.tap import Interval, Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
PAGE = mmap.PAGESIZE
R, W, X = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
PRIVATE, ANONYMOUS = mmap.MAP_PRIVATE, mmap.MAP_ANONYMOUS


def made(tap: Tap, probe: str, interval: Interval) -> list[Record]:
    """What this thread did meanwhile."""
    return [each for each in tap.records(probe, tid=threading.get_native_id()) if interval.holds(each)]


def fields(records: list[Record], names: str) -> list[tuple[Any, ...]]:
    return [tuple(record[name] for name in names.split()) for record in records]


def mapped_at(address: int) -> tuple[str, int, bytes]:
    """Protection, offset and file of a mapping, as /proc has it."""
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        span, protection, offset, _, _, *file = line.split(None, 5)
        if int(span.split(b"-")[0], 16) == address:
            name = re.sub(rb"\\(\d{3})", lambda match: bytes([int(match[1], 8)]), b"".join(file))
            return protection.decode(), int(offset, 16), name.removesuffix(b" (deleted)")
    raise AssertionError("nothing is mapped there")


def letters(prot: int) -> str:
    return "".join(letter if prot & bit else "-" for bit, letter in ((R, "r"), (W, "w"), (X, "x"))) + "p"


@contextmanager
def all_of(tap: Tap, *probes: str) -> Iterator[None]:
    tap.tracing.apply(PROBES, {probe: Rules(all=True) for probe in probes})
    try:
        yield
    finally:
        tap.tracing.apply(PROBES)


def files(tmp_path: Path) -> Iterator[int]:
    """Descriptors of files of many kinds, opened in many ways."""
    strange = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m"
    Path(os.fsdecode(strange)).write_bytes(bytes(3 * PAGE))
    (tmp_path / "link").symlink_to(os.fsdecode(strange))
    (tmp_path / "gone").write_bytes(bytes(3 * PAGE))
    yield os.open(strange, os.O_RDONLY)
    directory = os.open(tmp_path, os.O_RDONLY)
    yield os.open(f"../{tmp_path.name}/link", os.O_RDONLY, dir_fd=directory)
    os.close(directory)
    gone = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").unlink()
    yield gone
    memory = os.memfd_create("jit")
    os.truncate(memory, 3 * PAGE)
    yield memory


def test_mappings_against_proc(tap: Tap, tmp_path: Path) -> None:
    asked, returned, seen = [], [], []
    protections = itertools.cycle((R | X, X, R | W | X))
    with Interval() as interval:
        for fd in [*files(tmp_path), -1]:
            for _ in range(3):
                flags = PRIVATE | (ANONYMOUS if fd < 0 else 0)
                asked.append((0, 2 * PAGE, next(protections), flags, fd, PAGE if fd >= 0 else 0))
                returned.append(call("mmap", *asked[-1]))
                assert call("mmap", 0, PAGE, R | W, PRIVATE | ANONYMOUS, -1, 0) > 0  # not told
                seen.append(mapped_at(returned[-1]))
        for bad in ((0, PAGE, X, PRIVATE, 9999, 0), (0, 0, X, PRIVATE | ANONYMOUS, -1, 0)):
            asked.append(bad)
            returned.append(call("mmap", *bad))
    records = made(tap, "mmap", interval)
    assert len(records) == len(asked) == 17
    assert fields(records, "addr length prot flags fd offset") == asked
    assert [each["ret"] for each in records] == returned
    assert returned[-2:] == [-errno.EBADF, -errno.EINVAL]
    assert [(letters(each["prot"]), each["offset"], each["file_placed"]) for each in records[:-2]] == seen
    assert [each["file_placed"] for each in records[-2:]] == [b"", b""]
    known = me()
    assert all(record[name] == known[name] for record in records for name in known)
    for address in returned[:-2]:
        call("munmap", address, 2 * PAGE)


@pytest.mark.parametrize(("levels", "name"), [(1, "n" * 255), (3, "n" * 255), (7, "n" * 220), (18, "n" * 220), (110, "a"), (140, "a")])
def test_a_file_far_down(tap: Tap, tmp_path: Path, levels: int, name: str) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    for level in range(levels):
        if level % 32 == 0:
            tap.records("mkdir")  # long records take much room: what is there is read before more comes
        os.mkdir(name, dir_fd=directory)
        below = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    fd = os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=directory)
    os.truncate(fd, PAGE)
    whole = os.fsencode(tmp_path) + b"/" + os.fsencode(name + "/") * levels + b"file"
    assert os.readlink(f"/proc/self/fd/{fd}").encode() == whole
    with Interval() as interval:
        address = call("mmap", 0, PAGE, R | X, PRIVATE, fd, 0)
    (record,) = made(tap, "mmap", interval)
    told = record["file_placed"]
    assert (record["ret"], record["layout"]) == (address, "mmap_medium" if len(whole) < 1000 and levels < 20 else "mmap_long")
    if levels < 128:
        assert told == whole
    else:
        assert told.startswith(b".../a/")
        assert whole.endswith(told.removeprefix(b"..."))
    call("munmap", address, PAGE)
    os.close(fd)
    os.close(directory)


IN_A_CHROOT = """
import mmap, os, sys
os.unshare(os.CLONE_NEWNS | os.CLONE_NEWPID) if hasattr(os, "unshare") else __import__("ctypes").CDLL(None).unshare(0x20020000)
if not os.fork():
    os.chroot(sys.argv[1])
    fd = os.open("/inside", os.O_RDONLY)
    mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_chroot_hides_nothing(tap: Tap, tmp_path: Path) -> None:
    (tmp_path / "inside").write_bytes(bytes(PAGE))
    subprocess.run([sys.executable, "-S", "-c", IN_A_CHROOT, tmp_path], check=True)
    record = tap.one("mmap", file_placed=os.fsencode(tmp_path / "inside"))
    assert record["ns_pid"] == 1
    assert record["pid"] != 1


def test_a_program_s_libraries(tap: Tap) -> None:
    """A program of which the loader maps libraries: those that are executable in its own maps."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "print(open('/proc/self/maps').read())"], stdout=subprocess.PIPE, text=True)
    maps, _ = child.communicate()
    mapped = {line.split()[5].encode() for line in maps.splitlines() if "r-xp" in line and "/" in line}
    program = os.path.realpath(sys.executable).encode()
    told = {record["file_placed"] for record in tap.records("mmap", pid=child.pid) if record["fd"] != -1}
    assert any(b"libc.so" in each for each in told)
    assert told == {each for each in mapped if each != program and not re.search(rb"/ld-linux|/ld-", each)}


def test_protections(tap: Tap) -> None:
    address = call("mmap", 0, 4 * PAGE, R | W, PRIVATE | ANONYMOUS, -1, 0)
    returned, seen = [], []

    def protect(*asked: int) -> None:
        returned.append(call("mprotect", *asked) if len(asked) == 3 else call("pkey_mprotect", *asked))
        seen.append(mapped_at(address)[0])

    with Interval() as interval:
        for prot in (R | X, R | W | X, X):
            protect(address, PAGE, prot)
        protect(address, 2 * PAGE, R | X, -1)
        unseen = [call("mprotect", address, PAGE, R | W), call("pkey_mprotect", address, PAGE, 0, -1)]
        for bad in ((address + 1, PAGE, X), (PAGE, PAGE, R | X), (address, PAGE, X, 77)):
            protect(*bad)
    records = made(tap, "mprotect", interval)
    assert fields(records, "addr length prot pkey") == [
        (address, PAGE, R | X, -1),
        (address, PAGE, R | W | X, -1),
        (address, PAGE, X, -1),
        (address, 2 * PAGE, R | X, -1),
        (address + 1, PAGE, X, -1),
        (PAGE, PAGE, R | X, -1),
        (address, PAGE, X, 77),
    ]
    assert [each["ret"] for each in records] == returned == [0, 0, 0, 0, -errno.EINVAL, -errno.ENOMEM, -errno.EINVAL]
    assert [letters(each["prot"]) for each in records[:4]] == seen[:4]
    assert unseen == [0, 0]
    call("munmap", address, 4 * PAGE)


def test_everything_is_told_when_a_rule_asks_for_it(tap: Tap) -> None:
    with all_of(tap, "mmap"), Interval() as interval:
        address = call("mmap", 0, 3 * PAGE, W, PRIVATE | ANONYMOUS, -1, 0)
        call("mprotect", address, PAGE, R)
    assert [each for each in fields(made(tap, "mmap", interval), "ret length prot") if each[0] == address] == [(address, 3 * PAGE, W)]
    assert not made(tap, "mprotect", interval)
    with all_of(tap, "mprotect"), Interval() as interval:
        assert call("mprotect", address, PAGE, R) == call("mprotect", address, PAGE, 0) == 0
        call("mmap", 0, PAGE, R, PRIVATE | ANONYMOUS, -1, 0)
    told = [each for each in made(tap, "mprotect", interval) if each["addr"] == address]
    assert [each["prot"] for each in told] == [R, 0]
    assert not made(tap, "mmap", interval)
    call("munmap", address, 3 * PAGE)


AS_AN_OLD_PROGRAM = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
libc.personality(0x400000)
libc.syscall.restype = ctypes.c_long
address = libc.syscall(int(sys.argv[1]), 0, 12288, 1, 0x22, -1, 0)
spans = [([int(each, 16) for each in line.split()[0].split("-")], line.split()[1]) for line in open("/proc/self/maps")]
print(address, *(protection for (start, end), protection in spans if start <= address < end))
"""


def test_what_can_be_read_can_be_executed_in_an_old_program(tap: Tap) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", AS_AN_OLD_PROGRAM, str(number("mmap"))], stdout=subprocess.PIPE)
    address, protection = child.communicate()[0].split()
    assert protection == b"r-xp"
    assert tap.one("mmap", pid=child.pid, ret=int(address))["prot"] == R


def test_another_thread(tap: Tap) -> None:
    found: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: found.append((threading.get_native_id(), call("mmap", 0, PAGE, X, PRIVATE | ANONYMOUS, -1, 0))))
    thread.start()
    thread.join()
    ((tid, address),) = found
    assert tid != os.getpid()
    assert tap.one("mmap", tid=tid)["ret"] == address


def test_files_in_memory(tap: Tap) -> None:
    names = [b"jit", b"", b"\xff\n\x1b[31m", b"n" * 63, b"n" * 64, b"n" * 249, b"n" * 250]
    returned = []
    with Interval() as interval:
        for place, name in enumerate(names):
            returned.append(call("memfd_create", name, 1 + 2 * (place % 2)))
            if returned[-1] >= 0:
                assert os.readlink(f"/proc/self/fd/{returned[-1]}").encode(errors="surrogateescape") == b"/memfd:" + name + b" (deleted)"
                os.close(returned[-1])
        returned += [call("memfd_create", 1, 0), call("memfd_create", b"flags", 0x80000000), call("memfd_create", b"x" * 300, 0)]
        returned.append(call("memfd_create", b"last", 0))
    records = made(tap, "memfd_create", interval)
    assert len(records) == 11
    assert [each["name"] for each in records] == [*names, b"", b"flags", b"x" * 255, b"last"]
    assert [each["flags"] for each in records] == [1, 3, 1, 3, 1, 3, 1, 0, 0x80000000, 0, 0]
    assert [each["ret"] for each in records] == returned
    assert returned[-5:-1] == [-errno.EINVAL, -errno.EFAULT, -errno.EINVAL, -errno.EINVAL]
    os.close(returned[-1])


@pytest.fixture
def twin() -> Iterator[Callable[[], int]]:
    """Starts a process whose memory is like ours was."""
    children: list[tuple[int, int]] = []

    def start() -> int:
        there, here = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(here)
            os.read(there, 1)
            os._exit(0)
        os.close(there)
        children.append((pid, here))
        return pid

    yield start
    for pid, pipe in children:
        os.close(pipe)
        os.waitpid(pid, 0)


def test_the_memory_of_another_process(tap: Tap, twin: Callable[[], int]) -> None:
    buffer = ctypes.create_string_buffer(b"of the twin", 16)
    pid = twin()
    buffer.value = b"of our own!"
    piece = struct.pack("QQ", ctypes.addressof(buffer), 11)
    halves = struct.pack("QQQQ", ctypes.addressof(buffer), 5, ctypes.addressof(buffer) + 5, 6)
    calls = [
        ("process_vm_writev", pid, piece, 1, halves, 2, 0),
        ("process_vm_readv", pid, halves, 2, piece, 1, 0),
        ("process_vm_readv", 2**22 + 5, piece, 1, piece, 1, 0),
        ("process_vm_writev", pid, piece, 1, piece, 1, 8),
        ("process_vm_readv", pid, piece, 0, struct.pack("QQ", 1, 1), 1, 0),
    ]
    with Interval() as interval:
        returned = [call(*each) for each in calls]
    records = made(tap, "process_vm", interval)
    assert fields(records, "action target_pid local_count remote_count flags") == [
        (int(name.endswith("writev")), target, local, remote, flags) for name, target, _, local, _, remote, flags in calls
    ]
    assert [each["ret"] for each in records] == returned == [11, 11, -errno.ESRCH, -errno.EINVAL, 0]


def test_page_faults_taken_over(tap: Tap) -> None:
    with Interval() as interval:
        returned = [call("userfaultfd", flags) for flags in (os.O_CLOEXEC, 1 | os.O_NONBLOCK, 0x40)]
    assert os.readlink(f"/proc/self/fd/{returned[0]}") == "anon_inode:[userfaultfd]"
    assert returned[2] == -errno.EINVAL
    assert fields(made(tap, "userfaultfd", interval), "flags ret") == list(zip((os.O_CLOEXEC, 1 | os.O_NONBLOCK, 0x40), returned, strict=True))
    os.close(returned[0])
    os.close(returned[1])


@pytest.mark.needs("gcc", "compat")
def test_32_bit_calls(tap: Tap, int80: Callable[..., tuple[int, int]]) -> None:
    pid, address = int80(192, 0, PAGE, R | X, PRIVATE | ANONYMOUS, -1, 0)
    record = tap.one("mmap", pid=pid, ret=address)
    assert fields([record], "addr length prot flags offset") == [(0, PAGE, R | X, PRIVATE | ANONYMOUS, 0)]
    pid, address = int80(90, f"#0,{2 * PAGE},{X},{PRIVATE | ANONYMOUS},{2**32 - 1},0")
    assert fields([tap.one("mmap", pid=pid, ret=address)], "addr length prot fd") == [(0, 2 * PAGE, X, -1)]
    pid, ret = int80(192, 0, PAGE, X, PRIVATE, 77, 3)
    assert fields([tap.one("mmap", pid=pid, fd=77)], "ret offset") == [(ret, 3 * 4096)]
    pid, ret = int80(125, 1, PAGE, X)
    assert fields([tap.one("mprotect", pid=pid, addr=1)], "ret length prot") == [(ret, PAGE, X)]
    assert ret == -errno.EINVAL
    pid, ret = int80(380, 1, PAGE, X, -1)
    assert fields([tap.one("mprotect", pid=pid, addr=1)], "ret length prot pkey") == [(ret, PAGE, X, -1)]
    pid, ret = int80(356, "@old jit", 1)
    assert fields([tap.one("memfd_create", pid=pid)], "ret name flags") == [(ret, b"old jit", 1)]
    assert ret > 2
    pid, ret = int80(347, 2**22 + 5, "#0,0", 1, "#0,0", 1, 0)
    assert fields([tap.one("process_vm", pid=pid)], "ret action target_pid local_count remote_count") == [(ret, 0, 2**22 + 5, 1, 1)]
    pid, ret = int80(374, 1)
    assert fields([tap.one("userfaultfd", pid=pid)], "ret flags") == [(ret, 1)]
