"""The ledger: what the server itself knows of batches and nodes, written down as the tables `batches` and `nodes`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infrasight.actors import Actor, Mailbox
from infrasight.errors import MailboxClosed, StoreError
from infrasight.server.nodes import Node, Nodes
from infrasight.server.rows import made
from infrasight.server.session import Delivery
from infrasight.store import Store

log = logging.getLogger(__name__)
EVERY_S = 10.0
"""How often it writes; what it has gathered since is lost when the server is killed."""
MAX_GATHERED = 1000
"""Batches that it writes down together, at most."""
NODES_EVERY_S = 60.0
"""How often there is a row of each node that is connected, or from which something came."""
_LATEST = 2**63 - 1


@dataclass(frozen=True)
class Entry:
    """A batch that is stored. Times are ns since the epoch."""

    stored_ns: int
    node: str
    boot_id: str
    epoch: int
    seq: int
    kind: str
    rows: int
    bytes: int
    oldest_ns: int
    lost: int
    """What a batch of the kind `loss` says was lost."""

    @property
    def lag_ns(self) -> int:
        """How long after its oldest event it was stored."""
        return self.stored_ns - self.oldest_ns


def entry_of(delivery: Delivery, stored_ns: int) -> Entry | None:
    """What is to be written down of a delivery that is stored now; None of one that is from no node."""
    origin = delivery.origin
    if origin is None:
        return None
    lost = pc.sum(delivery.batch.column("count")).as_py() or 0 if delivery.kind == "loss" else 0
    hello, oldest_ns = origin.hello, min(origin.oldest_ns, _LATEST)
    return Entry(
        stored_ns, hello.node, hello.boot_id, origin.epoch, origin.seq, delivery.kind, delivery.batch.num_rows, origin.bytes, oldest_ns, lost
    )


@dataclass
class _Sums:
    """What came from a node since its last row."""

    batches: int = 0
    rows: int = 0
    bytes: int = 0
    lost: int = 0
    lag_ns: int = 0

    def add(self, entry: Entry) -> None:
        self.batches += 1
        self.rows += entry.rows
        self.bytes += entry.bytes
        self.lost += entry.lost
        self.lag_ns = entry.lag_ns


class Ledger(Actor):
    """Gathers, so that it costs two inserts every `EVERY_S` at most. While the store fails it keeps what it has, and its inbox drops the oldest."""

    name = "ledger"

    def __init__(self, inbox: Mailbox[Entry], store: Store, nodes: Nodes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._inbox, self._store, self._nodes, self._clock = inbox, store, nodes, clock
        self._life = secrets.token_hex(8)
        self._batches = 0
        self._unwritten: deque[tuple[str, pa.RecordBatch, str]] = deque()
        """Kind, batch and token: fixed once an insert was tried, since nobody knows what came of one that failed."""
        self._entries: list[Entry] = []
        self._rows: list[dict[str, Any]] = []
        """Of the table `nodes`."""
        self._sums: dict[str, _Sums] = {}
        self._rejected: dict[str, int] = {}
        """Of each node, how many rejected batches its rows have told so far."""
        self._nodes_due_s = clock() + NODES_EVERY_S

    async def run(self) -> None:
        """Until the inbox is closed and empty; then what is left is written, if the store takes it."""
        due_s = self._clock() + EVERY_S
        while True:
            try:
                async with asyncio.timeout(max(due_s - self._clock(), 0.0)):
                    self._add(await self._inbox.get())
            except TimeoutError:
                pass
            except MailboxClosed:
                break
            if self._clock() >= due_s or len(self._entries) >= MAX_GATHERED:
                await self._write()
                due_s = self._clock() + EVERY_S
        self._nodes_due_s = self._clock()
        await self._write()

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._sums.setdefault(entry.node, _Sums()).add(entry)

    async def _write(self) -> None:
        self._note_nodes()
        if not self._unwritten:
            self._freeze("batches", [_batch_row(entry) for entry in self._entries])
            self._freeze("nodes", self._rows)
            self._entries, self._rows = [], []
        try:
            while self._unwritten:
                await self._store.insert(*self._unwritten[0])
                self._unwritten.popleft()
        except StoreError as error:
            log.debug("nothing can be written down now: %s", error)

    def _freeze(self, kind: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._batches += 1
            self._unwritten.append((kind, made(kind, rows), f"ledger:{self._life}:{self._batches}"))

    def _note_nodes(self) -> None:
        while self._nodes.changes:
            ts, action, node = self._nodes.changes.popleft()
            self._note(ts, action, node)
        if self._clock() >= self._nodes_due_s:
            self._nodes_due_s = self._clock() + NODES_EVERY_S
            now_ns = time.time_ns()
            for node in self._nodes:
                if node.connections or node.hello.node in self._sums:
                    self._note(now_ns, "minute", node)
            self._sums.clear()

    def _note(self, ts: int, action: str, node: Node) -> None:
        hello, sums = node.hello, self._sums.pop(node.hello.node, _Sums())
        rejected = node.rejected_batches - self._rejected.get(hello.node, 0)
        self._rejected[hello.node] = node.rejected_batches
        row = {"ts": ts, "node": hello.node, "action": action, "version": hello.version, "boot_id": hello.boot_id, "epoch": hello.epoch}
        self._rows.append(row | vars(sums) | {"rejected_batches": rejected})


def _batch_row(entry: Entry) -> dict[str, Any]:
    return {
        "ts": entry.stored_ns,
        "node": entry.node,
        "boot_id": entry.boot_id,
        "epoch": entry.epoch,
        "seq": entry.seq,
        "event_kind": entry.kind,
        "rows": entry.rows,
        "bytes": entry.bytes,
        "oldest": entry.oldest_ns,
        "lag_ns": entry.lag_ns,
    }
