"""Records of connects, made by the running kernel, against both ends of the socket."""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import workloads
from tests.kernel.calls import connect, me
from tests.kernel.conftest import PageOnDisk
from tests.kernel.maps import maps_of, values_of
from tests.kernel.sockets import address_of, bound, in4, un
from tests.kernel.tap import Interval, Record, Tap
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
NOTHING = bytes(16)


@contextmanager
def made(tap: Tap) -> Iterator[list[Record]]:
    """The one connect that the block makes, in the list afterwards."""
    found: list[Record] = []
    with Interval() as interval:
        yield found
    found += [each for each in tap.records("connect", **me()) if interval.holds(each)]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=pytest.mark.needs("ipv6"))], ids=["ipv4", "ipv6"]
)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_internet(tap: Tap, family: int, host: str, kind: int) -> None:
    with socket.socket(family, kind) as server, socket.socket(family, kind) as client:
        server.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
        with made(tap) as records:
            client.connect(server.getsockname())
        (record,) = records
        expected = {"ret": 0, "fd": client.fileno(), "family": family, "socket_family": family, "socket_type": kind, "path": b""}
        assert {key: record[key] for key in expected} == expected
        assert record["socket_protocol"] == (6 if kind == socket.SOCK_STREAM else 17)
        assert (address_of(record, "daddr", family), record["dport"]) == server.getsockname()[:2]
        assert (address_of(record, "saddr", family), record["sport"]) == client.getsockname()[:2]
        assert not any(record["daddr"][4:] if family == socket.AF_INET else b""), "nothing is left from earlier users of the ring"


@pytest.mark.parametrize("nonblocking", [False, True])
def test_refused(tap: Tap, nonblocking: bool) -> None:
    with socket.socket() as bound, socket.socket() as client:
        bound.bind(("127.0.0.1", 0))
        client.setblocking(not nonblocking)
        port = bound.getsockname()[1]
        with made(tap) as records:
            client.connect_ex(("127.0.0.1", port))
        chosen = client.getsockname()[1]
    assert records[0]["ret"] in ((-errno.EINPROGRESS, -errno.ECONNREFUSED) if nonblocking else (-errno.ECONNREFUSED,))
    assert records[0]["dport"] == port
    assert records[0]["sport"] == chosen > 0


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=["stream", "dgram", "seqpacket"])
@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_unix(tap: Tap, kind: int, abstract: bool, tmp_path: Path) -> None:
    name = b"\0infrasight\0\xff%d-%d" % (os.getpid(), kind) if abstract else bytes(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, kind) as server, socket.socket(socket.AF_UNIX, kind) as client:
        server.bind(name)
        if kind != socket.SOCK_DGRAM:
            server.listen()
        with made(tap) as records:
            client.connect(name)
    (record,) = records
    expected = {"ret": 0, "family": socket.AF_UNIX, "socket_family": socket.AF_UNIX, "socket_type": kind, "dport": 0, "sport": 0, "daddr": NOTHING}
    assert {key: record[key] for key in expected} == expected
    assert record["path"].rstrip(b"\0") == name
    assert record["path"] == name if abstract else record["path"] in (name, name + b"\0")


def test_the_longest_unix_path(tap: Tap, tmp_path: Path) -> None:
    path = (b"/nonexistent/" + b"x" * 200)[:108]
    with socket.socket(socket.AF_UNIX) as client, made(tap) as records:
        assert connect(client.fileno(), struct.pack("<H", socket.AF_UNIX) + path, 110) == -errno.ENOENT
    assert (records[0]["path"], records[0]["path_len"]) == (path, 108)


def test_an_unnamed_unix_address(tap: Tap) -> None:
    with socket.socket(socket.AF_UNIX) as client, made(tap) as records:
        assert connect(client.fileno(), struct.pack("<H", socket.AF_UNIX), 2) < 0
    assert (records[0]["family"], records[0]["path"]) == (socket.AF_UNIX, b"")


def test_what_is_no_socket(tap: Tap, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file:
        ends = [(file.fileno(), errno.ENOTSOCK), (-1, errno.EBADF), (1 << 30, errno.EBADF)]
        records: list[Record] = []
        for port, (fd, error) in enumerate(ends):
            with made(tap) as found:
                assert connect(fd, in4(port), 16) == -error
            records += found
    for port, ((fd, _), record) in enumerate(zip(ends, records, strict=True)):
        assert (record["fd"], record["family"], record["dport"]) == (fd, socket.AF_INET, port), "asked for, if to no end"
        assert (record["socket_family"], record["socket_type"], record["socket_protocol"], record["saddr"]) == (0, 0, 0, NOTHING)


@pytest.mark.parametrize(
    ("address", "length", "family"),
    [(1, 16, 0), (b"", 0, 0), (struct.pack("<H", 0), 2, 0), (struct.pack("<H", 999) + bytes(14), 16, 999), (in4(7), 8, socket.AF_INET)],
    ids=["bad pointer", "no address", "unspecified", "unknown family", "cut off"],
)
def test_odd_addresses(tap: Tap, address: bytes | int, length: int, family: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client, made(tap) as records:
        ret = connect(client.fileno(), address, length)
    (record,) = records
    assert (record["ret"], record["family"], record["socket_family"], record["path"]) == (ret, family, socket.AF_INET, b"")


def test_an_address_need_not_be_in_memory_before(tap: Tap, page_on_disk: PageOnDisk) -> None:
    with ExitStack() as stack:
        bound, client = (stack.enter_context(socket.socket()) for _ in range(2))
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        address = page_on_disk(in4(port))
        with made(tap) as records:
            assert connect(client.fileno(), address, 16) == -errno.ECONNREFUSED
    assert (records[0]["family"], records[0]["dport"], records[0]["daddr"][:4]) == (socket.AF_INET, port, b"\x7f\0\0\x01")


@pytest.mark.needs("ipv6")
def test_all_kinds_are_counted(tap: Tap, tmp_path: Path) -> None:
    with Interval() as interval:
        said = workloads.run("connects", "--dir", tmp_path, "--count", 211, "--log", tmp_path / "log")
    records = tap.records("connect", pid=said["pid"])
    assert len(records) == 211
    for record, line in zip(records, workloads.read_log(tmp_path / "log"), strict=True):
        family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}[line["family"]]
        assert interval.holds(record)
        assert (record["family"], record["ret"]) == (family, line["ret"])
        assert record["socket_type"] == (socket.SOCK_DGRAM if line["type"] == "dgram" else socket.SOCK_STREAM)
        if family == socket.AF_UNIX:
            path = record["path"].rstrip(b"\0").decode()
            assert (path.replace("\0", "@", 1), record["dport"]) == (line["address"], 0)
        else:
            assert (address_of(record, "daddr", family), record["dport"]) == (line["address"], line["port"])


def test_where_a_unix_path_leads(tap: Tap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the address is spelled, by the server or by us: to the file, as the kernel found it."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    there = os.path.realpath(tmp_path / "real" / "deep")
    monkeypatch.chdir(tmp_path / "link")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with bound(b"s", kind) as server:
            if kind != socket.SOCK_DGRAM:
                server.listen()
            for given in (b"s", b"../deep/s", bytes(tmp_path / "link" / "s"), b"/proc/self/cwd/s", b".//s"):
                with socket.socket(socket.AF_UNIX, kind) as client:
                    client.setblocking(False)
                    with made(tap) as records:
                        client.connect(given)
                assert (records[0]["path"].rstrip(b"\0"), records[0]["path_resolved"]) == (given, os.fsencode(there) + b"/s")


def test_where_a_unix_path_would_have_led(tap: Tap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(os.path.realpath(tmp_path))
    (tmp_path / "file").touch()
    with bound(b"queue") as server, socket.socket(socket.AF_UNIX) as first:
        server.listen(0)
        first.connect(b"queue")
        wanted = [
            (b"no\xff\n/../s", errno.ENOENT, here + b"/s"),
            (b"/no/./such", errno.ENOENT, b"/no/such"),
            (b"file", errno.ECONNREFUSED, here + b"/file"),
            (b"queue", errno.EAGAIN, here + b"/queue"),
            (b"\0no such name", errno.ECONNREFUSED, b""),
        ]
        for path, error, resolved in wanted:
            with socket.socket(socket.AF_UNIX) as client, made(tap) as records:
                client.setblocking(False)
                assert connect(client.fileno(), un(path), 2 + len(path)) == -error
            (record,) = records
            found = b"" if record["path"][:1] == b"\0" else record["path_resolved"]
            assert (record["ret"], record["path"], found) == (-error, path, resolved)


@pytest.mark.parametrize("how", ["killed", "exits"])
def test_an_end_in_the_middle(tap: Tap, tmp_path: Path, how: str) -> None:
    """A connect that waits for a full queue, and whose process ends meanwhile: it is told, and nothing is left in the maps."""
    path = bytes(tmp_path / "full")
    thread = "import socket, sys, threading, os; s = socket.socket(socket.AF_UNIX)\n"
    thread += "t = threading.Thread(target=s.connect, args=(sys.argv[1],)); t.start(); sys.stdin.read(1); os._exit(3)"
    with ExitStack() as stack:
        server, first = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        server.bind(path)
        server.listen(0)
        first.connect(path)
        maps = stack.enter_context(maps_of(tap.tracing))
        child = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", thread, path], stdin=subprocess.PIPE))
        name = next(name for name in maps if name.startswith("connect_addr"))
        eventually(lambda: any(path in value for value in values_of(maps[name])))
        child.send_signal(signal.SIGKILL) if how == "killed" else child.communicate(b".")
        assert child.wait() in (-signal.SIGKILL, 3)
        record = tap.one("connect", pid=child.pid)
        assert (record["ret"] < 0, record["path"].rstrip(b"\0"), record["tid"] == record["pid"]) == (True, path, False)
        assert not any(path in value for value in values_of(maps[name]))
