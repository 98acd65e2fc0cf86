"""The exporter with a spool: whatever becomes of servers, and of the node."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from infrasight.actors import Mailbox
from infrasight.node.delivery import exporter as module
from infrasight.node.delivery.exporter import Exporter
from infrasight.node.delivery.spool import Spool
from infrasight.node.flow import Encoded
from infrasight.wire import Ack, AckVerdict, Hello, liveness
from tests.node.collector import Collector, listening, ok
from tests.node.delivery.spools import delivered, killed, opened, piece
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

HELLO = Hello(node="a-node", version="1", boot_id="0-1")


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.05)


class Life:
    """An exporter with a spool that runs."""

    def __init__(self, spool: Spool, *ports: int) -> None:
        self.inbox: Mailbox[Encoded] = Mailbox("in", limit=1000)
        self.exporter = Exporter(self.inbox, [("127.0.0.1", port) for port in ports], HELLO, spool, reach_within_s=0.0)
        self.task = asyncio.create_task(self.exporter.run())

    async def put(self, *seqs: int, kind: str = "open") -> None:
        for seq in seqs:
            await self.inbox.put(piece(seq, kind))

    async def end(self) -> None:
        self.inbox.close()
        async with asyncio.timeout(LIMIT_S):
            await self.task

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        killed(self.exporter.spool)


@contextlib.asynccontextmanager
async def served(collector: Collector, port: int = 0) -> AsyncIterator[int]:
    server = await listening(collector, port)
    try:
        yield server.port
    finally:
        await server.close()


async def test_what_comes_while_no_server_is_there_is_delivered_later(tmp_path: Path) -> None:
    """And a node with a disk does not give up, however long there never was one."""
    port, collector = free_port(), Collector()
    life = Life(opened(tmp_path), port)
    await life.put(*range(1, 301))
    await until(lambda: life.exporter.spool.disk.written == 300)
    async with served(collector, port):
        await until(lambda: life.exporter.connected)
        await life.end()
    assert [batch.seq for batches in collector.batches for batch in batches] == list(range(1, 301))
    assert life.exporter.window.acknowledged == {"open": 3000}
    assert life.exporter.spool.rows() == {}


async def test_a_clean_end_without_a_server_is_at_once_and_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    life = Life(opened(tmp_path), port)
    await life.put(1, 2, 3)
    await life.put(4, kind="execve")
    began_s = time.monotonic()
    await life.end()
    assert time.monotonic() - began_s < LIMIT_S / 2
    epoch = life.exporter.spool.epoch
    life.exporter.spool.close()
    collector = Collector()
    async with served(collector, port):
        again = Life(opened(tmp_path), port)
        await again.put(1)
        await again.end()
    (batches,) = collector.batches
    assert [(batch.epoch, batch.seq) for batch in batches] == [(epoch, 4), (epoch, 1), (epoch, 2), (epoch, 3), (again.exporter.spool.epoch, 1)]
    (hello,) = collector.hellos
    assert hello.epoch == again.exporter.spool.epoch > epoch


async def test_a_killed_node_sends_again_what_had_no_ack(tmp_path: Path) -> None:
    collector = Collector(lambda batch: ok(batch) if batch.seq <= 2 or batch.epoch != first.exporter.spool.epoch else None)
    async with served(collector) as port:
        first = Life(opened(tmp_path), port)
        await first.put(1, 2, 3, 4)
        await until(lambda: first.exporter.window.acknowledged == {"open": 20} and len(collector.batches[0]) == 4)
        await first.kill()
        collector.answer = ok
        again = Life(opened(tmp_path), port)
        await again.end()
    one, two = collector.batches
    assert [bytes(batch) for batch in two] == [bytes(replace(batch, fresh=False)) for batch in one[2:]], "byte for byte, under the same number"


async def test_a_sent_batch_does_not_stay_in_memory(tmp_path: Path) -> None:
    collector = Collector(lambda batch: None)
    async with served(collector) as port:
        life = Life(opened(tmp_path), port)
        await life.put(*range(1, 11))
        await until(lambda: bool(collector.batches) and len(collector.batches[0]) == 10)
        held = [held for state in life.exporter.spool._lanes.values() for held in state.held]
        await until(lambda: all(each.payload is None for each in held))
        assert len(held) == 10
        await life.kill()


async def test_servers_are_tried_in_turn(tmp_path: Path) -> None:
    one, two, nobody = Collector(), Collector(), free_port()
    two_port = free_port()
    async with served(one) as one_port:
        life = Life(opened(tmp_path), nobody, one_port, two_port)
        await life.put(1)
        await until(lambda: life.exporter.window.acknowledged == {"open": 10})
    async with served(two, two_port):
        await life.put(2)
        await until(lambda: life.exporter.window.acknowledged == {"open": 20})
        await life.end()
    assert (one.seqs(), two.seqs()[-1]) == ([[1]], [2])


async def test_what_is_put_off_goes_again_over_the_same_stream(tmp_path: Path) -> None:
    asked: list[float] = []

    def answer(batch: object) -> Ack:
        seq, epoch = batch.seq, batch.epoch  # type: ignore[attr-defined]
        asked.append(time.monotonic())
        return Ack(seq, AckVerdict.RETRY, "the disk is full", 200, epoch) if len(asked) == 1 else Ack(seq, AckVerdict.OK, epoch=epoch)

    collector = Collector(answer)
    async with served(collector) as port:
        life = Life(opened(tmp_path), port)
        await life.put(1)
        await life.end()
    assert collector.seqs() == [[1, 1]]
    assert asked[1] - asked[0] >= 0.2
    assert life.exporter.retries == 1


def damaged(directory: Path, batch: bytes) -> None:
    (segment,) = directory.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[data.index(batch)] ^= 1
    segment.write_bytes(data)


async def test_a_damaged_batch_is_skipped_and_told(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for seq in (1, 2, 3):
        first.append(piece(seq))
    killed(first)
    damaged(tmp_path, b"open 2 0 ")
    collector = Collector()
    async with served(collector) as port:
        life = Life(opened(tmp_path), port)
        await life.end()
    assert collector.seqs() == [[1, 3]]
    (loss,) = (loss for loss in life.exporter.spool.ledger.take() if loss.reason != "unseen")
    assert (loss.probe, loss.reason, loss.count) == ("open", "spool_damaged", 10)
    assert life.exporter.window.acknowledged == {"open": 20}
    assert life.exporter.spool.skipped["payload"] == 1


class Proxy:
    """Passes bytes on until it is frozen; its connections stay open then, and say nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def freeze(self) -> None:
        self._flows.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for source, target in ((reader, back), (there, writer)):
            self._tasks.add(asyncio.create_task(self._pass(source, target)))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self._flows.wait()
                target.write(data)
                await target.drain()
        target.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server.close()


@pytest.mark.parametrize("size", [100, 200_000], ids=["small", "more than the socket holds"])
async def test_a_server_that_says_nothing_any_more_is_left(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is open for all that TCP knows. Also while much is waiting to be sent over it."""
    monkeypatch.setattr(liveness, "ASKED_EVERY_S", 0.2)
    monkeypatch.setattr(liveness, "ANSWERS_WITHIN_S", 2.0)
    one, two = Collector(), Collector()
    async with served(one) as one_port, served(two) as two_port:
        proxy = Proxy(one_port)
        life = Life(opened(tmp_path), await proxy.start(), two_port)
        await life.put(1)
        await until(lambda: life.exporter.window.acknowledged == {"open": 10})
        proxy.freeze()
        for seq in range(2, 32):
            await life.inbox.put(piece(seq, size=size))
        await life.end()
        await proxy.close()
    assert two.seqs() == [list(range(2, 32))]
    assert life.exporter.window.acknowledged == {"open": 310}


@pytest.fixture
def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=True)
    try:
        yield place  # type: ignore[misc]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.needs("root")
async def test_a_full_disk(small_disk: Path) -> None:
    """What does not fit any more waits in memory, and then upstream; once there is room again everything is written down; nothing is lost."""
    (small_disk / "ballast").write_bytes(bytes(700_000))
    port, collector = free_port(), Collector()
    spool = opened(small_disk / "spool")
    life = Life(spool, port)
    putting = asyncio.create_task(life.put(*range(1, 2001)))
    for seq in range(2001, 2301):
        await life.inbox.put(piece(seq, size=5_000))
    await until(lambda: not spool.room)
    assert spool.disk.problem == "No space left on device"
    assert not putting.done() or life.inbox.statistics().depth
    (small_disk / "ballast").unlink()
    spool.disk._retry_at_s = 0.0
    async with served(collector, port):
        await putting
        await until(lambda: not spool.waiting and not spool.disk.problem)
        await life.end()
    assert sorted(batch.seq for batches in collector.batches for batch in batches) == list(range(1, 2301))
    assert not spool.disk.problem
    spool.close()
    again = opened(small_disk / "spool")
    assert (delivered(again), again.skipped.total(), again.ledger.take()) == ([], 0, [])
    again.close()
