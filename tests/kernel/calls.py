"""System calls made by this very process with any arguments, and what /proc says about it meanwhile."""

import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from infrasight.kernel import syscalls

OPENAT2, EXECVEAT = 437, {"x86_64": 322, "aarch64": 281}[os.uname().machine]
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
Path_ = bytes | int | None


def _result(value: int) -> int:
    return value if value >= 0 else -ctypes.get_errno()


def openat(path: Path_, flags: int = os.O_RDONLY, mode: int = 0, dirfd: int = AT_FDCWD) -> int:
    """The file descriptor, closed by now, or a negative errno."""
    pointer = ctypes.c_void_p(path) if isinstance(path, int) else ctypes.c_char_p(path)
    fd = _result(_libc.openat(dirfd, pointer, flags, mode))
    if fd >= 0:
        os.close(fd)
    return fd


def openat2(path: bytes, how: bytes | int) -> int:
    """`how` is struct open_how: flags, mode, resolve, 8 bytes each."""
    pointer = ctypes.c_void_p(how) if isinstance(how, int) else ctypes.c_char_p(how)
    fd = _result(_libc.syscall(OPENAT2, AT_FDCWD, ctypes.c_char_p(path), pointer, 24))
    if fd >= 0:
        os.close(fd)
    return fd


def failing_execve(path: Path_, argv: list[bytes] | int | None, *, at: int | None = None) -> int:
    """The negative errno of an exec that fails: `path` must be nothing that can be executed."""
    array: object
    array = (ctypes.c_char_p * (len(argv) + 1))(*argv, None) if isinstance(argv, list) else ctypes.c_void_p(argv)
    pointer = ctypes.c_void_p(path) if isinstance(path, int) else ctypes.c_char_p(path)
    if at is None:
        return _result(_libc.execve(pointer, array, None))
    return _result(_libc.syscall(EXECVEAT, at, pointer, array, None, 0))


def connect(fd: int, address: bytes | int, length: int) -> int:
    pointer = ctypes.c_void_p(address) if isinstance(address, int) else ctypes.c_char_p(address)
    return _result(_libc.connect(fd, pointer, length))


def me() -> dict[str, object]:
    """What every record of a call made here and now has to say."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/thread-self/status").read_text().splitlines() if ":\t" in line)
    return {
        "pid": os.getpid(),
        "tid": threading.get_native_id(),
        "ppid": int(status["PPid"]),
        "uid": int(status["Uid"].split()[0]),
        "gid": int(status["Gid"].split()[0]),
        "ns_pid": int(status["NStgid"].split()[-1]),
        "comm": Path("/proc/thread-self/comm").read_bytes().rstrip(b"\n"),
        "cgroup_id": cgroup_id(),
    }


def cgroup_mount() -> Path:
    """Where the v2 hierarchy is mounted."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(Path(fields[1]) for fields in lines if fields[2] == "cgroup2")


def cgroup_id() -> int:
    """The inode of our own cgroup."""
    (path,) = (line.split("::", 1)[1] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return (cgroup_mount() / path.lstrip("/")).stat().st_ino


def start_ticks(pid: int) -> int:
    """Start of a process in hundredths of a second after boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


_raw = ctypes.CDLL(None, use_errno=True).syscall
_raw.restype = ctypes.c_long


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call past the C library: its return code, or a negative errno."""
    known = syscalls.number(name)
    assert known is not None
    return _result(_raw(known, *(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)))


IN_A_CHILD = """
import ctypes, json, os, sys
from tests.kernel.calls import AT_FDCWD, call as syscall
libc, said = ctypes.CDLL(None, use_errno=True), []
root, rootfd = os.fsencode(sys.argv[1]), os.open(sys.argv[1], os.O_RDONLY)
def call(name, *arguments):
    ret = syscall(name, *arguments)
    said.append(ret)
    return ret
def namespace():
    assert libc.unshare(0x20000) == 0 and libc.mount(None, b"/", None, 0x4000 | 0x40000, None) == 0
"""


def in_a_child(code: str, root: Path) -> tuple[int, list[int]]:
    """Run Python code that makes calls with `call(name, ...)` below the directory `root`; its process id, and what each call returned."""
    command = [sys.executable, "-c", f"{IN_A_CHILD}\n{code}\nprint(json.dumps([os.getpid(), said]))", root]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    pid, said = json.loads(done.stdout)
    return pid, said
