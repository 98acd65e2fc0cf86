"""A whole server in the test's event loop, and what to talk to it with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any, Self

import pyarrow as pa

from infrasight.actors import RestartPolicy, Supervisor
from infrasight.client import Client, Credentials
from infrasight.errors import QueryFailed, StoreUnavailable
from infrasight.schema import SHIPPED
from infrasight.server.graph import Server
from infrasight.store import QueryLimits, Store, StoreStatistics
from infrasight.store.interface import ContainerKey
from infrasight.wire import Ack, AckVerdict, Batch, Hello
from infrasight.wire.access import Access
from infrasight.wire.codec import encode
from infrasight.wire.limits import Limits
from infrasight.wire.server import GrpcServer
from infrasight.wire.tls import ServerTls
from tests.waiting import LIMIT_S
from tests.wire.batches import batch as columns

HELLO = Hello(node="n1", version="1", boot_id="b00-7", epoch=7)
OK, REJECTED = AckVerdict.OK, AckVerdict.REJECTED


class MemoryStore(Store):
    """Keeps batches by token, as a store that deduplicates does. `gate` holds inserts up while it is clear; `failures` of them fail first."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, pa.RecordBatch]] = {}
        self.tokens: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = 0
        self.counts = StoreStatistics()
        self.healings: list[tuple[str, tuple[ContainerKey, ...], int, int]] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def insert(self, kind: str, batch: pa.RecordBatch, token: str) -> None:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("disk full")
        self.tokens.append(token)
        self.kept.setdefault(token, (kind, batch))
        self.counts.rows[kind] += batch.num_rows
        self.counts.batches[kind] += 1

    async def query(self, sql: str, *, format: str = "JSONEachRow", limits: QueryLimits | None = None) -> AsyncIterator[bytes]:  # type: ignore[override]
        if " UNION ALL " in sql:  # the healer looks for what to heal
            return
        if sql == "fail":
            raise QueryFailed("Code: 62. no")
        for part in (sql.encode(), format.encode(), bytes(3 << 20)):
            yield part

    async def heal(self, kind: str, containers: Collection[ContainerKey], since_ns: int, until_ns: int) -> bool:
        self.healings.append((kind, tuple(containers), since_ns, until_ns))
        return True

    def statistics(self) -> StoreStatistics:
        return self.counts

    def rows(self) -> int:
        """Of what nodes shipped."""
        return sum(kept.num_rows for kind, kept in self.kept.values() if kind in SHIPPED)


class Running:
    """Server, supervisor and socket. Leaving it checks that nothing was lost on any edge."""

    def __init__(self, store: Store, *, tls: ServerTls | None = None, access: Access | None = None, limits: Limits = Limits(), **more: Any) -> None:  # noqa: B008 - frozen
        self.store: Any = store
        self.server = Server(store, **more)
        self.grpc = GrpcServer(self.server.services, tls=tls, access=access, limits=limits)
        self.supervisor = Supervisor(self.server.graph, RestartPolicy(backoff_s=0.001))
        self.port = 0
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.store.open()
        self.port = await self.grpc.start()
        self._work = asyncio.create_task(self.supervisor.run())
        return self

    async def stop(self, grace_s: float = LIMIT_S) -> bool:
        """As the program stops: True when everything was drained."""
        self.grpc.stop_accepting()
        drained = await self.supervisor.stop(grace_s)
        return drained and await self.grpc.drained(grace_s)

    async def __aexit__(self, *_: object) -> None:
        await self.stop(0.5)
        await self.grpc.close()
        await self.store.close()
        assert self._work is not None
        await self._work
        for name, now in self.server.graph.statistics().items():
            assert now.accepted == now.delivered + now.dropped + now.depth, name

    def client(self, credentials: Credentials | None = None) -> Client:
        return Client(port=self.port, credentials=credentials)


def message(seq: int, rows: int = 10, kind: str = "open") -> Batch:
    """Batch `seq` of `rows` events; the same for the same arguments."""
    return Batch(seq=seq, kind=kind, rows=rows, arrow=encode(columns(kind, rows, first=seq * rows)), oldest_unix_ns=5)


async def ship(client: Client, *batches: Batch, hello: Hello = HELLO) -> list[Ack]:
    """Ship batches and return all acks."""
    async with client.ship(hello) as shipment:
        for each in batches:
            await shipment.send(each)
        await shipment.end()
        return [ack async for ack in shipment]
