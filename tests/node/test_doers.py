"""What is kept of who did it, from one batch to the next: the same columns as if all had been asked for anew, and no more than there is room for."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infrasight.actors import Mailbox
from infrasight.kernel import Records
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.containment import Container
from infrasight.node.doers import STATE
from infrasight.node.enricher import DOERS_MAX, KEPT_NS, SPARE, Enricher
from infrasight.node.flow import Drain
from infrasight.node.identity import Identity
from infrasight.node.names.inside import SAME, File, Inside
from infrasight.node.names.namespaces import Namespaces
from infrasight.node.processes import Processes, Scan
from infrasight.runtimes import Facts, Key
from infrasight.schema.events.process import CGROUP, CWD, EXEC, EXIT, FORK
from tests.node.records import TICK, cgroup, layout_of, life, make, together

IDENTITY = Identity("node", "boot")
WHO = {"exec_id": 1, "uid": 4_000_000_000, "gid": 4_000_000_000, "cwd_key": 7, "tty": 0, "cgroup_id": 1, "comm": b"sh"}
SAID = ["process_id", "parent_id", "user", "group", "ancestors", "exe", "cwd", "tty", "comm", "container_id", "image", "identity"]


@pytest.fixture(autouse=True)
def many() -> Iterator[None]:
    """Batches are large from the first row on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infrasight.node.columns.FEW", -1)
        patch.setattr("infrasight.node.columns.FEW_TEXTS", -1)
        patch.setattr("infrasight.node.enricher.FEW", -1)
        yield


@pytest.fixture
def enricher(tmp_path: Path) -> Enricher:
    """Over a /proc in which there is nobody."""
    made = Enricher(Mailbox("in", limit=9), Mailbox("out", limit=99), node="node", boot="boot")
    made.processes = Processes(IDENTITY, tmp_path)
    made.cgroups = Cgroups(list)
    return made


def opens(*pids: int, at: int = 0, **values: Any) -> Records:
    """One of each process, begun in the tick of its pid's number."""
    starts = [pid * TICK for pid in pids]
    nothing = {"path": b"/a", "path_place": b"", "path_whole": 0}
    return make("open", len(pids), pid=list(pids), start_ns=starts, enter_ns=at, **(WHO | nothing | values))


def told(enricher: Enricher, records: Records, *life: Records) -> list[dict[str, Any]]:
    """What the rows of opens say of who made them."""
    *_, batch = enricher.batches(Drain(list(life), [(layout_of("open"), records)], [], [], 0))
    batch.columns.validate(full=True)
    assert batch.kind == "open"
    return list(batch.columns.select(SAID).to_pylist())


def column(enricher: Enricher, name: str, records: Records, *life: Records) -> list[Any]:
    return [row[name] for row in told(enricher, records, *life)]


def test_who_is_met_again_is_not_asked_for_again(enricher: Enricher, monkeypatch: pytest.MonkeyPatch) -> None:
    before = told(enricher, opens(1, 2, 3), *(life(FORK, pid, pid) for pid in (1, 2, 3)))
    told(enricher, opens(1, 2, 3))
    asked: list[int] = []
    find = enricher.processes.find
    monkeypatch.setattr(enricher.processes, "find", lambda me, pid: asked.append(pid) or find(me, pid))
    assert told(enricher, opens(3, 1, 2, 1)) == [before[2], before[0], before[1], before[0]]
    assert asked == []
    told(enricher, opens(4, 1, 2))
    assert asked == [4]


def test_an_exec_is_seen(enricher: Enricher) -> None:
    assert column(enricher, "exe", opens(1, exec_id=2), life(FORK, 1, 1)) == [b""]
    assert column(enricher, "exe", opens(1, exec_id=2), life(EXEC, 1, 1, exec_id=2, file=b"/bin/a")) == [b"/bin/a"]
    assert column(enricher, "exe", opens(1, 1, exec_id=[2, 3]), life(EXEC, 1, 1, exec_id=3, file=b"/bin/b")) == [b"/bin/a", b"/bin/b"]


@pytest.mark.parametrize("member", STATE)
def test_each_part_of_a_state_tells_it_apart(member: str, enricher: Enricher) -> None:
    names = {"start_ns": "process_id", "pid": "process_id", "exec_id": "exe", "cgroup_id": "container_id", "uid": "user", "gid": "group"}
    names |= {"cwd_key": "cwd", "tty": "tty"}
    born = [life(EXEC, 1, 1, exec_id=1, file=b"/bin/a", cwd=b"/a", cwd_key=7), life(EXEC, 1, 1, exec_id=2, file=b"/bin/b", cwd=b"/b", cwd_key=8)]
    enricher.cgroups.belongs(2, Container(b"c", b"docker"))
    one, other = opens(1), opens(1)
    other[member][:] += TICK if member == "start_ns" else 1
    before, after = (told(enricher, records, *born)[0][names[member]] for records in (one, other))
    assert before != after
    assert [row[names[member]] for row in told(enricher, together(one, other))] == [before, after]


def test_what_proc_tells_later_is_seen(enricher: Enricher) -> None:
    assert column(enricher, "ancestors", opens(2)) == [b""]
    ids = IDENTITY.of_ticks(np.array([1, 2], np.uint64), np.array([1, 2], np.uint32)).tolist()
    enricher.processes.learn(Scan({1: (ids[0], 0, b"init", b"/init", 0), 2: (ids[1], 1, b"sh", b"/bin/sh", 0)}, {}))
    assert column(enricher, "ancestors", opens(2)) == [b"init"]
    assert column(enricher, "parent_id", opens(2)) == [ids[0]]


def test_a_fork_that_is_told_later_is_seen(enricher: Enricher) -> None:
    assert column(enricher, "ancestors", opens(2)) == [b""]
    assert column(enricher, "ancestors", opens(2), life(FORK, 2, 2, ppid=1, parent_start=1, parent=b"init")) == [b"init"]


def test_a_directory_that_is_told_later_is_seen(enricher: Enricher) -> None:
    assert column(enricher, "cwd", opens(1), life(FORK, 1, 1)) == [b""]
    assert column(enricher, "cwd", opens(1), life(CWD, 1, 1, cwd=b"/a", cwd_key=7)) == [b"/a"]
    assert column(enricher, "cwd", opens(1), life(CWD, 1, 1, cwd=b"/b", cwd_key=7)) == [b"/b"]


def test_a_cgroup_that_is_told_later_is_seen(enricher: Enricher) -> None:
    assert column(enricher, "container_id", opens(1, cgroup_id=7)) == [b""]
    assert column(enricher, "container_id", opens(1, cgroup_id=7), cgroup(CGROUP, 7, b"/docker/" + b"a" * 64)) == [b"a" * 64]
    enricher.cgroups.belongs(7, Container(b"other", b"docker"))
    assert column(enricher, "container_id", opens(1, cgroup_id=7)) == [b"other"]


def test_what_runtimes_tell_later_is_seen(enricher: Enricher) -> None:
    enricher.cgroups.belongs(7, Container(b"c", b"docker"))

    def seen() -> tuple[bytes, bytes]:
        (row,) = told(enricher, opens(1, cgroup_id=7))
        return row["image"], row["identity"]

    assert seen() == (b"", b"path")
    enricher.containers.are_told_of({b"": {b"docker"}})
    assert seen() == (b"", b"pending")
    enricher.containers.shelf("s").learn(Key(b"c"), Facts(image=b"one"))
    assert seen() == (b"one", b"complete")
    enricher.containers.shelf("s").learn(Key(b"c"), Facts(image=b"two"))
    assert seen() == (b"two", b"complete")
    enricher.containers.clear("s")
    assert seen() == (b"", b"pending")


async def test_names_that_are_found_later_are_seen(enricher: Enricher) -> None:
    """Of a namespace whose root is still the node's, which is looked into with each program."""
    names = {1: b"first"}
    enricher.namespaces = Namespaces(look=lambda pid, namespace, before: Inside((0, 0), File(None, dict(names)), File(None, dict(names)), SAME, SAME))
    born = life(EXEC, 1, 1, exec_id=1, mount_ns=5)
    assert column(enricher, "user", opens(1, uid=1), born) == [b"1"]
    for name in (b"first", b"second"):
        names[1] = name
        enricher.namespaces.meet(born)
        await enricher.namespaces.wait(10)
        assert column(enricher, "user", opens(1, uid=1)) == [name]
    assert column(enricher, "group", opens(1, gid=1)) == [b"second"]


def test_another_namespace_is_seen(enricher: Enricher) -> None:
    async def run() -> None:
        named = File(None, {0: b"other"})
        enricher.namespaces = Namespaces(look=lambda pid, namespace, before: Inside((1, 1), named, named, SAME, SAME))
        moved = life(CWD, 1, 1, mount_ns=5)
        enricher.namespaces.meet(life(EXEC, 9, 9, mount_ns=5))
        await enricher.namespaces.wait(10)
        assert column(enricher, "user", opens(1, uid=0), life(FORK, 1, 1)) == [b"root"]
        assert column(enricher, "user", opens(1, uid=0), moved) == [b"other"]

    asyncio.run(run())


def test_all_is_asked_for_again_after_a_while(enricher: Enricher) -> None:
    for at, hits in ((0, 1), (KEPT_NS - 1, 1), (KEPT_NS, 2), (KEPT_NS + 1, 2)):
        enricher.cgroups.belongs(1, Container(b"c", b"docker"))
        told(enricher, opens(1, at=at))
        assert enricher.cgroups.hits == hits


def test_a_batch_of_a_few_has_no_names_of_many(enricher: Enricher) -> None:
    all_of_them = range(1, 100)
    together_born = [life(EXEC, pid, pid, exec_id=1, file=b"/bin/%d" % pid) for pid in all_of_them]
    for pids in (all_of_them, [5], all_of_them, range(1, 20)):
        *_, batch = enricher.batches(Drain(together_born, [(layout_of("open"), opens(*pids))], [], [], 0))
        exe = batch.columns.column("exe")
        assert exe.to_pylist() == [b"/bin/%d" % pid for pid in pids]
        assert len(exe.dictionary) <= SPARE * len(pids)


def test_who_comes_and_goes_takes_no_room(enricher: Enricher) -> None:
    for first in range(1, 2000, 10):
        told(enricher, opens(*range(first, first + 20)))
        assert enricher._kept is not None
        assert len(enricher._kept) <= SPARE * 20
    enricher._kept = None
    told(enricher, opens(*range(1, DOERS_MAX + 2)))
    assert enricher._kept is None


def test_what_changes_unseen_takes_no_room(enricher: Enricher) -> None:
    """Nobody did anything, and so nobody was asked for."""
    born = [life(CWD, pid, pid, cwd=b"/%d" % pid, cwd_key=pid) for pid in range(9)] + [cgroup(CGROUP, 7, b"/docker/" + b"a" * 64)]
    assert list(enricher.batches(Drain(born, [], [], [], 0))) == []
    assert [enricher.processes.changed, enricher.processes.changed_directories, enricher.cgroups.changed] == [set()] * 3


@pytest.mark.parametrize("seed", range(5))
def test_the_same_as_if_nothing_were_kept(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    keeps, forgets = (Enricher(Mailbox("in", limit=9), Mailbox("out", limit=99), node="node", boot="boot") for _ in range(2))
    for each in (keeps, forgets):
        each.processes, each.cgroups = Processes(IDENTITY, tmp_path), Cgroups(list)
    kept = 0
    for _ in range(60):
        happened = []
        for pid in random.integers(1, 12, random.integers(0, 3)).tolist():
            action = int(random.choice([FORK, EXEC, CWD, EXIT]))
            number = int(random.integers(1, 4))
            parents = {"ppid": number, "parent_start": number, "parent": b"p%d" % number}
            said = {"exec_id": number, "file": b"/bin/%d" % number, "cwd": b"/%d" % random.integers(3), "cwd_key": number}
            happened.append(life(action, pid, pid, comm=b"c", **parents, **said))
        if random.random() < 0.1:
            happened.append(cgroup(CGROUP, int(random.integers(1, 4)), b"/docker/" + b"%064x" % random.integers(1, 4)))
        if random.random() < 0.1:
            key, facts = Key(b"%064x" % random.integers(1, 4)), Facts(image=b"%d" % random.integers(9))
            for each in (keeps, forgets):
                each.containers.shelf("s").learn(key, facts)
        pids = random.integers(1, 12, 30).tolist()
        state = {name: random.integers(1, 4, 30) for name in ("exec_id", "cgroup_id", "cwd_key", "uid")} if random.random() < 0.3 else {}
        records = opens(*pids, **state)
        forgets._kept, before = None, keeps._kept
        assert told(keeps, records, *happened) == told(forgets, records, *happened)
        kept += keeps._kept is not None and keeps._kept is before
    assert kept
