"""Simulated nodes: each a gRPC connection of its own that ships batches as a node does, and sends again what was not acknowledged.

    python -m tests.server.fleet --port P --nodes 1000 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import uvloop

from infrasight.client import Client, Shipment
from infrasight.errors import WireError
from infrasight.schema import KINDS, Column, Type, arrow_schema
from infrasight.schema.parts import WHO
from infrasight.wire import AckVerdict, Batch, Hello
from infrasight.wire.codec import encode

RHYTHM_S = 8.0
"""Between two batches of one kind of one node: with four kinds, one batch every two seconds."""
RATES = {"open": 1120, "process": 240, "execve": 120, "connect": 120}
"""Rows of a batch: 200 events a second."""
DISTINCT = 12
"""Values of a column of names in one batch; and processes of a node, by which all columns that say who did it go."""


def columns(kind: str, rows: int, node: str, seed: int = 0) -> pa.RecordBatch:
    """Rows as one node has them: one name of its own, a few processes, more paths, times of the last two seconds."""
    chance, now_ns = random.Random(f"{kind} {node} {seed}"), time.time_ns()
    doers = pa.array([chance.randrange(DISTINCT) for _ in range(rows)], pa.int32())
    of_doers = {column.name for column in WHO if column.type is not Type.TIME}
    made = [
        _who(column, node, seed).take(doers) if column.name in of_doers else _column(column, rows, node.encode(), chance, now_ns)
        for column in KINDS[kind].columns
    ]
    return pa.RecordBatch.from_arrays(made, schema=arrow_schema(kind))


def _who(column: Column, node: str, seed: int) -> pa.Array:
    """What a column says of each process of a node."""
    return _column(column, DISTINCT, node.encode(), random.Random(f"{column.name} {node} {seed}"), time.time_ns())


def _column(column: Column, rows: int, node: bytes, chance: random.Random, now_ns: int) -> pa.Array:
    wanted = arrow_schema(next(kind.name for kind in KINDS.values() if column in kind.columns)).field(column.name).type
    if column.type is Type.TIME:
        return pa.array([now_ns - 2_000_000_000 * (rows - row) // rows for row in range(rows)], pa.int64()).cast(wanted)
    if pa.types.is_dictionary(wanted):
        name = column.name.encode()
        entries = [node] if name == b"node" else [b"/usr/lib/%s/%d" % (name, chance.randrange(10**6)) for _ in range(DISTINCT)]
        indices = pa.array([chance.randrange(len(entries)) for _ in range(rows)], pa.int32())
        return pa.DictionaryArray.from_arrays(indices, pa.array(entries, pa.binary()))
    if column.type is Type.WORDS:
        return pa.array([[b"ls", b"-l"]] * rows, wanted)
    return pa.array([chance.randrange(2 if column.type is Type.BOOL else 60_000) for _ in range(rows)]).cast(wanted)


@dataclass
class Told:
    """What a fleet did."""

    batches: Counter[str] = field(default_factory=Counter)
    """By kind, whole and sent for the first time."""
    rows: Counter[str] = field(default_factory=Counter)
    acks_s: list[float] = field(default_factory=list)
    """From sending a batch for the first time to its Ack."""
    late_s: float = 0.0
    """The longest that a batch had to wait for its turn to be sent."""
    refused: list[str] = field(default_factory=list)
    retries: int = 0
    """How often the server asked for a batch again."""
    connections: int = 0

    def percentile(self, share: float) -> float:
        """Of the times to an Ack."""
        ordered = sorted(self.acks_s) or [float("nan")]
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def as_dict(self) -> dict[str, object]:
        times = {f"ack_p{share:g}_s": self.percentile(share / 100) for share in (50, 99, 100)}
        sums = {"batches": sum(self.batches.values()), "rows": sum(self.rows.values())}
        return {**sums, **times, "late_s": self.late_s, "connections": self.connections, "retries": self.retries, "refused": self.refused[:5]}


@dataclass
class SimulatedNode:
    """One node. `told` may be shared."""

    name: str
    port: int
    told: Told
    rates: dict[str, int] = field(default_factory=lambda: dict(RATES))
    rhythm_s: float = RHYTHM_S
    payloads: dict[str, bytes] = field(default_factory=dict)
    unacked: dict[int, tuple[Batch, float]] = field(default_factory=dict)
    seq: int = 0
    sent: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the batches of each kind."""
    ended: bool = False
    _stopped: bool = False

    def stop(self) -> None:
        """Ship no more; `run` ends once all is acknowledged."""
        self._stopped = True

    def prepare(self) -> None:
        """Encode what it will ship, the same each time."""
        self.payloads = {kind: encode(columns(kind, rows, self.name)) for kind, rows in self.rates.items()}

    async def run(self, until_s: float) -> None:
        """Ship until then (monotonic), then until all is acknowledged; reconnect for ever."""
        if not self.payloads:
            self.prepare()
        while not self.ended or self.unacked:
            try:
                # In a task of its own: in Python 3.11 a TaskGroup of which a task has failed leaves its own as cancelled, and the next timeout there
                # takes that for somebody's wish.
                await asyncio.create_task(self._connection(until_s), name=self.name)
            except (WireError, OSError):
                await asyncio.sleep(random.uniform(0.05, 0.3))
            except BaseExceptionGroup as group:
                if group.split(WireError)[1] is not None:
                    raise
                await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _connection(self, until_s: float) -> None:
        async with Client(port=self.port) as client, client.ship(Hello(node=self.name, version="1", boot_id="b", epoch=1)) as shipment:
            self.told.connections += 1
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._acks(shipment), name="acks")
                tasks.create_task(self._send(shipment, until_s), name="send")

    async def _send(self, shipment: Shipment, until_s: float) -> None:
        for batch, _ in list(self.unacked.values()):
            batch.fresh = False
            await shipment.send(batch)
        step_s = self.rhythm_s / len(self.rates)
        due_s = time.monotonic() + random.uniform(0, self.rhythm_s)
        for kind, rows in itertools.cycle(self.rates.items()):
            await asyncio.sleep(due_s - time.monotonic())
            if (now := time.monotonic()) >= until_s or self._stopped:
                break
            self.told.late_s = max(self.told.late_s, now - due_s)
            self.seq += 1
            batch = Batch(seq=self.seq, kind=kind, rows=rows, arrow=self.payloads[kind], oldest_unix_ns=time.time_ns(), fresh=True)
            self.unacked[self.seq] = batch, now
            self.sent.setdefault(kind, []).append(self.seq)
            self.told.batches[kind] += 1
            self.told.rows[kind] += rows
            await shipment.send(batch)
            due_s += step_s
        self.ended = True
        await shipment.end()

    async def _acks(self, shipment: Shipment) -> None:
        async for ack in shipment:
            sent = self.unacked.get(ack.seq)
            if sent is None:
                continue
            if ack.verdict is AckVerdict.RETRY:
                self.told.retries += 1
                await asyncio.sleep(ack.retry_after_ms / 1000)
                sent[0].fresh = False
                await shipment.send(sent[0])
                continue
            del self.unacked[ack.seq]
            self.told.acks_s.append(time.monotonic() - sent[1])
            if ack.verdict is not AckVerdict.OK:
                self.told.refused.append(ack.reason)


def fleet(port: int, nodes: int, told: Told) -> list[SimulatedNode]:
    """So many nodes, ready to run."""
    made = [SimulatedNode(f"node{number}", port, told) for number in range(nodes)]
    for node in made:
        node.prepare()
    return made


async def _main(port: int, nodes: int, seconds: float) -> None:
    told = Told()
    made = fleet(port, nodes, told)
    until_s = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        for node in made:
            tasks.create_task(node.run(until_s), name=node.name)
    took_s, spent_s = time.monotonic() - until_s + seconds, time.process_time()
    by_kind = {"by_kind": dict(told.rows), "batches_by_kind": dict(told.batches)}
    print(json.dumps(told.as_dict() | by_kind | {"took_s": took_s, "cpu_s": spent_s}))  # noqa: T201 - its answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(given.port, given.nodes, given.seconds))
