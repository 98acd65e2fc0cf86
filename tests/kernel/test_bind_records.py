"""Records of bind and listen, made by the running kernel, against what their maker knows."""

import ctypes
import errno
import os
import socket
from pathlib import Path

import pytest

from tests.kernel.sockets import FAMILIES, NOTHING, bound, call, ends_of, has, in4, path_of, told, un
from tests.kernel.tap import Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


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
