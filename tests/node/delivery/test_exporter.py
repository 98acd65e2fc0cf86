"""The exporter against a real gRPC server that goes away, refuses, puts off and stays silent."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from infrasight.actors import Mailbox
from infrasight.errors import Unreachable
from infrasight.node.delivery import exporter as module
from infrasight.node.delivery import spool as spooling
from infrasight.node.delivery.exporter import Exporter
from infrasight.node.flow import Attention, Encoded
from infrasight.schema import Lane
from infrasight.wire import Ack, AckVerdict, Batch, Hello
from infrasight.wire import Attention as Told
from infrasight.wire.server import GrpcServer
from tests.actors.clock import settle
from tests.node.collector import Answer, Collector, listening, ok
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

HELLO = Hello(node="a-node", version="1", boot_id="0-1", epoch=7)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)


class Bench:
    """An exporter that runs against a collector."""

    def __init__(self, port: int, *, reach_within_s: float = LIMIT_S) -> None:
        self.inbox: Mailbox[Encoded] = Mailbox("in", limit=1000)
        self.attention = Attention()
        self.exporter = Exporter(self.inbox, [("127.0.0.1", port)], HELLO, reach_within_s=reach_within_s, attention=self.attention)
        self.task = asyncio.create_task(self.exporter.run())

    async def put(self, *seqs: int, rows: int = 10, size: int = 8) -> None:
        for seq in seqs:
            await self.inbox.put(Encoded(seq, "open", rows, bytes([seq]) * size, time.time_ns()))

    async def end(self) -> None:
        self.inbox.close()
        async with asyncio.timeout(LIMIT_S):
            await self.task


@pytest.fixture
async def collector() -> Collector:
    return Collector()


@pytest.fixture
async def server(collector: Collector) -> AsyncIterator[GrpcServer]:
    server = await listening(collector)
    yield server
    await server.close()


async def test_everything_is_shipped_and_acknowledged(server: GrpcServer, collector: Collector) -> None:
    bench = Bench(server.port)
    await bench.put(*range(1, 51))
    await bench.end()
    assert collector.seqs() == [list(range(1, 51))]
    first = collector.batches[0][0]
    assert (first.kind, first.rows, first.arrow) == ("open", 10, b"\1" * 8)
    assert 0 < time.time_ns() - first.oldest_unix_ns < 20e9
    (hello,) = collector.hellos
    assert (hello.node, hello.boot_id, hello.epoch) == ("a-node", "0-1", 7)
    assert (bench.exporter.window.acknowledged, bench.exporter.window.held_rows()) == ({"open": 500}, {})
    assert 0 <= bench.exporter.lag_s < 20
    assert bench.exporter.connected


async def test_an_end_with_nothing(server: GrpcServer, collector: Collector) -> None:
    await Bench(server.port).end()
    assert collector.seqs() in ([], [[]])


async def test_the_end_waits_for_acknowledgements(server: GrpcServer, collector: Collector) -> None:
    """The last one is stored only when the server says so, and it says so only when asked a second time."""
    seen: list[int] = []

    def answer(batch: Batch) -> Answer:
        seen.append(batch.seq)
        return "hang up" if seen.count(batch.seq) == 1 else ok(batch)

    collector.answer = answer
    bench = Bench(server.port)
    await bench.put(1)
    await bench.end()
    assert collector.seqs() == [[1], [1]]
    assert bench.exporter.window.acknowledged == {"open": 10}


@pytest.mark.parametrize("way", ["hang up", "end"])
async def test_what_was_not_acknowledged_is_sent_again(way: str, server: GrpcServer, collector: Collector) -> None:
    """Byte for byte, in order, before anything new; the same epoch says that these are the same batches."""

    def answer(batch: Batch) -> Answer:
        if len(collector.batches) > 1 or batch.seq == 2:  # which speaks for 1, too
            return ok(batch)
        return way if batch.seq == 5 else None

    collector.answer = answer
    bench = Bench(server.port)
    await bench.put(1, 2, 3, 4)
    await until(lambda: bench.exporter.window.held_rows() == {"open": 20})
    await bench.put(5)
    await until(lambda: len(collector.batches) == 2 and len(collector.batches[1]) == 3)
    await bench.put(6)
    await bench.end()
    assert collector.seqs() == [[1, 2, 3, 4, 5], [3, 4, 5, 6]]
    assert [batch.arrow for batch in collector.batches[1][:3]] == [batch.arrow for batch in collector.batches[0] if batch.seq >= 3]
    assert [batch.fresh for batch in collector.batches[0]] == [True] * 5
    assert [(batch.seq, batch.fresh) for batch in collector.batches[1]] == [(3, False), (4, False), (5, False), (6, True)]
    assert {hello.epoch for hello in collector.hellos} == {7}
    assert bench.exporter.window.acknowledged == {"open": 60}


async def test_a_server_that_is_restarted(server: GrpcServer, collector: Collector) -> None:
    bench, port = Bench(server.port), server.port
    await bench.put(1, 2)
    await until(lambda: collector.seqs() == [[1, 2]])
    await server.close()
    await bench.put(3)
    again = Collector()
    later = await listening(again, port)
    await bench.put(4)
    await bench.end()
    assert sorted({seq for each in collector.seqs() + again.seqs() for seq in each}) == [1, 2, 3, 4]
    assert bench.exporter.window.acknowledged == {"open": 40}
    await later.close()


async def test_what_is_refused_for_good_is_counted(server: GrpcServer, collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    collector.answer = lambda batch: Ack(seq=batch.seq, verdict=AckVerdict.REJECTED, reason="too odd") if batch.seq == 2 else ok(batch)
    bench = Bench(server.port)
    await bench.put(1, 2, 3)
    await bench.end()
    assert collector.seqs() == [[1, 2, 3]]
    assert (bench.exporter.window.acknowledged, bench.exporter.window.rejected) == ({"open": 20}, {"open": 10})
    assert "the server refused 10 rows of open: too odd" in caplog.text


async def test_what_is_put_off_is_sent_again_later(server: GrpcServer, collector: Collector) -> None:
    times: list[float] = []

    def answer(batch: Batch) -> Answer:
        times.append(time.monotonic())
        return Ack(seq=batch.seq, verdict=AckVerdict.RETRY, retry_after_ms=300) if len(times) == 1 else ok(batch)

    collector.answer = answer
    bench = Bench(server.port)
    await bench.put(1)
    await bench.end()
    assert times[1] - times[0] >= 0.3
    assert bench.exporter.window.acknowledged == {"open": 10}
    assert {batch.arrow for batches in collector.batches for batch in batches} == {b"\1" * 8}


async def test_a_full_window_blocks(collector: Collector, server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", 100)
    monkeypatch.setattr(spooling, "READY_BYTES", 50)
    silent: list[Batch] = []
    collector.answer = lambda batch: silent.append(batch)  # type: ignore[func-returns-value]  # silence is None
    bench = Bench(server.port)
    await bench.put(*range(1, 10), size=40)
    await until(lambda: len(silent) == 3)
    await settle()
    assert collector.seqs() == [[1, 2, 3]]
    assert bench.exporter.window.bytes == 120
    assert len(silent) + bench.inbox.statistics().depth + len(bench.exporter.spool._lanes[Lane.ACTIVITY].ready) == 9
    assert bench.inbox.statistics().depth > 0, "the spool, which is in memory, takes no more"
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)
    assert bench.exporter.window.held_rows() == {"open": 30}


async def test_pieces_go_ahead_and_all_of_them_again(server: GrpcServer, collector: Collector) -> None:
    def answer(batch: Batch) -> Answer:
        return "hang up" if len(collector.batches) == 1 and batch.rows == 2 else None if batch.more else ok(batch)

    collector.answer = answer
    bench = Bench(server.port)
    for rows, more in ((1, True), (2, True), (0, False)):
        await bench.inbox.put(Encoded(1, "open", rows, bytes(rows), 0, more))
    await bench.end()
    assert [[(batch.seq, batch.rows, batch.more) for batch in batches] for batches in collector.batches] == [
        [(1, 1, True), (1, 2, True)],
        [(1, 1, True), (1, 2, True), (1, 0, False)],
    ]
    assert bench.exporter.window.acknowledged == {"open": 3}


async def test_it_hears_whether_somebody_watches(server: GrpcServer, collector: Collector) -> None:
    """And without a server, nobody does."""
    told = {1: Told(watched=True), 2: Told(watched=False), 3: Told(watched=True), 4: "hang up"}
    collector.answer = lambda batch: told[batch.seq] if len(collector.batches) == 1 else ok(batch)
    bench = Bench(server.port)
    for seq, watched in ((1, True), (2, False), (3, True), (4, False)):
        await bench.put(seq)
        await until(lambda watched=watched: bench.attention.watched == watched)  # type: ignore[misc]
    await bench.end()


async def test_a_server_that_comes_later(collector: Collector) -> None:
    port = free_port()
    bench = Bench(port)
    await bench.put(1)
    await settle()
    server = await listening(collector, port)
    await bench.end()
    assert collector.seqs() == [[1]]
    await server.close()


async def test_a_server_that_never_was() -> None:
    """Within the time that was asked for, if not at once; and what it did not ship, it still holds or left where it was."""
    bench = Bench(free_port(), reach_within_s=0.3)
    await bench.put(1)
    start = time.monotonic()
    with pytest.raises(Unreachable, match=r"^the server at 127.0.0.1:\d+ cannot be reached: ") as failure:
        await bench.task
    assert 0.25 <= time.monotonic() - start < 20
    assert "\n" not in str(failure.value)
    assert bench.exporter.spool.unsafe_rows() == {"open": 10}


async def test_a_server_that_is_gone_is_waited_for(collector: Collector) -> None:
    """However long: only one that was never reached is given up."""
    server = await listening(collector, free_port())
    bench = Bench(server.port, reach_within_s=0.0)
    await bench.put(1)
    await until(lambda: collector.seqs() == [[1]])
    await server.close()
    await bench.put(2)
    await until(lambda: not bench.exporter.connected)
    await settle()
    assert not bench.task.done()
    again = Collector()
    later = await listening(again, server.port)
    await bench.end()
    assert again.seqs()[-1][-1] == 2
    await later.close()


async def test_a_stranger_on_the_port() -> None:
    """What listens there speaks no gRPC."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    stranger = await asyncio.start_server(shout, "127.0.0.1", 0)
    bench = Bench(stranger.sockets[0].getsockname()[1], reach_within_s=0.1)
    with pytest.raises(Unreachable):
        async with asyncio.timeout(LIMIT_S):
            await bench.task
    stranger.close()
