"""The reader: looks at the ring buffers on a timer that adapts to how fast they fill, and copies out what is there."""

from __future__ import annotations

import asyncio
import time

from infrasight.actors import Actor, Mailbox
from infrasight.kernel import Records, Ring, Tracing
from infrasight.node.flow import Drain, Loss
from infrasight.schema.layout import Layout

IDLE_S = 0.045
"""Longest wait between two looks: what it may add before an event is visible."""
BUSY_S = 0.002
"""Shortest wait."""
FILL_WANTED = 0.15
"""How full a ring should be when it is looked at, so that the node can be held up for several times as long before anything is lost."""
TAKE_BYTES = 2 << 20
"""Most that is taken from one ring at a time."""
LOSS_EVERY_S = 1.0
"""How often the kernel's loss counters are read."""


class Reader(Actor):
    """A source. Blocks when its mailbox is full; what the rings then cannot hold is lost in the kernel and counted there."""

    name = "reader"

    def __init__(self, tracing: Tracing, outbox: Mailbox[Drain]) -> None:
        self._tracing, self._outbox = tracing, outbox
        self._stopping = False
        self._wait_s = IDLE_S
        self._lost: dict[tuple[str, str], int] = {}
        self._losses_read_s = 0.0
        self._losses_read_wall_ns = time.time_ns()
        self.events: dict[str, int] = {}
        """Records read, by probe."""

    @property
    def lost(self) -> dict[tuple[str, str], int]:
        """Events lost in the kernel by probe and reason, as last read."""
        return self._lost

    def stop(self) -> None:
        """Stop tracing, drain what the rings hold, end."""
        self._stopping = True

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            if self._something():
                await self._look()
            else:
                self._wait_s = IDLE_S
            await asyncio.sleep(self._wait_s)
        self._tracing.detach()
        self._losses_read_s = 0.0
        while await self._look():
            pass

    def _something(self) -> bool:
        """Whether a look would find anything: asked 22 times a second by a node that has nothing to do."""
        return any(ring.fill() for ring in self._tracing.rings) or time.monotonic() - self._losses_read_s >= LOSS_EVERY_S

    async def _look(self) -> bool:
        """Drain the rings once. Whether there was anything."""
        self._wait_s = self._next_wait()
        drain = self._drain()
        if not (drain.life or drain.data or drain.losses):
            return False
        await self._outbox.put(drain)
        return True

    def _next_wait(self) -> float:
        fullest = max(ring.fill() for ring in self._tracing.rings)
        if fullest <= 0:
            return IDLE_S
        return min(max(self._wait_s * FILL_WANTED / fullest, BUSY_S), IDLE_S)

    def _drain(self) -> Drain:
        # How far the events go is fixed before process life is read: so the fork of every process in them has been read when they are.
        ends = [(ring, ring.end()) for ring in self._tracing.rings if ring.layout.kind.name != "process"]
        life = [records for ring in self._tracing.rings if ring.layout.kind.name == "process" for records in self._take(ring, ring.end())]
        data: list[tuple[Layout, Records]] = [(ring.layout, records) for ring, end in ends for records in self._take(ring, end)]
        return Drain(life, data, self._losses(), time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC))

    def _take(self, ring: Ring, end: int) -> list[Records]:
        taken = ring.take(end, TAKE_BYTES)
        for records in taken:
            name = ring.layout.kind.name
            self.events[name] = self.events.get(name, 0) + len(records)
        return taken

    def _losses(self) -> list[Loss]:
        now = time.monotonic()
        if now - self._losses_read_s < LOSS_EVERY_S:
            return []
        since, until = self._losses_read_wall_ns, time.time_ns()
        self._losses_read_s, self._losses_read_wall_ns = now, until
        before, self._lost = self._lost, self._tracing.losses()
        more = {key: count - before.get(key, 0) for key, count in self._lost.items()}
        return [Loss(probe, reason, count, since, until) for (probe, reason), count in more.items() if count]
