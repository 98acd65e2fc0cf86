"""Rows that the store refuses for themselves, while it takes others."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.node import NUMBER
from tests.faults.world import Load, Node, Server, recovered, report, running, settled

EACH = 8192
"""Of the opens, of which there are most, one is refused of so many."""


async def test_rows_that_a_constraint_refuses(load: Load, tmp_path: Path) -> None:
    """An operator has put it on a table: batches with such a row are dead letters, each once though the server is killed, and no other waits."""
    server = Server(tmp_path, "--constrain", "infrasight.open", f"{NUMBER} % {EACH} != 0")
    node = Node(tmp_path / "node", load, server.port)
    async with running(server, node):
        began_s = time.monotonic()
        for _ in range(load.times):
            await node.makes(int(load.rate * load.fault_s / load.times))
            await server.kill()
            await server.begin()
        await node.makes(2 * EACH, load.within_s)
        lasted_s = time.monotonic() - began_s
        back_s = await recovered(server.ask, node, within_s=load.within_s)
        found = await settled(server.ask, node, within_s=load.within_s)
        refused = await server.ask("SELECT toString(event_kind), toString(reason LIKE '%Constraint%operator%') FROM dead_letter GROUP BY ALL")
        least, most = (await server.ask(f"SELECT toString(min({NUMBER} % {EACH})), toString(max({NUMBER})) FROM open"))[0]
        opens = (await server.ask("SELECT toString(count()) FROM open"))[0][0]
    assert refused == [["open", "1"]]
    assert int(least) > 0
    assert int(most) // EACH >= 2
    assert 0 < found.dead < int(opens), "most are stored"
    assert not found.lost
    report(f"rows that a constraint of the table refuses, {lasted_s:.0f} s, server killed {load.times} times", load, found, back_s)
