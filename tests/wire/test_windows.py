"""Windows are small for all together, and wide for one that is read at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from infrasight.client import Client
from infrasight.errors import Disconnected
from infrasight.wire import Batch, Hello, ShipResponse, Welcome
from infrasight.wire.limits import Limits
from infrasight.wire.server import GrpcServer
from infrasight.wire.service import CollectorService
from infrasight.wire.windows import LEAST
from tests.waiting import until

HELLO = Hello(node="n", version="1", boot_id="b", epoch=1)
BATCH = Batch(seq=1, kind="open", rows=1, arrow=bytes(32 << 10))


class Reading(CollectorService):
    """Reads while it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.read = 0
        self.max_message_bytes = 2 << 20

    async def ship(self, stream: Any) -> None:
        await stream.receive()
        await stream.send(ShipResponse(welcome=Welcome(version="1", max_batch_bytes=1 << 20)))
        await self.may.wait()
        while await stream.receive():
            self.read += 1


class Bench:
    """A server, and what it holds."""

    def __init__(self, received_bytes: int) -> None:
        self.service = Reading()
        self.server = GrpcServer([self.service], limits=Limits(received_bytes=received_bytes))

    @property
    def inner(self) -> Any:
        return self.server._server

    def held(self) -> int:
        return sum(protocol.held_bytes() for protocol in self.inner.protocols)

    async def pour(self) -> None:
        """Batches without end, from one client."""
        async with Client(port=self.server.port) as client, client.ship(HELLO) as shipment:
            while True:
                await shipment.send(BATCH)


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    made = Bench(getattr(request, "param", 256 << 20))
    await made.server.start()
    yield made
    await made.server.close()


@pytest.fixture
async def pouring(bench: Bench) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(bench.pour(), name="client") for _ in range(5)]
    yield tasks
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError | Disconnected), result


async def test_who_is_not_read_sends_little(bench: Bench, pouring: list[asyncio.Task[None]]) -> None:
    """And goes on where it was."""
    await until(lambda: bench.held() >= len(pouring) * (LEAST // 2 - 1000))
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert bench.held() <= len(pouring) * LEAST
    bench.service.may.set()
    await until(lambda: bench.service.read > 3 * len(pouring))
    assert not any(task.done() for task in pouring)


async def test_who_is_read_at_once_may_send_more(bench: Bench, pouring: list[asyncio.Task[None]]) -> None:
    """And gives its room back when it leaves."""
    bench.service.may.set()
    await until(lambda: any(protocol._window.size >= 8 * LEAST for protocol in bench.inner.protocols))
    assert bench.inner.room.taken == sum(protocol._window.size - LEAST for protocol in bench.inner.protocols)
    bench.service.may.clear()
    for task in pouring:
        task.cancel()
    await until(lambda: not bench.inner.protocols)
    assert not bench.inner.room.taken


@pytest.mark.parametrize("bench", [1 << 20], indirect=True)
async def test_all_together_have_so_much_room(bench: Bench, pouring: list[asyncio.Task[None]]) -> None:
    bench.service.may.set()
    await until(lambda: bench.service.read > 20 * len(pouring))
    assert LEAST <= bench.inner.room.taken <= 1 << 19
    assert not any(task.done() for task in pouring)
