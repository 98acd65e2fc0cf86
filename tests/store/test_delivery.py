"""A node, a server and a real ClickHouse that is killed under them."""

from __future__ import annotations

import asyncio

import pytest

from infrasight.client import Client
from infrasight.store import open_store
from infrasight.wire import Ack
from tests.server.running import HELLO, OK, Running, message
from tests.store.clickhouse import PASSWORD, ClickHouse
from tests.store.conftest import ask
from tests.waiting import LIMIT_S, until

pytestmark = pytest.mark.needs("clickhouse")
ROWS, KILLS = 10, 2


async def deliver(client: Client, acks: list[Ack], over: asyncio.Event) -> int:
    """Until it is over: how many batches."""
    async with client.ship(HELLO) as shipment:

        async def send() -> int:
            sent = 0
            while not over.is_set():
                await shipment.send(message(sent, ROWS))
                sent += 1
                await asyncio.sleep(0.01)  # so that some come while there is no store
            await shipment.end()
            return sent

        sending = asyncio.create_task(send(), name="send")
        async for ack in shipment:
            acks.append(ack)  # noqa: PERF401 - the test looks at them one by one
        return await sending


async def test_what_is_acknowledged_is_stored_whatever_happens_to_clickhouse(own: ClickHouse, older: None) -> None:
    store = open_store(own.url())
    async with Running(store) as running, running.client() as client:
        acks, over = list[Ack](), asyncio.Event()
        delivering = asyncio.create_task(deliver(client, acks, over), name="deliver")
        for _ in range(KILLS):
            answered = len(acks)
            await until(lambda before=answered: len(acks) > before + 5)
            own.kill()
            await until(lambda: running.server.writer.problem)
            status = running.server.status()
            assert not status.store_reachable
            assert f"127.0.0.1:{own.native}" in status.store_problem
            assert PASSWORD not in status.store_problem
            answered = status.nodes[0].batches
            await until(lambda told=answered: len(acks) == told)
            await asyncio.sleep(0.2)
            assert len(acks) == answered  # nothing is acknowledged while there is no store
            await asyncio.to_thread(own.start)
        over.set()
        sent = await asyncio.wait_for(delivering, LIMIT_S)
        assert [ack.verdict for ack in acks] == [OK] * sent
        assert running.server.status().store_reachable
        expected = f"{sent * ROWS}\t{sent * ROWS}"
        async with asyncio.timeout(LIMIT_S):
            while await ask(store, "SELECT uniqExact(pid, ts, path), count() FROM open") != expected:  # noqa: ASYNC110 - what is twice goes in time
                await asyncio.sleep(0.1)
