"""Records of chmod, ptrace, mount and umount, made by the running kernel, against what their maker knows."""

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.calls import me
from tests.kernel.tap import Interval, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
AT_FDCWD, CHMODS = -100, {"x86_64": (90, 91, 268, 452), "aarch64": (None, 52, 53, 452)}[os.uname().machine]
_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """The return code, or a negative errno."""
    value: int = _libc.syscall(number, *arguments)
    return value if value >= 0 else -ctypes.get_errno()


def test_chmod_in_every_way(tap: Tap, tmp_path: Path) -> None:
    chmod, fchmod, fchmodat, fchmodat2 = CHMODS
    (tmp_path / "file").touch()
    file, fd, directory = os.fsencode(tmp_path / "file"), os.open(tmp_path / "file", os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    missing = os.fsencode(tmp_path / ("x" * 200))
    made: list[tuple[int, bytes, int, int, int, int]] = []
    with Interval() as interval:
        if chmod is not None:
            made.append((syscall(chmod, file, 0o641), file, 0o641, AT_FDCWD, -1, 0))
        made.append((syscall(fchmod, fd, 0o642), b"", 0o642, AT_FDCWD, fd, 0))
        made.append((syscall(fchmodat, directory, b"file", 0o643), b"file", 0o643, directory, -1, 0))
        made.append((syscall(fchmodat, AT_FDCWD, missing, 0o644), missing, 0o644, AT_FDCWD, -1, 0))
        made.append((syscall(fchmodat2, directory, b"file", 0o645, 0x1000), b"file", 0o645, directory, -1, 0x1000))
    records = [each for each in tap.records("chmod", pid=os.getpid()) if interval.holds(each)]
    found = [(r["ret"], r["path"], r["mode"], r["dirfd"], r["fd"], r["flags"]) for r in sorted(records, key=lambda r: r["enter_ns"])]
    assert found == made
    assert made[-2][0] == -errno.ENOENT
    known = me()
    assert all(record[name] == known[name] for record in records for name in ("tid", "ppid", "uid", "gid", "ns_pid"))


def test_ptrace(tap: Tap) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    number = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
    with Interval() as interval:
        asked = [(0x4206, child.pid, 0, 0), (0x4207, child.pid, 0, 0), (16, 2**22 + 5, 7, 11)]
        returned = [syscall(number, *(ctypes.c_long(each) for each in arguments)) for arguments in asked]
        os.waitpid(child.pid, 0x40000000 | os.WUNTRACED)
        asked.append((17, child.pid, 0, 0))
        returned.append(syscall(number, *(ctypes.c_long(each) for each in asked[-1])))
    child.send_signal(signal.SIGKILL)
    child.wait()
    records = sorted((each for each in tap.records("ptrace", pid=os.getpid()) if interval.holds(each)), key=lambda r: r["enter_ns"])
    assert [(r["request"], r["target_pid"], r["addr"], r["data"]) for r in records] == asked
    assert [r["ret"] for r in records] == returned == [0, 0, -errno.ESRCH, 0]


IN_A_NAMESPACE = """
import ctypes, json, os, sys
libc, root = ctypes.CDLL(None, use_errno=True), sys.argv[1]
said = []
def call(name, *arguments):
    ret = getattr(libc, name)(*arguments)
    said.append(ret if ret >= 0 else -ctypes.get_errno())
os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else libc.unshare(0x20000)
libc.mount(None, b"/", None, 0x4000 | 0x40000, None)
here = os.fsencode(root)
call("mount", b"a name", here, b"tmpfs", 2 | 4, b"size=64k")
call("mount", here, here + b"/no", None, 0x1000, None)
call("mount", b"x" * 300, here, b"no such type", 0, None)
call("umount2", here, 2)
call("umount2", here + b"/no", 0)
print(json.dumps([os.getpid(), said]))
"""


def test_mount_and_umount(tap: Tap, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-S", "-c", IN_A_NAMESPACE, tmp_path], capture_output=True, text=True, check=True)
    pid, returned = json.loads(done.stdout)
    here = os.fsencode(tmp_path)
    mounts = sorted(tap.records("mount", pid=pid), key=lambda r: r["enter_ns"])[1:]
    assert [(r["source"], r["target"], r["fstype"], r["flags"], r["ret"]) for r in mounts] == [
        (b"a name", here, b"tmpfs", 6, returned[0]),
        (here, here + b"/no", b"", 0x1000, returned[1]),
        (b"x" * 300, here, b"no such type", 0, returned[2]),
    ]
    umounts = sorted(tap.records("umount", pid=pid), key=lambda r: r["enter_ns"])
    assert [(r["target"], r["flags"], r["ret"]) for r in umounts] == [(here, 2, returned[3]), (here + b"/no", 0, returned[4])]
    assert returned == [0, -errno.ENOENT, -errno.ENODEV, 0, -errno.ENOENT]
