"""Children of known user, name and cgroup, the calls that they make, and what is told and counted of these."""

import ctypes
import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from infrasight.kernel.rules import Match, Rules
from tests.kernel.calls import AT_FDCWD
from tests.kernel.tap import Record, Tap

SOMEBODY = 54321
"""A user whom nobody else on the machine is, so that what is counted is ours."""
HOUR = 3600 * 10**9
_libc = ctypes.CDLL(None, use_errno=True)


def follow(tap: Tap, **rules: Rules) -> None:
    """These probes, by these rules."""
    tap.tracing.apply(tuple(rules), rules)


def child(body: Callable[[], None], *, uid: int = 0, comm: bytes = b"", cgroup: Path | None = None) -> int:
    """The pid of a process that has run `body` and ended."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            if cgroup:
                (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            if comm:
                _libc.prctl(15, comm, 0, 0, 0)  # PR_SET_NAME
            if uid:
                os.setresuid(uid, uid, uid)
            body()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    return pid


def openat(path: bytes, dirfd: int = AT_FDCWD) -> int:
    fd = int(_libc.openat(dirfd, path, os.O_RDONLY))
    return fd if fd >= 0 else -ctypes.get_errno()


def opens(times: int, path: bytes = b"/nonexistent/filtered") -> Callable[[], None]:
    def body() -> None:
        for _ in range(times):
            openat(path)

    return body


def chmods(times: int, path: bytes = b"/nonexistent/filtered") -> Callable[[], None]:
    def body() -> None:
        for _ in range(times):
            _libc.chmod(path, 0o600)

    return body


def connects(*hosts: str) -> Callable[[], None]:
    def body() -> None:
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.connect((host, 9))

    return body


def told(tap: Tap, pid: int, probe: str = "open", path: bytes = b"/nonexistent/filtered") -> list[Record]:
    return tap.records(probe, pid=pid, path=path)


def users(*uids: int) -> Match:
    return Match(uids=frozenset(uids))


def losses(tap: Tap) -> Counter[tuple[str, str]]:
    return Counter(tap.tracing.losses())
