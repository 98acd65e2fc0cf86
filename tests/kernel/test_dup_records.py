"""Records of sockets that become standard input, output or error, made by the running kernel, against what their maker knows."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.sockets import FAMILIES, NOTHING, bound, ends_of, has, told
from tests.kernel.tap import Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
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
