"""The reader, over rings in memory files: how often it looks, what it counts, and that nothing stays behind."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from infrasight.actors import Mailbox
from infrasight.errors import MailboxClosed
from infrasight.kernel import Records, Ring
from infrasight.kernel.alarm import Alarm
from infrasight.node import reader as module
from infrasight.node.flow import Attention, Drain, Loss
from infrasight.node.reader import IDLE_S, SHARE, SWEEP_S, Reader
from infrasight.schema.kinds import filled_bytes, records_of
from tests.actors.clock import settle
from tests.kernel.memory_ring import MemoryRing, record_of
from tests.node.records import layout_of, make
from tests.waiting import LIMIT_S, until


class Clock:
    """In place of the time module."""

    CLOCK_MONOTONIC = object()

    def __init__(self) -> None:
        self.now_ns = 1000 * 10**9
        self.used_s = 0.0

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def process_time(self) -> float:
        return self.used_s

    def time_ns(self) -> int:
        return self.now_ns + 10**18

    def clock_gettime_ns(self, which: object) -> int:
        assert which is self.CLOCK_MONOTONIC
        return self.now_ns


class Kernel:
    """What the reader knows of it: rings and counters."""

    def __init__(self) -> None:
        self.memory = {
            "open": MemoryRing(*records_of("open"), pages=8),
            "file": MemoryRing(*records_of("file"), pages=8),
            "long": MemoryRing(*records_of("long"), pages=16),
            "process": MemoryRing(*records_of("process"), pages=32),
        }
        self.accounts: dict[str, Any] = {}
        self.lost: dict[tuple[str, str], int] = {}
        self.detached = 0
        self.awaited = False
        self.reads = 0

    @property
    def rings(self) -> list[Ring]:
        return [each.ring for each in self.memory.values()]

    def losses(self) -> dict[tuple[str, str], int]:
        self.reads += 1
        return dict(self.lost)

    def alarm(self) -> Alarm:
        self.bell = Alarm(())
        return self.bell

    def await_first(self) -> None:
        self.awaited = True

    def detach(self) -> None:
        self.detached += 1

    def happens(self, ring: str, *numbers: int, kind: str = "") -> None:
        """Records of a kind, the first of its ring unless it is said."""
        of = next(each for each in records_of(ring) if not kind or each.kind.name == kind)
        for number in numbers:
            assert self.memory[ring].produce(record_of(of, enter_ns=number))
        if self.awaited:
            self.awaited = False
            self.bell.ring()


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
    kernel.happens("long", 4, kind="execve")
    assert await reader._look()
    (drain,) = drains(outbox)
    assert numbers_of(drain) == ([3], [("open", [1, 2]), ("execve_long", [4])])
    assert drain.wall_offset_ns == 10**18
    assert drain.losses == []
    assert reader.events == {"process": 1, "open": 2, "execve": 1}
    assert not await reader._look()


async def test_kinds_that_share_a_ring(kernel: Kernel) -> None:
    """Each by itself, and each counted by its own name, long and short ones together."""
    reader, outbox = reader_of(kernel)
    kernel.happens("file", 1, kind="chmod")
    kernel.happens("file", 2, 3, kind="mount")
    kernel.happens("file", 4, kind="chmod")
    kernel.happens("long", 5, kind="mount")
    kernel.happens("long", 6, kind="open")
    await reader._look()
    (drain,) = drains(outbox)
    assert sorted(numbers_of(drain)[1]) == [("chmod", [1, 4]), ("mount", [2, 3]), ("mount_long", [5]), ("open_long", [6])]
    assert reader.events == {"chmod": 2, "mount": 3, "open": 1}


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


async def test_process_life_is_always_read_whole(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an event might come before the fork of its process."""
    monkeypatch.setattr(module, "TAKE_BYTES", kernel.memory["process"].stride)
    reader, outbox = reader_of(kernel)
    kernel.happens("process", *range(100))
    kernel.happens("open", 7, 8, 9, 10)
    await reader._look()
    (drain,) = drains(outbox)
    assert numbers_of(drain) == (list(range(100)), [("open", [7])])


async def test_events_wait_for_process_life_that_is_being_told(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is not submitted yet hides those after it, and with them forks of processes whose events are there."""
    reader, outbox = reader_of(kernel)
    life = kernel.memory["process"]
    busy = life.reserve()
    assert busy is not None
    kernel.happens("process", 2)
    kernel.happens("open", 3)
    await reader._look()
    life.submit(busy, record_of(life.layout, enter_ns=1))
    await reader._look()
    assert [(*numbers_of(drain), drain.whole_until_ns > 0) for drain in drains(outbox)] == [([1, 2], [("open", [3])], True)]
    busy, plain, tries = life.reserve(), life.ring.take, list[int]()
    assert busy is not None
    kernel.happens("process", 5)
    kernel.happens("open", 6)

    def slowly(end: int, most: int) -> Any:
        tries.append(end)
        if len(tries) == 3:
            life.submit(busy, record_of(life.layout, enter_ns=4))
        return plain(end, most)

    monkeypatch.setattr(life.ring, "take", slowly)
    await reader._look()
    assert [numbers_of(drain) for drain in drains(outbox)] == [([4, 5], [("open", [6])])]
    assert len(tries) == 3


async def test_until_when_all_has_come(kernel: Kernel, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until now, unless some is left in a ring: that came after all that was taken from it."""
    reader, outbox = reader_of(kernel)
    kernel.happens("open", 1, 2)
    await reader._look()
    monkeypatch.setattr(module, "TAKE_BYTES", kernel.memory["open"].stride * 2)
    kernel.happens("open", 3, 5, 7, 9)
    await reader._look()
    await reader._look()
    kernel.happens("open", 11)
    kernel.memory["open"].reserve()
    await reader._look()
    kernel.happens("process", 12)
    await reader._look()
    assert [drain.whole_until_ns for drain in drains(outbox)] == [clock.now_ns, 5, clock.now_ns, 11, 0]


class Accounts:
    """So many pieces of accounts; and `ended`, which found no room in the ring, two at a time."""

    def __init__(self, kind: str, pieces: int) -> None:
        self.layout, self.pieces, self.running, self.intervals = layout_of(kind), pieces, True, 0
        self.ended: list[int] = []

    def read(self) -> Iterator[Records]:
        for number in range(self.pieces):
            yield make(self.layout.name, 1, enter_ns=number)

    def take_ended(self) -> tuple[Records | None, bool]:
        taken, self.ended = self.ended[:2], self.ended[2:]
        return (make(self.layout.name, len(taken), enter_ns=taken) if taken else None), len(taken) == 2

    def next_interval(self) -> None:
        self.intervals += 1


async def test_accounts_come_in_pieces(kernel: Kernel, clock: Clock) -> None:
    """One a look, so that the rings are read in between; and it is said when a kind is through."""
    kernel.accounts = {"resource": Accounts("resource", 2), "syscall_freq": Accounts("syscall_freq", 1), "off": Accounts("resource", 1)}
    kernel.accounts["off"].running = False
    reader, outbox = reader_of(kernel)
    await reader._look()
    assert drains(outbox) == []
    clock.now_ns += 11 * 10**9
    assert reader._something()
    told = []
    while await reader._look():
        assert reader._wait_s(found=True) == (SWEEP_S if reader._sweeping else IDLE_S)
        kernel.happens("open", 1)
        (drain,) = drains(outbox)
        told.append(([(each.name, records["enter_ns"].tolist()) for each, records in drain.accounts], drain.swept, len(drain.data)))
        if not drain.accounts and not drain.swept:
            break
    assert told == [
        ([("resource", [0])], "", 0),
        ([("resource", [1])], "", 1),
        ([], "resource", 1),
        ([("syscall_freq", [0])], "", 1),
        ([], "syscall_freq", 1),
        ([], "", 1),
    ]
    assert [each.intervals for each in kernel.accounts.values()] == [1, 1, 0]
    assert reader._wait_s(found=True) == IDLE_S
    await reader._look()
    assert [drain.accounts for drain in drains(outbox)] == [[]], "that was all until the next interval"


async def test_stopping_looks_at_all_accounts_again(kernel: Kernel, clock: Clock) -> None:
    """Also in the middle of looking."""
    kernel.accounts = {"resource": Accounts("resource", 3)}
    reader, outbox = reader_of(kernel)
    clock.now_ns += 11 * 10**9
    await reader._look()
    reader.stop()
    await reader.run()
    assert [records["enter_ns"].tolist() for drain in drains(outbox) for _, records in drain.accounts] == [[0], [0], [1], [2]]


async def test_ends_that_found_the_ring_full(kernel: Kernel, clock: Clock) -> None:
    """They come as if from there, soon one after the other; until they have, no process is forgotten and no account is taken to have lost its end."""
    kernel.accounts = {"resource": Accounts("resource", 1), "off": Accounts("syscall_freq", 1)}
    kernel.accounts["off"].running = False
    kernel.accounts["resource"].ended, kernel.accounts["off"].ended = [1, 2, 3, 4, 5], [6]
    reader, outbox = reader_of(kernel)
    await reader._look()
    clock.now_ns += 11 * 10**9
    kernel.happens("open", 7)
    for left in (True, False, False, False, False):
        assert reader._something()
        await reader._look()
        assert reader._wait_s(found=True) == (SWEEP_S if left or reader._sweeping else IDLE_S)
    got = drains(outbox)
    assert [numbers_of(drain)[1] for drain in got] == [
        [("resource", [1, 2]), ("syscall_freq", [6])],
        [("resource", [3, 4]), ("open", [7])],
        [("resource", [5])],
        [],
        [],
    ]
    assert [drain.whole_until_ns == 0 for drain in got] == [True, True, False, False, False]
    assert [bool(drain.accounts) for drain in got] == [False, False, False, True, False]
    assert reader.events == {"resource": 5, "syscall_freq": 1, "open": 1}


@pytest.mark.parametrize("ends", [1, 4, 5])
async def test_stopping_takes_all_ends_and_looks_at_all_accounts(ends: int, kernel: Kernel) -> None:
    kernel.accounts = {"resource": Accounts("resource", 1)}
    kernel.accounts["resource"].ended = list(range(ends))
    reader, outbox = reader_of(kernel)
    await reader._look()
    reader.stop()
    async with asyncio.timeout(LIMIT_S):
        await reader.run()
    got = drains(outbox)
    assert [number for drain in got for _, numbers in numbers_of(drain)[1] for number in numbers] == list(range(ends))
    assert [drain.swept for drain in got if drain.swept] == ["resource"]


def test_an_event_is_seen_soon_enough() -> None:
    assert IDLE_S <= 0.05


async def test_how_long_until_the_next_look(kernel: Kernel, clock: Clock) -> None:
    reader, outbox = reader_of(kernel)
    assert reader._wait_s(found=False) == IDLE_S
    assert reader._wait_s(found=True) == IDLE_S, "unless it is told to be more patient"
    attention = Attention()
    reader = Reader(kernel, outbox, patience_s=(0.3, 0.8), attention=attention)  # type: ignore[arg-type]
    assert reader._wait_s(found=False) == IDLE_S
    assert reader._wait_s(found=True) == 0.3
    ring = kernel.memory["open"]
    kernel.happens("open", *range(filled_bytes(ring.size) // ring.stride))
    assert reader._wait_s(found=True) == 0.3
    kernel.happens("open", 1)
    assert reader._wait_s(found=True) == 0, "it has filled up"
    await reader._look()
    assert reader._wait_s(found=True) == 0.3
    for used_s, wait_s in ((0.001, 0.3), (0.5 * SHARE, 0.5), (1, 0.8), (0, 0.3)):
        clock.used_s += used_s
        assert reader._wait_s(found=True) == pytest.approx(wait_s), "by what was used since the last look"
    attention.watched = True
    assert reader._wait_s(found=True) == IDLE_S, "somebody watches"


async def test_who_has_nothing_to_do_waits_to_be_told(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not looking meanwhile, but for what is due; and then a while for more."""
    monkeypatch.setattr(module, "LOSS_EVERY_S", 1e6)
    outbox: Mailbox[Drain] = Mailbox("out", limit=1000)
    reader = Reader(kernel, outbox, interval_s=1e6)  # type: ignore[arg-type]
    await reader._look()
    waits: list[float] = []
    wait, more = Alarm.wait, asyncio.Event()

    async def waiting(alarm: Alarm, most_s: float) -> bool:
        waits.append(most_s)
        return await wait(alarm, most_s) if len(waits) != 2 else not await more.wait()

    monkeypatch.setattr(Alarm, "wait", waiting)
    task = asyncio.create_task(reader.run())
    await until(lambda: kernel.awaited)
    await settle()
    assert len(waits) == 1
    assert waits[0] > IDLE_S
    kernel.happens("open", 1)
    await until(lambda: len(waits) == 2)
    kernel.happens("open", 2, 3)
    more.set()
    assert waits[1] == IDLE_S
    await until(lambda: kernel.awaited)
    (drain,) = drains(outbox)
    assert numbers_of(drain)[1] == [("open", [1, 2, 3])]
    reader.stop()
    async with asyncio.timeout(LIMIT_S):
        await task


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
    monkeypatch.setattr(module, "TAKE_BYTES", 10 * kernel.memory["open"].stride)
    reader, outbox = reader_of(kernel)
    task = asyncio.create_task(reader.run())
    await settle()
    kernel.happens("open", *range(60))
    kernel.lost = {("open", "ring_full"): 9}
    reader.stop()
    reader.stop()
    async with asyncio.timeout(LIMIT_S):
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
    async with asyncio.timeout(LIMIT_S):
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
    async with asyncio.timeout(LIMIT_S):
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
