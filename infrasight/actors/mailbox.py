"""The mailbox: a bounded queue between actors, which says what happens when it is full and counts everything it does."""

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from infrasight.errors import MailboxClosed

T = TypeVar("T")


class WhenFull(enum.Enum):
    """What `put` does with an item for which there is no room."""

    BLOCK = "block"
    """Wait for room: the sender slows down to the receiver's pace and nothing is lost."""
    DROP_OLDEST = "drop_oldest"
    """Drop from the front until it fits: the receiver always sees the newest, and what it missed is counted."""


@dataclass(frozen=True)
class MailboxStatistics:
    """One consistent look at a mailbox. Always: accepted == delivered + dropped + depth."""

    accepted: int
    """Items that ever went in. A put that raised or was cancelled is not among them."""
    delivered: int
    """Items handed to receivers."""
    dropped: int
    """Items dropped to make room (DROP_OLDEST only)."""
    depth: int
    """Items inside now. In a closed mailbox that nobody reads any more: items lost."""
    weight: int
    """Sum of the weights of the items inside now, in units of `weigh`."""
    peak_weight: int
    """The highest `weight` ever; above `limit` only after an item heavier than the limit."""
    limit: int
    """The bound, in units of `weigh`."""
    waiting_senders: int
    """Senders blocked in put now (BLOCK only)."""


@dataclass(eq=False)
class _Turn:
    """A blocked sender's place in the line. It is called when it is first and its item fits, or when the mailbox closes."""

    weight: int
    called: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def one(_item: object) -> int:
    """The default weight: every item counts one, so `limit` is a number of items."""
    return 1


class Mailbox(Generic[T]):
    """A bounded first-in first-out queue.

    | question        | answer |
    |-----------------|--------|
    | bounded?        | always: the sum of `weigh(item)` stays within `limit`; an item heavier than `limit` is let in when it is alone |
    | when full?      | BLOCK: put waits, senders are served strictly in the order they came, a heavy one is never overtaken; |
    |                 | DROP_OLDEST: put drops from the front; it never waits for room, but gives the event loop one turn before it drops |
    | many senders?   | yes |
    | many receivers? | yes, they compete: each item goes to one of them; which one is not promised, but none is starved |
    | cancel-safe?    | a cancelled get takes no item; a cancelled put has put nothing |
    | threads?        | no: one event loop, every call from its thread |
    | close?          | no more puts, blocked senders get MailboxClosed, receivers drain what is left and then get MailboxClosed |

    The turn before a drop lets a receiver that is only waiting to run empty the box: without it a sender in a burst would drop items
    although nobody is slow. Waiting tasks are only woken, never handed an item or a place: each acts when it runs, which is what
    makes cancellation safe.

    Why not anyio's memory object streams, whose semantics these follow: they are bound by items and not by bytes, have no drop policy
    and keep no peak or totals. Why not asyncio.Queue: the same, and no close before Python 3.13.
    """

    def __init__(
        self,
        name: str,
        *,
        limit: int,
        when_full: WhenFull = WhenFull.BLOCK,
        weigh: Callable[[T], int] = one,
        on_drop: Callable[[T], None] | None = None,
    ) -> None:
        """`limit` is in units of `weigh` (items by default; pass a byte count for bytes), at least 1, else ValueError. `weigh` is called
        once per put; a weight below 1 counts as 1, so nothing is free. `on_drop` gets each dropped item and must not raise."""
        if limit < 1:
            raise ValueError(f"mailbox {name!r}: limit must be at least 1, not {limit}")
        self.name = name
        self.limit = limit
        self.when_full = when_full
        self._weigh = weigh
        self._on_drop = on_drop
        self._items: deque[tuple[T, int]] = deque()
        self._senders: deque[_Turn] = deque()
        self._receivers: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._accepted = self._delivered = self._dropped = 0
        self._weight = self._peak_weight = 0

    @property
    def closed(self) -> bool:
        """No more puts; there may still be items to get."""
        return self._closed

    async def put(self, item: T) -> None:
        """Put `item` in; what happens when full is the class's table. Raises MailboxClosed, also while it waits; then nothing was put."""
        weight = self._weight_of(item)
        if self.when_full is WhenFull.BLOCK:
            await self._wait_for_turn(weight)
        elif not self._fits(weight):
            await asyncio.sleep(0)
        self._accept(item, weight)

    def put_nowait(self, item: T) -> bool:
        """Put `item` in without waiting; False, and nothing put, when BLOCK and full (or others wait before us). Raises MailboxClosed."""
        weight = self._weight_of(item)
        if self.when_full is WhenFull.BLOCK and not self._closed and (self._senders or not self._fits(weight)):
            return False
        self._accept(item, weight)
        return True

    async def get(self) -> T:
        """The oldest item, waiting for one. Raises MailboxClosed once the mailbox is closed and empty."""
        beaten = False  # to the item that we were called for, by a receiver that did not have to wait
        while not self._items:
            if self._closed:
                raise MailboxClosed(self.name)
            await self._wait_for_item(first=beaten)
            beaten = True
        return self._take()

    def get_nowait(self) -> T | None:
        """The oldest item, or None when there is none now, whether closed or not."""
        return self._take() if self._items else None

    def close(self) -> None:
        """Take no more puts and wake everyone who waits. Idempotent."""
        self._closed = True
        for turn in self._senders:
            _wake(turn.called)
        while self._receivers:
            _wake(self._receivers.popleft())

    def __aiter__(self) -> "Mailbox[T]":
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except MailboxClosed:
            raise StopAsyncIteration from None

    def statistics(self) -> MailboxStatistics:
        """Counts since creation, and the state now."""
        return MailboxStatistics(
            accepted=self._accepted,
            delivered=self._delivered,
            dropped=self._dropped,
            depth=len(self._items),
            weight=self._weight,
            peak_weight=self._peak_weight,
            limit=self.limit,
            waiting_senders=len(self._senders),
        )

    def _weight_of(self, item: T) -> int:
        return max(1, self._weigh(item))

    def _fits(self, weight: int) -> bool:
        return not self._items or self._weight + weight <= self.limit

    def _accept(self, item: T, weight: int) -> None:
        if self._closed:
            raise MailboxClosed(self.name)
        while not self._fits(weight):
            self._drop_oldest()
        self._items.append((item, weight))
        self._accepted += 1
        self._weight += weight
        self._peak_weight = max(self._peak_weight, self._weight)
        self._call_receiver()
        self._call_sender()

    def _drop_oldest(self) -> None:
        item, weight = self._items.popleft()
        self._weight -= weight
        self._dropped += 1
        if self._on_drop is not None:
            self._on_drop(item)

    def _take(self) -> T:
        item, weight = self._items.popleft()
        self._weight -= weight
        self._delivered += 1
        self._call_sender()
        return item

    async def _wait_for_turn(self, weight: int) -> None:
        """Return when a sender may go on: it fits and nobody waits before it, or the mailbox is closed."""
        if self._closed or (not self._senders and self._fits(weight)):
            return
        turn = _Turn(weight)
        self._senders.append(turn)
        try:
            await turn.called
        except BaseException:
            self._senders.remove(turn)
            self._call_sender()  # we may have been called already: the place is for whoever is first now
            raise
        self._senders.remove(turn)  # the next is called by _accept, which comes at once

    async def _wait_for_item(self, *, first: bool) -> None:
        """Return when it is worth looking again. Wait in front of the line when `first`, or a busy receiver could starve the others."""
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._receivers.appendleft(called)
        else:
            self._receivers.append(called)
        try:
            await called
        except BaseException:
            if called in self._receivers:
                self._receivers.remove(called)
            elif self._items:
                self._call_receiver()  # we were called for an item that we shall not take
            raise

    def _call_sender(self) -> None:
        if self._senders and self._fits(self._senders[0].weight):
            _wake(self._senders[0].called)

    def _call_receiver(self) -> None:
        while self._receivers:
            if _wake(self._receivers.popleft()):
                return


def _wake(waiter: asyncio.Future[None]) -> bool:
    """Whether this woke it: False when it was woken or cancelled before."""
    if waiter.done():
        return False
    waiter.set_result(None)
    return True
