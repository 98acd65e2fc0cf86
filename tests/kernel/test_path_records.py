"""Where paths led, as records of open, chmod and execve tell it, against what the kernel says of the same files in /proc."""

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.calls import AT_FDCWD, call, in_a_child
from tests.kernel.tap import Interval, Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
_libc = ctypes.CDLL(None, use_errno=True)
O_TMPFILE = 0o20200000
DELETED = b" (deleted)"


def opened(tap: Tap, path: bytes, flags: int = os.O_RDONLY, dirfd: int = AT_FDCWD) -> tuple[Record, bytes]:
    """The record of an open that succeeds, and what /proc calls the file."""
    with Interval() as interval:
        fd = call("openat", dirfd, path, flags, 0o600)
    assert fd >= 0, fd
    led = os.readlink(b"/proc/self/fd/%d" % fd)
    os.close(fd)
    (record,) = [each for each in tap.records("open", pid=os.getpid(), path=path, dirfd=dirfd) if interval.holds(each)]
    assert (record["ret"], record["path_whole"] & 1) == (fd, 1)
    return record, led


@contextmanager
def inside(path: bytes | Path) -> Iterator[None]:
    """It is the working directory meanwhile."""
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def tree(tmp_path: Path) -> bytes:
    """`a/b/f`, and links to it in several ways."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").touch()
    (tmp_path / "to_a").symlink_to("a")
    (tmp_path / "to_f").symlink_to("to_a/b/../b/f")
    (tmp_path / "hard").hardlink_to(tmp_path / "a" / "b" / "f")
    return bytes(tmp_path)


@pytest.mark.parametrize(
    "given", [b"a/b/f", b"to_f", b"to_a/b/f", b"to_a/../hard", b"a/./b//f", b"a/b/../../to_f", b"to_a/b", b".", b"a/..", b"../", b"hard"]
)
def test_through_links_and_dots(tap: Tap, tree: bytes, given: bytes) -> None:
    """From the working directory, a descriptor, and absolute: three opens."""
    directory = os.open(tree, os.O_RDONLY)
    with inside(tree):
        ways = [opened(tap, given), opened(tap, given, dirfd=directory), opened(tap, tree + b"/" + given)]
    os.close(directory)
    led = os.path.realpath(tree + b"/" + given)
    assert [(record["path_resolved"], said) for record, said in ways] == [(led, led)] * 3


@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 38, 39, 40, 41, 47, 48, 62, 63, 64, 94, 95, 96, 254, 255])
def test_names_of_any_length(tap: Tap, tmp_path: Path, length: int) -> None:
    """Short names lie inside their directory entry, long ones elsewhere: as a file, and as a directory above it."""
    name = b"n" * length
    here = bytes(tmp_path) + b"/" + name
    record, led = opened(tap, here, os.O_CREAT | os.O_WRONLY)
    assert record["path_resolved"] == led == here
    os.unlink(here)
    os.mkdir(here)
    for file in (b"f", b"f" * 40, b"f" * 255):
        record, led = opened(tap, here + b"/" + file, os.O_CREAT | os.O_WRONLY)
        assert record["path_resolved"] == led == here + b"/" + file


@pytest.mark.parametrize("long", [7, 15, 39, 60])
def test_the_short_record_is_used_up_to_its_end(tap: Tap, long: int) -> None:
    """Paths of any length around what a short record has room for, in steps of one byte, ending in the name of a top directory."""
    top = b"/" + b"t" * long
    os.mkdir(top)
    try:
        for length in range(max(40, long + 1), 100):
            given = top + b"/" + b"x" * (length - long)
            record, led = opened(tap, given, os.O_CREAT | os.O_WRONLY)
            os.unlink(given)
            assert record["path_resolved"] == led == given
            if long <= 15 and len(given) <= 72:
                assert record["layout"] == "open"
    finally:
        os.rmdir(top)


@pytest.mark.parametrize("parts", [(9, 200, 170), (9, 9, 180, 180), (1, 255, 125), (20,) * 18])
def test_the_medium_record_is_used_up_to_its_end(tap: Tap, tmp_path: Path, parts: tuple[int, ...]) -> None:
    """The same around what a medium one has room for."""
    with inside(tmp_path):
        directory = bytes(tmp_path) + b"".join(b"/" + b"m" * part for part in parts)
        os.makedirs(directory)
        found = set()
        for length in range(len(directory) + 2, 540):
            given = directory + b"/" + b"x" * (length - len(directory) - 1)
            record, led = opened(tap, given, os.O_CREAT | os.O_WRONLY)
            os.unlink(given)
            assert record["path_resolved"] == led == given
            found.add(record["layout"])
        assert found == {"open_medium", "open_long"}


@pytest.mark.parametrize("depth", [20, 24, 25, 60, 100, 119])
@pytest.mark.parametrize("name", [b"d", b"d" * 16])
def test_deep(tap: Tap, tmp_path: Path, depth: int, name: bytes) -> None:
    with inside(tmp_path):
        here = bytes(tmp_path) + (b"/" + name) * depth
        os.makedirs(here)
        record, led = opened(tap, here)
    assert record["path_resolved"] == led == here


@contextmanager
def deep(tap: Tap, top: Path, depth: int) -> Iterator[bytes]:
    """Directories in directories below `top`, the last of them the working directory. Their small ring is emptied meanwhile."""
    with inside(top):
        for step in range(depth):
            os.mkdir("d")
            os.chdir("d")
            step % 32 or tap.records("mkdir", path=b"")
        try:
            yield bytes(top) + b"/d" * depth
        finally:  # or Python, which goes down recursively, could not remove it
            for step in range(depth):
                os.chdir("..")
                os.rmdir("d")
                step % 32 or tap.records("unlink", path=b"")


@pytest.mark.parametrize("depth", [129, 200, 1000])
def test_deeper_than_is_looked_at(tap: Tap, tmp_path: Path, depth: int) -> None:
    """The nearest 128 names are told, and that there are more."""
    with deep(tap, tmp_path, depth) as here:
        record, led = opened(tap, here)
        assert led == here
        assert record["path_resolved"] == b"..." + b"/d" * 128
        assert call("openat", AT_FDCWD, b"../no", 0) == -errno.ENOENT
        record = tap.records("open", pid=os.getpid(), path=b"../no")[-1]
        assert record["path_resolved"] == b"..." + b"/d" * 127 + b"/no"


@pytest.mark.parametrize("total", [3839, 3840, 3841, 4055, 4056, 4057, 4090, 4093, 4094, 4095])
@pytest.mark.parametrize("name", [255, 100, 39])
def test_very_long(tap: Tap, tmp_path: Path, total: int, name: int) -> None:
    """Up to the longest path that /proc can tell; made and opened relative, since such a path cannot be given."""
    here = bytes(tmp_path)
    with inside(tmp_path):
        while total - len(here) > name + 2:
            part = b"p" * (name if total - len(here) - name - 1 >= 2 else name - 2)
            os.mkdir(part)
            os.chdir(part)
            here += b"/" + part
        file = b"f" * (total - len(here) - 1)
        record, led = opened(tap, file, os.O_CREAT | os.O_WRONLY)
        assert len(here) + 1 + len(file) == total
    if total < 4095:
        assert led == here + b"/" + file
    assert record["path_resolved"] == here + b"/" + file


def test_a_path_of_4095_bytes_as_given(tap: Tap, tree: bytes) -> None:
    given = (tree + b"/" + b"a/../" * 1000)[: 4095 - 6]
    given = given[: given.rindex(b"../") + 3]
    given += b"/" * (4095 - len(given) - 5) + b"a/b/f"
    record, led = opened(tap, given)
    assert (len(record["path"]), record["path_resolved"], led) == (4095, tree + b"/a/b/f", tree + b"/a/b/f")


def test_odd_names(tap: Tap, tmp_path: Path) -> None:
    for name in (b"...", b"\xff\xfe", b"a\nb", b"\x1b]0;x\x07", b" ", b"....", b"..a"):
        record, led = opened(tap, bytes(tmp_path) + b"/" + name, os.O_CREAT | os.O_WRONLY)
        assert record["path_resolved"] == led == bytes(tmp_path) + b"/" + name


def test_roots_of_file_systems(tap: Tap) -> None:
    for given in (b"/", b"/..", b"/proc/self/root", b"/proc/../", b"/proc", b"/sys/kernel", b"/dev/null"):
        record, led = opened(tap, given)
        assert record["path_resolved"] == led


def test_a_deleted_file_and_a_deleted_directory(tap: Tap, tree: bytes) -> None:
    file = os.open(tree + b"/a/b/f", os.O_RDONLY)
    os.unlink(tree + b"/a/b/f")
    record, led = opened(tap, b"/proc/self/fd/%d" % file)
    assert record["path_resolved"] + DELETED == led == tree + b"/a/b/f" + DELETED
    os.close(file)
    os.mkdir(tree + b"/gone")
    with inside(tree + b"/gone"):
        os.rmdir(tree + b"/gone")
        record, led = opened(tap, b".")
    assert record["path_resolved"] + DELETED == led == tree + b"/gone" + DELETED


def test_what_lies_in_no_directory(tap: Tap, tmp_path: Path) -> None:
    """Memory is told by its name; a pipe and a namespace have none."""
    for name in ("name", "x" * 33, "x" * 34, "x" * 200):
        memory = os.memfd_create(name)
        record, led = opened(tap, b"/proc/self/fd/%d" % memory)
        assert record["path_resolved"] + DELETED == led == b"/memfd:" + name.encode() + DELETED
        os.close(memory)
    reading, writing = os.pipe()
    for given in (b"/proc/self/fd/%d" % reading, b"/proc/self/ns/net"):
        record, led = opened(tap, given)
        assert record["path_resolved"] == b""
        assert b":[" in led
    os.close(reading)
    os.close(writing)


def test_a_file_without_a_name(tap: Tap, tmp_path: Path) -> None:
    record, led = opened(tap, bytes(tmp_path), O_TMPFILE | os.O_RDWR)
    assert record["path_resolved"] + DELETED == led
    assert led.startswith(bytes(tmp_path) + b"/#")


def test_a_file_that_was_renamed(tap: Tap, tmp_path: Path) -> None:
    """Long and short names change places in the directory entries."""
    names = [b"s", b"m" * 39, b"l" * 40, b"v" * 255]
    here = bytes(tmp_path) + b"/"
    (tmp_path / "s").touch()
    held = os.open(tmp_path / "s", os.O_RDONLY)
    for before, after in zip(names, [*names[1:], b"s"], strict=True):
        os.rename(here + before, here + after)
        record, led = opened(tap, b"/proc/self/fd/%d" % held)
        assert record["path_resolved"] == led == here + after
    (tmp_path / "other").touch()
    assert call("renameat2", AT_FDCWD, here + b"s", AT_FDCWD, here + b"other", 2) == 0
    assert opened(tap, b"/proc/self/fd/%d" % held)[0]["path_resolved"] == here + b"other"
    os.close(held)


def test_failed_opens_are_resolved_by_name(tap: Tap, tree: bytes) -> None:
    directory, missing = os.open(tree + b"/a", os.O_RDONLY), []
    with inside(tree):
        for dirfd, given, led in [
            (AT_FDCWD, b"no", tree + b"/no"),
            (AT_FDCWD, b"../no/./x//y/..", os.path.dirname(tree) + b"/no/x"),
            (AT_FDCWD, b"../" * 50 + b"no", b"/no"),
            (directory, b"no", tree + b"/a/no"),
            (directory, b"/no/../nope", b"/nope"),
            (9999, b"no", b""),
            (9999, tree + b"/no", tree + b"/no"),
            (AT_FDCWD, b"", b""),
        ]:
            with Interval() as interval:
                assert call("openat", dirfd, given, 0) < 0
            (record,) = [each for each in tap.records("open", pid=os.getpid(), path=given, dirfd=dirfd) if interval.holds(each)]
            missing.append((record["path_resolved"], led, record["path_whole"]))
    os.close(directory)
    assert [found for found, _, _ in missing] == [led for _, led, _ in missing]
    assert {whole for _, _, whole in missing} == {0}


def test_failed_opens_in_a_root_of_their_own(tap: Tap, tree: bytes) -> None:
    """With RESOLVE_IN_ROOT a path starts from the directory that was given, however it begins, and does not lead out of it."""
    how, directory = bytes(16) + (0x10).to_bytes(8, "little"), os.open(tree + b"/a", os.O_PATH)
    top = os.open("/", os.O_PATH)
    asked = [(directory, b"/b/no"), (directory, b"../../b/./no"), (directory, b"b/../../no"), (AT_FDCWD, b"/../no"), (top, b"/no"), (9999, b"/no")]
    with inside(tree), Interval() as interval:
        returned = [call("openat2", dirfd, given, how, 24) for dirfd, given in asked]
        assert call("openat2", directory, b"/b/f", how, 24) >= 0
    *failed, found = [each for each in tap.records("open", pid=os.getpid()) if interval.holds(each)]
    assert [each["ret"] for each in failed] == returned == [-errno.ENOENT] * 5 + [-errno.EBADF]
    led = [tree + b"/a/b/no"] * 2 + [tree + b"/a/no", tree + b"/no", b"/no", b""]
    assert [each["path_resolved"] for each in failed] == led
    assert found["path_resolved"] == tree + b"/a/b/f"
    for fd in (directory, top, found["ret"]):
        os.close(fd)


CHROOTED = """
os.mkdir(root + b"/jail")
os.mkdir(root + b"/jail/in")
os.symlink("/in", root + b"/jail/link")
open(root + b"/jail/in/f", "w").close()
{before}
proc = os.open("/proc/self/fd", os.O_RDONLY)
os.chroot({jail})
os.chdir("/")
for given in (b"/in/f", b"link/f", b"in/../in/f", b"/../../in/f", b"/"):
    fd = call("openat", AT_FDCWD, given, 0)
    said.append(os.readlink(str(fd), dir_fd=proc))
for given in (b"/no", b"/../../no", b"no", b"/in/../no"):
    call("openat", AT_FDCWD, given, 0)
call("fchmodat", AT_FDCWD, b"/in/f", 0o600)
call("execve", b"/in/no", None, None)
"""


@pytest.mark.parametrize("how", ["directory", "mount", "bind mount", "mount on a mount"])
def test_in_a_chroot(tap: Tap, tmp_path: Path, how: str) -> None:
    """/proc tells paths from the root of the reader, where the file is below it; the record from that of the mount namespace."""
    jail = "jail" if how in ("directory", "mount") else "bound"
    bind = f"libc.mount(root + b'/jail', root + b'/{jail}', b'', 0x1000, None)"
    make = "" if jail == "jail" else "os.mkdir(root + b'/bound'); "
    before = "" if how == "directory" else f"namespace(); {make}{bind}" + (f"; {bind}; {bind}" if how == "mount on a mount" else "")
    pid, said = in_a_child(CHROOTED.format(before=before, jail=f"root + b'/{jail}'"), tmp_path)
    here = bytes(tmp_path / jail)
    records = [each for each in tap.records("open", pid=pid) if each["path"] in (b"/in/f", b"link/f", b"in/../in/f", b"/../../in/f", b"/")][-5:]
    assert [each["path_resolved"] for each in records] == [here + b"/in/f"] * 4 + [here]
    assert said[1:10:2] == ["/in/f"] * 4 + ["/"]
    failed = [each for each in tap.records("open", pid=pid) if each["path"].endswith(b"no")]
    assert [each["path_resolved"] for each in failed] == [here + b"/no"] * 4
    assert tap.one("chmod", pid=pid)["path_resolved"] == here + b"/in/f"
    assert tap.one("execve", pid=pid, path=b"/in/no")["path_resolved"] == here + b"/in/no"


EMPTY = 0x1000


def test_an_empty_path(tap: Tap, tree: bytes) -> None:
    """Where a call says that it may be, it stands for what it starts from: a file that is open, or the working directory."""
    file = os.open(tree + b"/a/b/f", os.O_RDONLY)
    code = f"""
namespace()
os.chdir(root + b"/a")
file = os.open(root + b"/a/b/f", os.O_RDONLY)
for start in (AT_FDCWD, rootfd):
    call("fchmodat2", start, b"", 0o755, {EMPTY})
    call("fchmodat2", start, b"b", 0o755, {EMPTY})
    call("fchmodat2", start, b"", 0o755, 0)
    call("open_tree", start, b"", {EMPTY})
    call("mount_setattr", start, b"", {EMPTY}, None, 32)
    call("fspick", start, b"", 8)
    call("move_mount", start, b"", start, b"", 0x44)
    call("linkat", start, b"", AT_FDCWD, b"no", {EMPTY})
    call("linkat", file, b"", start, b"", {EMPTY})
"""
    pid, said = in_a_child(code, Path(os.fsdecode(tree)))
    here = tree + b"/a"
    told = [
        [each["path_resolved"] for each in tap.records("chmod", pid=pid)],
        [each["target_resolved"] for each in tap.records("mount", pid=pid)][1:],
        [(each["old_path_resolved"], each["new_path_resolved"]) for each in tap.records("link", pid=pid)],
    ]
    assert told == [
        [here, here + b"/b", b"", tree, tree + b"/b", tree],
        [here] * 4 + [tree] * 4,
        [(here, here + b"/no"), (here + b"/b/f", b""), (tree, here + b"/no"), (here + b"/b/f", tree)],
    ]
    assert [said[0], said[1], said[2]] == [0, 0, -errno.ENOENT]
    os.close(file)


def test_descriptors_that_are_none(tap: Tap) -> None:
    """Whatever their number is."""
    numbers = [-1, -2, -3, -4, -5, 0x7FFFFFFF]
    with Interval() as interval:
        assert {call("fchmod", number, 0o600) for number in numbers} == {-errno.EBADF}
    records = [each for each in tap.records("chmod", pid=os.getpid()) if interval.holds(each)]
    assert [(each["fd"], each["path_resolved"]) for each in records] == [(number, b"") for number in numbers]


def test_in_another_mount_namespace(tap: Tap, tree: bytes) -> None:
    """A bind mount has paths of its own, a namespace mounts of its own."""
    code = """
namespace()
os.mkdir(root + b"/bound")
assert libc.mount(root + b"/a", root + b"/bound", b"", 0x1000, None) == 0
assert libc.mount(b"x", root + b"/bound/b", b"tmpfs", 0, None) == 0
assert libc.mount(b"x", root + b"/bound/b", b"tmpfs", 0, None) == 0
open(root + b"/bound/b/new", "w").close()
os.chdir(root + b"/bound/b")
for given in (b"new", b"..", b"../b/new", b"."):
    fd = call("openat", AT_FDCWD, given, 0)
    said.append(os.readlink("/proc/self/fd/%d" % fd))
call("fchmodat", AT_FDCWD, b"new", 0o600)
"""
    pid, said = in_a_child(code, Path(os.fsdecode(tree)))
    here = tree + b"/bound"
    records = [each for each in tap.records("open", pid=pid) if each["path"] in (b"new", b"..", b"../b/new", b".")]
    assert [each["path_resolved"] for each in records] == [here + b"/b/new", here, here + b"/b/new", here + b"/b"]
    assert [os.fsencode(str(each)) for each in said[1:8:2]] == [each["path_resolved"] for each in records]
    assert tap.one("chmod", pid=pid)["path_resolved"] == here + b"/b/new"


def test_chmod(tap: Tap, tree: bytes) -> None:
    """By descriptor it is the file; by path it starts where the path does, and links are not followed."""
    file, directory = os.open(tree + b"/to_f", os.O_RDONLY), os.open(tree + b"/a", os.O_RDONLY)
    with inside(tree), Interval() as interval:
        made = [
            (call("fchmod", file, 0o600), tree + b"/a/b/f"),
            (call("fchmodat", directory, b"b/f", 0o601), tree + b"/a/b/f"),
            (call("fchmodat", directory, b"../to_f", 0o602), tree + b"/to_f"),
            (call("fchmodat", AT_FDCWD, b"a/./b/f", 0o603), tree + b"/a/b/f"),
            (call("fchmodat", AT_FDCWD, tree + b"/to_a/../to_f", 0o604), tree + b"/to_f"),
            (call("fchmodat2", file, b"", 0o605, 0x1000), tree + b"/a/b/f"),
            (call("fchmod", 9999, 0o606), b""),
        ]
    records = [each for each in tap.records("chmod", pid=os.getpid()) if interval.holds(each)]
    assert [(each["ret"], each["path_resolved"]) for each in records] == made
    assert [ret for ret, _ in made] == [0] * 6 + [-errno.EBADF]
    os.close(file)
    os.close(directory)


def test_the_working_directory_of_a_thread(tap: Tap, tree: bytes) -> None:
    """Relative after chdir, in a child that was moved since."""
    code = "import os, sys; os.chdir(sys.argv[1]); os.rename(sys.argv[1], sys.argv[2]); os.open('b/f', 0); os.chdir('b'); os.open('f', 0)"
    child = subprocess.Popen([sys.executable, "-S", "-c", code, tree + b"/a", tree + b"/moved"])
    assert child.wait() == 0
    records = tap.records("open", pid=child.pid)[-2:]
    assert [each["path_resolved"] for each in records] == [tree + b"/moved/b/f"] * 2
