"""The table of containers: what is known, for how long, and who waits for it."""

import asyncio
import time

import pytest

from infrasight.node.containers import table as module
from infrasight.node.containers.containment import Container
from infrasight.node.containers.table import ENDED_KEPT_S, Containers
from infrasight.runtimes import Facts

A, B = Container(b"a", b"containerd"), Container(b"b", b"docker")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_what_is_told_is_found() -> None:
    table = Containers()
    assert [table.learn(b"a", Facts(name=name)) for name in (b"one", b"one", b"two")] == [True, False, True], "what is news"
    assert (table.find(b"a"), table.find(b"b")) == (Facts(name=b"two"), None)
    assert (table.hits, table.misses, table.evictions, len(table)) == (1, 1, 0, 1)


def test_one_that_ended_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, table = Clock(monkeypatch), Containers()
    for id in (b"a", b"b", b"c"):
        table.learn(id, Facts())
    assert [table.end(id) for id in (b"a", b"a", b"c", b"never told of")] == [Facts(), None, Facts(), None]
    assert table.learn(b"c", Facts())
    clock.now += ENDED_KEPT_S - 1
    table.end(b"b")
    assert [table.find(id) is not None for id in (b"a", b"b", b"c")] == [True, True, True]
    clock.now += 2
    table.end(b"never told of")
    assert [table.find(id) is not None for id in (b"a", b"b", b"c")] == [False, True, True]


def test_there_are_so_many_at_most() -> None:
    """Those that ended go first, then those that were not asked for the longest."""
    table = Containers(most=3)
    for id in (b"a", b"b", b"c"):
        table.learn(id, Facts())
    table.find(b"a")
    table.end(b"c")
    for id in (b"d", b"e"):
        table.learn(id, Facts())
    assert [table.find(id) is not None for id in (b"a", b"b", b"c", b"d", b"e")] == [True, False, False, True, True]
    assert (len(table), table.evictions) == (3, 2)


def test_who_is_awaited() -> None:
    """A container of a runtime that is told of, until it is."""
    table = Containers()
    assert not table.awaited(A)
    table.are_told_of({b"containerd", b""})
    assert [table.awaited(each) for each in (A, B, Container(b"c", b""), Container())] == [True, False, True, False]
    table.learn(b"a", Facts())
    assert not table.awaited(A)


async def test_waiting_ends_when_it_is_known() -> None:
    table = Containers()
    table.are_told_of({b"containerd"})
    waiting = asyncio.create_task(table.wait_for([A, B, Container(b"c", b"containerd")], 30))
    for id in (b"a", b"c"):
        await asyncio.sleep(0)
        assert not waiting.done()
        table.learn(id, Facts())
    await asyncio.wait_for(waiting, 5)


async def test_waiting_ends_when_nobody_can_tell_any_more() -> None:
    table = Containers()
    table.are_told_of({b"containerd"})
    waiting = asyncio.create_task(table.wait_for([A], 30))
    await asyncio.sleep(0)
    table.are_told_of(())
    await asyncio.wait_for(waiting, 5)


async def test_who_waited_in_vain_does_without_for_a_while() -> None:
    """So that of all time only some is spent on it, whatever comes."""
    table = Containers()
    table.are_told_of({b"containerd"})
    began = time.monotonic()
    for _ in range(1_000):
        await table.wait_for([A], 0.05)
    assert 0.05 <= time.monotonic() - began < 0.4
    await asyncio.sleep(0.6)
    began = time.monotonic()
    await table.wait_for([A], 0.05)
    assert time.monotonic() - began >= 0.05
