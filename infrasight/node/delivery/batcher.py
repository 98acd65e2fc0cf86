"""The batcher: joins what belongs to one kind until it is worth an insert, and encodes it once; in pieces, while somebody watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from infrasight.actors import Actor, Mailbox
from infrasight.errors import MailboxClosed
from infrasight.node.flow import Attention, Batch, Encoded
from infrasight.wire.codec import encode, join

IN_A_THREAD_ROWS = 4096
"""Batches of more rows are encoded in a thread: Arrow gives the interpreter lock back meanwhile, and the rings go on being read."""


@dataclass(frozen=True)
class Limits:
    """When a batch is whole: as soon as one of these is reached."""

    rows: int = 32_768
    bytes: int = 2 << 20
    """Of all kinds together; then it is the largest."""
    age_s: float = 0.2
    """From the first row's event. But each batch is one insert, of 10 ms and more of the server's time, so in the long run only one batch in this
    time is whole for its age. Who watches waits no longer for all that: what there is goes ahead, as a piece of its batch."""
    longest_age_s: float = 2.0
    """What is as old as this is whole whatever was before."""
    burst: int = 16
    """So many batches may be sent for their age without regard to the long run: a command that is run on a quiet machine is stored at once, whole."""


@dataclass
class _Growing:
    """A batch of one kind that waits for company."""

    since_s: float
    """From its first row."""
    rows: int = 0
    weight: int = 0
    """Bytes, with those of the pieces that have been sent."""
    seq: int = 0
    """0 while none has."""
    pieces: int = 0
    """Those that have been sent."""
    parts: list[pa.RecordBatch] = field(default_factory=list)
    """What has not been sent."""
    parts_since_s: float = 0.0
    oldest_ns: int = 0

    def add(self, batch: Batch, since_s: float) -> None:
        if not self.parts:
            self.parts_since_s, self.oldest_ns = since_s, batch.oldest_ns
        self.parts.append(batch.columns)
        self.rows += batch.columns.num_rows
        self.weight += batch.weight()

    def take(self) -> tuple[int, bytes]:
        """Rows of what has not been sent, and itself, encoded; nothing is not a batch."""
        if not self.parts:
            return 0, b""
        joined = join(self.parts)
        self.parts.clear()  # now: encoding takes as much memory again
        return joined.num_rows, encode(joined)


class Batcher(Actor):
    """Batches in, encoded batches out. Order is kept within a kind."""

    name = "batcher"

    def __init__(
        self,
        inbox: Mailbox[Batch],
        outbox: Mailbox[Encoded],
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        *,
        attention: Attention | None = None,
    ) -> None:
        self._inbox, self._outbox, self._limits, self._clock, self._wall_ns = inbox, outbox, limits, clock, wall_ns
        self._attention = attention or Attention()
        self._growing: dict[str, _Growing] = {}
        self._seq = 0
        self._paid_until_s = 0.0
        """When, at one batch in `age_s`, all that were sent for their age would have been sent."""

    async def run(self) -> None:
        """Until the inbox is closed and empty; then what is left is sent."""
        while True:
            try:
                async with asyncio.timeout(self._until_due()):
                    batch = await self._inbox.get()
            except TimeoutError:
                batch = None
            except MailboxClosed:
                break
            if batch:
                since_s = self._since_s(batch)
                self._growing.setdefault(batch.kind, _Growing(since_s)).add(batch, since_s)
            await self._send_due()
        for kind in list(self._growing):
            await self._send(kind)

    def _since_s(self, batch: Batch) -> float:
        """When the first row's event was; the clock that it was told by may have been set since."""
        age_s = (self._wall_ns() - batch.oldest_ns) / 1e9
        return self._clock() - min(max(age_s, 0.0), self._limits.age_s)

    def _until_due(self) -> float | None:
        if not self._growing:
            return None
        oldest_s, limits = min(growing.since_s for growing in self._growing.values()), self._limits
        due_s = max(oldest_s + limits.age_s, self._paid_until_s - limits.burst * limits.age_s)
        waiting = [growing.parts_since_s for growing in self._growing.values() if growing.parts]
        if self._attention.watched and waiting:
            due_s = min(due_s, min(waiting) + limits.age_s)
        return max(min(due_s, oldest_s + limits.longest_age_s) - self._clock(), 0.0)

    async def _send_due(self) -> None:
        """What is large enough, and what is old enough, the oldest first."""
        limits = self._limits
        for kind in [kind for kind, growing in self._growing.items() if growing.rows >= limits.rows]:
            await self._send(kind)
        while self._growing and sum(growing.weight for growing in self._growing.values()) >= limits.bytes:
            await self._send(max(self._growing, key=lambda kind: self._growing[kind].weight))
        for kind, growing in sorted(self._growing.items(), key=lambda each: each[1].since_s):
            now = self._clock()
            if now - growing.since_s < limits.age_s:
                break
            if now - growing.since_s >= limits.longest_age_s or self._paid_until_s <= now + limits.burst * limits.age_s:
                self._paid_until_s = max(self._paid_until_s, now) + limits.age_s
                await self._send(kind)
            elif self._attention.watched and growing.parts and now - growing.parts_since_s >= limits.age_s:
                await self._send(kind, more=True)

    async def _send(self, kind: str, *, more: bool = False) -> None:
        """The batch of one kind, or what there is of it when there is to be more."""
        growing = self._growing[kind] if more else self._growing.pop(kind)
        if sum(part.num_rows for part in growing.parts) > IN_A_THREAD_ROWS:
            rows, payload = await asyncio.to_thread(growing.take)
        else:
            rows, payload = growing.take()
        if not growing.seq:
            self._seq += 1
            growing.seq = self._seq
        await self._outbox.put(Encoded(growing.seq, kind, rows, payload, growing.oldest_ns, more, piece=growing.pieces))
        growing.pieces += 1
