"""Files of other mount namespaces, real ones, and what those who made them may have put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infrasight.node.names import inside as module
from infrasight.node.names.inside import ENTRIES_MAX, FILE_BYTES_MAX, File, Inside, look
from infrasight.node.processes import mount_namespace
from tests.node.names.mounted import MAPPED_USER, inside, root

pytestmark = pytest.mark.needs("root", "busybox")
SECRET = b"secret-of-the-host:x:7:7::/:\n"


def seen(pid: int, before: Inside | None = None) -> Inside:
    return look(pid, mount_namespace(pid), before)


def test_names_of_a_namespace(tmp_path: Path) -> None:
    there = root(tmp_path / "root", b"admin:x:0:0::/:\nweb:x:33:33::/:\n", b"wheel:x:0:\n")
    with inside(there) as pid:
        found = seen(pid)
        assert found == seen(pid, found)
    assert [found.user(uid) for uid in (0, 33, 34)] == [b"admin", b"web", b"34"]
    assert [found.group(gid) for gid in (0, 33)] == [b"wheel", b"33"]
    above = os.stat("/proc/self/root")
    assert (found.root, found.above) == ((there.stat().st_dev, there.stat().st_ino), (above.st_dev, above.st_ino))


def test_without_files(tmp_path: Path) -> None:
    with inside(root(tmp_path / "root", None, None)) as pid:
        found = seen(pid)
    assert (found.user(0), found.group(5), found.weight) == (b"0", b"5", 1)


def test_ids_of_a_user_namespace(tmp_path: Path) -> None:
    """Events have the host's; the name is that of the id that it is inside."""
    there = root(tmp_path / "root", b"admin:x:0:0::/:\nweb:x:33:33::/:\n", b"wheel:x:0:\n")
    with inside(there, *MAPPED_USER) as pid:
        found = seen(pid)
    assert [found.user(uid) for uid in (0, 100_033, 100_034, 33, 101_000)] == [b"admin", b"web", b"100034", b"33", b"101000"]
    assert [found.group(gid) for gid in (0, 100_000)] == [b"wheel", b"100000"]


@pytest.mark.parametrize("target", ["{}/secret", "../../../../../../../../..{}/secret", "/proc/1/root{}/secret", "/proc/self/root{}/secret"])
def test_a_link_does_not_lead_out(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    there = root(tmp_path / "root", None)
    (there / "etc/passwd").symlink_to(target.format(tmp_path))
    with inside(there) as pid:
        assert seen(pid).user(7) == b"7"


def test_a_directory_that_is_a_link_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/passwd").write_bytes(SECRET)
    there = root(tmp_path / "root", None, None)
    (there / "etc").rmdir()
    (there / "etc").symlink_to(tmp_path / "outside")
    with inside(there) as pid:
        assert seen(pid).user(7) == b"7"


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    """Absolute ones start from the root there."""
    there = root(tmp_path / "root", None)
    (there / "var").mkdir()
    (there / "var/users").write_bytes(b"linked:x:7:7::/:\n")
    (there / "etc/passwd").symlink_to("/var/users")
    with inside(there) as pid:
        assert seen(pid).user(7) == b"linked"


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "socket"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    there = root(tmp_path / "root", None)
    place = there / "etc/passwd"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        os.mknod(place, 0o20666, os.makedev(1, 5))
    elif kind == "socket":
        os.mknod(place, 0o140666)
    else:
        place.mkdir()
    with inside(there) as pid:
        assert seen(pid).user(7) == b"7"


def test_a_large_file_is_read_in_part(tmp_path: Path) -> None:
    there = root(tmp_path / "root", b"first:x:1:1::/:\n" + b"#" * 100 + b"\n")
    with (there / "etc/passwd").open("r+b") as file:
        file.truncate(100 << 20)
    with inside(there) as pid:
        found = seen(pid)
    assert (found.user(1), found.weight) == (b"first", 2)


def test_a_file_of_a_million_lines(tmp_path: Path) -> None:
    lines = b"".join(b"u%d:x:%d:\n" % (number, number) for number in range(1_000_000))
    with inside(root(tmp_path / "root", lines)) as pid:
        found = seen(pid)
    assert found.user(0) == b"u0"
    assert found.user(999_999) == b"999999"
    assert found.weight == 1 + ENTRIES_MAX


def test_a_line_that_is_cut_is_none(tmp_path: Path) -> None:
    """Of `10000` the beginning would be another's number."""
    head = b"#" * (FILE_BYTES_MAX - len("\ncut:x:10")) + b"\ncut:x:10000:\n"
    with inside(root(tmp_path / "root", head)) as pid:
        assert seen(pid).weight == 1


def test_rubbish(tmp_path: Path) -> None:
    content = bytes(range(256)) * 200 + b"\nx" + b"y" * 500 + b":x:5:\n:x:6:\n123:x:7:\nodd\x1b[31m\0:x:8:\n-:x:99999999999:\n"
    with inside(root(tmp_path / "root", content)) as pid:
        found = seen(pid)
    assert [found.user(uid) for uid in (5, 6, 7, 8)] == [b"x" + b"y" * 63, b"6", b"7", b"odd\x1b[31m\0"]


def test_a_file_that_has_not_changed_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = root(tmp_path / "root", b"one:x:1:\n", b"")
    with inside(there) as pid:
        found = seen(pid)
        read: list[str] = []
        content = module._content
        monkeypatch.setattr(module, "_content", lambda path: read.append(path) or content(path))
        assert seen(pid, found) == found
        assert read == []
        (there / "etc/passwd").write_bytes(b"other:x:1:\n")
        assert seen(pid, found).user(1) == b"other"
        assert len(read) == 1
        (there / "etc/passwd").unlink()
        assert seen(pid, found).users == File()


def test_who_is_gone_or_elsewhere(tmp_path: Path) -> None:
    with inside(root(tmp_path / "root")) as pid:
        namespace = mount_namespace(pid)
        with pytest.raises(ProcessLookupError):
            look(os.getpid(), namespace)
    with pytest.raises(OSError, match="No such"):
        look(pid, namespace)
    assert mount_namespace(pid) == 0
