"""Processes in mount namespaces of their own, whose root is a directory of a test's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAPPED = "0 0 1\n1 100001 999\n"
"""Ids inside of the user namespace that `MAPPED_USER` makes: root is the host's, the others are not."""
_MAP = f"""
import ctypes, os, sys
(told, tell), (go, going) = os.pipe(), os.pipe()
if not os.fork():
    os.read(told, 1)
    for ids in ("uid_map", "gid_map"):
        with open(f"/proc/{{os.getppid()}}/{{ids}}", "w") as file:
            file.write({MAPPED!r})
    os.write(going, b"x")
    os._exit(0)
ctypes.CDLL(None).unshare(0x10000000)
os.write(tell, b"x")
os.read(go, 1)
os.execvp(sys.argv[1], sys.argv[1:])
"""
MAPPED_USER = (sys.executable, "-c", _MAP)
"""What comes before a command, to run it in a user namespace of its own."""


def root(directory: Path, passwd: bytes | None = b"", group: bytes | None = b"") -> Path:
    """A root with busybox and these files."""
    for name in ("bin", "etc", "proc", "old"):
        (directory / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", directory / "bin/busybox")
    (directory / "bin/true").symlink_to("busybox")
    for name, content in (("passwd", passwd), ("group", group)):
        if content is not None:
            (directory / "etc" / name).write_bytes(content)
    return directory


def command(directory: Path, script: str, *before: str) -> list[str]:
    """What runs a busybox shell script there, as a container is begun: a namespace, a root, a program."""
    pivot = 'mount --bind "$1" "$1" && cd "$1" && pivot_root . old && exec /bin/busybox sh -c "$2"'
    return [*before, "unshare", "--mount", "--propagation", "private", "sh", "-c", pivot, "sh", str(directory), script]


@contextlib.contextmanager
def inside(directory: Path, *before: str) -> Iterator[int]:
    """A process that stays there; its id."""
    script = "echo ready; exec /bin/busybox sleep 1000"
    child = subprocess.Popen(command(directory, script, *before), stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
