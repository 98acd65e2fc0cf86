"""Records of unlink, rename, link, symlink and mkdir, made by the running kernel, against what their maker knows."""

import errno
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from infrasight.kernel import syscalls
from tests.kernel.calls import AT_FDCWD, call, in_a_child, me
from tests.kernel.tap import Interval, Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
KINDS = ("unlink", "rename", "link", "symlink", "mkdir")
HOSTILE = b"\xff\xfe\n\x1b[31m"
Case = tuple[str, str, tuple[bytes | int | None, ...], int, dict[str, Any]]
"""Kind, call, arguments, return code, members of the record."""


def path(given: bytes, led: bytes, name: str = "path") -> dict[str, bytes]:
    return {name: given, f"{name}_resolved": led}


def paths(old: bytes, old_led: bytes, new: bytes, new_led: bytes, flags: int = 0) -> dict[str, Any]:
    return {**path(old, old_led, "old_path"), **path(new, new_led, "new_path"), "flags": flags}


def cases(here: bytes, d: int, file: int) -> list[Case]:
    """In a directory that has a file `f`, a directory `full/x` and is the working directory; `d` and `file` are open on it and on `f`."""
    long, deep = b"n" * 255, here + b"/" + b"d/" * 2047
    deep = deep[:4095]
    return [
        ("mkdir", "mkdir", (here + b"/a", 0o750), 0, {**path(here + b"/a", here + b"/a"), "mode": 0o750}),
        ("mkdir", "mkdirat", (d, b"a/../b", 0o701), 0, {**path(b"a/../b", here + b"/b"), "mode": 0o701}),
        ("mkdir", "mkdirat", (AT_FDCWD, HOSTILE, 0o1777), 0, {**path(HOSTILE, here + b"/" + HOSTILE), "mode": 0o1777}),
        ("mkdir", "mkdirat", (d, b"...", 0), 0, {**path(b"...", here + b"/..."), "mode": 0}),
        ("mkdir", "mkdirat", (d, b".../c", 0), 0, {**path(b".../c", here + b"/.../c"), "mode": 0}),
        ("mkdir", "mkdir", (b"a", 0), -errno.EEXIST, {**path(b"a", here + b"/a"), "mode": 0}),
        ("mkdir", "mkdir", (None, 1), -errno.EFAULT, {**path(b"", b""), "mode": 1}),
        ("mkdir", "mkdirat", (9999, b"q", 1), -errno.EBADF, {**path(b"q", b""), "mode": 1}),
        ("symlink", "symlink", (b"../" + HOSTILE, b"s1"), 0, {"target": b"../" + HOSTILE, **path(b"s1", here + b"/s1")}),
        ("symlink", "symlinkat", (b"t" * 4095, d, b"s2"), 0, {"target": b"t" * 4095, **path(b"s2", here + b"/s2")}),
        ("symlink", "symlinkat", (b"f", AT_FDCWD, b"s3"), 0, {"target": b"f", **path(b"s3", here + b"/s3")}),
        ("symlink", "symlinkat", (b"", d, b"s4"), -errno.ENOENT, {"target": b"", **path(b"s4", here + b"/s4")}),
        ("symlink", "symlink", (b"x", b"s1"), -errno.EEXIST, {"target": b"x", **path(b"s1", here + b"/s1")}),
        ("link", "link", (here + b"/f", b"l1"), 0, paths(here + b"/f", here + b"/f", b"l1", here + b"/l1")),
        ("link", "linkat", (d, b"f", d, long, 0), 0, paths(b"f", here + b"/f", long, here + b"/" + long)),
        ("link", "linkat", (file, b"", d, b"l3", 0x1000), 0, paths(b"", here + b"/f", b"l3", here + b"/l3", 0x1000)),
        ("link", "linkat", (d, b"s3", d, b"l4", 0x400), 0, paths(b"s3", here + b"/s3", b"l4", here + b"/l4", 0x400)),
        ("link", "linkat", (d, b"f", d, b"l5", 1), -errno.EINVAL, paths(b"f", here + b"/f", b"l5", here + b"/l5", 1)),
        ("link", "link", (b"a", b"l6"), -errno.EPERM, paths(b"a", here + b"/a", b"l6", here + b"/l6")),
        ("rename", "rename", (b"l1", here + b"/r1"), 0, paths(b"l1", here + b"/l1", here + b"/r1", here + b"/r1")),
        ("rename", "renameat", (d, b"./r1", AT_FDCWD, b"r2"), 0, paths(b"./r1", here + b"/r1", b"r2", here + b"/r2")),
        ("rename", "renameat2", (d, b"r2", d, b"f", 1), -errno.EEXIST, paths(b"r2", here + b"/r2", b"f", here + b"/f", 1)),
        ("rename", "renameat2", (d, b"r2", d, b"a", 2), 0, paths(b"r2", here + b"/r2", b"a", here + b"/a", 2)),
        ("rename", "renameat2", (d, b"a", d, b"r2", 2), 0, paths(b"a", here + b"/a", b"r2", here + b"/r2", 2)),
        ("rename", "rename", (deep, b"r3"), -errno.ENOENT, paths(deep, deep.rstrip(b"/"), b"r3", here + b"/r3")),
        ("rename", "rename", (b"r3", deep + b"x" * 9), -errno.ENAMETOOLONG, paths(b"r3", here + b"/r3", deep, deep.rstrip(b"/"))),
        ("unlink", "unlink", (here + b"/r2",), 0, {**path(here + b"/r2", here + b"/r2"), "directory": 0}),
        ("unlink", "unlinkat", (d, long, 0), 0, {**path(long, here + b"/" + long), "directory": 0}),
        ("unlink", "unlinkat", (d, HOSTILE, 0x200), 0, {**path(HOSTILE, here + b"/" + HOSTILE), "directory": 1}),
        ("unlink", "unlinkat", (d, b"b", 0), -errno.EISDIR, {**path(b"b", here + b"/b"), "directory": 0}),
        ("unlink", "rmdir", (b"b",), 0, {**path(b"b", here + b"/b"), "directory": 1}),
        ("unlink", "rmdir", (b"full/",), -errno.ENOTEMPTY, {**path(b"full/", here + b"/full"), "directory": 1}),
        ("unlink", "rmdir", (b"..",), -errno.ENOTEMPTY, {**path(b"..", os.path.dirname(here)), "directory": 1}),
        ("unlink", "unlink", (b"/",), -errno.EISDIR, {**path(b"/", b"/"), "directory": 0}),
        ("unlink", "unlink", (deep,), -errno.ENOENT, {**path(deep, deep.rstrip(b"/")), "directory": 0}),
        ("unlink", "unlink", (b"",), -errno.ENOENT, {**path(b"", b""), "directory": 0}),
        ("unlink", "unlink", (1,), -errno.EFAULT, {**path(b"", b""), "directory": 0}),
    ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An own working directory that `cases` can be made in."""
    (tmp_path / "f").touch()
    (tmp_path / "full" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return bytes(tmp_path)


def there(cases: list[Case]) -> list[Case]:
    """Without the calls that this machine lacks."""
    return [case for case in cases if syscalls.number(case[1]) is not None]


def told(tap: Tap, interval: Interval, tid: int) -> list[Record]:
    """All records of the five kinds by one thread, in order."""
    records = [record for kind in KINDS for record in tap.records(kind, pid=os.getpid(), tid=tid) if interval.holds(record)]
    return sorted(records, key=lambda record: record["enter_ns"])


def seen(record: Record, case: Case) -> Case:
    """The record as the case has it."""
    return (record.probe, case[1], case[2], record["ret"], {name: record[name] for name in case[4]})


def test_every_call(tap: Tap, place: bytes) -> None:
    """37 of them."""
    d, file = os.open(place, os.O_RDONLY), os.open(place + b"/f", os.O_RDONLY)
    made = there(cases(place, d, file))
    if len(made) != 37:
        assert os.uname().machine != "x86_64"
    umask = os.umask(0)
    with Interval() as interval:
        returned = [call(name, *arguments) for _, name, arguments, *_ in made]
    os.umask(umask)
    records = told(tap, interval, threading.get_native_id())
    assert returned == [case[3] for case in made]
    assert [seen(record, case) for record, case in zip(records, made, strict=True)] == made
    known = me()
    assert all({name: record[name] for name in known} == known for record in records)
    os.close(d)
    os.close(file)


def test_a_second_thread(tap: Tap, place: bytes) -> None:
    with Interval() as interval:
        who: list[dict[str, object]] = []
        calls = ("mkdirat", AT_FDCWD, b"t", 0), ("unlinkat", AT_FDCWD, b"t", 0x200)
        thread = threading.Thread(target=lambda: (who.append(me()), [call(*each) for each in calls]))
        thread.start()
        thread.join()
    made, removed = told(tap, interval, int(str(who[0]["tid"])))
    assert (made["path_resolved"], made["ret"], removed["directory"]) == (place + b"/t", 0, 1)
    assert all({name: record[name] for name in who[0]} == who[0] for record in (made, removed))
    assert made["tid"] != made["pid"]


ALL_OF_THEM = """
call("mkdirat", AT_FDCWD, b"/../m", 0o700)
call("symlinkat", b"/m", AT_FDCWD, b"/s")
call("linkat", AT_FDCWD, b"/s", AT_FDCWD, b"/l", 0)
call("renameat2", AT_FDCWD, b"/l", AT_FDCWD, b"/../../k", 0)
call("unlinkat", AT_FDCWD, b"/k", 0)
call("unlinkat", AT_FDCWD, b"s", 0)
call("unlinkat", AT_FDCWD, b"/m", 0x200)
"""


@pytest.mark.parametrize("how", ["chroot", "chroot to a mount", "namespace"])
def test_where_it_really_is(tap: Tap, tmp_path: Path, how: str) -> None:
    """In a chroot, paths are told from the root of the mount namespace; in a mount namespace, from its own."""
    (tmp_path / "jail").mkdir()
    enter = {
        "chroot": "os.chroot(root + b'/jail'); os.chdir('/')",
        "chroot to a mount": "namespace(); libc.mount(b'x', root + b'/jail', b'tmpfs', 0, None); os.chroot(root + b'/jail'); os.chdir('/')",
        "namespace": "namespace(); libc.mount(b'x', root + b'/jail', b'tmpfs', 0, None); os.chdir(root + b'/jail')",
    }[how]
    code = ALL_OF_THEM.replace('b"/', 'b"') if how == "namespace" else ALL_OF_THEM
    code = code.replace("../../", "./").replace("../", "./") if how == "namespace" else code
    pid, returned = in_a_child(f"{enter}\n{code}", tmp_path)
    here = bytes(tmp_path / "jail")
    assert returned == [0] * 7
    made, link, hard, moved = (tap.one(kind, pid=pid) for kind in ("mkdir", "symlink", "link", "rename"))
    assert (made["path_resolved"], link["path_resolved"], link["target"][-1:]) == (here + b"/m", here + b"/s", b"m")
    assert (hard["old_path_resolved"], hard["new_path_resolved"]) == (here + b"/s", here + b"/l")
    assert (moved["old_path_resolved"], moved["new_path_resolved"]) == (here + b"/l", here + b"/k")
    removed = tap.records("unlink", pid=pid)
    assert [(each["path_resolved"], each["directory"]) for each in removed] == [(here + b"/k", 0), (here + b"/s", 0), (here + b"/m", 1)]


def test_another_user_in_another_pid_namespace(tap: Tap, tmp_path: Path) -> None:
    code = """
libc.unshare(0x20000000)
child = os.fork()
if not child:
    os.setgid(23456)
    os.setuid(12345)
    os._exit(-call("mkdirat", rootfd, b"mine", 0o777))
said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    tmp_path.chmod(0o755)
    pid, returned = in_a_child(code, tmp_path)
    assert returned == [errno.EACCES]
    record = tap.one("mkdir", ppid=pid)
    assert (record["uid"], record["gid"], record["euid"], record["ns_pid"], record["ret"]) == (12345, 23456, 12345, 1, -errno.EACCES)
    assert record["path_resolved"] == bytes(tmp_path / "mine")


COMPAT = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static char *low;
static char *text(const char *s) { char *at = low; strcpy(at, s); low += strlen(s) + 1; return at; }
static long call(long n, long a, long b, long c, long d, long e) {
    long ret;
    asm volatile("int $0x80" : "=a"(ret) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
    return (int)ret;
}
#define P(s) ((long)text(s))
int main(int argc, char **argv) {
    low = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (chdir(argv[1])) return 1;
    int ret[] = {
        call(39, P("m"), 0750, 0, 0, 0), call(83, P("x"), P("s"), 0, 0, 0), call(9, P("s"), P("l"), 0, 0, 0), call(38, P("l"), P("k"), 0, 0, 0),
        call(353, -100, P("k"), -100, P("j"), 1), call(10, P("s"), 0, 0, 0, 0), call(301, -100, P("j"), 0, 0, 0), call(40, P("m"), 0, 0, 0, 0),
        call(296, -100, P("no/no"), 0701, 0, 0), call(304, P("y"), -100, P("no/s"), 0, 0), call(303, -100, P("a"), -100, P("b"), 0x400),
    };
    printf("%d", getpid());
    for (int i = 0; i < 11; i++) printf(" %d", ret[i]);
}
"""


@pytest.mark.needs("gcc", "compat")
def test_calls_of_32_bit_programs(tap: Tap, tmp_path: Path) -> None:
    """11 of them."""
    (tmp_path / "compat.c").write_text(COMPAT)
    subprocess.run(["gcc", "-w", "-o", tmp_path / "compat", tmp_path / "compat.c"], check=True)
    done = subprocess.run([tmp_path / "compat", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    pid, *returned = map(int, done.stdout.split())
    assert returned == [0] * 8 + [-errno.ENOENT] * 3
    here = bytes(tmp_path) + b"/"
    records = sorted((record for kind in KINDS for record in tap.records(kind, pid=pid)), key=lambda record: record["enter_ns"])
    assert [record["ret"] for record in records] == returned
    assert [record.probe for record in records] == [*("mkdir", "symlink", "link", "rename", "rename"), *["unlink"] * 3, "mkdir", "symlink", "link"]
    assert [(r["path_resolved"], r["mode"]) for r in tap.records("mkdir", pid=pid)] == [(here + b"m", 0o750), (here + b"no/no", 0o701)]
    assert [(r["target"], r["path_resolved"]) for r in tap.records("symlink", pid=pid)] == [(b"x", here + b"s"), (b"y", here + b"no/s")]
    two = [(r["old_path_resolved"], r["new_path_resolved"], r["flags"]) for kind in ("link", "rename") for r in tap.records(kind, pid=pid)]
    assert two == [(here + old, here + new, flags) for old, new, flags in ((b"s", b"l", 0), (b"a", b"b", 0x400), (b"l", b"k", 0), (b"k", b"j", 1))]
    assert [(r["path_resolved"], r["directory"]) for r in tap.records("unlink", pid=pid)] == [(here + b"s", 0), (here + b"j", 0), (here + b"m", 1)]
