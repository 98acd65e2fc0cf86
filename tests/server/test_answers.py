from __future__ import annotations

import pytest

from infrasight.errors import InvalidRequest, QueryFailed
from infrasight.wire import Batch
from tests.server.running import Running, message, ship


async def test_a_result_comes_in_chunks_of_bounded_size(running: Running) -> None:
    async with running.client() as client:
        chunks = [chunk async for chunk in client.query("SELECT 1", "CSV")]
        assert chunks == [b"SELECT 1", b"CSV", bytes(1 << 20), bytes(1 << 20), bytes(1 << 20)]
        assert [chunk async for chunk in client.query("SELECT 1")][1] == b"JSONEachRow"


async def test_what_the_store_says_arrives(running: Running) -> None:
    async with running.client() as client:
        with pytest.raises(QueryFailed, match=r"^Code: 62\. no$"):
            [chunk async for chunk in client.query("fail")]
        with pytest.raises(InvalidRequest, match="SQL is missing"):
            [chunk async for chunk in client.query("  ")]


async def test_status_tells_it_all(running: Running) -> None:
    async with running.client() as client, client.subscribe():
        await ship(client, message(0), message(1, kind="execve"), Batch(seq=2, kind="x", rows=1, arrow=b"x"))
        status = await client.status()
    assert status.version
    assert status.store_reachable
    assert {kind.name: (kind.rows, kind.batches) for kind in status.kinds} == {"open": (10, 1), "execve": (10, 1), "dead_letter": (1, 1)}
    (node,) = status.nodes
    assert (node.name, node.epoch, node.batches, node.rows, node.rejected_batches, node.connected) == ("n1", 7, 2, 20, 1, False)
    assert node.last_batch_unix_ns > node.last_oldest_unix_ns == 5
    assert {(edge.source, edge.target): edge.accepted for edge in status.edges} == {
        ("ingest", "router"): 3,
        ("original", "router"): 3,  # the same mailbox
        ("router", "writer"): 3,
        ("writer", "healer"): 0,
        ("router", "live"): 2,
        ("writer", "ledger"): 2,
    }
    assert status.refused == {"batch": 1}
    assert status.subscribers == 1


async def test_status_says_when_the_store_fails(running: Running) -> None:
    running.server.writer.problem = "disk full"
    async with running.client() as client:
        status = await client.status()
    assert not status.store_reachable
    assert status.store_problem == "disk full"
