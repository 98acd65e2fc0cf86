"""The table of cgroups: what the kernel told of, over what was there before."""

import os
from pathlib import Path

import pytest

from infrasight.node.containers.cgroups import REMOVED_KEPT_NS, Cgroups
from infrasight.node.containers.containment import NOWHERE, Container
from infrasight.node.containers.hierarchy import Hierarchy
from infrasight.schema.events.process import CGROUP, CGROUP_GONE
from tests.node.records import cgroup, together

A, B = "a1" * 32, "0b" * 32


def docker(id: str) -> Container:
    return Container(id.encode(), b"docker")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What stands for a mounted hierarchy; ids are inodes there as well."""
    (tmp_path / f"docker/{A}/inside").mkdir(parents=True)
    (tmp_path / "system.slice").mkdir()
    (tmp_path / f"docker/{A}/cgroup.procs").touch()
    return tmp_path


def told(*records: tuple[int, int, str], most: int = 100) -> Cgroups:
    """What is known after these: action, id, path."""
    table = Cgroups(list, most)
    table.apply(together(*(cgroup(action, id, path.encode()) for action, id, path in records)))
    return table


def test_a_cgroup_is_known_once_it_is_told_of() -> None:
    table = told((CGROUP, 7, f"/docker/{A}"), (CGROUP, 8, f"/docker/{A}/x"), (CGROUP, 9, "/system.slice"))
    assert [table.find(id) for id in (7, 8, 9, 10)] == [docker(A), docker(A), NOWHERE, NOWHERE]
    assert (table.hits, table.misses, table.evictions, len(table)) == (3, 1, 0, 3)


def test_what_was_there_before(tree: Path) -> None:
    table = Cgroups(lambda: [Hierarchy(tree)])
    table.prime()
    places = [tree, tree / "docker", tree / f"docker/{A}", tree / f"docker/{A}/inside", tree / "system.slice"]
    assert [table.find(place.stat().st_ino) for place in places] == [NOWHERE, NOWHERE, docker(A), docker(A), NOWHERE]
    assert (table.hits, table.misses, len(table)) == (5, 0, 5)


def test_hierarchies_number_cgroups_each_for_itself(tree: Path) -> None:
    table = Cgroups(lambda: [Hierarchy(tree / "system.slice"), Hierarchy(tree, 9)])
    table.prime()
    inode = (tree / f"docker/{A}").stat().st_ino
    assert (table.find(9 << 48 | inode), table.find(inode)) == (docker(A), NOWHERE)


def test_gaps_are_mended_and_what_is_told_stays(tree: Path) -> None:
    table = Cgroups(lambda: [Hierarchy(tree)])
    table.apply(cgroup(CGROUP, (tree / "docker" / A).stat().st_ino, f"/docker/{B}".encode()))
    found = table.scan()
    table.apply(cgroup(CGROUP, (tree / "system.slice").stat().st_ino, f"/docker/{B}".encode()))
    table.learn(found)
    ids = [(tree / place).stat().st_ino for place in (f"docker/{A}", "system.slice", f"docker/{A}/inside")]
    assert [table.find(id) for id in ids] == [docker(B), docker(B), docker(A)]


def test_nothing_is_mounted_or_can_be_read() -> None:
    def unreadable() -> list[Hierarchy]:
        raise PermissionError

    for seen in (list, unreadable, lambda: [Hierarchy(Path("/nowhere"))]):
        table = Cgroups(seen)
        table.prime()
        assert table.find(5) == NOWHERE


def test_of_a_long_path_there_is_the_end() -> None:
    """What is in front of it is known from the cgroup above."""
    deep = "/x" * 200
    table = Cgroups(list)
    table.apply(cgroup(CGROUP, 7, f"/kubepods/pod{'f' * 32}/crio-{A}".encode()))
    table.apply(cgroup(CGROUP, 8, f"/kubepods/pod{'f' * 32}/crio-{A}{deep}".encode(), parent=7))
    table.apply(cgroup(CGROUP, 9, f"/kubepods/pod{'f' * 32}/crio-{A}{deep}/docker/{B}".encode(), parent=8))
    table.apply(cgroup(CGROUP, 10, f"/{'y' * 255}/{'z' * 255}".encode(), parent=7))
    table.apply(cgroup(CGROUP, 11, f"{deep}/docker/{B}".encode(), parent=99))
    pod = b"f" * 32
    whole = Container(A.encode(), b"cri-o", pod)
    assert [table.find(id) for id in (8, 9, 10, 11)] == [whole, Container(B.encode(), b"docker", pod), whole, docker(B)]


def test_the_end_may_begin_within_a_name() -> None:
    """Which then is not taken for one."""
    id = "a" * 64
    table = Cgroups(list)
    for cut in range(64, 70):
        table.apply(cgroup(CGROUP, cut, f"/docker-{id}{'/x' * ((256 - cut) // 2)}{'x' * (cut % 2)}".rjust(600, "b").encode(), parent=1))
        assert table.find(cut) == NOWHERE


def test_removed_ones_are_remembered_for_a_while() -> None:
    table = Cgroups(list)
    table.apply(together(cgroup(CGROUP, 7, f"/docker/{A}".encode()), cgroup(CGROUP_GONE, 7, f"/docker/{A}".encode(), at=1_000)))
    table.apply(cgroup(CGROUP_GONE, 8, b"/never seen", at=1_000))
    table.forget(1_000 + REMOVED_KEPT_NS)
    assert table.find(7) == docker(A)
    table.forget(1_001 + REMOVED_KEPT_NS)
    assert table.find(7) == NOWHERE
    assert (len(table), table.evictions) == (0, 0)


def test_there_are_so_many_at_most() -> None:
    """Those that were removed go first, then the oldest."""
    made = [(CGROUP, id, f"/docker/{id:064x}") for id in range(5)]
    table = told(*made, (CGROUP_GONE, 3, ""), (CGROUP, 3 + 10, "/a"), (CGROUP, 4 + 10, "/a"), (CGROUP, 14, "/a"), most=5)
    assert [table.find(id) != NOWHERE for id in range(5)] == [False, True, True, False, True]
    assert (len(table), table.evictions) == (5, 2)
    table.forget(10**18)
    assert len(table) == 5


@pytest.mark.needs("cgroup2")
def test_this_machine() -> None:
    """Every cgroup there is has been found, root's included."""
    table = Cgroups()
    table.prime()
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    top = next(fields[1] for mount in Path("/proc/self/mounts").read_text().splitlines() if (fields := mount.split())[2] == "cgroup2")
    table.find(os.stat(top + line.removeprefix("0::")).st_ino)
    table.find(os.stat(top).st_ino)
    assert (table.hits, table.misses) == (2, 0)
