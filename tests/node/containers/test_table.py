"""The table of containers: what is known, for how long, and who waits for it."""

import asyncio
import time

import pytest

from infrasight.node.containers import table as module
from infrasight.node.containers.containment import Container
from infrasight.node.containers.table import ENDED_KEPT_S, PATIENCE_S, Containers, Room, Shelf
from infrasight.runtimes import Facts, Key
from tests.waiting import LIMIT_S

A, B = Container(b"a", b"containerd"), Container(b"b", b"docker")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def shelf(most: int = 100, most_bytes: int = 10_000) -> Shelf:
    return Shelf(b"", lambda: None, Room(most, most_bytes))


def named(name: str) -> Facts:
    return Facts(name=name.encode())


def known(shelf: Shelf, ids: str) -> str:
    return "".join(id for id in ids if shelf.find(id.encode(), b"") is not None)


def test_what_is_told_is_found() -> None:
    table = Containers()
    assert [table.shelf("s").learn(Key(b"a"), named(name)) for name in ("one", "one", "two")] == [True, False, True], "what is news"
    assert (table.find(A), table.find(B)) == (named("two"), None)
    assert (table.hits, table.misses, table.evictions, len(table)) == (1, 1, 0, 1)


def test_one_id_in_two_namespaces() -> None:
    """Each has its own; where it is not known which is meant, neither."""
    told = shelf()
    for space in (b"default", b"shop"):
        told.learn(Key(b"web", space), Facts(image=space))
    told.learn(Key(b"db", b"shop"), named("db"))
    told.learn(Key(b"old"), named("old"))
    found = [told.find(b"web", space) for space in (b"default", b"shop", b"other", b"")]
    assert found == [Facts(image=b"default"), Facts(image=b"shop"), None, None]
    assert [told.find(b"db", space) for space in (b"shop", b"", b"default")] == [named("db"), named("db"), None]
    assert told.find(b"old", b"default") == named("old"), "its runtime has no namespaces"
    told.end(Key(b"web", b"shop"))
    told.there_are([Key(b"web", b"default")])
    assert (len(told), set(told._ended)) == (4, {Key(b"web", b"shop"), Key(b"db", b"shop"), Key(b"old")})


def test_one_that_ended_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), shelf()
    for id in (b"a", b"b", b"c"):
        told.learn(Key(id), Facts())
    assert [told.end(Key(id)) for id in (b"a", b"a", b"c", b"never told of")] == [Facts(), None, Facts(), None]
    assert told.learn(Key(b"c"), named("made again"))
    clock.now += ENDED_KEPT_S - 1
    told.end(Key(b"b"))
    told.end(Key(b"a"))
    assert known(told, "abc") == "abc"
    clock.now += 2
    told.end(Key(b"never told of"))
    assert known(told, "abc") == "bc"


def test_what_ended_while_nobody_listened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told by not being there any more; others' containers are none of that."""
    clock, table = Clock(monkeypatch), Containers()
    for id in (b"a", b"b"):
        table.shelf("one").learn(Key(id), Facts())
    table.shelf("two").learn(Key(b"c"), Facts())
    table.shelf("one").there_are({Key(b"b")})
    clock.now += ENDED_KEPT_S + 1
    table.shelf("one").there_are({Key(b"b")})
    table.shelf("one").end(Key(b"x"))
    assert [table.find(Container(id)) is not None for id in (b"a", b"b", b"c")] == [False, True, True]


def test_there_are_so_many_at_most() -> None:
    """Those that ended go first, then those that were not asked for the longest."""
    told = shelf(most=3)
    for id in (b"a", b"b", b"c"):
        told.learn(Key(id), Facts())
    told.find(b"a", b"")
    told.end(Key(b"c"))
    for id in (b"d", b"e"):
        told.learn(Key(id), Facts())
    assert known(told, "abcde") == "ade"
    assert (len(told), told.evictions) == (3, 2)


def test_there_is_so_much_at_most() -> None:
    told = shelf(most_bytes=100)
    for id in (b"a", b"b", b"c"):
        told.learn(Key(id), Facts(labels=(b"x" * 40,)))
    assert (known(told, "abc"), told.evictions) == ("bc", 1)
    told.learn(Key(b"c"), Facts(labels=(b"x" * 101,)))
    assert (known(told, "abc"), len(told)) == ("c", 1)
    for _ in range(100):
        told.learn(Key(b"c"), Facts())
    assert (told._bytes, len(told)) == (0, 1)


def test_a_user_is_believed_in_what_is_their_own_only() -> None:
    """And the system in all the rest."""
    table = Containers()
    table.shelf("/run/user/1000/s", b"1000").learn(Key(b"a"), named("lie"))
    table.shelf("/run/s").learn(Key(b"b"), named("truth"))
    table.are_told_of({b"": {b"docker"}, b"1000": {b"docker"}})
    theirs, others = [Container(b"a", b"docker", realm=realm) for realm in (b"1000", b"1001")]
    assert (table.find(Container(b"a", b"docker")), table.find(theirs), table.find(others)) == (None, named("lie"), None)
    assert table.find(Container(b"b", b"docker", realm=b"1000")) is None
    assert [table.awaited(Container(b"c", b"docker", realm=realm)) for realm in (b"", b"1000", b"1001", b"in:x")] == [True, True, False, False]
    table.clear("/run/user/1000/s")
    table.clear("/run/user/1000/s")
    assert (table.find(theirs), len(table)) == (None, 1)


def test_a_socket_that_becomes_another_users() -> None:
    table = Containers()
    table.shelf("s", b"1000").learn(Key(b"a"), Facts())
    assert len(table.shelf("s", b"")) == 0
    assert table.find(Container(b"a", realm=b"1000")) is None


def test_a_user_cannot_fill_the_table() -> None:
    table = Containers()
    table.shelf("/run/s").learn(Key(b"a"), named("a"))
    for number in range(2_000):
        table.shelf("/run/user/1000/s", b"1000").learn(Key(b"%d" % number), Facts(labels=(b"x" * 1000,) * 64))
    assert (table.find(A), len(table) < 10) == (named("a"), True)


def test_who_is_awaited() -> None:
    """A container of a runtime that is told of, until it is."""
    table = Containers()
    assert not table.awaited(A)
    table.are_told_of({b"": {b"containerd", b""}})
    assert [table.awaited(each) for each in (A, B, Container(b"c", b""), Container())] == [True, False, True, False]
    table.shelf("s").learn(Key(b"a"), Facts())
    assert not table.awaited(A)


async def test_waiting_ends_when_it_is_known() -> None:
    """What is waited for is sought."""
    table, sought = Containers(), list[bytes]()
    table.seek = lambda container: sought.append(container.id)
    table.are_told_of({b"": {b"containerd"}})
    waiting = asyncio.create_task(table.wait_for([A, B, Container(b"c", b"containerd")], 30))
    for id in (b"a", b"c"):
        await asyncio.sleep(0)
        assert not waiting.done()
        table.shelf("s").learn(Key(id), Facts())
    await asyncio.wait_for(waiting, LIMIT_S)
    assert sought == [b"a", b"c"]


async def test_waiting_ends_when_nobody_can_tell_any_more() -> None:
    table = Containers()
    table.are_told_of({b"": {b"containerd"}})
    waiting = asyncio.create_task(table.wait_for([A], 30))
    await asyncio.sleep(0)
    table.are_told_of({})
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_waiting_ends_when_its_runtime_knows_nothing_yet() -> None:
    """Which is not kept: the next time it may know."""
    table = Containers()
    table.are_told_of({b"": {b"containerd"}})
    for _ in range(2):
        waiting = asyncio.create_task(table.wait_for([A], 30))
        await asyncio.sleep(0)
        assert not waiting.done()
        table.excuse(b"a")
        await asyncio.wait_for(waiting, LIMIT_S)
    assert table.awaited(A)


async def test_who_waited_in_vain_does_without_for_a_while() -> None:
    """So that of all time only some is spent on it, whatever comes; it is sought all the same."""
    table, sought = Containers(), list[Container]()
    table.seek = sought.append
    table.are_told_of({b"": {b"containerd"}})
    began = time.monotonic()
    for _ in range(1_000):
        await table.wait_for([A], 0.05)
    assert PATIENCE_S <= time.monotonic() - began < 1_000 * 0.05 / 2
    assert len(sought) == 1_000
    await asyncio.sleep(0.6)
    began = time.monotonic()
    await table.wait_for([A], 0.05)
    assert time.monotonic() - began >= 0.05


async def test_users_cannot_use_up_what_others_may_wait() -> None:
    table, theirs = Containers(), Container(b"a", b"containerd", realm=b"1000")
    table.are_told_of({b"": {b"containerd"}, b"1000": {b"containerd"}})
    for _ in range(10):
        await table.wait_for([theirs], 0.05)
    waiting = asyncio.create_task(table.wait_for([A, theirs], 30))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    table.shelf("s").learn(Key(b"a"), Facts())
    await asyncio.wait_for(waiting, LIMIT_S)


def test_what_the_api_server_says_of_pods() -> None:
    """It knows better whose a pod is and which labels it has; the rest is what runtimes say. A container's own labels count."""
    table = Containers()
    labels = b"app=new", b"own=pod", b"tier=front"
    pod = Facts(pod_name=b"web-1", pod_namespace=b"shop", pod_uid=b"u", workload=b"ReplicaSet/web", pod_labels=labels)
    runtimes = Facts(name=b"till", image=b"i", labels=(b"own=1",), pod_uid=b"u", workload=b"Job/x", pod_labels=(b"app=old", b"gone=1"))
    assert table.in_pod(runtimes) == runtimes
    before = table.changes
    table.pods.learn(Key(b"u"), pod)
    assert table.changes != before
    merged = table.in_pod(runtimes)
    assert (merged.name, merged.image, merged.pod_name, merged.workload) == (b"till", b"i", b"web-1", b"ReplicaSet/web")
    assert merged.all_labels == (b"app=new", b"own=1", b"tier=front")
    assert table.in_pod(merged) == merged
    assert table.in_pod(Facts(pod_uid=b"other")) == Facts(pod_uid=b"other")
    assert table.of_pod(Container(b"x", b"containerd", b"u")) == pod
    assert table.of_pod(Container(b"x", b"containerd", b"u", realm=b"1000")) is None, "a user can make a cgroup of this name"
    assert table.of_pod(Container(b"x", b"containerd")) is None
    assert len(table) == 0


def test_containers_of_a_pod() -> None:
    told = shelf()
    for number, uid in enumerate((b"u", b"v", b"u", b"u")):
        told.learn(Key(b"%d" % number), Facts(pod_uid=uid))
    told.end(Key(b"2"))
    assert [key.id for key, _ in told.of_pod(b"u")] == [b"0", b"3"]
