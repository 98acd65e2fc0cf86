"""Records of accept, bind, listen, socket and dup, made by the running kernel, against what their maker and the other end know."""

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from infrasight.kernel.rules import Match, Rules
from infrasight.schema import PROBES
from tests.kernel.calls import me
from tests.kernel.sockets import bound, call, ends_of, in4, un
from tests.kernel.tap import Interval, Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
FAMILIES = pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=pytest.mark.needs("ipv6"))], ids=["ipv4", "ipv6"]
)
UNIX_KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
NOTHING = bytes(16)


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
    assert {name: record[name] for name in wanted} == wanted


def path_of(record: Record) -> bytes:
    """The address of a unix socket without the NUL behind a path."""
    return record["path"] if record["path"][:1] == b"\0" else record["path"].rstrip(b"\0")


# accept


@FAMILIES
def test_a_connection_is_accepted(tap: Tap, family: int, host: str) -> None:
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen()
        for flags in (None, 0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK):
            with socket.socket(family) as client:
                client.connect(server.getsockname())
                with told(tap, "accept") as records:
                    name, *more = ("accept",) if flags is None else ("accept4", flags)
                    fd = call(name, server.fileno(), None, None, *more)
                (record,) = records
                with socket.socket(fileno=fd) as accepted:
                    has(record, ret=fd, fd=server.fileno(), flags=flags or 0, family=family, socket_family=family, socket_type=1, socket_protocol=6)
                    assert ends_of(record) == (accepted.getpeername()[:2], accepted.getsockname()[:2])
                    assert ends_of(record) == (client.getsockname()[:2], client.getpeername()[:2])
                has(record, path=b"", path_resolved=b"", peer_used=0)
                assert not any(record["daddr"][4:] + record["saddr"][4:]) or family == socket.AF_INET6


@pytest.mark.needs("ipv6")
def test_an_ipv4_connection_to_an_ipv6_socket(tap: Tap) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server, socket.socket() as client:
        client.connect(("127.0.0.1", server.getsockname()[1]))
        with told(tap, "accept") as records:
            accepted, _ = server.accept()
        with accepted:
            has(records[0], family=socket.AF_INET6, ret=accepted.fileno())
            assert ends_of(records[0]) == (accepted.getpeername()[:2], accepted.getsockname()[:2])
            assert ends_of(records[0])[0][0] == "::ffff:127.0.0.1"


@UNIX_KINDS
def test_a_unix_connection_is_accepted(tap: Tap, kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(os.path.realpath(tmp_path))
    abstract = b"\0\xff\n\0%d" % os.getpid()
    names = [(b"serv\xff\x1b[2J\ner", here + b"/serv\xff\x1b[2J\ner"), (os.fsencode(tmp_path) + b"/s", here + b"/s"), (abstract, b"")]
    peers = [b"", b"peer", b"\0peer\0%d" % os.getpid(), b"/" * 60 + here + b"/p"]
    for (name, resolved), peer in [(name, peer[-108:]) for name in names for peer in peers]:
        with bound(name, kind) as server, socket.socket(socket.AF_UNIX, kind) as unbound:
            server.listen()
            with bound(peer, kind) if peer else unbound as client:
                client.connect(name)
                with told(tap, "accept") as records:
                    accepted, _ = server.accept()
                accepted.close()
        (record,) = records
        has(record, ret=record["ret"], fd=record["fd"], family=socket.AF_UNIX, socket_type=kind, dport=0, sport=0, daddr=NOTHING, saddr=NOTHING)
        found = record["peer"][: record["peer_used"]]
        assert (path_of(record), found if peer[:1] == b"\0" else found.rstrip(b"\0")) == (name, peer)
        assert record["path_resolved"] == resolved or name == abstract


def test_accepts_that_fail(tap: Tap, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket() as idle,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        (tmp_path / "file").open() as file,
        bound(bytes(tmp_path / "s")) as unix,
    ):
        server.setblocking(False)
        unix.listen()
        unix.setblocking(False)
        port = server.getsockname()[1]
        inet, none = {"socket_family": socket.AF_INET, "family": socket.AF_INET}, {"socket_family": 0, "family": 0, "socket_type": 0}
        wanted = [
            (server.fileno(), 0, errno.EAGAIN, inet | {"sport": port, "saddr": bytes([127, 0, 0, 1]).ljust(16, b"\0"), "socket_protocol": 6}),
            (idle.fileno(), 0, errno.EINVAL, inet | {"sport": 0, "saddr": NOTHING}),
            (udp.fileno(), 0, errno.EOPNOTSUPP, inet | {"socket_protocol": 17, "socket_type": 2}),
            (file.fileno(), 0, errno.ENOTSOCK, none),
            (-1, 0, errno.EBADF, none),
            (1 << 30, 0, errno.EBADF, none),
            (server.fileno(), 0x1234567, errno.EINVAL, inet | {"sport": port}),
            (unix.fileno(), 0, errno.EAGAIN, {"family": socket.AF_UNIX, "path_resolved": bytes(tmp_path / "s")}),
        ]
        with told(tap, "accept", len(wanted)) as records:
            returned = [call("accept4", fd, None, None, flags) for fd, flags, _, _ in wanted]
    for record, ret, (fd, flags, error, rest) in zip(records, returned, wanted, strict=True):
        assert ret == -error
        has(record, ret=-error, fd=fd, flags=flags, dport=0, daddr=NOTHING, peer_used=0, **rest)


def test_an_accept_that_waits_in_another_thread(tap: Tap) -> None:
    said: dict[str, object] = {}
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:

        def wait() -> None:
            said.update(me())
            said["ret"] = call("accept", server.fileno(), None, None)

        with Interval() as interval:
            thread = threading.Thread(target=wait)
            thread.start()
            client.connect(server.getsockname())
            thread.join()
        os.close(int(str(said["ret"])))
        (record,) = [each for each in tap.records("accept", **said) if interval.holds(each)]
        assert ends_of(record) == (client.getsockname(), client.getpeername())
        assert record["tid"] != os.getpid()


# bind and listen


@FAMILIES
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_bind(tap: Tap, family: int, host: str, kind: int) -> None:
    with socket.socket(family, kind) as one, socket.socket(family, kind) as other, socket.socket(family, kind) as third:
        with told(tap, "bind", 4) as records:
            one.bind((host, 0))
            port = one.getsockname()[1]
            for again in (one, other):
                with pytest.raises(OSError, match=r"in use|Invalid"):
                    again.bind((host, port))
            third.bind(("", 0))
        proto = 6 if kind == socket.SOCK_STREAM else 17
        for record in records:
            has(record, family=family, socket_family=family, socket_type=kind, socket_protocol=proto, path=b"")
        assert [r["ret"] for r in records] == [0, -errno.EINVAL, -errno.EADDRINUSE, 0]
        assert [r["fd"] for r in records] == [one.fileno(), one.fileno(), other.fileno(), third.fileno()]
        anywhere = "0.0.0.0" if family == socket.AF_INET else "::"
        asked = [ends_of(record)[0] for record in records]
        assert asked == [(host, 0), (host, port), (host, port), (anywhere, 0)]
        got = [ends_of(record)[1] for record in records]
        assert [got[0], got[1], got[3]] == [(host, port), (host, port), third.getsockname()[:2]]
        assert got[2][1] == 0


def test_bind_of_unix_sockets(tap: Tap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(os.path.realpath(tmp_path))
    longest = (here + b"/" + b"x" * 108)[:108]
    wanted = [
        (b"link/../link/s\xff\n", 0, here + b"/real/s\xff\n"),
        (longest, 0, longest),
        (b"\0abstract\0%d" % os.getpid(), 0, None),
        (b"no/../such/./s", -errno.ENOENT, here + b"/such/s"),
        (b"link/../link/s\xff\n", -errno.EADDRINUSE, here + b"/link/s\xff\n"),
        (b"/no/such", -errno.ENOENT, b"/no/such"),
    ]
    for path, ret, resolved in wanted:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made, told(tap, "bind") as records:
            assert call("bind", made.fileno(), un(path), 2 + len(path)) == ret
        has(records[0], ret=ret, family=socket.AF_UNIX, socket_type=2, dport=0, sport=0, daddr=NOTHING)
        assert path_of(records[0]) == path
        assert resolved is None or records[0]["path_resolved"] == resolved
    assert (tmp_path / "real" / os.fsdecode(b"s\xff\n")).is_socket()


def test_a_name_that_the_kernel_chooses(tap: Tap) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        with told(tap, "bind") as records:
            assert call("bind", made.fileno(), un(b""), 2) == 0
        assert records[0]["path"] == made.getsockname()
        assert len(records[0]["path"]) == 6


def test_odd_binds(tap: Tap, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file, socket.socket() as made:
        wanted = [
            (file.fileno(), in4(7), 16, -errno.ENOTSOCK, socket.AF_INET, 7),
            (-1, in4(8), 16, -errno.EBADF, socket.AF_INET, 8),
            (made.fileno(), ctypes.c_void_p(1), 16, -errno.EFAULT, 0, 0),
            (made.fileno(), in4(9), -1, -errno.EINVAL, socket.AF_INET, 9),
            (made.fileno(), in4(9), 4, -errno.EINVAL, socket.AF_INET, 9),
            (made.fileno(), b"\xe7\x03" + bytes(14), 16, -errno.EAFNOSUPPORT, 999, 0),
        ]
        with told(tap, "bind", len(wanted)) as records:
            assert [call("bind", *arguments[:3]) for arguments in wanted] == [each[3] for each in wanted]
        for record, (fd, _, _, ret, family, port) in zip(records, wanted, strict=True):
            has(record, fd=fd, ret=ret, dport=port)
            assert record["family"] in (family, 0), "an address said to be longer than memory is has not been read"


@FAMILIES
def test_listen(tap: Tap, family: int, host: str, tmp_path: Path) -> None:
    with socket.socket(family) as one, socket.socket(family) as other, socket.socket(family, socket.SOCK_DGRAM) as udp:
        one.bind((host, 0))
        first, second, third = (each.fileno() for each in (one, other, udp))
        wanted = [(first, 5, 0), (second, -1, 0), (third, 1, -errno.EOPNOTSUPP), (first, 2**31 - 1, 0), (-1, 3, -errno.EBADF)]
        with told(tap, "listen", len(wanted)) as records:
            assert [call("listen", fd, backlog) for fd, backlog, _ in wanted] == [ret for _, _, ret in wanted]
        for record, (fd, backlog, ret) in zip(records, wanted, strict=True):
            has(record, fd=fd, backlog=backlog, ret=ret, dport=0, daddr=NOTHING, path=b"")
        assert ends_of(records[0])[1] == ends_of(records[3])[1] == one.getsockname()[:2]
        assert ends_of(records[1])[1] == other.getsockname()[:2], "where none was bound, the kernel has chosen one"
        has(records[1], family=family, socket_type=1, socket_protocol=6)
        has(records[4], family=0, socket_family=0, sport=0)


def test_listen_of_unix_sockets(tap: Tap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(os.path.realpath(tmp_path))
    abstract = b"\0listens%d" % os.getpid()
    with bound(b"./s") as one, bound(abstract) as other, socket.socket(socket.AF_UNIX) as unbound:
        os.rename("s", "moved")
        with told(tap, "listen", 3) as records:
            assert [call("listen", each.fileno(), 4) for each in (one, other, unbound)] == [0, 0, -errno.EINVAL]
    assert [(path_of(r), r["family"], r["backlog"]) for r in records] == [(b"./s", 1, 4), (abstract, 1, 4), (b"", 1, 4)]
    assert records[0]["path_resolved"] == here + b"/moved"


# socket


@pytest.fixture
def all_sockets(tap: Tap) -> Iterator[None]:
    tap.tracing.apply(PROBES, {"socket": Rules(all=True)})
    yield
    tap.tracing.apply(PROBES)


UNUSUAL = [(17, 3, 0x0300), (17, 2, 0x0008), (2, 3, 1), (2, 3, 255), (10, 3, 58), (38, 5, 0), (15, 3, 2), (40, 1, 0)]
USUAL = [(2, 1, 0), (2, 2, 17), (10, 1, 6), (1, 1, 0), (1, 2, 0), (16, 3, 0), (16, 2, 9), (2, 1, 262)]
FAILING = [(2, 1, 17), (999, 1, 0), (2, 77, 0), (1, 3, 99), (-1, -1, -1)]


def make_sockets(asked: list[tuple[int, int, int]], flags: int = 0) -> list[int]:
    returned = [call("socket", domain, kind | flags, protocol) for domain, kind, protocol in asked]
    for fd in returned:
        if fd >= 0:
            os.close(fd)
    return returned


def test_which_sockets_are_told(tap: Tap) -> None:
    with told(tap, "socket", len(UNUSUAL) + len(FAILING)) as records:
        usual, unusual, failing = make_sockets(USUAL[:-1]), make_sockets(UNUSUAL), make_sockets(FAILING)
    assert all(ret >= 0 for ret in usual)
    assert all(ret < 0 for ret in failing)
    assert all(ret >= 0 for ret in unusual[:5])
    for record, (domain, kind, protocol), ret in zip(records, UNUSUAL + FAILING, unusual + failing, strict=True):
        has(record, domain=domain % 2**32, type=kind & 0xF, flags=kind % 2**32 & ~0xF, protocol=protocol % 2**32, ret=ret)


def test_all_sockets_when_asked_for(tap: Tap, all_sockets: None) -> None:
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with told(tap, "socket", len(USUAL)) as records:
        returned = make_sockets(USUAL, flags)
    assert [(r["domain"], r["type"], r["protocol"]) for r in records] == USUAL
    assert [(r["ret"], r["flags"]) for r in records] == [(ret, flags) for ret in returned]


# dup


DUPS = """
import ctypes, fcntl, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
keep, out = socket.socket(fileno=int(sys.argv[1])), os.fdopen(os.dup(1), "w")
null = os.open("/dev/null", os.O_RDWR)
fd, told = keep.fileno(), []
def tell(ret):
    told.append(ret)
tell(libc.dup2(fd, 0)); libc.dup2(null, 0)
tell(libc.dup3(fd, 1, os.O_CLOEXEC)); libc.dup2(null, 1)
tell(libc.dup2(fd, 2)); libc.dup2(null, 2)
os.close(0); tell(libc.dup(fd))
os.close(0); tell(fcntl.fcntl(fd, fcntl.F_DUPFD, 0))
os.close(0); tell(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))
libc.dup2(0, 0), libc.dup2(null, 0), libc.dup2(fd, 77), libc.dup2(-1, 0), libc.dup2(fd, -1), libc.dup3(fd, fd, 0), libc.dup(fd)
fcntl.fcntl(fd, fcntl.F_GETFD), fcntl.fcntl(fd, fcntl.F_DUPFD, 10)
tell(libc.dup2(77, 1))
json.dump([told, fd], out)
"""


def dups(tap: Tap, kept: socket.socket) -> list[Record]:
    """Those that a child makes of a socket: seven are told, of the 25 it makes."""
    command = [sys.executable, "-S", "-c", DUPS, str(kept.fileno())]
    with subprocess.Popen(command, pass_fds=[kept.fileno()], stdout=subprocess.PIPE, text=True) as child:
        returned, fd = json.loads(child.communicate()[0])
    records = tap.records("dup", pid=child.pid)
    assert [(r["fd"], r["ret"]) for r in records] == [*zip([fd] * 6, returned[:6], strict=True), (77, 1)]
    assert returned == [0, 1, 2, 0, 0, 0, 1]
    return records


@FAMILIES
def test_a_socket_as_standard_input(tap: Tap, family: int, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server, socket.create_connection(server.getsockname()[:2]) as client:
        for record in dups(tap, client):
            has(record, family=family, socket_family=family, socket_type=1, socket_protocol=6, path=b"")
            assert ends_of(record) == (client.getpeername()[:2], client.getsockname()[:2])


def test_a_unix_socket_as_standard_input(tap: Tap, tmp_path: Path) -> None:
    path = os.fsencode(os.path.realpath(tmp_path)) + b"/s"
    ours, theirs = socket.socketpair()
    with bound(path) as server, socket.socket(socket.AF_UNIX) as client, ours, theirs:
        server.listen()
        client.connect(path)
        accepted, _ = server.accept()
        with accepted:
            for end in (client, accepted):
                for record in dups(tap, end):
                    has(record, family=socket.AF_UNIX, path=path + b"\0", path_resolved=path, dport=0, sport=0, daddr=NOTHING)
        for record in dups(tap, ours):
            has(record, family=socket.AF_UNIX, socket_type=1, path=b"", path_resolved=b"")


def test_a_file_as_standard_input_is_not_told(tap: Tap) -> None:
    kept = os.dup(0)
    with socket.socket() as made:
        with told(tap, "dup", 1) as records, open("/dev/null") as null:
            os.dup2(null.fileno(), 0)
            os.dup2(made.fileno(), 0)
            os.dup2(kept, 0)
        has(records[0], fd=made.fileno(), ret=0, dport=0, sport=0)
    os.close(kept)


# what rules leave out


@pytest.fixture
def ruled(tap: Tap) -> Iterator[Callable[..., None]]:
    """Sets the rules of all probes about sockets."""
    yield lambda **lists: tap.tracing.apply(PROBES, dict.fromkeys(("accept", "bind", "listen", "dup", "connect"), Rules(**lists)))
    tap.tracing.apply(PROBES)


def use_a_socket(family: int, address: object) -> None:
    """One bind, listen, connect, accept and dup."""
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind(address)
        server.listen()
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        kept = os.dup(0)
        os.dup2(accepted.fileno(), 0)
        os.dup2(kept, 0)
        os.close(kept)
        accepted.close()


ALL = {"bind": 1, "listen": 1, "connect": 1, "accept": 1, "dup": 1}
NONE = dict.fromkeys(ALL, 0)


@pytest.mark.parametrize("relative", [False, True])
def test_rules_on_the_paths_of_unix_sockets(
    tap: Tap, ruled: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    here = Path(os.path.realpath(tmp_path))
    (here / "in").mkdir()
    (here / "out").mkdir()
    monkeypatch.chdir(here / "in")
    given = {name: f"../{name}/s" if relative else str(here / name / "s") for name in ("in", "out")}
    listed = Match(paths=frozenset({os.fsencode(here / "in")}))
    for lists, inside, outside in (({"allow": listed}, ALL, NONE), ({"deny": listed}, NONE, ALL)):
        ruled(**lists)
        assert used(tap, socket.AF_UNIX, given["in"]) == inside
        assert used(tap, socket.AF_UNIX, given["out"]) == outside
        assert used(tap, socket.AF_UNIX, f"\0abstract{os.getpid()}") == outside, "what has no path is on no list"
        assert used(tap, socket.AF_INET, ("127.0.0.1", 0)) == outside
        for path in given.values():
            os.unlink(path)


def used(tap: Tap, family: int, address: object) -> dict[str, int]:
    """How many of each probe are told of one use."""
    with Interval() as interval:
        use_a_socket(family, address)
    return {probe: len([r for r in tap.records(probe, pid=os.getpid()) if interval.holds(r)]) for probe in ALL}


def test_rules_on_addresses(tap: Tap, ruled: Callable[..., None]) -> None:
    local, other = (Match(networks=(IPv4Network(each),)) for each in ("127.0.0.0/8", "10.0.0.0/8"))
    for lists, expected in (({"allow": local}, ALL), ({"allow": other}, NONE), ({"deny": local}, NONE), ({"deny": other}, ALL)):
        ruled(**lists)
        assert used(tap, socket.AF_INET, ("127.0.0.1", 0)) == expected


# all of them, elsewhere


EVERYTHING = """
import ctypes, json, os, socket, sys
libc, how = ctypes.CDLL(None, use_errno=True), sys.argv[1]
os.chdir(sys.argv[2])
if how == "namespaces":
    libc.unshare(0x20000 | 0x20000000)
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if how == "chroot":
    os.chroot("."); os.chdir("sub")
if how == "setuid":
    os.setgid(65534); os.setuid(65534)
def call(name, *arguments):
    ret = getattr(libc, name)(*arguments)
    return ret if ret >= 0 else -ctypes.get_errno()
said = []
out = os.fdopen(os.dup(1), "w")
for turn in range(int(sys.argv[3])):
    server, client = socket.socket(), socket.socket()
    path = b"s%d" % turn
    unix, other = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.bind(("127.0.0.1", 0)); unix.bind(path)
    server.listen(turn); unix.listen(turn)
    client.connect(server.getsockname()); other.connect(path)
    one, two = call("accept", server.fileno(), None, None), call("accept", unix.fileno(), None, None)
    refused = call("bind", client.fileno(), b"\\2\\0" + bytes(14), 16), call("accept", -1, None, None), call("listen", -1, 0)
    raw = call("socket", 2, 3, 1)
    libc.dup2(client.fileno(), 0)
    said.append([server.getsockname()[1], client.getsockname()[1], path.decode(), one, two, raw, *refused, client.fileno()])
    for each in (server, client, unix, other):
        each.close()
    for fd in (one, two, raw):
        fd >= 0 and os.close(fd)
json.dump([os.getpid(), os.stat("/proc/self/ns/pid").st_ino if how == "namespaces" else 0, said], out)
"""
TURNS = 13


@pytest.mark.parametrize("how", ["plain", "namespaces", "chroot", "setuid"])
def test_everything_is_counted(tap: Tap, tmp_path: Path, how: str) -> None:
    """11 of each turn, whoever makes them: 143 calls, no more and no less, in the order they were made."""
    here = os.path.realpath(tmp_path)
    os.chmod(here, 0o777)
    (tmp_path / "sub").mkdir(mode=0o777)
    start = os.fsencode(here) + (b"/sub" if how == "chroot" else b"")
    with Interval() as interval:
        command = [sys.executable, "-S", "-c", EVERYTHING, how, here, str(TURNS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            _, _, said = json.loads(child.communicate()[0])
    probes = ("bind", "listen", "accept", "socket", "dup")
    every = {probe: [r for r in tap.records(probe) if interval.holds(r) and r["pid"] != os.getpid()] for probe in probes}
    assert {probe: len(records) for probe, records in every.items()} == {"bind": 39, "listen": 39, "accept": 39, "socket": TURNS, "dup": TURNS}
    pids = {record["pid"] for records in every.values() for record in records}
    assert pids == {child.pid} or (how == "namespaces" and len(pids) == 1)
    for turn, (port, client_port, path, one, two, raw, *refused, fd) in enumerate(said):
        name = path.encode()
        binds, listens, accepts = (every[probe][3 * turn : 3 * turn + 3] for probe in ("bind", "listen", "accept"))
        where = start + b"/" + name
        assert [(r["sport"], r["dport"], path_of(r), r["path_resolved"]) for r in binds[:2]] == [(port, 0, b"", b""), (0, 0, name, where)]
        assert [(r["sport"], r["backlog"], path_of(r)) for r in listens[:2]] == [(port, turn, b""), (0, turn, name)]
        assert [(r["ret"], r["dport"], r["sport"], path_of(r)) for r in accepts[:2]] == [(one, client_port, port, b""), (two, 0, 0, name)]
        assert [each[2]["ret"] for each in (binds, accepts, listens)] == refused
        assert (every["socket"][turn]["ret"], every["socket"][turn]["type"]) == (raw, 3)
        assert (every["dup"][turn]["fd"], every["dup"][turn]["dport"], every["dup"][turn]["ret"]) == (fd, port, 0)
    for record in (record for records in every.values() for record in records):
        has(record, uid=65534 if how == "setuid" else 0, gid=65534 if how == "setuid" else 0)
        assert (record["ns_pid"] == record["pid"]) == (how != "namespaces")
    assert all((ret == -errno.EPERM) == (how == "setuid") for *_, ret, _, _, _, _ in said)


@pytest.mark.needs("gcc")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="there are no 32-bit calls to follow")
def test_calls_of_32_bit_programs(tap: Tap, tmp_path: Path) -> None:
    source, program = Path(__file__).with_name("compat_sockets.c"), tmp_path / "compat"
    subprocess.run(["gcc", "-O1", "-o", program, source], check=True)
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as child:
        lines = child.communicate()[0].splitlines()
    if child.returncode == 77:
        pytest.skip("this kernel knows no 32-bit calls")
    every = {probe: tap.records(probe, pid=child.pid) for probe in ("bind", "listen", "connect", "accept", "socket", "dup")}
    assert {probe: len(records) for probe, records in every.items()} == dict.fromkeys(every, 2) | {"dup": 4}
    for turn, line in enumerate(lines):
        server, client, bound, listens, connected, accepted, raw, copy, other, port = json.loads(line)
        has(every["bind"][turn], fd=server, ret=bound, family=socket.AF_INET, dport=0, sport=port)
        has(every["listen"][turn], fd=server, ret=listens, backlog=9, sport=port)
        has(every["connect"][turn], fd=client, ret=connected, dport=port)
        has(every["accept"][turn], fd=server, ret=accepted, sport=port, dport=every["connect"][turn]["sport"], flags=0 if turn else 0x800)
        has(every["socket"][turn], domain=2, type=3, protocol=1, ret=raw)
        for record, ret in zip(every["dup"][2 * turn : 2 * turn + 2], (copy, other), strict=True):
            has(record, fd=client, ret=ret, dport=port)
        assert (bound, listens, connected, copy, other) == (0, 0, 0, 0, 0)
