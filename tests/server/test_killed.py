"""A server that is killed under a fleet, again and again: what the nodes shipped is stored, once each, whatever was stored together when."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path

import pytest

from infrasight.client import Client
from infrasight.store.joining import BATCH, mark
from tests.ports import free_port
from tests.server.fleet import SimulatedNode, Told
from tests.server.running import OK, message, ship
from tests.server.test_program import HELLO_AGAIN, Process, server
from tests.waiting import until

NODES, KILLS = 12, 3
RATES = {"open": 7, "execve": 3}


async def ask(port: int, sql: str) -> list[list[int]]:
    async with Client(port=port) as client:
        said = b"".join([chunk async for chunk in client.query(sql, "TSV")]).decode()
    return [[int(value) for value in line.split("\t")] for line in said.splitlines()]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak), pytest.param(3, marks=pytest.mark.soak)])
async def test_killed_under_a_fleet(tmp_path: Path, seed: int) -> None:
    chance, told = random.Random(seed), Told()
    port = free_port()
    async with server(tmp_path, f"--server-port={port}") as process:
        nodes = [SimulatedNode(f"node{number}", port, told, rates=RATES, rhythm_s=0.05) for number in range(NODES)]
        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(node.run(time.monotonic() + 3600), name=node.name)
            for _ in range(KILLS):
                acknowledged = len(told.acks_s)
                await until(lambda more=acknowledged: len(told.acks_s) > more + 100)
                await asyncio.sleep(chance.uniform(0, 0.3))  # somewhere between two inserts, or in the middle of one
                process.child.kill()
                await process.child.wait()
                process = await again(tmp_path, port)
            acknowledged = len(told.acks_s)
            await until(lambda: len(told.acks_s) > acknowledged + 100)
            assert not told.refused
            for node in nodes:
                node.stop()
        try:
            assert told.connections >= NODES * (KILLS + 1)
            for kind, rows in RATES.items():
                found = await ask(port, f"SELECT {BATCH} AS b, count() FROM {kind} GROUP BY b")
                sent = {mark(f"{node.name}:1:{seq}") for node in nodes for seq in node.sent[kind]}
                assert {batch for batch, _ in found} == sent
                assert {count for _, count in found} == {rows}
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.child.kill()
            await process.child.wait()


async def again(directory: Path, port: int) -> Process:
    """The server once more, where it was."""
    process = Process(directory, f"--server-port={port}")
    await process.start()
    await process.ready()
    return process


async def test_a_batch_that_was_stored_before_the_restart_is_stored_once(tmp_path: Path) -> None:
    """In one insert with others then, alone and in other company now; and its node says that it may have sent it."""
    made = [message(seq, 10) for seq in range(20)]
    for start in (0, 0, 10, 5):
        async with server(tmp_path) as process, Client(port=process.port) as client:
            acks = await ship(client, *made[start : start + 10], hello=HELLO_AGAIN)
            assert {ack.verdict for ack in acks} == {OK}
            found = await ask(process.port, f"SELECT count(), uniqExact({BATCH}) FROM open")
    assert found == [[200, 20]]
