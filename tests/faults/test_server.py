"""A server that dies, at chosen points and at any moment, and that is restarted."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.faults.server import POINTS, STATUS
from tests.faults.world import Load, Node, Server, recovered, report, running, settled

SAID = {
    "before": "server killed before an insert",
    "inside": "server killed inside an insert",
    "after": "server killed after an insert, before its Ack",
    "between": "server killed between the tables of what came together",
}


@pytest.mark.parametrize("point", POINTS)
async def test_a_server_that_dies_at_a_point(point: str, load: Load, tmp_path: Path) -> None:
    server = Server(tmp_path)
    node = Node(tmp_path / "node", load, server.port)
    dice, back_s = random.Random(point), 0.0
    async with server, node:
        for life in range(max(1, load.times // 2)):
            await server.begin(f"--die={point}", f"--inserts={dice.randrange(2, 9)}")
            if not life:
                await node.begin()
            assert await server.ended(load.within_s) == STATUS
        await server.begin()
        back_s = await recovered(server.ask, node, within_s=load.within_s)
        found = await settled(server.ask, node, within_s=load.within_s)
    assert not found.lost
    assert not found.dead
    report(SAID[point], load, found, back_s)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_is_restarted_again_and_again(number: signal.Signals, load: Load, tmp_path: Path) -> None:
    server = Server(tmp_path)
    node = Node(tmp_path / "node", load, server.port)
    dice = random.Random(number)
    async with running(server, node):
        for _ in range(load.times):
            await node.makes(int(dice.uniform(0.1, 0.9) * load.rate))
            server.signal(number)
            await server.ended()
            await server.begin()
        back_s = await recovered(server.ask, node, within_s=load.within_s)
        found = await settled(server.ask, node, within_s=load.within_s)
    assert not found.lost
    assert not found.dead
    report(f"server {'restarted' if number is signal.SIGTERM else 'killed at any moment'}, {load.times} times", load, found, back_s)
