"""Records of accept, made by the running kernel, against what their maker and the other end know."""

import errno
import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.kernel.calls import me
from tests.kernel.sockets import FAMILIES, NOTHING, bound, call, ends_of, has, path_of, told
from tests.kernel.tap import Interval, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
UNIX_KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])


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


def test_a_connection_that_was_reset_before(tap: Tap) -> None:
    """Both ends are still told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end = client.getsockname()
        with told(tap, "accept") as records:
            accepted, peer = server.accept()
        with accepted:
            assert ends_of(records[0]) == (end, server.getsockname()) == (peer, accepted.getsockname())


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
