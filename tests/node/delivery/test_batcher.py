"""The batcher: when it sends, and that what it sends is what came."""

import asyncio

import pyarrow as pa
import pytest

from infrasight.actors import Mailbox
from infrasight.node.delivery.batcher import IN_A_THREAD_ROWS, Batcher, Limits
from infrasight.node.flow import Attention, Batch, Encoded
from infrasight.schema import KINDS, SHIPPED
from infrasight.wire.codec import decode, join
from tests.actors.clock import VirtualClock, settle
from tests.waiting import LIMIT_S
from tests.wire.batches import START_NS, batch, with_column


class Bench:
    """A batcher that runs, with time standing still."""

    def __init__(self, limits: Limits, *, room: int = 1000) -> None:
        self.clock = VirtualClock()
        self.waited_ns = 0
        self.inbox: Mailbox[Batch] = Mailbox("in", limit=1000)
        self.outbox: Mailbox[Encoded] = Mailbox("out", limit=room)
        self.attention = Attention()
        batcher = Batcher(self.inbox, self.outbox, limits, self.clock.time, lambda: START_NS + self.waited_ns, attention=self.attention)
        self.task = asyncio.create_task(batcher.run())

    async def put(self, kind: str, rows: int, first: int = 0) -> None:
        await self.inbox.put(Batch(kind, batch(kind, rows, first=first), START_NS + first))
        await settle()

    def sent(self) -> list[tuple[str, int]]:
        """Kind and rows of what was sent since we last asked."""
        return [(each.kind, each.rows) for each in iter(self.outbox.get_nowait, None)]

    async def end(self) -> None:
        self.inbox.close()
        await self.task


NEVER = Limits(rows=1 << 30, bytes=1 << 40, age_s=1e6)
AGED_ONLY = Limits(rows=20, bytes=1 << 40, age_s=10, longest_age_s=100, burst=-1 << 40)
"""No batch is sent for its age until it is very old."""


async def test_enough_rows() -> None:
    bench = Bench(Limits(rows=10, bytes=1 << 40, age_s=1e6))
    await bench.put("open", 4)
    await bench.put("open", 5)
    assert bench.sent() == []
    await bench.put("execve", 9)
    assert bench.sent() == []
    await bench.put("open", 3)
    assert bench.sent() == [("open", 12)]
    await bench.put("open", 10)
    assert bench.sent() == [("open", 10)]
    await bench.end()
    assert bench.sent() == [("execve", 9)]


async def test_enough_bytes() -> None:
    size = Batch("open", batch("open", 100), 0).weight()
    bench = Bench(Limits(rows=1 << 30, bytes=2 * size + 1, age_s=1e6))
    await bench.put("open", 100)
    await bench.put("open", 100)
    assert bench.sent() == []
    await bench.put("open", 100)
    assert bench.sent() == [("open", 300)]
    await bench.end()


async def test_what_has_waited_before() -> None:
    """Counts: the age is that of the event. A clock that was set since changes nothing."""
    bench = Bench(Limits(rows=1 << 30, bytes=1 << 40, age_s=10))
    for waited_s, left_s in ((4, 6), (60, 0), (-60, 10)):
        bench.waited_ns = waited_s * 10**9
        await bench.put("open", 1)
        if left_s:
            bench.clock.now += left_s - 1
            await bench.put("execve", 1)
            assert "open" not in dict(bench.sent())
            bench.clock.now += 1
            await bench.put("execve", 1)
        assert ("open", 1) in bench.sent()
    await bench.end()


async def test_one_batch_an_age_in_the_long_run() -> None:
    """But for a burst at first, and for what has become too old. The oldest goes first."""
    bench = Bench(Limits(rows=1 << 30, bytes=1 << 40, age_s=10, longest_age_s=100, burst=2))
    kinds = ("open", "execve", "chmod", "unlink", "mmap")
    for kind in kinds:
        await bench.put(kind, 1)
        bench.clock.now += 1
    bench.clock.now += 10
    await bench.put("open", 1)
    assert bench.sent() == [("open", 2), ("execve", 1), ("chmod", 1)], "the burst, and the one that is due"
    for kind in kinds[3:]:
        bench.clock.now += 9
        await bench.put("process", 1)
        assert bench.sent() == []
        bench.clock.now += 1
        await bench.put("process", 1)
        assert bench.sent() == [(kind, 1)]
    for _ in range(3):
        await bench.put("open", 1)
        bench.clock.now += 1
    bench.clock.now += 100
    await bench.put("mount", 1)
    assert [kind for kind, _ in bench.sent()][:2] == ["process", "open"], "none waits for ever"
    await bench.end()


async def test_enough_bytes_of_all_kinds_together() -> None:
    """Then the largest goes."""
    size = Batch("open", batch("open", 100), 0).weight()
    bench = Bench(Limits(rows=1 << 30, bytes=3 * size, age_s=1e6))
    for kind, rows in (("open", 100), ("execve", 1), ("open", 100)):
        await bench.put(kind, rows)
    assert bench.sent() == []
    await bench.put("open", 100)
    assert bench.sent() == [("open", 300)]
    await bench.end()
    assert bench.sent() == [("execve", 1)]


async def test_who_watches_gets_pieces() -> None:
    """While batches are as large, and as few, as when nobody does."""
    bench = Bench(AGED_ONLY)
    got: list[Encoded] = []
    for watched, wait_s, first, rows, sent in (
        (False, 0, 0, 2, []),
        (False, 10, 2, 3, []),
        (True, 1, 5, 1, [(6, True)]),
        (True, 1, 6, 2, []),
        (True, 9, 8, 1, []),
        (True, 1, 9, 4, [(7, True)]),
        (True, 1, 13, 7, [(7, False)]),
        (True, 1, 20, 1, []),
    ):
        bench.attention.watched = watched
        bench.clock.now += wait_s
        await bench.put("open", rows, first)
        more = list(iter(bench.outbox.get_nowait, None))
        assert [(each.rows, each.more) for each in more] == sent
        got += more
    assert {each.seq for each in got} == {1}
    assert join([decode("open", each.payload) for each in got]).equals(batch("open", 20))
    await bench.end()


async def test_a_batch_whose_pieces_were_all_there_is() -> None:
    """Ends with one that has nothing."""
    bench = Bench(AGED_ONLY)
    bench.attention.watched = True
    await bench.put("open", 3)
    bench.clock.now += 10
    await bench.put("execve", 1)
    (piece,) = iter(bench.outbox.get_nowait, None)
    assert (piece.kind, piece.rows, piece.more) == ("open", 3, True)
    await bench.end()
    ends = {each.kind: each for each in iter(bench.outbox.get_nowait, None)}
    assert (ends["open"].seq, ends["open"].rows, ends["open"].payload, ends["open"].more) == (piece.seq, 0, b"", False)
    assert (ends["execve"].seq, ends["execve"].rows) == (piece.seq + 1, 1)


async def test_pieces_are_sent_though_nobody_comes() -> None:
    inbox: Mailbox[Batch] = Mailbox("in", limit=10)
    outbox: Mailbox[Encoded] = Mailbox("out", limit=10)
    limits = Limits(age_s=0.01, longest_age_s=1e6, burst=-1 << 40)
    task = asyncio.create_task(Batcher(inbox, outbox, limits, attention=Attention(watched=True)).run())
    await inbox.put(Batch("open", batch("open", 3), 7))
    async with asyncio.timeout(LIMIT_S):
        piece = await outbox.get()
    assert (piece.rows, piece.more) == (3, True)
    inbox.close()
    await task


async def test_full_batches_are_not_counted_among_the_old() -> None:
    bench = Bench(Limits(rows=5, bytes=1 << 40, age_s=10, longest_age_s=100, burst=1))
    for _ in range(50):
        await bench.put("open", 5)
    assert len(bench.sent()) == 50
    await bench.put("execve", 1)
    bench.clock.now += 10
    await bench.put("execve", 1)
    assert bench.sent() == [("execve", 2)]
    await bench.end()


async def test_old_enough() -> None:
    """Each kind has an age of its own, that of its first row."""
    bench = Bench(Limits(rows=1 << 30, bytes=1 << 40, age_s=10))
    await bench.put("open", 1)
    bench.clock.now += 6
    await bench.put("execve", 1)
    await bench.put("open", 1)
    bench.clock.now += 4
    await bench.put("connect", 1)
    assert bench.sent() == [("open", 2)]
    bench.clock.now += 6
    await bench.put("connect", 1)
    assert bench.sent() == [("execve", 1)]
    await bench.end()
    assert bench.sent() == [("connect", 2)]


async def test_nobody_needs_to_come_for_it_to_be_old() -> None:
    inbox: Mailbox[Batch] = Mailbox("in", limit=10)
    outbox: Mailbox[Encoded] = Mailbox("out", limit=10)
    task = asyncio.create_task(Batcher(inbox, outbox, Limits(age_s=0.01)).run())
    await inbox.put(Batch("open", batch("open", 3), 7))
    async with asyncio.timeout(LIMIT_S):
        first = await outbox.get()
    assert (first.seq, first.rows, first.oldest_ns) == (1, 3, 7)
    inbox.close()
    await task


async def test_nothing_is_lost_and_order_is_kept() -> None:
    bench = Bench(Limits(rows=1000, bytes=1 << 40, age_s=1e6))
    for first in range(0, 3000, 37):
        for kind in SHIPPED:
            await bench.put(kind, 37, first)
    await bench.end()
    got = list(iter(bench.outbox.get_nowait, None))
    assert [each.seq for each in got] == list(range(1, len(got) + 1))
    for kind in SHIPPED:
        parts = [each for each in got if each.kind == kind]
        batches = [decode(kind, each.payload) for each in parts]
        assert [part.num_rows for part in batches] == [part.rows for part in parts]
        assert [part.oldest_ns for part in parts] == [part.column("ts")[0].value for part in batches]
        rows = [row for part in batches for row in part.to_pylist()]
        assert rows == batch(kind, len(rows)).to_pylist()
        assert len(rows) == 37 * len(range(0, 3000, 37))


async def test_many_rows_are_encoded_in_a_thread() -> None:
    """And in order all the same, with what came meanwhile kept."""
    bench = Bench(Limits(rows=IN_A_THREAD_ROWS + 1, bytes=1 << 40, age_s=1e6))
    for number in range(4):
        await bench.inbox.put(Batch("open", batch("open", IN_A_THREAD_ROWS + 1, first=number), START_NS + number))
    await bench.end()
    assert [each.oldest_ns - START_NS for each in iter(bench.outbox.get_nowait, None)] == [0, 1, 2, 3]


async def test_it_waits_for_a_slow_receiver() -> None:
    bench = Bench(Limits(rows=1, bytes=1, age_s=0), room=1)
    for number in range(3):
        await bench.put("open", 1, number)
    assert bench.outbox.statistics().depth == 1
    assert bench.inbox.statistics().depth == 1
    assert [(await bench.outbox.get()).oldest_ns - START_NS for _ in range(3)] == [0, 1, 2]
    await bench.end()


async def test_an_end_with_nothing() -> None:
    bench = Bench(NEVER)
    await bench.end()
    assert bench.sent() == []


@pytest.mark.parametrize("kind", KINDS)
def test_joining_is_putting_rows_one_after_the_other(kind: str) -> None:
    parts = [batch(kind, rows, first=first) for rows, first in ((1, 3), (7, 100), (2, 0), (50, 4))]
    joined = join(parts)
    assert joined.schema == parts[0].schema
    joined.validate(full=True)
    assert joined.to_pylist() == [row for part in parts for row in part.to_pylist()]
    for column in joined.columns:
        if pa.types.is_dictionary(column.type):
            values = column.dictionary.to_pylist()
            assert len(set(values)) == len(values), "one dictionary, each value once"
    assert join(parts[:1]) is parts[0]


def test_joining_makes_one_dictionary_of_several() -> None:
    parts = [with_column(batch("open", 3), "path", [b"/a", b"/b", b"/%d" % number]) for number in range(4)]
    path = join(parts).column("path")
    assert path.to_pylist() == [b"/a", b"/b", b"/0", b"/a", b"/b", b"/1", b"/a", b"/b", b"/2", b"/a", b"/b", b"/3"]
    assert sorted(path.dictionary.to_pylist()) == [b"/0", b"/1", b"/2", b"/3", b"/a", b"/b"]
