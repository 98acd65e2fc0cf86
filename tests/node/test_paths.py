"""Paths, against what Python's own functions make of them."""

import os
import posixpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrasight.node.paths import CUT, WHOLE, all_plain, in_order, joined, resolved, terminal
from tests.node.records import names

NAME = st.sampled_from([b"a", b"etc", b"..", b".", b"", b"...", b"....", b"..a", b" ", b"\xff\xfe", b"new\nline", b"\x1b[31m", b"x" * 255])
RELATIVE = st.lists(NAME, max_size=8).map(b"/".join).filter(lambda path: path[:1] != b"/")
ABSOLUTE = st.lists(NAME, max_size=8).map(lambda parts: b"/" + b"/".join(parts))
REAL = st.lists(NAME.filter(lambda name: name.strip(b".") or len(name) > 2), max_size=8).map(lambda parts: b"/" + b"/".join(filter(None, parts)))
"""As the kernel tells of files: no empty name, no `.` and `..`."""
quick = settings(max_examples=300, deadline=None)


def normal(path: bytes) -> bytes:
    """Two slashes at the beginning are for POSIX a thing of its own, for Linux not."""
    return b"/" + posixpath.normpath(path).lstrip(b"/")


@quick
@given(REAL)
def test_names_are_put_in_order(path: bytes) -> None:
    assert in_order(names(path)) == path


def test_nothing_and_the_root() -> None:
    assert (in_order(b""), in_order(b"\0"), in_order(b"a\0")) == (b"", b"/", b"/a")


@quick
@given(REAL, RELATIVE)
def test_a_path_from_a_directory(base: bytes, path: bytes) -> None:
    assert joined(base, path) == normal(posixpath.join(base, path))


@quick
@given(ABSOLUTE)
def test_an_absolute_path(path: bytes) -> None:
    assert joined(b"", path) == normal(path)


@quick
@given(REAL, ABSOLUTE)
def test_an_absolute_path_from_another_root(root: bytes, path: bytes) -> None:
    """In a chroot, out of which no `..` leads."""
    assert joined(root, path) == ((root if root != b"/" else b"") + normal(path).rstrip(b"/") or b"/")
    assert joined(b"..." + root, path) == b"..." + joined(root, path)


@quick
@given(st.lists(ABSOLUTE | RELATIVE, max_size=6))
def test_a_look_at_all_paths_at_once(paths: list[bytes]) -> None:
    """It may take plain ones for others, never the other way round."""
    if all_plain(paths):
        assert all(path == normal(path) for path in paths)
    assert all_plain([b"/a", b"/etc/passwd", b"/\xff"])


@quick
@given(RELATIVE)
def test_from_nowhere_known(path: bytes) -> None:
    assert joined(b"", path) == b""


@quick
@given(REAL.filter(lambda path: path != b"/"), RELATIVE)
def test_from_a_directory_of_which_the_beginning_is_missing(base: bytes, path: bytes) -> None:
    """It says so; what `..` takes away beyond what is known is gone."""
    assert joined(b"..." + base, path) == b"..." + normal(posixpath.join(base, path))


@pytest.mark.parametrize(
    ("path", "where", "flags", "expected"),
    [
        (b"../link", b"/real/file", WHOLE, b"/real/file"),
        (b"", b"/real/file", WHOLE, b"/real/file"),
        (b"gone", b"", WHOLE, b""),
        (b"/x", b"/deep/file", WHOLE | CUT, b".../deep/file"),
        (b"../absent", b"/home/me", 0, b"/home/absent"),
        (b"/a/../../b", b"", 0, b"/b"),
        (b"absent", b"", 0, b""),
        (b"", b"", 0, b""),
        (b"", b"/home/me", 0, b"/home/me"),
        (b"absent", b"/deep/dir", CUT, b".../deep/dir/absent"),
        (b"/absolute", b"", CUT, b"/absolute"),
        (b"/tmp/.../hidden", b"", 0, b"/tmp/.../hidden"),
        (b".../hidden", b"/tmp", 0, b"/tmp/.../hidden"),
    ],
)
def test_where_a_path_leads(path: bytes, where: bytes, flags: int, expected: bytes) -> None:
    assert resolved(path, names(where) if where else b"", flags) == expected


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ((0, 0), b""),
        ((136, 0), b"pts/0"),
        ((136, 1_000_000), b"pts/1000000"),
        ((4, 1), b"tty1"),
        ((4, 63), b"tty63"),
        ((4, 64), b"ttyS0"),
        ((4, 67), b"ttyS3"),
        ((5, 1), b"console"),
        ((229, 7), b"229:7"),
    ],
)
def test_terminals(numbers: tuple[int, int], name: bytes) -> None:
    assert terminal(numbers[0] << 20 | numbers[1]) == name


def test_the_terminals_of_this_machine_are_called_so() -> None:
    """Every terminal that /dev has under a usual name."""
    seen = 0
    for folder, prefix in (("/dev", ""), ("/dev/pts", "pts/")):
        for entry in os.scandir(folder) if os.path.isdir(folder) else []:
            usual = entry.name.isdigit() if prefix else entry.name.removeprefix("tty").removeprefix("S").isdigit() and entry.name.startswith("tty")
            if usual and (device := os.stat(entry.path).st_rdev):
                assert terminal(os.major(device) << 20 | os.minor(device)) == f"{prefix}{entry.name}".encode()
                seen += 1
    assert seen or not os.path.exists("/dev/ttyS0")
