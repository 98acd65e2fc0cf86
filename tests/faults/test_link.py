"""A way to the server that is cut, in both directions or in one, again and again, or without anybody being told."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.link import Link
from tests.faults.world import Load, Node, Server, recovered, report, running, settled
from tests.waiting import until

Fault = Callable[[Link, Server, Load], Awaitable[None]]


async def _noticed(link: Link, load: Load, before: int) -> None:
    """So long, and until the node has made another connection since there were so many."""
    await asyncio.sleep(load.fault_s)
    await until(lambda: link.connections > before, load.within_s)


async def partition(link: Link, server: Server, load: Load) -> None:
    link.freeze()
    await _noticed(link, load, link.connections)
    link.thaw()


async def only_back(link: Link, server: Server, load: Load) -> None:
    link.freeze(back=False)
    await _noticed(link, load, link.connections)
    link.thaw()


async def only_there(link: Link, server: Server, load: Load) -> None:
    """What is sent arrives, and is stored; no Ack comes back."""
    link.freeze(there=False)
    await _noticed(link, load, link.connections)
    link.thaw()


async def flapping(link: Link, server: Server, load: Load) -> None:
    dice, end_s = random.Random(1), time.monotonic() + load.fault_s
    while time.monotonic() < end_s:
        link.down = not link.down
        link.cut()
        await asyncio.sleep(dice.uniform(0.05, load.fault_s / 10))
    link.down = False


async def refused(link: Link, server: Server, load: Load) -> None:
    link.down = True
    link.cut()
    await asyncio.sleep(load.fault_s)
    link.down = False


async def half_open(link: Link, server: Server, load: Load) -> None:
    before = link.connections
    link.forget()
    await until(lambda: link.connections > before, load.within_s)


async def hanging(link: Link, server: Server, load: Load) -> None:
    before = link.connections
    server.signal(signal.SIGSTOP)
    await _noticed(link, load, before)
    server.signal(signal.SIGCONT)


FAULTS: dict[str, Fault] = {
    "link gone, both ways": partition,
    "link gone, to the server only": only_back,
    "link gone, from the server only": only_there,
    "link cut and refused": refused,
    "link flapping": flapping,
    "connection half open": half_open,
    "server hanging": hanging,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_way_that_fails(fault: str, load: Load, tmp_path: Path) -> None:
    server = Server(tmp_path, *([] if load.patient else ["--impatient"]))
    async with Link(server.port) as link:
        node = Node(tmp_path / "node", load, link.port)
        async with running(server, node):
            await node.makes(int(load.rate / 2))
            began_s = time.monotonic()
            await FAULTS[fault](link, server, load)
            lasted_s = time.monotonic() - began_s
            back_s = await recovered(server.ask, node, within_s=load.within_s)
            found = await settled(server.ask, node, within_s=load.within_s)
            assert link.connections > 1
    assert not found.lost
    assert not found.dead
    report(f"{fault}, {lasted_s:.0f} s", load, found, back_s)
