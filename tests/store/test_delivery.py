"""A node, a server and a real ClickHouse that is killed under them."""

from __future__ import annotations

import asyncio

import pytest

from infrasight.client import Client
from infrasight.store import open_store
from infrasight.wire import Ack
from tests.server.running import HELLO, OK, Running, eventually, message
from tests.store.clickhouse import PASSWORD, ClickHouse
from tests.store.conftest import ask

pytestmark = pytest.mark.needs("clickhouse")
BATCHES, ROWS, KILLS = 60, 10, 2


async def deliver(client: Client, acks: list[Ack]) -> None:
    async with client.ship(HELLO) as shipment:

        async def send() -> None:
            for seq in range(BATCHES):
                await shipment.send(message(seq, ROWS))
                await asyncio.sleep(0.01)  # so that some come while there is no store
            await shipment.end()

        sending = asyncio.create_task(send(), name="send")
        async for ack in shipment:
            acks.append(ack)  # noqa: PERF401 - the test looks at them one by one
        await sending


async def test_what_is_acknowledged_is_stored_whatever_happens_to_clickhouse(own: ClickHouse, older: None) -> None:
    store = open_store(own.url())
    async with Running(store) as running, running.client() as client:
        acks: list[Ack] = []
        delivering = asyncio.create_task(deliver(client, acks), name="deliver")
        for kill in range(KILLS):
            await eventually(lambda kill=kill: len(acks) > 5 + 10 * kill, within_s=30)
            own.kill()
            await eventually(lambda: running.server.writer.problem, within_s=30)
            answered = len(acks)
            status = running.server.status()
            assert not status.store_reachable
            assert f"127.0.0.1:{own.native}" in status.store_problem
            assert PASSWORD not in status.store_problem
            await asyncio.sleep(0.2)
            assert len(acks) == answered  # nothing is acknowledged while there is no store
            await asyncio.to_thread(own.start)
        async with asyncio.timeout(60):
            await delivering
        assert [ack.verdict for ack in acks] == [OK] * len(acks)
        assert running.server.status().store_reachable
        expected = f"{BATCHES * ROWS}\t{BATCHES * ROWS}"
        async with asyncio.timeout(60):
            while await ask(store, "SELECT uniqExact(pid, ts, path), count() FROM open") != expected:  # noqa: ASYNC110 - what is twice goes in time
                await asyncio.sleep(0.1)
