"""Records of execs, made by the running kernel, against what was executed."""

import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests import workloads
from tests.kernel.calls import AT_FDCWD, failing_execve, in_a_child, me, start_ticks
from tests.kernel.conftest import PageOnDisk
from tests.kernel.tap import Interval, Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
TRUE = "/bin/true"
ABSENT = b"/nonexistent/program"
SIZES = [4094, 4095, 4096, 4097, 4098, 10_000]


def execute(*argv: str | bytes, program: str = TRUE, **more: object) -> subprocess.Popen[bytes]:
    """Run to the end."""
    child = subprocess.Popen(argv, executable=program, stdout=subprocess.DEVNULL, **more)  # type: ignore[call-overload]  # any options
    assert child.wait() == 0
    return child


def arguments(size: int) -> list[bytes]:
    """Three arguments that take so many bytes, NULs included."""
    return [b"one", b"two", b"x" * (size - len(b"one\0two\0\0"))]


def expected(argv: list[bytes]) -> tuple[list[bytes], bool]:
    """What is kept of it, and whether it was cut."""
    whole = b"".join(word + b"\0" for word in argv)
    return (argv, False) if len(whole) <= 4096 else (whole[:4096].removesuffix(b"\0").split(b"\0"), True)


def kept(record: Record) -> tuple[list[bytes], bool]:
    return record["argv"], bool(record["argv_truncated"])


def test_every_field_of_a_success(tap: Tap) -> None:
    with Interval() as interval:
        child = subprocess.Popen(["anything", "a b", "", "é"], executable="/bin/cat", stdin=subprocess.PIPE, cwd="/")
        ticks, cgroup = start_ticks(child.pid), me()["cgroup_id"]
        child.communicate()
    record = tap.one("execve", pid=child.pid)
    head = {"pid": child.pid, "tid": child.pid, "ppid": os.getpid(), "uid": 0, "gid": 0, "ns_pid": child.pid, "comm": b"cat", "ret": 0}
    assert {key: record[key] for key in head} == head
    assert (record["path"], *kept(record)) == (b"/bin/cat", [b"anything", b"a b", b"", "é".encode()], False)
    assert (record["start_ns"] // 10_000_000, record["cgroup_id"]) == (ticks, cgroup)
    assert interval.holds(record)


def test_every_field_of_a_failure(tap: Tap) -> None:
    with Interval() as interval:
        assert failing_execve(ABSENT, [b"this", b"fails", b""]) == -errno.ENOENT
    (record,) = [each for each in tap.records("execve", pid=os.getpid()) if interval.holds(each)]
    head = {**me(), "ret": -errno.ENOENT}
    assert {key: record[key] for key in head} == head
    assert (record["path"], *kept(record)) == (ABSENT, [b"this", b"fails", b""], False)


@pytest.mark.parametrize("size", SIZES)
def test_long_arguments_of_a_success(tap: Tap, size: int) -> None:
    argv = arguments(size)
    record = tap.one("execve", pid=execute(*argv).pid)
    assert kept(record) == expected(argv)
    assert record["layout"] == "execve_long"


@pytest.mark.parametrize("size", SIZES)
def test_long_arguments_of_a_failure(tap: Tap, size: int) -> None:
    argv, path = arguments(size), b"/nonexistent/%d" % size
    assert failing_execve(path, argv) == -errno.ENOENT
    assert kept(tap.one("execve", path=path)) == expected(argv)


@pytest.mark.parametrize(("size", "layout"), [(255, "execve"), (256, "execve"), (257, "execve_long")])
def test_the_short_record_is_used_while_it_can_be(tap: Tap, size: int, layout: str) -> None:
    argv, path = arguments(size), b"/nonexistent/short%d" % size
    assert failing_execve(path, argv) == -errno.ENOENT
    assert (tap.one("execve", path=path)["layout"], tap.one("execve", path=path)["argv"]) == (layout, argv)


@pytest.mark.parametrize(("count", "cut"), [(600, False), (2000, False), (2040, False), (3000, True)])
@pytest.mark.parametrize("word", [b"a", b""], ids=["tiny", "empty"])
def test_many_arguments(tap: Tap, count: int, cut: bool, word: bytes) -> None:
    """Of a success every one is kept that has room; of a failure at least the first two thousand."""
    path, argv = b"/nonexistent/%d%s" % (count, word), [word] * count
    assert failing_execve(path, argv) == -errno.ENOENT
    failure, success = tap.one("execve", path=path), tap.one("execve", pid=execute(*argv).pid)
    assert bool(failure["argv_truncated"]) == cut
    assert failure["argv"] == argv[: len(failure["argv"])]
    assert len(failure["argv"]) == count if not cut else len(failure["argv"]) >= 2000
    assert kept(success) == expected(argv)


@pytest.mark.parametrize(
    ("path", "argv", "error", "shown"),
    [
        (ABSENT + b"1", None, errno.ENOENT, ([], False)),
        (ABSENT + b"2", 1, errno.ENOENT, ([], True)),
        (TRUE.encode(), 1, errno.EFAULT, ([], True)),
        (b"", [b"x"], errno.ENOENT, ([b"x"], False)),
        (1, [b"x"], errno.EFAULT, ([b"x"], False)),
        (b"/" + b"d/" * 2047, [b"x"], errno.ENOENT, ([b"x"], False)),
        (b"/" + b"d/" * 3000, [b"x"], errno.ENAMETOOLONG, ([b"x"], False)),
    ],
    ids=["no argv", "bad argv", "bad argv of a good path", "empty path", "bad path", "4095 bytes", "too long"],
)
def test_odd_failures(tap: Tap, path: bytes | int, argv: list[bytes] | int | None, error: int, shown: tuple[list[bytes], bool]) -> None:
    with Interval() as interval:
        ret = failing_execve(path, argv)
    (record,) = [each for each in tap.records("execve", pid=os.getpid()) if interval.holds(each)]
    assert record["ret"] == ret == -error
    assert record["path"] == (path[:4095] if isinstance(path, bytes) else b"")
    assert kept(record) == shown


def test_an_argument_that_is_not_in_memory(tap: Tap, page_on_disk: PageOnDisk) -> None:
    """A tracer cannot read it, so it says that something is missing."""
    array = (ctypes.c_char_p * 3)(b"first", None, None)
    ctypes.c_uint64.from_address(ctypes.addressof(array) + 8).value = page_on_disk(b"second")
    assert failing_execve(b"/nonexistent/paged-out", ctypes.addressof(array)) == -errno.ENOENT
    assert kept(tap.one("execve", path=b"/nonexistent/paged-out")) == ([b"first"], True)


def test_execveat(tap: Tap, tmp_path: Path) -> None:
    assert failing_execve(b"absent", [b"at"], at=AT_FDCWD) == -errno.ENOENT
    assert kept(tap.one("execve", path=b"absent")) == ([b"at"], False)


def test_a_script_shows_its_interpreter(tap: Tap, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\nexit 0\n")
    script.chmod(0o755)
    record = tap.one("execve", pid=execute("given", "more", program=str(script)).pid)
    assert record["path"] == bytes(script)
    assert record["argv"] == [b"/bin/sh", b"-e", bytes(script), b"more"]
    assert record["comm"] == b"script"


def test_all_ways_of_executing(tap: Tap, tmp_path: Path) -> None:
    """Also: what fails is followed by nothing else, and a log line tells each call."""
    with Interval() as interval:
        said = workloads.run("execs", "--dir", tmp_path, "--count", 211, "--log", tmp_path / "log")
    log = workloads.read_log(tmp_path / "log")
    records = {each["pid"]: each for each in tap.records("execve", ppid=said["pid"])}
    assert len(records) == len(tap.records("execve", ppid=said["pid"])) == 211
    for line in log:
        record = records[line["pid"]]
        assert interval.holds(record)
        assert record["ret"] == line["ret"]
        words, cut = expected([word.encode() for word in line["argv"]])
        if record["ret"] in (-errno.ENOENT, -errno.EACCES) and record["argv"] != words:
            assert record["argv_truncated"], "the kernel did not read them, so they need not be in memory"
            assert record["argv"] == words[: len(record["argv"])]
        else:
            assert kept(record) == (words, cut)
        by_descriptor = line["kind"] == "execveat_fd"
        assert record["path_resolved" if by_descriptor else "path"] == line["path"].encode()
        assert record["path"] or by_descriptor


def test_a_thread_that_is_not_the_leader(tap: Tap, tmp_path: Path) -> None:
    """It takes over the leader's id: the record says so, and its enter time is that of the call."""
    said = workloads.run("threads", "--dir", tmp_path, "--threads", 3, "--opens", 3, "--exec")
    first, second = tap.records("execve", pid=said["pid"])
    last_open = tap.records("open", pid=said["pid"])[-1]
    assert (second["tid"], second["argv"][1:]) == (said["pid"], [b"--child", b"--from-thread"])
    assert first["enter_ns"] < last_open["enter_ns"] < second["enter_ns"]
    assert second["latency_ns"] > 10_000, "entered by the system call, not at the tracepoint"
    assert (first["start_ns"], first["ns_pid"]) == (second["start_ns"], second["ns_pid"])


def test_another_user(tap: Tap) -> None:
    child = execute("who", user=12345, group=23456, extra_groups=[])
    record = tap.one("execve", pid=child.pid)
    assert (record["uid"], record["gid"]) == (12345, 23456)
    opens = tap.records("open", pid=child.pid)
    assert {(each["uid"], each["gid"]) for each in opens} == {(12345, 23456)}


def test_a_process_in_a_pid_namespace_of_its_own(tap: Tap) -> None:
    execute("unshare", "-pf", TRUE, "inside", program="/usr/bin/unshare")
    record = tap.one("execve", argv=[TRUE.encode(), b"inside"])
    assert (record["ns_pid"], record["pid"] > 1, record["tid"]) == (1, True, record["pid"])
    assert {each["ns_pid"] for each in tap.records("process", pid=record["pid"])} == {1}


@pytest.mark.needs("cgroup2")
def test_a_process_in_a_cgroup_of_its_own(tap: Tap, own_cgroup: Path) -> None:
    child = execute("sh", "-c", f"echo $$ > {own_cgroup}/cgroup.procs; exec {TRUE}", program="/bin/sh")
    before, after = tap.records("execve", pid=child.pid)
    assert (before["cgroup_id"], after["cgroup_id"]) == (me()["cgroup_id"], own_cgroup.stat().st_ino)
    assert before["cgroup_id"] != after["cgroup_id"]


RUN = """
def run(*arguments):
    child = os.fork()
    if not child:
        syscall(*arguments)
        os._exit(1)
    said.append(child)
    assert os.waitpid(child, 0)[1] == 0
def argv(*words):
    array = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    keep.append(array)
    return ctypes.addressof(array)
keep = []
"""


def executed(tap: Tap, code: str, root: Path) -> list[tuple[bytes, int, int]]:
    """Where each program that `code` runs was, whether it is in memory only, and whether on an upper layer."""
    _, pids = in_a_child(RUN + code, root)
    records = [tap.one("execve", pid=pid) for pid in pids]
    assert all(record["ret"] == 0 and record["path_whole"] & 1 for record in records)
    return [(record["path_resolved"], record["exe_memfd"], record["exe_upper"]) for record in records]


def test_where_the_program_is(tap: Tap, tmp_path: Path) -> None:
    """However it was asked for, and wherever that starts."""
    true = Path(TRUE).resolve()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "program").write_bytes(true.read_bytes())
    (tmp_path / "a" / "program").chmod(0o755)
    (tmp_path / "to").symlink_to("a/program")
    code = """
os.chdir(root + b"/a")
run("execve", root + b"/to", argv(b"x"), None)
run("execve", b"program", argv(b"x"), None)
run("execve", b"../a/./program", argv(b"x"), None)
run("execveat", rootfd, b"to", argv(b"x"), None, 0)
run("execveat", rootfd, b"a/program", argv(b"x"), None, 0x100)
run("execveat", os.open(root + b"/to", os.O_RDONLY), b"", argv(b"x"), None, 0x1000)
run("execve", b"/bin/true", argv(b"x"), None)
"""
    here = bytes(tmp_path / "a" / "program")
    assert executed(tap, code, tmp_path) == [(here, 0, 0)] * 6 + [(bytes(true), 0, 0)]


@pytest.mark.parametrize("name", [b"", b"kworker", b"n" * 200])
def test_a_program_in_memory(tap: Tap, tmp_path: Path, name: bytes) -> None:
    """And a file of a tmpfs that is called as if it were, which is none."""
    (tmp_path / "disk").mkdir()
    code = f"""
namespace()
libc.mount(b"x", root + b"/disk", b"tmpfs", 0, None)
memory = os.memfd_create({os.fsdecode(name)!r})
program = open("/bin/true", "rb").read()
os.write(memory, program)
run("execveat", memory, b"", argv(b"x"), None, 0x1000)
run("execve", b"/proc/self/fd/%d" % memory, argv(b"x"), None)
for file in (b"memfd:x", b"other"):
    fd = os.open(root + b"/disk/" + file, os.O_WRONLY | os.O_CREAT, 0o755)
    os.write(fd, program)
    os.close(fd)
    run("execve", root + b"/disk/" + file, argv(b"x"), None)
"""
    disk = bytes(tmp_path / "disk")
    expected = [(b"/memfd:" + name, 1, 0)] * 2 + [(disk + b"/memfd:x", 0, 0), (disk + b"/other", 0, 0)]
    assert executed(tap, code, tmp_path) == expected


def test_a_program_on_an_overlay(tap: Tap, tmp_path: Path) -> None:
    """That of the image is on the lower layer; what was added, or copied up by a change, is on the upper one."""
    code = """
namespace()
program = open("/bin/true", "rb").read()
disk = root + b"/disk"
os.mkdir(disk)
assert libc.mount(b"x", disk, b"tmpfs", 0, None) == 0
for each in (b"lower", b"upper", b"work", b"all"):
    os.mkdir(disk + b"/" + each)
def put(path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o755)
    os.write(fd, program)
    os.close(fd)
put(disk + b"/lower/image")
put(disk + b"/lower/changed")
put(disk + b"/upper/before")
options = b"lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work" % (disk, disk, disk)
assert libc.mount(b"x", disk + b"/all", b"overlay", 0, options) == 0, ctypes.get_errno()
put(disk + b"/all/added")
run("execve", disk + b"/all/changed", argv(b"x"), None)
os.chmod(disk + b"/all/changed", 0o700)
for file in (b"image", b"changed", b"before", b"added"):
    run("execve", disk + b"/all/" + file, argv(b"x"), None)
run("execve", disk + b"/upper/added", argv(b"x"), None)
"""
    every = bytes(tmp_path / "disk" / "all")
    upper = bytes(tmp_path / "disk" / "upper" / "added")
    names = [(b"changed", 0), (b"image", 0), (b"changed", 1), (b"before", 1), (b"added", 1)]
    assert executed(tap, code, tmp_path) == [(every + b"/" + name, 0, up) for name, up in names] + [(upper, 0, 0)]


def test_where_a_script_is(tap: Tap, tmp_path: Path) -> None:
    """The kernel has only the interpreter open then, so a script is where its name leads."""
    script = tmp_path / "script"
    script.write_text("#!/bin/true\n")
    script.chmod(0o755)
    (tmp_path / "jail" / "bin").mkdir(parents=True)
    code = """
os.chdir(root)
run("execve", root + b"/./script", argv(b"x"), None)
run("execve", b"script", argv(b"x"), None)
run("execve", b"jail/../script", argv(b"x"), None)
"""
    _, pids = in_a_child(RUN + code, tmp_path)
    records = [tap.one("execve", pid=pid) for pid in pids]
    assert [(record["path_resolved"], record["path_whole"], record["argv"][0]) for record in records] == [(bytes(script), 0, b"/bin/true")] * 3


def test_a_script_by_descriptor(tap: Tap, tmp_path: Path) -> None:
    """A name that the kernel makes up, /dev/fd/N, hides nothing: neither what was asked for nor where that is."""
    (tmp_path / "sub").mkdir()
    script = tmp_path / "sub" / "script"
    script.write_text("#!/bin/true\n")
    script.chmod(0o755)
    (tmp_path / "sub" / "link").symlink_to("script")
    (tmp_path / "sub" / "program").write_bytes(Path(TRUE).resolve().read_bytes())
    (tmp_path / "sub" / "program").chmod(0o755)
    code = """
def shared(path):
    fd = os.open(path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    return fd
sub = shared(root + b"/sub")
said.append(sub)
run("execveat", sub, b"script", argv(b"x"), None, 0)
run("execveat", sub, b"../sub//link", argv(b"x"), None, 0)
run("execveat", shared(root + b"/sub/script"), b"", argv(b"x"), None, 0x1000)
run("execveat", sub, b"program", argv(b"x"), None, 0)
run("execve", b"/dev/fd/%d/script" % sub, argv(b"x"), None)
"""
    _, (sub, *pids) = in_a_child(RUN + code, tmp_path)
    records = [tap.one("execve", pid=pid) for pid in pids]
    here = bytes(tmp_path / "sub")
    assert [(record["path"], record["path_resolved"]) for record in records] == [
        (b"script", here + b"/script"),
        (b"../sub//link", here + b"/link"),
        (b"", here + b"/script"),
        (b"program", here + b"/program"),
        (b"/dev/fd/%d/script" % sub, b"/dev/fd/%d/script" % sub),
    ]


def test_a_program_far_down(tap: Tap, tmp_path: Path) -> None:
    """Of one that is deeper than is looked at, the record says that there is more above."""
    code = """
os.chdir(root)
for _ in range(150):
    os.mkdir(b"d")
    os.chdir(b"d")
with open("program", "wb") as file:
    file.write(open("/bin/true", "rb").read())
os.chmod("program", 0o755)
run("execve", b"program", argv(b"x"), None)
call("execve", b"absent", None, None)
os.unlink("program")
for _ in range(150):
    os.chdir(b"..")
    os.rmdir(b"d")
"""
    pid, (ran, _) = in_a_child(RUN + code, tmp_path)
    found = tap.one("execve", pid=ran), tap.one("execve", pid=pid, path=b"absent")
    assert [record["path_resolved"].replace(b"/d", b"") for record in found] == [b".../program", b".../absent"]


def test_where_a_program_was_looked_for(tap: Tap, tmp_path: Path) -> None:
    """Of one that was not executed."""
    code = """
os.chdir(root)
call("execve", b"absent-1", None, None)
call("execveat", rootfd, b"./x/../absent-2", None, None, 0)
call("execveat", AT_FDCWD, root + b"/absent-3", None, None, 0)
call("execve", b"../" * 99 + b"absent-4", None, None)
call("execveat", AT_FDCWD, b"", None, None, 0x1000)
call("execveat", AT_FDCWD, b"", None, None, 0)
"""
    pid, said = in_a_child(code, tmp_path)
    here = bytes(tmp_path)
    assert said == [-errno.ENOENT] * 4 + [-errno.EACCES, -errno.ENOENT]
    found = [each["path_resolved"] for each in tap.records("execve", pid=pid, ret={-errno.ENOENT, -errno.EACCES})]
    assert found == [here + b"/absent-1", here + b"/absent-2", here + b"/absent-3", b"/absent-4", here, b""]
