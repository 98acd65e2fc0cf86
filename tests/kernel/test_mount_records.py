"""Records of mounts made step by step, and of changed roots, made by the running kernel, against what their maker knows."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from infrasight.schema.events.chroot import CALLS as CHROOTS
from infrasight.schema.events.mount import CALLS, COMMANDS
from infrasight.schema.events.process import FORK
from tests.kernel.calls import AT_FDCWD, in_a_child
from tests.kernel.tap import Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
STEPS = """
import struct
namespace()
rootfd = os.open(root, os.O_RDONLY)  # in the new namespace
fs = call("fsopen", b"tmpfs", 1)
call("fsopen", b"no such \\xff", 0)
call("fsconfig", fs, 1, b"source", b"a \\xff name", 0)
call("fsconfig", fs, 1, b"size", b"64k", 0)
call("fsconfig", fs, 0, b"ro", None, 0)
call("fsconfig", fs, 1, b"no\\x1bkey", b"v" * 200, 0)
call("fsconfig", fs, 5, b"fd", None, rootfd)
call("fsconfig", fs, 2, b"blob", b"\\x01\\x02", 2)
call("fsconfig", fs, 6, None, None, 0)
mounted = call("fsmount", fs, 1, 8 | 2)
call("fsmount", rootfd, 0, 0)
call("move_mount", mounted, b"", AT_FDCWD, root + b"/a", 4)
os.chdir(root + b"/a")
clone = call("open_tree", AT_FDCWD, b".", 1)
call("move_mount", clone, b"", rootfd, b"./x/../b", 4)
call("move_mount", AT_FDCWD, root + b"/a", AT_FDCWD, root + b"/absent", 0)
call("open_tree", rootfd, b"absent" * 50, 1)
call("mount_setattr", rootfd, b"b", 0x8000, struct.pack("<QQQQ", 4, 8, 1 << 18, 0), 32)
call("mount_setattr", AT_FDCWD, root, 0, None, 32)
picked = call("fspick", rootfd, b"a", 2)
call("fsconfig", picked, 7, None, None, 0)
call("fspick", AT_FDCWD, root + b"/b/c", 0)
call("fsconfig", 9999, 99, b"k", b"v", -7)
said += [fs, mounted, clone, picked, rootfd]
"""
COMMAND = {name: number for number, name in COMMANDS.items()}


def rows(records: list[Record]) -> list[tuple[object, ...]]:
    """What tells the calls apart; the numbers of descriptors come later."""
    members = ("source", "target", "target_resolved", "fstype", "key", "flags", "fd", "command", "aux", "attr_set", "attr_clr", "propagation", "ret")
    return [(CALLS[record["call"]], *(record[name] for name in members)) for record in records]


def row(
    call: str,
    ret: int,
    fd: int = -1,
    *,
    source: bytes = b"",
    target: tuple[bytes, bytes] = (b"", b""),
    fstype: bytes = b"",
    key: bytes = b"",
    flags: int = 0,
    command: int = 0,
    aux: int = 0,
    attr: tuple[int, int, int] = (0, 0, 0),
) -> tuple[object, ...]:
    return (call, source, *target, fstype, key, flags, fd, command, aux, *attr, ret)


def test_a_mount_step_by_step(tap: Tap, tmp_path: Path) -> None:
    """23 calls."""
    for name in "axb":
        (tmp_path / name).mkdir()
    pid, said = in_a_child(STEPS, tmp_path)
    *returned, fs, mounted, clone, picked, rootfd = said
    here = bytes(tmp_path)
    a, b = here + b"/a", here + b"/b"
    one, flag, binary, fd, create, again = (
        COMMAND[f"FSCONFIG_{name}"] for name in ("SET_STRING", "SET_FLAG", "SET_BINARY", "SET_FD", "CMD_CREATE", "CMD_RECONFIGURE")
    )
    expected = [
        row("fsopen", fs, fstype=b"tmpfs", flags=1),
        row("fsopen", -errno.ENODEV, fstype=b"no such \xff"),
        row("fsconfig", 0, fs, source=b"a \xff name", key=b"source", command=one),
        row("fsconfig", 0, fs, source=b"64k", key=b"size", command=one),
        row("fsconfig", 0, fs, key=b"ro", command=flag),
        row("fsconfig", -errno.EINVAL, fs, source=b"v" * 200, key=b"no\x1bkey", command=one),
        row("fsconfig", returned[6], fs, key=b"fd", command=fd, aux=rootfd),
        row("fsconfig", returned[7], fs, key=b"blob", command=binary, aux=2),
        row("fsconfig", 0, fs, command=create),
        row("fsmount", mounted, fs, flags=1, attr=(10, 0, 0)),
        row("fsmount", -errno.EINVAL, rootfd),
        row("move_mount", 0, mounted, target=(a, a), flags=4),
        row("open_tree", clone, AT_FDCWD, target=(b".", a), flags=1),
        row("move_mount", 0, clone, target=(b"./x/../b", b), flags=4),
        row("move_mount", -errno.ENOENT, AT_FDCWD, source=a, target=(here + b"/absent", here + b"/absent")),
        row("open_tree", -errno.ENAMETOOLONG, rootfd, target=(b"absent" * 50, here + b"/" + b"absent" * 50), flags=1),
        row("mount_setattr", 0, rootfd, target=(b"b", b), flags=0x8000, attr=(4, 8, 1 << 18)),
        row("mount_setattr", -errno.EFAULT, AT_FDCWD, target=(here, here)),
        row("fspick", picked, rootfd, target=(b"a", a), flags=2),
        row("fsconfig", 0, picked, command=again),
        row("fspick", -errno.ENOENT, AT_FDCWD, target=(b + b"/c", b + b"/c")),
        row("fsconfig", -errno.EOPNOTSUPP, 9999, key=b"k", command=99, aux=-7),
    ]
    records = tap.records("mount", pid=pid)
    assert [CALLS[record["call"]] for record in records[:1]] == ["mount"], "that of namespace()"
    assert rows(records)[1:] == expected
    assert returned == [each[-1] for each in expected]
    assert len(records) == 23
    assert {fs, mounted, clone, picked} & {-1} == set()
    assert [returned[6] < 0, returned[7] < 0] == [True, True]


CHANGES = """
namespace()
for name in (b"new", b"jail", b"jail/in"):
    os.mkdir(root + b"/" + name)
os.symlink("jail", root + b"/link")
assert libc.mount(b"x", root + b"/new", b"tmpfs", 0, None) == 0
os.mkdir(root + b"/new/old")
os.mkdir(root + b"/new/sub")
call("pivot_root", root + b"/new", root)
call("pivot_root", b"\\xff" * 200, b"b")
call("chroot", root + b"/absent")
if not os.fork():
    os.chdir(root)
    call("chroot", b"link/../link")
    call("chroot", b"/in")
    call("chroot", b"/in")
    call("chroot", b"..")
    os._exit(0)
os.wait()
if not os.fork():
    os.chroot(root + b"/new")
    os.chdir("/sub")
    call("chroot", b"/absent")
    call("pivot_root", b"/../sub", b"old")
    os._exit(0)
os.wait()
call("pivot_root", root + b"/new", root + b"/new/old")
call("chroot", b"/sub")
call("chroot", b"/")
"""


def test_changed_roots(tap: Tap, tmp_path: Path) -> None:
    """Where a root is, is told from the root of the mount namespace, through links and out of the old root."""
    pid, said = in_a_child(CHANGES, tmp_path)
    here, cwd = bytes(tmp_path), bytes(Path(__file__).parents[2])
    records = tap.records("chroot", pid=pid)
    found = [(CHROOTS[r["call"]], r["path"], r["path_resolved"], r["put_old"], r["put_old_resolved"], r["ret"]) for r in records]
    expected = [
        ("pivot_root", here + b"/new", here + b"/new", here, here, said[0]),
        ("pivot_root", b"\xff" * 200, cwd + b"/" + b"\xff" * 200, b"b", cwd + b"/b", -errno.ENOENT),
        ("chroot", here + b"/absent", here + b"/absent", b"", b"", -errno.ENOENT),
        ("pivot_root", here + b"/new", here + b"/new", here + b"/new/old", here + b"/new/old", 0),
        ("chroot", b"/sub", b"/sub", b"", b"", 0),
        ("chroot", b"/", b"/sub", b"", b"", 0),
    ]
    assert found == expected
    assert said == [each[-1] for each in expected]
    assert said[0] in (-errno.EBUSY, -errno.EINVAL), "whether /tmp is a mount of its own"
    first, second = tap.records("process", ppid=pid, action=FORK)
    found = [(r["path"], r["path_resolved"], r["ret"]) for r in tap.records("chroot", pid=first["pid"])]
    assert found == [
        (b"link/../link", here + b"/jail", 0),
        (b"/in", here + b"/jail/in", 0),
        (b"/in", here + b"/jail/in/in", -errno.ENOENT),
        (b"..", os.path.dirname(here), 0),
    ]
    _, third, fourth = tap.records("chroot", pid=second["pid"])
    assert (third["path_resolved"], third["ret"]) == (here + b"/new/absent", -errno.ENOENT)
    assert (fourth["path_resolved"], fourth["put_old_resolved"]) == (here + b"/new/sub", here + b"/new/sub/old")
    assert fourth["ret"] < 0


COMPAT = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static char *low;
static long text(const char *s) { char *at = low; strcpy(at, s); low += strlen(s) + 1; return (long)at; }
static long call(long n, long a, long b, long c, long d, long e) {
    long ret;
    asm volatile("int $0x80" : "=a"(ret) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
    return (int)ret;
}
int main(int argc, char **argv) {
    low = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (chdir(argv[1])) return 1;
    int fs = call(430, text("tmpfs"), 1, 0, 0, 0);
    int set = call(431, fs, 1, text("source"), text("s"), 0);
    int bad = call(442, -100, text("no"), 0, 0, 32), pivot = call(217, text("p"), text("q"), 0, 0, 0), root = call(61, text("."), 0, 0, 0, 0);
    printf("%d %d %d %d %d %d", getpid(), fs, set, bad, pivot, root);
}
"""


@pytest.mark.needs("gcc", "compat")
def test_calls_of_32_bit_programs(tap: Tap, tmp_path: Path) -> None:
    (tmp_path / "compat.c").write_text(COMPAT)
    subprocess.run(["gcc", "-w", "-o", tmp_path / "compat", tmp_path / "compat.c"], check=True)
    done = subprocess.run([tmp_path / "compat", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    pid, fs, *returned = map(int, done.stdout.split())
    here = bytes(tmp_path)
    assert (fs > 0, returned) == (True, [0, returned[1], -errno.ENOENT, 0])
    assert rows(tap.records("mount", pid=pid)) == [
        row("fsopen", fs, fstype=b"tmpfs", flags=1),
        row("fsconfig", 0, fs, source=b"s", key=b"source", command=1),
        row("mount_setattr", returned[1], AT_FDCWD, target=(b"no", here + b"/no")),
    ]
    pivot, root = tap.records("chroot", pid=pid)
    assert (pivot["path_resolved"], pivot["put_old_resolved"], pivot["ret"]) == (here + b"/p", here + b"/q", -errno.ENOENT)
    assert (root["path"], root["path_resolved"], root["ret"]) == (b".", here, 0)
