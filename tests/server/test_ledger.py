"""What the server writes down of batches and nodes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from infrasight.actors import Mailbox
from infrasight.server.ledger import EVERY_S, MAX_GATHERED, NODES_EVERY_S, Entry, Ledger
from infrasight.server.nodes import Nodes
from infrasight.store import open_store
from infrasight.wire import Batch, Hello
from tests.server.running import HELLO, MemoryStore, Running, message, ship


class Desk:
    """A ledger with a clock of its own."""

    def __init__(self) -> None:
        self.now, self.store, self.nodes = 0.0, MemoryStore(), Nodes()
        self.inbox: Mailbox[Entry] = Mailbox("in", limit=5000)
        self.ledger = Ledger(self.inbox, self.store, self.nodes, clock=lambda: self.now)
        self.task: asyncio.Task[None] | None = None

    async def after(self, seconds: float, *entries: Entry) -> None:
        """Let it see that much later, with these entries, or one that only wakes it."""
        if self.task is None:
            self.task = asyncio.create_task(self.ledger.run(), name="ledger")
            await asyncio.sleep(0)
        self.now += seconds
        for each in entries:
            await self.inbox.put(each)
        for _ in range(20 + len(entries)):
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.inbox.close()
        assert self.task is not None
        await self.task

    def rows(self, kind: str) -> list[dict[str, Any]]:
        found = [batch for of, batch in self.store.kept.values() if of == kind]
        return [row for batch in found for row in plain(batch)]


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Times as integers."""
    schema = pa.schema([field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field for field in batch.schema])
    return batch.cast(schema).to_pylist()


def entry(seq: int, *, node: str = "n1", kind: str = "open", lost: int = 0) -> Entry:
    return Entry(1000 + seq, node, "b00", 7, seq, kind, 10, 500, 900, lost)


async def test_batches_are_written_together() -> None:
    desk = Desk()
    await desk.after(0, entry(1), entry(2))
    assert desk.rows("batches") == []
    await desk.after(EVERY_S, entry(3))
    assert [(row["ts"], row["node"], row["seq"], row["event_kind"], row["lag_ns"]) for row in desk.rows("batches")] == [
        (1000 + seq, b"n1", seq, b"open", 100 + seq) for seq in (1, 2, 3)
    ]
    await desk.after(0, *map(entry, range(MAX_GATHERED)))
    assert len(desk.rows("batches")) == 3 + MAX_GATHERED
    assert len(desk.store.tokens) == 2
    await desk.after(0, entry(9))
    await desk.end()
    assert len(desk.rows("batches")) == 4 + MAX_GATHERED


async def test_a_node_has_a_row_when_it_comes_and_goes_and_each_minute() -> None:
    desk = Desk()
    with desk.nodes.connected(Hello(node="n1", version="1.0", boot_id="b00", epoch=7)) as node:
        await desk.after(EVERY_S, entry(1), entry(2))
        node.rejected_batches = 3
        await desk.after(NODES_EVERY_S, entry(3, kind="loss", lost=17))
    await desk.after(0, entry(4))
    await desk.end()
    rows = desk.rows("nodes")
    assert [row["action"] for row in rows] == [b"connected", b"minute", b"disconnected"]
    assert {row["version"] for row in rows} == {b"1.0"}
    told = ("batches", "rows", "bytes", "rejected_batches", "lost")
    assert [sum(row[name] for row in rows) for name in told] == [4, 40, 2000, 3, 17]


async def test_a_node_that_is_gone_and_sends_nothing_has_no_rows() -> None:
    desk = Desk()
    with desk.nodes.connected(HELLO):
        pass
    await desk.after(EVERY_S, entry(1))
    before = len(desk.rows("nodes"))
    for seq in range(3):
        await desk.after(NODES_EVERY_S, entry(seq, node="another"))
    await desk.end()
    assert len(desk.rows("nodes")) == before


async def test_while_the_store_fails_it_is_kept_and_then_written_once() -> None:
    desk = Desk()
    desk.store.failures = 2
    for seq in range(3):
        await desk.after(EVERY_S, entry(seq))
    assert [row["seq"] for row in desk.rows("batches")] == [0]
    await desk.end()
    assert [row["seq"] for row in desk.rows("batches")] == [0, 1, 2]


async def test_a_whole_server_writes_down_what_it_stored(tmp_path: Path) -> None:
    store = open_store(f"chdb://{tmp_path}/store")
    batches = [message(1), message(2, kind="loss"), Batch(seq=3, kind="open", rows=1, arrow=b"x")]
    late = message(4)
    late.oldest_unix_ns = 2**64 - 1  # whatever a node says
    async with Running(store) as running:
        async with running.client() as client:
            await ship(client, *batches, late)
        assert await running.stop()
        told = await asked(store, "SELECT node, seq, event_kind, rows, bytes FROM batches ORDER BY seq")
        assert told == [["n1", each.seq, each.kind, 10, len(each.arrow)] for each in (*batches[:2], late)]
        (sums,) = await asked(store, "SELECT sum(batches), sum(rows), sum(rejected_batches), sum(lost) FROM nodes WHERE node = 'n1'")
        assert sums == [3, 30, 1, sum(range(20, 30))]


async def asked(store: Any, sql: str) -> list[list[Any]]:
    chunks = [chunk async for chunk in store.query(sql, format="JSONCompactEachRow")]
    return [json.loads(line) for line in b"".join(chunks).splitlines()]
