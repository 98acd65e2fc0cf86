"""What the running kernel tells of cgroups, and which of them it says that processes were in, against the directories in its hierarchies."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrasight.node.containers.hierarchy import Hierarchy, hierarchies
from infrasight.schema.events.process import CGROUP, CGROUP_GONE, EXEC, EXIT, FORK
from tests import workloads
from tests.kernel.tap import Record, Tap
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "cgroup2")]
SEEN = hierarchies()


@pytest.fixture(params=SEEN, ids=lambda each: f"v{1 if each.number else 2}")
def hierarchy(request: pytest.FixtureRequest) -> Hierarchy:
    found: Hierarchy = request.param
    return found


@pytest.fixture
def top(hierarchy: Hierarchy) -> Iterator[Path]:
    """A new cgroup at the top; it and those in it, which have to be empty, are removed afterwards."""
    path = hierarchy.top / f"infrasight-test-{os.getpid()}"
    path.mkdir()
    yield path
    for place, *_ in os.walk(path, topdown=False):
        os.rmdir(place)


def told(tap: Tap, *actions: int) -> list[Record]:
    return tap.records("process", action=frozenset(actions), pid=os.getpid())


def lived(cgroup: Path) -> int:
    """The id of a process that ran, and ended, in a cgroup, and in none of v2 but that: those go before others."""
    child = subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {SEEN[0].top}/cgroup.procs; echo $$ > {cgroup}/cgroup.procs; exec /bin/true"])
    assert child.wait() == 0
    return child.pid


def test_made_and_removed(tap: Tap, hierarchy: Hierarchy, top: Path) -> None:
    """Once each, with id and path, and the id of the one above."""
    inside = top / "a b\x1b\udcff"
    inside.mkdir()
    ids = [hierarchy.id(path.stat().st_ino) for path in (hierarchy.top, top, inside)]
    inside.rmdir()
    found = [each for each in told(tap, CGROUP, CGROUP_GONE) if each["cgroup_id"] in ids]
    assert [(each["action"], each["cgroup_id"], each["parent_start_ns"], each["file"], each["cut"]) for each in found] == [
        (CGROUP, ids[1], ids[0], os.fsencode(f"/{top.name}"), 0),
        (CGROUP, ids[2], ids[1], os.fsencode(f"/{top.name}/{inside.name}"), 0),
        (CGROUP_GONE, ids[2], ids[1], os.fsencode(f"/{top.name}/{inside.name}"), 0),
    ]


@pytest.mark.parametrize("length", [255, 256, 257, 600, 1023, 1500])
def test_of_a_long_path_the_end_is_told(tap: Tap, top: Path, length: int) -> None:
    """The kernel itself tells no more than 1023 bytes of it."""
    path, place = os.fsencode(f"/{top.name}"), top
    while rest := length - len(path):
        name = "-" * (rest - 1 if rest <= 200 else 100)
        path, place = path + b"/" + name.encode(), place / name
        place.mkdir()
    told_of = told(tap, CGROUP)[-1]
    whole = path[:1023]
    assert (told_of["file"], told_of["cut"]) == (whole[-256:], len(whole) > 256)


def test_every_record_of_a_process_says_where_it_was(tap: Tap, hierarchy: Hierarchy, top: Path) -> None:
    """However short it lived, and the cgroup is told of before the first of them."""
    inside = top / "inside"
    inside.mkdir()
    id, pid = hierarchy.id(inside.stat().st_ino), lived(inside)
    before, after = tap.records("execve", pid=pid)
    assert before["cgroup_id"] != after["cgroup_id"] == id
    life = tap.records("process", pid=pid)
    assert [(each["action"], each["cgroup_id"] == id) for each in life] == [(FORK, False), (EXEC, False), (EXEC, True), (EXIT, True)]
    (made,) = (each for each in told(tap, CGROUP) if each["cgroup_id"] == id)
    assert made["enter_ns"] < after["enter_ns"]


def test_a_process_that_is_begun_in_a_cgroup(tap: Tap, tmp_path: Path) -> None:
    """clone3 with CLONE_INTO_CGROUP, which is for v2: even the fork is of there, while the parent is elsewhere."""
    top = SEEN[0].top / f"infrasight-test-{os.getpid()}"
    for number in range(3):
        (top / f"c{number}").mkdir(parents=True)
    ids = [(top / f"c{number}").stat().st_ino for number in range(3)]
    said = workloads.run("cgroups", "--base", top, "--count", 3, "--dir", tmp_path)
    forks = tap.records("process", action=FORK, ppid=said["pid"])
    assert [each["cgroup_id"] for each in forks] == ids
    for number in range(3):
        (top / f"c{number}").rmdir()
    top.rmdir()
    eventually(lambda: {each["cgroup_id"] for each in told(tap, CGROUP_GONE)} >= set(ids))


@pytest.mark.needs("cgroup1")
def test_v2_goes_before_v1(tap: Tap) -> None:
    both = [each.top / f"infrasight-test-{os.getpid()}" for each in SEEN]
    for path in both:
        path.mkdir()
    try:
        child = subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {both[1]}/cgroup.procs; cd /; echo $$ > {both[0]}/cgroup.procs; exec /bin/true"])
        assert child.wait() == 0
        assert tap.records("execve", pid=child.pid)[-1]["cgroup_id"] == both[0].stat().st_ino
    finally:
        for path in both:
            path.rmdir()
