"""The reader, over rings in memory files: how often it looks, what it counts, and that nothing stays behind."""

import asyncio
import dataclasses
import mmap
from collections.abc import Iterator
from typing import Any

import pytest

from infrasight.actors import Mailbox
from infrasight.errors import MailboxClosed
from infrasight.kernel import Ring
from infrasight.node import reader as module
from infrasight.node.flow import Drain, Loss
from infrasight.node.reader import BUSY_S, FILL_WANTED, IDLE_S, TAKE_BYTES, Reader
from infrasight.schema import KINDS
from infrasight.schema.layout import layout
from tests.actors.clock import settle
from tests.kernel.memory_ring import MemoryRing, record_of
from tests.node.collector import until


class Clock:
    """In place of the time module."""

    CLOCK_MONOTONIC = object()

    def __init__(self) -> None:
        self.now_ns = 1000 * 10**9

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def time_ns(self) -> int:
        return self.now_ns + 10**18

    def clock_gettime_ns(self, which: object) -> int:
        assert which is self.CLOCK_MONOTONIC
        return self.now_ns


class Kernel:
    """What the reader knows of it: rings and counters."""

    def __init__(self) -> None:
        self.memory = {
            name: MemoryRing(layout(dataclasses.replace(KINDS[name], ring_bytes=4 * mmap.PAGESIZE, long_ring_bytes=4 * mmap.PAGESIZE), long=long))
            for name, long in (("open", False), ("execve", True), ("process", False))
        }
        self.lost: dict[tuple[str, str], int] = {}
        self.detached = 0
        self.reads = 0

    @property
    def rings(self) -> list[Ring]:
        return [each.ring for each in self.memory.values()]

    def losses(self) -> dict[tuple[str, str], int]:
        self.reads += 1
        return dict(self.lost)

    def detach(self) -> None:
        self.detached += 1

    def happens(self, kind: str, *numbers: int) -> None:
        for number in numbers:
            assert self.memory[kind].produce(record_of(self.memory[kind].layout, enter_ns=number))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def kernel(clock: Clock) -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    for each in kernel.memory.values():
        each.close()


def reader_of(kernel: Any, room: int = 1000) -> tuple[Reader, Mailbox[Drain]]:
    outbox: Mailbox[Drain] = Mailbox("out", limit=room)
    return Reader(kernel, outbox), outbox


def drains(outbox: Mailbox[Drain]) -> list[Drain]:
    return list(iter(outbox.get_nowait, None))


def numbers_of(drain: Drain) -> tuple[list[int], list[tuple[str, list[int]]]]:
    return [int(n) for records in drain.life for n in records["enter_ns"]], [
        (each.name, records["enter_ns"].tolist()) for each, records in drain.data
    ]


async def test_one_look(kernel: Kernel, clock: Clock) -> None:
    reader, outbox = reader_of(kernel)
    assert not await reader._look()
    kernel.happens("open", 1, 2)
    kernel.happens("process", 3)
    kernel.happens("execve", 4)
    assert await reader._look()
    (drain,) = drains(outbox)
    assert numbers_of(drain) == ([3], [("open", [1, 2]), ("execve_long", [4])])
    assert drain.wall_offset_ns == 10**18
    assert drain.losses == []
    assert reader.events == {"process": 1, "open": 2, "execve": 1}
    assert not await reader._look()


async def test_events_of_unknown_processes_wait(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far is read is fixed before process life is: what happens in between is for the next look."""
    reader, outbox = reader_of(kernel)
    kernel.happens("open", 1)
    life = kernel.memory["process"].ring
    plain = life.take

    def late(end: int, most: int) -> Any:
        taken = plain(end, most)
        if not taken:
            kernel.happens("process", 2)
            kernel.happens("open", 3)
        return taken

    monkeypatch.setattr(life, "take", late)
    await reader._look()
    await reader._look()
    assert [numbers_of(drain) for drain in drains(outbox)] == [([], [("open", [1])]), ([2], [("open", [3])])]


def test_process_life_is_always_read_whole() -> None:
    """Otherwise an event might come before the fork of its process."""
    assert layout(KINDS["process"]).ring_bytes <= TAKE_BYTES


def test_an_event_is_seen_soon_enough() -> None:
    assert IDLE_S <= 0.05


async def test_the_wait_adapts(kernel: Kernel) -> None:
    """To how fast the rings fill: each is to be looked at when it is about so full."""
    reader, outbox = reader_of(kernel)
    await reader._look()
    assert reader._wait_s == IDLE_S
    kernel.happens("open", *range(4))
    await reader._look()
    assert reader._wait_s == IDLE_S, "it is less full than wanted"
    kernel.happens("open", *range(60))
    await reader._look()
    assert reader._wait_s == pytest.approx(IDLE_S * FILL_WANTED / (60 / 64))
    for _ in range(5):
        kernel.happens("open", *range(60))
        await reader._look()
    assert reader._wait_s == BUSY_S
    for _ in range(10):
        kernel.happens("open", 1)
        await reader._look()
    assert reader._wait_s == IDLE_S
    kernel.happens("process", *range(130))
    await reader._look()
    assert reader._wait_s < IDLE_S, "the fullest ring counts"
    await reader._look()
    assert reader._wait_s == IDLE_S
    assert outbox.statistics().depth


async def test_a_steady_flow_is_looked_at_when_it_should_be(kernel: Kernel) -> None:
    """In a model of the kernel where so many records come in a second, the rings are FILL_WANTED full at each look."""
    reader, outbox = reader_of(kernel)
    for rate in (400, 1000, 4000):
        for _ in range(20):
            kernel.happens("open", *range(round(rate * reader._wait_s)))
            fullest = kernel.memory["open"].ring.fill()
            await reader._look()
            drains(outbox)
        assert fullest <= FILL_WANTED * 1.5 or reader._wait_s == BUSY_S


async def test_losses_are_told_once_a_second_and_exactly(kernel: Kernel, clock: Clock) -> None:
    start = clock.time_ns()
    reader, outbox = reader_of(kernel)
    kernel.lost = {("open", "ring_full"): 5}
    await reader._look()
    assert drains(outbox)[0].losses == [Loss("open", "ring_full", 5, start, clock.time_ns())]
    kernel.lost = {("open", "ring_full"): 12, ("connect", "inflight_full"): 1}
    first = clock.time_ns()
    for _ in range(9):
        clock.now_ns += 10**8
        await reader._look()
    assert drains(outbox) == []
    clock.now_ns += 10**8
    await reader._look()
    (drain,) = drains(outbox)
    assert drain.losses == [Loss("open", "ring_full", 7, first, clock.time_ns()), Loss("connect", "inflight_full", 1, first, clock.time_ns())]
    clock.now_ns += 10**9
    await reader._look()
    assert drains(outbox) == [], "nothing new was lost"
    assert reader.lost == kernel.lost
    assert kernel.reads == 3


async def test_stopping_drains(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing ends first; then everything that the rings hold is read, in as many looks as it takes, and what was lost last."""
    monkeypatch.setattr(module, "TAKE_BYTES", 10 * 256)
    reader, outbox = reader_of(kernel)
    task = asyncio.create_task(reader.run())
    await settle()
    kernel.happens("open", *range(60))
    kernel.lost = {("open", "ring_full"): 9}
    reader.stop()
    reader.stop()
    async with asyncio.timeout(5):
        await task
    assert kernel.detached == 1
    got = drains(outbox)
    assert [n for drain in got for _, numbers in numbers_of(drain)[1] for n in numbers] == list(range(60))
    assert len(got) >= 6
    assert [loss.count for drain in got for loss in drain.losses] == [9]


async def test_stopping_before_the_start(kernel: Kernel) -> None:
    reader, outbox = reader_of(kernel)
    kernel.happens("open", 1)
    reader.stop()
    await reader.run()
    assert (kernel.detached, len(drains(outbox))) == (1, 1)


async def test_a_record_that_is_never_submitted_holds_nobody_up(kernel: Kernel) -> None:
    reader, outbox = reader_of(kernel)
    kernel.happens("open", 1)
    kernel.memory["open"].reserve()
    reader.stop()
    async with asyncio.timeout(5):
        await reader.run()
    assert len(drains(outbox)) == 1


async def test_a_full_mailbox_blocks(kernel: Kernel) -> None:
    """What comes meanwhile stays in the ring."""
    reader, outbox = reader_of(kernel, room=1)
    kernel.happens("open", 1)
    task = asyncio.create_task(reader.run())
    await settle()
    kernel.happens("open", 2)
    await until(lambda: outbox.statistics().waiting_senders > 0)
    kernel.happens("open", 3)
    for _ in range(3):
        await settle()
    assert kernel.memory["open"].ring.fill() > 0
    reader.stop()
    got = []
    async with asyncio.timeout(5):
        while not task.done() or outbox.statistics().depth:
            got += drains(outbox)
            await asyncio.sleep(0)
    assert [n for drain in got for _, numbers in numbers_of(drain)[1] for n in numbers] == [1, 2, 3]


async def test_nobody_listens(kernel: Kernel) -> None:
    reader, outbox = reader_of(kernel)
    outbox.close()
    kernel.happens("open", 1)
    with pytest.raises(MailboxClosed):
        await reader.run()
