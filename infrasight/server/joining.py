"""What waits to be stored, as groups: deliveries of one kind, from any nodes, that go into the store as one insert.

An insert costs as much as ten thousand rows. Of a kind of which one delivery follows another within `LINGER_S` the first is kept that long for
others to join; of a kind that comes less often, as from a single node, nothing is held up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

from infrasight.actors import Mailbox
from infrasight.errors import MailboxClosed
from infrasight.server.session import Delivery

LINGER_S = 0.5
ENOUGH_ROWS = 16_384
"""A group that has so many does not wait for more."""
MAX_ROWS, MAX_BYTES, MAX_BATCHES = 65_536, 16 << 20, 2_000
"""Of a group; one delivery alone may have more."""


@dataclass(eq=False)
class Group:
    """Deliveries of one kind. `tried`: an attempt to store them has begun before, and nobody knows how it ended."""

    kind: str
    deliveries: list[Delivery]
    tried: bool = False

    def batches(self) -> Mapping[str, pa.RecordBatch]:
        """By token: what was sent twice is there once."""
        return {delivery.token: delivery.batch for delivery in self.deliveries}

    def doubtful(self) -> Collection[str]:
        """Tokens of what may be in the store already."""
        return {delivery.token for delivery in self.deliveries if self.tried or delivery.doubtful or delivery.left()}

    def halves(self) -> tuple[Group, Group]:
        """Of a group of two or more."""
        middle = len(self.deliveries) // 2
        return Group(self.kind, self.deliveries[:middle], self.tried), Group(self.kind, self.deliveries[middle:], self.tried)


class _Line:
    """What waits of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.deliveries: deque[Delivery] = deque()
        self.rows = 0
        self.due = 0.0
        """When the first is to go, whoever has joined."""
        self._last = float("-inf")

    def add(self, delivery: Delivery, now: float) -> None:
        if not self.deliveries:
            self.due = now + LINGER_S if now - self._last < LINGER_S else now
        self.deliveries.append(delivery)
        self.rows += delivery.batch.num_rows
        self._last = now
        if self.rows >= ENOUGH_ROWS:
            self.due = min(self.due, now)

    def take(self, now: float) -> Group:
        """As many of the first as one group may have."""
        taken = [self.deliveries.popleft()]
        rows, size = taken[0].batch.num_rows, taken[0].nbytes
        while self.deliveries and len(taken) < MAX_BATCHES:
            rows, size = rows + self.deliveries[0].batch.num_rows, size + self.deliveries[0].nbytes
            if rows > MAX_ROWS or size > MAX_BYTES:
                break
            taken.append(self.deliveries.popleft())
        self.rows -= sum(delivery.batch.num_rows for delivery in taken)
        self.due = now
        return Group(self.kind, taken)


class Joiner:
    """Takes deliveries out of `inbox`, up to `limit_bytes` (one heavier than that comes alone), and gives out groups: of each kind in the order in
    which they came, of all kinds that which has been due for longest."""

    def __init__(self, inbox: Mailbox[Delivery], limit_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._inbox = inbox
        self._limit = limit_bytes
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._bytes = 0

    async def next(self) -> Group:
        """The next group, waiting until one is due. Raises MailboxClosed once the inbox is closed and everything was given out."""
        while True:
            while self._bytes < self._limit and (delivery := self._inbox.get_nowait()) is not None:
                self._add(delivery)
            now = self._clock()
            first = min((line for line in self._lines.values() if line.deliveries), key=lambda line: line.due, default=None)
            if first is not None and (first.due <= now or self._inbox.closed or self._bytes >= self._limit):
                group = first.take(now)
                self._bytes -= sum(delivery.nbytes for delivery in group.deliveries)
                return group
            await self._arrival(None if first is None else first.due - now)

    async def _arrival(self, within_s: float | None) -> None:
        """Wait for a delivery, that long at most. Raises MailboxClosed when there will be none, and none is held."""
        try:
            async with asyncio.timeout(within_s):
                self._add(await self._inbox.get())
        except TimeoutError:
            return
        except MailboxClosed:
            if within_s is None:
                raise

    def _add(self, delivery: Delivery) -> None:
        self._lines.setdefault(delivery.kind, _Line(delivery.kind)).add(delivery, self._clock())
        self._bytes += delivery.nbytes
