"""A node that is killed at any moment, whose clock jumps, that is there twice, whose spool is too small."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.world import Load, Node, Server, recovered, report, running, settled

HOUR_S = 3600


async def test_a_node_that_is_killed_again_and_again(load: Load, tmp_path: Path) -> None:
    """What it had read and not written down is counted as `killed`, to the row, and nothing else is lost."""
    server = Server(tmp_path)
    node = Node(tmp_path / "node", load, server.port)
    kills, dice = 10 * load.times if load.patient else 4, random.Random(7)
    async with running(server), node:
        for _ in range(kills):
            await node.begin()
            await asyncio.sleep(dice.uniform(0, 1.0))  # any moment will do
            await node.kill()
        await node.begin()
        back_s = await recovered(server.ask, node, within_s=load.within_s)
        found = await settled(server.ask, node, within_s=load.within_s)
    assert found.lost.keys() <= {"killed"}
    assert found.most - found.least <= load.rate / 10, "what is in doubt is what a kill between two instructions leaves"
    report(f"node killed at any moment, {kills} times", load, found, back_s)


async def test_node_and_server_that_are_killed_by_turns(load: Load, tmp_path: Path) -> None:
    server = Server(tmp_path)
    node = Node(tmp_path / "node", load, server.port)
    dice = random.Random(8)
    async with running(server, node):
        for _ in range(load.times):
            await node.makes(int(dice.uniform(0.1, 0.8) * load.rate))
            victims = [server, node]
            dice.shuffle(victims)
            await victims[0].kill()
            await asyncio.sleep(dice.uniform(0, 0.3))
            await victims[1].kill()
            await server.begin()
            await node.begin()
        back_s = await recovered(server.ask, node, within_s=load.within_s)
        found = await settled(server.ask, node, within_s=load.within_s)
    assert found.lost.keys() <= {"killed"}
    report(f"node and server killed, {load.times} times", load, found, back_s)


class Clock:
    """The wall clock of the processes that have `environment`."""

    def __init__(self, directory: Path) -> None:
        library, self._file = directory / "clock.so", directory / "clock"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """So far ahead of what it is."""
        fd = os.open(self._file, os.O_WRONLY | os.O_CREAT)
        os.pwrite(fd, struct.pack("<q", seconds), 0)
        os.close(fd)


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("whose", ["node", "server"])
async def test_a_clock_that_jumps(whose: str, load: Load, tmp_path: Path) -> None:
    """Forward and back, under a running process and between two of its lives."""
    clock = Clock(tmp_path)
    server = Server(tmp_path, **(clock.environment if whose == "server" else {}))
    node = Node(tmp_path / "node", load, server.port, **(clock.environment if whose == "node" else {}))
    jumps = [HOUR_S, 0, -HOUR_S, 0] * (load.times // 2)
    async with running(server, node):
        for jump in jumps:
            await node.makes(int(load.rate / 4))
            clock.set(jump)
            await node.makes(int(load.rate / 4))
            if jump < 0:
                await (node if whose == "node" else server).kill()
                await (node if whose == "node" else server).begin()
        back_s = await recovered(server.ask, node, within_s=load.within_s)
        found = await settled(server.ask, node, within_s=load.within_s)
        times = await server.ask("SELECT toString(intDiv(max(ts) - min(ts), 1)) FROM open")
    assert whose == "server" or int(times[0][0]) > HOUR_S, "the rows have the times of that clock"
    assert found.lost.keys() <= ({"killed"} if whose == "node" else set())
    report(f"clock of the {whose} set by an hour, {len(jumps)} times", load, found, back_s)


async def test_two_nodes_of_one_name(load: Load, tmp_path: Path) -> None:
    """The second has a copy of the first one's disk, as two machines of one image have: what it left is stored once, what each makes is too."""
    server = Server(tmp_path)
    one = Node(tmp_path / "one", load, server.port)
    async with running(one):  # without a server: it leaves all it makes
        await one.makes(int(load.rate))
        assert await one.end() == 0
    shutil.copytree(tmp_path / "one" / "spool", tmp_path / "two" / "spool")
    other = Node(tmp_path / "two", load, server.port, first=1 << 40)
    async with running(server, one, other):
        began_s = time.monotonic()
        await one.makes(int(load.rate * load.fault_s / 2))
        async with asyncio.timeout(load.within_s):
            while len(live := (await server.state()).nodes[0].live_epochs) < 2:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.1)
        back_s = await recovered(server.ask, one, other, within_s=load.within_s)
        lasted_s = time.monotonic() - began_s
        found = await settled(server.ask, one, other, within_s=load.within_s)
    assert len(live) == 2
    assert server.said("two nodes have one name")
    report(f"two nodes of one name, from one disk's image, {lasted_s:.0f} s", load, found, back_s)


async def test_a_spool_that_is_too_small(load: Load, tmp_path: Path) -> None:
    """A server that is away for longer than there is room: what is given up is counted, that of least worth first."""
    server = Server(tmp_path)
    node = Node(tmp_path / "node", load, server.port, spool_bytes=1 << 20 if load.patient else 256 << 10)
    async with running(server, node):
        await node.makes(int(load.rate / 2))
        await server.kill()
        began_s = time.monotonic()
        await node.makes(int(load.rate * 4 * load.fault_s), within_s=10 * load.fault_s + load.within_s)
        lasted_s = time.monotonic() - began_s
        await server.begin()
        back_s = await recovered(server.ask, node, within_s=load.within_s)
        found = await settled(server.ask, node, within_s=load.within_s)
        lost = {probe: int(rows) for probe, rows in await server.ask("SELECT toString(probe), toString(sum(count)) FROM loss GROUP BY probe")}
    assert found.lost.keys() == {"spool_full"}
    assert "loss" not in lost, "what was counted is told all the same"
    assert lost.get("execve", 0) < lost["open"], "a tenth of which are produced, but they are worth more"
    report(f"server away for {lasted_s:.0f} s, spool of {'1 MiB' if load.patient else '256 KiB'}", load, found, back_s)
