"""Inserts that fail in every way while nodes are cut off again and again: what was acknowledged is in the table, whole and once."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pyarrow as pa
import pytest

from infrasight.schema import arrow_schema
from infrasight.store import Retention
from infrasight.store.embedded import EmbeddedStore
from infrasight.store.interface import QueryLimits
from infrasight.store.joining import BATCH, mark
from infrasight.store.session import EngineError
from infrasight.wire.codec import encode
from tests.server.fleet import SimulatedNode, Told, columns
from tests.server.running import Running
from tests.waiting import until

NODES, CUTS = 8, 8
RATES = {"open": 6, "execve": 3}
DAY_NS = 86_400 * 10**9


class Failing(EmbeddedStore):
    """Of its inserts some fail before the engine hears of them, some after it has stored them, and some because it lacks memory."""

    def __init__(self, path: str, chance: random.Random) -> None:
        super().__init__(path, Retention(0))
        self._chance = chance
        self._ways: list[str] = []
        self.failures = {"before": 0, "after": 0, "memory": 0}

    def _write(self, kind: str, batch: pa.RecordBatch, token: str) -> None:
        if not self._ways:
            self._ways = self._chance.sample(["before", "after", "memory", "", "", ""], 6)
        way = self._ways.pop()
        try:
            if way == "before":
                raise EngineError("deliberate, before")
            if way == "memory":
                with self._writing() as writer:
                    writer.execute(f"SET max_untracked_memory = 1, max_memory_usage = {int(10 ** self._chance.uniform(5, 7))}")
            super()._write(kind, batch, token)
            if way == "after":
                raise EngineError("deliberate, after")
        except EngineError:
            self.failures[way] += 1
            raise
        finally:
            if way == "memory" and self._writer is not None:
                self._writer.close()
                self._writer = None


def of_two_days(kind: str, rows: int, node: str) -> pa.RecordBatch:
    """Some rows of today and some of the day before."""
    made = columns(kind, rows, node)
    now_ns = time.time_ns()
    times = pa.array([now_ns - row % 2 * DAY_NS for row in range(rows)], pa.timestamp("ns", "UTC"))
    return made.set_column(0, arrow_schema(kind).field("ts"), times)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 25))])
async def test_what_is_acknowledged_is_in_the_table(tmp_path: Path, seed: int) -> None:
    chance, told = random.Random(seed), Told()
    store = Failing(f"{tmp_path}/store", chance)
    async with Running(store, patience_s=3600) as running:
        nodes = [SimulatedNode(f"node{number}", running.port, told, rates=RATES, rhythm_s=0.1) for number in range(NODES)]
        for node in nodes[::2]:
            node.payloads = {kind: encode(of_two_days(kind, rows, node.name)) for kind, rows in RATES.items()}
        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(node.run(time.monotonic() + 3600), name=node.name)
            for _ in range(CUTS):
                answered = len(told.acks_s)
                await until(lambda more=answered: len(told.acks_s) > more + 10)
                await asyncio.sleep(chance.uniform(0, 0.3))
                protocols = running.grpc._server.protocols  # type: ignore[union-attr]
                await until(lambda protocols=protocols: len(protocols) >= NODES)
                for protocol in chance.sample(sorted(protocols, key=id), NODES // 2):
                    protocol.connection._transport.abort()
            for node in nodes:
                node.stop()
        assert not told.refused
        assert told.connections >= NODES + CUTS
        for kind, rows in RATES.items():
            sql = f"SELECT {BATCH} AS b, count() FROM {kind} GROUP BY b"
            said = b"".join([chunk async for chunk in store.query(sql, format="TSV", limits=QueryLimits())]).decode()
            found = {int(batch): int(count) for batch, count in (line.split("\t") for line in said.splitlines())}
            assert found == {mark(f"{node.name}:1:{seq}"): rows for node in nodes for seq in node.sent[kind]}
    assert min(store.failures["before"], store.failures["after"]) >= 2, store.failures
