"""Disks that are full: the node's, the server's, both."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Load, Node, Server, recovered, report, running, settled
from tests.waiting import until

pytestmark = pytest.mark.needs("mount")


@contextlib.contextmanager
def disk(place: Path, mib: int) -> Iterator[Path]:
    """A file system of its own."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill_up(filler: Path) -> None:
    """Write until the disk is full; again, what has become free since."""
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass


@pytest.mark.parametrize("whose", ["node", "server", "both"])
async def test_a_full_disk(whose: str, load: Load, tmp_path: Path) -> None:
    """The rows that there is no room for are not made, as what finds the rings full is not read; of those that are, none is lost."""
    with disk(tmp_path / "n", 4) as nodes, disk(tmp_path / "s", 256) as servers:
        server = Server(tmp_path, "--store-patience-s=2", store=f"chdb://{servers}/store")
        node = Node(tmp_path / "node", load, server.port, spool=nodes / "spool")
        async with running(server, node):
            await node.makes(int(load.rate / 2))
            began_s = time.monotonic()
            end_s = began_s + load.fault_s
            if whose != "node":
                while not (await server.state()).store_problem:
                    fill_up(servers / "filler")
            if whose != "server":
                await until(lambda: fill_up(nodes / "filler") or node.said("No space left"), load.within_s)
            while time.monotonic() < end_s:
                for full, filler in (("node", servers), ("server", nodes)):
                    if whose != full:
                        fill_up(filler / "filler")
                await node.makes(1, load.within_s) if whose == "node" else await server.state()
            for full in (nodes, servers):
                (full / "filler").unlink(missing_ok=True)
            lasted_s = time.monotonic() - began_s
            back_s = await recovered(server.ask, node, within_s=load.within_s)
            found = await settled(server.ask, node, within_s=load.within_s)
    assert not found.lost
    assert not found.dead
    report(f"disk full: {whose}, {lasted_s:.0f} s", load, found, back_s)
