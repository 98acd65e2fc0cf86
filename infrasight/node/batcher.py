"""The batcher: joins what belongs to one kind until it is worth sending, and encodes it once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from infrasight.actors import Actor, Mailbox
from infrasight.errors import MailboxClosed
from infrasight.node.flow import Batch, Encoded
from infrasight.wire.codec import encode

IN_A_THREAD_ROWS = 4096
"""Batches of more rows are encoded in a thread: Arrow gives the interpreter lock back meanwhile, and the rings go on being read."""


@dataclass(frozen=True)
class Limits:
    """When a batch is sent: as soon as one of these is reached."""

    rows: int = 32_768
    bytes: int = 4 << 20
    age_s: float = 0.2
    """From the first row's event. A person who looks on waits for it; but each batch is one insert, of 10 ms and more of the server's time, so in the
    long run only one batch in this time is sent for its age."""
    longest_age_s: float = 2.0
    """What is as old as this is sent whatever was sent before."""
    burst: int = 16
    """So many batches may be sent for their age without regard to the long run: a command that is run on a quiet machine is seen at once, whole."""


@dataclass
class _Pending:
    """Batches of one kind that wait for company."""

    parts: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    since_s: float = 0.0
    oldest_ns: int = 0

    def add(self, batch: Batch, since_s: float) -> None:
        if not self.parts:
            self.since_s, self.oldest_ns = since_s, batch.oldest_ns
        self.parts.append(batch.columns)
        self.rows += batch.columns.num_rows
        self.bytes += batch.weight()


def join(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of several of the same schema; their dictionaries become one."""
    if len(parts) == 1:
        return parts[0]
    return pa.concat_batches(parts)


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
    ) -> None:
        self._inbox, self._outbox, self._limits, self._clock, self._wall_ns = inbox, outbox, limits, clock, wall_ns
        self._pending: dict[str, _Pending] = {}
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
                self._pending.setdefault(batch.kind, _Pending()).add(batch, self._since_s(batch))
            await self._send_due()
        await self._send(list(self._pending))

    def _since_s(self, batch: Batch) -> float:
        """When the first row's event was; the clock that it was told by may have been set since."""
        age_s = (self._wall_ns() - batch.oldest_ns) / 1e9
        return self._clock() - min(max(age_s, 0.0), self._limits.age_s)

    def _until_due(self) -> float | None:
        if not self._pending:
            return None
        oldest_s, limits = min(pending.since_s for pending in self._pending.values()), self._limits
        due_s = max(oldest_s + limits.age_s, self._paid_until_s - limits.burst * limits.age_s)
        return max(min(due_s, oldest_s + limits.longest_age_s) - self._clock(), 0.0)

    async def _send_due(self) -> None:
        """What is large enough, and what is old enough, the oldest first."""
        limits = self._limits
        full = [kind for kind, pending in self._pending.items() if pending.rows >= limits.rows or pending.bytes >= limits.bytes]
        await self._send(full)
        for kind, pending in sorted(self._pending.items(), key=lambda each: each[1].since_s):
            age_s = self._clock() - pending.since_s
            if age_s < limits.age_s or (age_s < limits.longest_age_s and self._paid_until_s > self._clock() + limits.burst * limits.age_s):
                break
            self._paid_until_s = max(self._paid_until_s, self._clock()) + limits.age_s
            await self._send([kind])

    async def _send(self, kinds: list[str]) -> None:
        for kind in kinds:
            pending = self._pending.pop(kind)
            if pending.rows > IN_A_THREAD_ROWS:
                payload = await asyncio.to_thread(self._encode, pending)
            else:
                payload = self._encode(pending)
            self._seq += 1
            await self._outbox.put(Encoded(self._seq, kind, pending.rows, payload, pending.oldest_ns))

    @staticmethod
    def _encode(pending: _Pending) -> bytes:
        return encode(join(pending.parts))
