"""How a server is wired: actors, edges, and what is known about them.

    (nodes) ~~ gRPC ~~ ingest >> router >> writer >> ledger; writer, ledger, healer and roller ~~ (store)
            ~~ gRPC ~~ original >>                >> healer
                                        >> live ~~ gRPC ~~ (subscribers)

Each >> is an Edge; ~~ leads out of the process or to what is no actor.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from infrasight import __version__
from infrasight.actors import Edge, Graph, Mailbox, WhenFull
from infrasight.server.answers import Answers
from infrasight.server.healer import Healer
from infrasight.server.ingest import Ingest
from infrasight.server.ledger import Entry, Ledger
from infrasight.server.live import Live
from infrasight.server.nodes import Nodes
from infrasight.server.original import Original
from infrasight.server.roller import Roller
from infrasight.server.router import Router
from infrasight.server.session import Delivery, News
from infrasight.server.writer import PATIENCE_S, Writer
from infrasight.store import Store
from infrasight.wire import EdgeStatus, KindStatus, StatusResponse

LIVE_BYTES = 32 << 20
"""Batches that wait to be offered to subscribers."""
LEDGER_ENTRIES = 10_000
"""Stored batches that wait to be written down."""


class Server:
    """Everything in a server but its sockets and its store's life. `services` go to a GrpcServer, `graph` to a Supervisor."""

    def __init__(self, store: Store, *, ingest_bytes: int = 64 << 20, decoding_bytes: int = 64 << 20, patience_s: float = PATIENCE_S) -> None:
        """`ingest_bytes` bounds what waits for the store: half of it before the router, a quarter behind, a quarter in the writer's hands;
        `decoding_bytes` what is being decoded before that; `patience_s` how long it waits while the store fails."""
        arrived: Mailbox[News] = _mailbox("ingest to router", ingest_bytes // 2, WhenFull.BLOCK)
        to_store: Mailbox[Delivery] = _mailbox("router to writer", ingest_bytes // 4, WhenFull.BLOCK)
        to_live: Mailbox[News] = _mailbox("router to live", LIVE_BYTES, WhenFull.DROP_OLDEST)
        to_ledger: Mailbox[Entry] = Mailbox("writer to ledger", limit=LEDGER_ENTRIES, when_full=WhenFull.DROP_OLDEST)
        self.store = store
        self.nodes = Nodes()
        self.live = Live(to_live)
        self.ingest = Ingest(arrived, self.nodes, self.live, decoding_bytes=decoding_bytes)
        self.original = Original(arrived, self.nodes)
        self.router = Router(arrived, to_store, to_live, wanted=self.live.wanted)
        self.healer = Healer(store)
        self.writer = Writer(to_store, to_ledger, self.healer.notes, store, hold_bytes=max(1, ingest_bytes // 4), patience_s=patience_s)
        self.ledger = Ledger(to_ledger, store, self.nodes)
        self.roller = Roller(store)
        self.graph = Graph(
            "server",
            [self.ingest, self.original, self.router, self.writer, self.ledger, self.healer, self.roller, self.live],
            [
                Edge(arrived, "ingest", "router"),
                Edge(arrived, "original", "router"),
                Edge(to_store, "router", "writer"),
                Edge(self.healer.notes, "writer", "healer"),
                Edge(to_live, "router", "live"),
                Edge(to_ledger, "writer", "ledger"),
            ],
        )
        self.answers = Answers(store, self.live, self.status)
        self.services = (self.ingest, self.original, self.answers)
        self._started = time.monotonic()

    @property
    def refused(self) -> Counter[str]:
        """What was malformed, by reason. Once a GrpcServer has the services, that is its counter."""
        return self.ingest.refused

    def status(self) -> StatusResponse:
        """Everything that can be known at a glance. It asks the store nothing, so it answers when the store does not."""
        stored = self.store.statistics()
        return StatusResponse(
            version=__version__,
            uptime_s=time.monotonic() - self._started,
            store_reachable=not self.writer.problem,
            store_problem=self.writer.problem,
            kinds=[KindStatus(name=kind, rows=rows, batches=stored.batches[kind]) for kind, rows in sorted(stored.rows.items())],
            nodes=[node.status() for node in self.nodes],
            edges=[self._edge_status(edge) for edge in self.graph.edges],
            refused=dict(self.refused),
            subscribers=len(self.live.subscriptions),
        )

    def _edge_status(self, edge: Edge) -> EdgeStatus:
        now = edge.mailbox.statistics()
        return EdgeStatus(
            name=edge.mailbox.name,
            source=edge.source,
            target=edge.target,
            accepted=now.accepted,
            delivered=now.delivered,
            dropped=now.dropped,
            depth=now.depth,
            weight=now.weight,
            peak_weight=now.peak_weight,
            limit=now.limit,
            when_full=edge.mailbox.when_full.value,
        )


def _mailbox(name: str, limit: int, when_full: WhenFull) -> Mailbox[Any]:
    return Mailbox(name, limit=max(1, limit), when_full=when_full, weigh=lambda item: item.nbytes)
