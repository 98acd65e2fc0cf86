"""Where the trees of cgroups are mounted, by files made by hand and on this machine."""

from pathlib import Path

import pytest

from infrasight.node.containers import hierarchy as module
from infrasight.node.containers.hierarchy import Hierarchy, hierarchies

PIDS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\npids\t8\t1\t1\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "mounts", tmp_path / "cgroups"


def found(files: tuple[Path, Path], mounts: str, controllers: str = PIDS) -> list[Hierarchy]:
    files[0].write_text(mounts)
    files[1].write_text(controllers)
    return hierarchies(*files)


def test_v1_and_v2_and_both(files: tuple[Path, Path]) -> None:
    pids, other = "cgroup /c/pids cgroup rw,relatime,pids 0 0\n", "cgroup /c/cpu cgroup rw,cpu 0 0\ncgroup /c/s cgroup rw,name=pids 0 0\n"
    unified = "cgroup2 /c/uni\\040fied cgroup2 rw,nosuid 0 0\n"
    v1, v2 = Hierarchy(Path("/c/pids"), 8), Hierarchy(Path("/c/uni fied"))
    assert found(files, "tmpfs /run tmpfs rw 0 0\n\nbroken\n") == []
    assert found(files, other) == []
    assert found(files, other + pids + unified) == [v2, v1]
    assert found(files, unified) == [v2]
    assert found(files, pids + other) == [v1]
    assert found(files, pids, "") == [Hierarchy(Path("/c/pids"))]


def test_of_several_mounts_the_one_that_shows_all(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container has its own cgroup for the root of its mount, and the host's perhaps elsewhere."""
    part, whole = tmp_path / "part", tmp_path / "whole"
    part.mkdir()
    whole.mkdir()
    monkeypatch.setattr(module, "_ROOT", whole.stat().st_ino)
    lines = [f"cgroup2 {place} cgroup2 rw 0 0\n" for place in ("/nowhere", part, whole)]
    assert found(files, "".join(lines)) == [Hierarchy(whole)]
    assert found(files, lines[1]) == [Hierarchy(part)]


def test_a_tree(tmp_path: Path) -> None:
    (tmp_path / "a/b\n").mkdir(parents=True)
    (tmp_path / "a/cgroup.procs").touch()
    (tmp_path / "link").symlink_to("a")
    inodes = {b"/": tmp_path.stat().st_ino, b"/a": (tmp_path / "a").stat().st_ino, b"/a/b\n": (tmp_path / "a/b\n").stat().st_ino}
    assert list(Hierarchy(tmp_path).cgroups()) == [(inode, path) for path, inode in inodes.items()]
    assert list(Hierarchy(tmp_path, 3).cgroups()) == [(3 << 48 | inode, path) for path, inode in inodes.items()]


@pytest.mark.needs("cgroup2")
def test_this_machine() -> None:
    first = hierarchies()[0]
    assert first.number == 0
    assert (first.top / "cgroup.procs").exists()
    assert first.top.stat().st_ino == module._ROOT
