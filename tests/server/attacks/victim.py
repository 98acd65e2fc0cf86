"""A server process that is attacked, and a node that it goes on serving meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from infrasight.client import Client
from tests.server.fleet import SimulatedNode, Told
from tests.waiting import LIMIT_S

MEMORY_BYTES = 192 << 20
"""What an attack may add to the server's resident memory, at most; it is what the limits below allow, and what its allocators keep."""
ACK_S = 10.0
"""What the node may wait for an Ack while others use this machine too."""
OPTIONS = (
    "--keep-days=0",
    "--first-call-s=1",
    "--message-s=2",
    "--idle-s=1",
    "--max-connections=400",
    "--max-connections-per-address=200",
    f"--received-bytes={32 << 20}",
    f"--ingest-bytes={32 << 20}",
    f"--decoding-bytes={32 << 20}",
)


class Victim:
    """`python -m infrasight.server` on a data directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        port_file = directory / "port"
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("INFRASIGHT_", "SERVER_", "PROMETHEUS_"))}
        command = [sys.executable, "-m", "infrasight.server", "--server-port=0", f"--port-file={port_file}", f"--store=chdb://{directory}/data"]
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, "--prometheus-port=0", *options], stderr=log, env=environ)
        deadline = time.monotonic() + 60
        while not port_file.exists():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.port = int(port_file.read_text())

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))

    async def refused(self) -> dict[str, int]:
        """What it has refused so far, by reason."""
        async with Client(port=self.port) as client:
            return dict((await client.status()).refused)

    async def ask(self, sql: str) -> str:
        async with Client(port=self.port) as client:
            return b"".join([chunk async for chunk in client.query(sql, "TSV")]).decode().strip()

    @contextlib.asynccontextmanager
    async def under_attack(self, name: str, *reasons: str, memory: int = MEMORY_BYTES) -> AsyncIterator[SimulatedNode]:
        """A node is served for as long as this lasts. Then: all that it sent is stored, once; no Ack took long; memory is what it was; and the
        attack was counted under each of `reasons`, or under one of several with | between them: which of two limits comes first can be the machine's
        affair."""
        node = SimulatedNode(name, self.port, Told(), rates={"open": 20, "execve": 5}, rhythm_s=0.2)
        before = await self.refused()
        living = asyncio.create_task(node.run(time.monotonic() + 3600), name=name)
        try:
            while not node.told.acks_s:  # noqa: ASYNC110 - it is a node, which tells nobody
                await asyncio.sleep(0.01)
            await self.ask("SELECT 1")
            memory_before = self.memory()  # what the first batch and the first query bring in is no attack's
            peaks = [memory_before]
            watching = asyncio.create_task(self._watch(peaks), name="memory")
            yield node
            watching.cancel()
            answered = len(node.told.acks_s)
            async with asyncio.timeout(ACK_S):
                while len(node.told.acks_s) < answered + 5:  # it goes on being served
                    assert not living.done() or await living is None
                    await asyncio.sleep(0.01)
        finally:
            node.stop()
            async with asyncio.timeout(LIMIT_S):
                await living
        assert not node.told.refused
        assert node.told.percentile(1) < ACK_S
        assert node.told.connections == 1, "it was cut off"
        after = await self.refused()
        counted = [any(after.get(each, 0) > before.get(each, 0) for each in reason.split("|")) for reason in reasons]
        assert all(counted), (reasons, before, after)
        assert max(peaks) - memory_before < memory, f"{(max(peaks) - memory_before) >> 20} MiB more"
        for kind, rows in node.told.rows.items():
            found = await self.ask(f"SELECT count(), uniqExact(batch) FROM {kind} WHERE node = '{name}'")
            assert found == f"{rows}\t{node.told.batches[kind]}"

    async def _watch(self, peaks: list[int]) -> None:
        while True:
            peaks.append(self.memory())
            await asyncio.sleep(0.02)

    def end(self) -> None:
        self.process.terminate()
        try:
            assert self.process.wait(LIMIT_S) == 0, self.log.read_text()[-2000:]
        finally:
            self.process.kill()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()[-4000:]


def victims(directory: Path, *options: str) -> Iterator[Victim]:
    """One, for a fixture."""
    victim = Victim(directory, *OPTIONS, *options)
    yield victim
    victim.end()
