"""Connections that become too old: nodes make another and lose nothing, what has begun may end."""

from __future__ import annotations

import asyncio
import time

import pytest

from infrasight.errors import Disconnected, WireError
from infrasight.wire.limits import Limits
from infrasight.wire.service import age_of
from tests.server.fleet import SimulatedNode, Told
from tests.server.running import HELLO, MemoryStore, Running, message, ship
from tests.waiting import LIMIT_S, until

OLD = Limits(age_s=0.3, message_s=1.0)
BEGUN = Limits(age_s=2.0, message_s=1.0)
"""Old once a call has begun, and not before."""
PATIENT = Limits(age_s=2.0, message_s=LIMIT_S)
"""The same; and who has begun a call is not cut off."""


async def test_nodes_come_again_and_nothing_is_lost() -> None:
    store, told = MemoryStore(), Told()
    async with Running(store, limits=OLD) as running:
        nodes = [SimulatedNode(f"node{number}", running.port, told, rates={"open": 5}, rhythm_s=0.02) for number in range(5)]
        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(node.run(time.monotonic() + 3600), name=node.name)
            await until(lambda: told.connections >= 2 * len(nodes))
            for node in nodes:
                node.stop()
        assert not told.refused
        kept = {token for token, (kind, _) in store.kept.items() if kind == "open"}
        assert kept == {f"{node.name}:1:{seq}" for node in nodes for seq in node.sent["open"]}


async def test_a_stream_ends_well_and_with_its_acks() -> None:
    store = MemoryStore()
    store.gate.clear()
    async with Running(store, limits=PATIENT) as running, running.client() as client, client.ship(HELLO) as shipment:
        await shipment.send(message(1))
        await until(lambda: running.server.writer._in_hand)
        (protocol,) = running.grpc._server.protocols  # type: ignore[union-attr]
        await until(lambda: age_of(protocol.connection).over)
        store.gate.set()
        assert [ack.seq async for ack in shipment] == [1]  # to its end: the server ended it, and not with an error


async def test_who_stays_is_cut_off() -> None:
    async with Running(MemoryStore(), limits=BEGUN) as running, running.client() as client:
        async with client.subscribe() as subscription:
            with pytest.raises(Disconnected):
                await anext(aiter(subscription))
        assert await ship(client, message(1))  # by another connection
        assert running.server.refused == {}


async def test_an_old_connection_takes_no_new_call() -> None:
    async with Running(MemoryStore(), limits=PATIENT) as running, running.client() as client, client.subscribe():
        (protocol,) = running.grpc._server.protocols  # type: ignore[union-attr]
        await until(lambda: age_of(protocol.connection).over)
        with pytest.raises(WireError):
            await client.status()
