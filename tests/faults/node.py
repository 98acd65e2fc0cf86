"""`python -m tests.faults.node DIRECTORY PORT[,PORT...]`: a node without a kernel. Its rows are made up, and each has a number of its own.

SIGUSR1 ends the making of rows, SIGTERM drains. `DIRECTORY/produced` says at any moment, and after any death, how many rows there were.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import logging
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import uvloop

from infrasight.actors import Actor, Edge, Graph, Mailbox, RestartPolicy, Supervisor, on_stop_signals
from infrasight.node.delivery import exporter as exporting
from infrasight.node.delivery.batcher import Batcher, Limits
from infrasight.node.delivery.exporter import Exporter
from infrasight.node.delivery.limits import SpoolLimits
from infrasight.node.delivery.spool import Spool
from infrasight.node.delivery.tally import Tally
from infrasight.node.flow import Batch, Encoded
from infrasight.node.ledger import Ledger
from infrasight.schema import KINDS, arrow_schema
from infrasight.server.rows import made
from infrasight.wire import Hello, liveness
from tests.wire.batches import batch

SHARES = {"open": 0.7, "execve": 0.1, "resource": 0.2}
"""Of the rows, by kind: one of each lane."""
TICK_S = 0.02
TEMPLATE_ROWS = 4096
NUMBER = "cgroup_id"
"""The column that has a row's number."""


class Produced:
    """By kind, rows that were about to be produced, and rows that were: what lies between the two when the process is killed, nobody knows."""

    def __init__(self, directory: Path) -> None:
        file = directory / "produced"
        if not file.exists():
            file.write_bytes(bytes(16 * len(SHARES)))
        self.counts = np.memmap(file, np.uint64, "r+", shape=(len(SHARES), 2))

    def least(self) -> int:
        return int(self.counts[:, 1].sum())

    def most(self) -> int:
        return int(self.counts[:, 0].sum())


class Source(Actor):
    """Makes rows at a rate, as long as there is room for them; and rows of `loss`, as the reader has them made."""

    name = "source"

    def __init__(self, outbox: Mailbox[Batch], produced: Produced, node: str, rate: float, first: int, tally: Tally, ledger: Ledger) -> None:
        self._outbox, self._produced, self._node, self._rate, self._first = outbox, produced, node, rate, first
        self._tally, self._ledger = tally, ledger
        self.quiet, self._stopping = asyncio.Event(), asyncio.Event()
        self._templates = {kind: self._template(kind) for kind in SHARES}

    def _template(self, kind: str) -> pa.RecordBatch:
        columns = batch(kind, TEMPLATE_ROWS)
        name = pa.DictionaryArray.from_arrays(pa.array(np.zeros(TEMPLATE_ROWS, np.int32)), pa.array([self._node.encode()], pa.binary()))
        return columns.set_column(columns.schema.names.index("node"), columns.schema.field("node"), name)

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        owed, before_s = dict.fromkeys(SHARES, 0.0), time.monotonic()
        for tick in itertools.count():
            try:
                async with asyncio.timeout(TICK_S):
                    await self._stopping.wait()
            except TimeoutError:
                pass
            now_s = time.monotonic()
            for place, (kind, share) in enumerate(SHARES.items()):
                owed[kind] = min(owed[kind] + share * self._rate * (now_s - before_s), TEMPLATE_ROWS)
                if (rows := int(owed[kind])) and not self.quiet.is_set():
                    owed[kind] -= rows
                    await self._outbox.put(self._make(place, kind, rows))
            before_s = now_s
            if tick % 10 == 0 or self._stopping.is_set():
                await self._tell()
            if self._stopping.is_set():
                return

    def _make(self, place: int, kind: str, rows: int) -> Batch:
        counts, now_ns = self._produced.counts, time.time_ns()
        first = self._first + int(counts[place, 0])
        counts[place, 0] += np.uint64(rows)
        self._tally.take(kind, rows)
        counts[place, 1] += np.uint64(rows)
        columns, schema = self._templates[kind].slice(0, rows), arrow_schema(kind)
        for name, values in ((NUMBER, np.arange(first, first + rows)), ("ts", now_ns + np.arange(rows))):
            index = schema.get_field_index(name)
            columns = columns.set_column(index, schema.field(index), pa.array(values).cast(schema.field(index).type))
        return Batch(kind, columns, now_ns)

    async def _tell(self) -> None:
        rows = [
            {"ts": loss.until_ns, "since": loss.since_ns, "node": self._node, "probe": loss.probe, "reason": loss.reason, "count": loss.count}
            for loss in self._ledger.take()
        ]
        if rows:
            self._tally.take("loss", len(rows))
            await self._outbox.put(Batch("loss", made("loss", rows), time.time_ns()))


async def run(given: argparse.Namespace) -> int:
    """Until SIGTERM; 0 if everything is stored, or written down."""
    ledger = Ledger()
    spool = Spool(given.spool, SpoolLimits(bytes=given.spool_bytes, age_s=given.spool_age_s), ledger=ledger)
    spool.open()
    batches: Mailbox[Batch] = Mailbox("batches", limit=2 << 20, weigh=Batch.weight)
    encoded: Mailbox[Encoded] = Mailbox("encoded", limit=2 << 20, weigh=Encoded.weight)
    source = Source(batches, Produced(given.directory), given.name, given.rate, given.first, spool.tally, ledger)
    servers = [("127.0.0.1", int(port)) for port in given.ports.split(",")]
    exporter = Exporter(encoded, servers, Hello(node=given.name, version="1", boot_id="b00-7"), spool)
    if given.impatient:
        exporter._connect = functools.partial(exporter._connect, answer_within_s=1.0)
    edges = [Edge(batches, "source", "batcher"), Edge(encoded, "batcher", "exporter")]
    graph = Graph("node", [source, Batcher(batches, encoded, Limits()), exporter], edges)
    supervisor = Supervisor(graph, RestartPolicy())
    loop, stops = asyncio.get_running_loop(), set()
    loop.add_signal_handler(signal.SIGUSR1, source.quiet.set)
    on_stop_signals(lambda: stops.add(loop.create_task(supervisor.stop(given.drain_s))), lambda: None)
    print("ready", flush=True)  # noqa: T201 - it is waited for
    await supervisor.run()
    safe = exporter.drained and not spool.unsafe_rows()
    spool.close()
    return 0 if safe else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("ports")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--rate", type=float, required=True, help="rows a second")
    parser.add_argument("--first", type=int, required=True, help="number of the first row of each kind")
    parser.add_argument("--spool-bytes", type=int, default=1 << 30)
    parser.add_argument("--spool-age-s", type=float, default=7 * 86400.0)
    parser.add_argument("--drain-s", type=float, default=20.0)
    parser.add_argument("--impatient", action="store_true", help="ask whether the server is there twice a second, not every ten")
    given = parser.parse_args()
    if given.impatient:
        liveness.ASKED_EVERY_S, liveness.ANSWERS_WITHIN_S = 0.5, 1.0
        exporting.BACKOFF_MAX_S = 0.5
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.WARNING)
    assert SHARES.keys() <= KINDS.keys()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(given))


if __name__ == "__main__":
    sys.exit(main())
