"""Records of socket, and of all probes about sockets together: what rules leave out of them, and whoever makes the calls."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from infrasight.kernel.rules import Match, Rules
from infrasight.schema import PROBES
from tests.kernel.sockets import call, has, path_of, told
from tests.kernel.tap import Interval, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


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


@pytest.mark.needs("gcc", "compat")
def test_calls_of_32_bit_programs(tap: Tap, tmp_path: Path) -> None:
    source, program = Path(__file__).with_name("compat_sockets.c"), tmp_path / "compat"
    subprocess.run(["gcc", "-O1", "-o", program, source], check=True)
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as child:
        lines = child.communicate()[0].splitlines()
    assert child.returncode == 0
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
