"""Live views: what arrives now, to everyone who subscribed. Nobody waits for a slow subscriber."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from infrasight.actors import Actor, Mailbox, WhenFull
from infrasight.server.filters import Filter, Rows
from infrasight.server.session import News
from infrasight.wire import SubscribeRequest
from infrasight.wire.events import encode_events, encode_response

BACKLOG_BYTES = 16 << 20
"""Batches that wait for one subscriber; the oldest are dropped beyond it."""
MAX_SUBSCRIPTIONS = 256
_ROWS = 512
"""Events of one response: encoding them takes the event loop about 2 ms."""


@dataclass(frozen=True, eq=False)
class _Backlog:
    """Rows of a batch that wait for a subscriber. They become messages when they are sent, so dropped ones cost nothing."""

    kind: str
    batch: pa.RecordBatch
    rows: Rows


class Subscription:
    """One subscriber's filter and backlog."""

    def __init__(self, request: SubscribeRequest, clock: Callable[[], float] = time.monotonic) -> None:
        """InvalidRequest when the filter makes no sense."""
        self._filter = Filter(request)
        self._rate = request.max_rate_per_s
        self._clock = clock
        self._of_one_kind = len(request.kinds) == 1
        self._allowed, self._counted_s = float(self._rate), clock()
        self._dropped = 0
        self._backlog: Mailbox[_Backlog] = Mailbox(
            "subscription",
            limit=BACKLOG_BYTES,
            when_full=WhenFull.DROP_OLDEST,
            weigh=lambda item: int(item.batch.nbytes),
            on_drop=lambda item: self._count_dropped(len(item.rows)),
        )

    def offer(self, kind: str, batch: pa.RecordBatch) -> None:
        """Take the rows that pass."""
        rows = self._within_rate(self._filter.rows(kind, batch))
        if len(rows) and not self._backlog.closed:
            self._backlog.put_nowait(_Backlog(kind, batch, rows))

    def close(self) -> None:
        """No more is offered; the backlog can still be had."""
        self._backlog.close()

    async def responses(self) -> AsyncGenerator[bytes, None]:
        """Encoded responses until closed, the first an empty one: the subscription stands."""
        yield encode_response([], 0)
        async for item in self._backlog:
            for start in range(0, len(item.rows), _ROWS):
                dropped, self._dropped = self._dropped, 0
                events = encode_events(item.kind, item.batch, item.rows[start : start + _ROWS])
                yield encode_response(events, dropped)
        if self._dropped:
            yield encode_response([], self._dropped)

    def _within_rate(self, rows: Rows) -> Rows:
        """Of one kind at most half of what may still come now: a flood of one leaves room for the others."""
        if not self._rate:
            return rows
        now_s = self._clock()
        self._allowed = min(self._rate, self._allowed + (now_s - self._counted_s) * self._rate)
        self._counted_s = now_s
        share = self._allowed if self._of_one_kind else (self._allowed + 1) / 2
        taken = rows[: int(share)]
        self._allowed -= len(taken)
        self._count_dropped(len(rows) - len(taken))
        return taken

    def _count_dropped(self, count: int) -> None:
        self._dropped += count


class Live(Actor):
    """Offers all that comes to every subscription."""

    name = "live"

    def __init__(self, inbox: Mailbox[News]) -> None:
        self._inbox = inbox
        self._told: set[Callable[[bool], None]] = set()
        self.subscriptions: set[Subscription] = set()
        self._ended = False

    def wanted(self) -> bool:
        """Whether anybody subscribed."""
        return bool(self.subscriptions)

    @contextmanager
    def watched_by(self, tell: Callable[[bool], None]) -> Iterator[None]:
        """`tell` hears whether anybody watches, now if so and when it changes, for as long as this lasts."""
        self._told.add(tell)
        if self.wanted():
            tell(True)
        try:
            yield
        finally:
            self._told.remove(tell)

    def add(self, subscription: Subscription) -> None:
        """From what comes next on."""
        with self._telling():
            self.subscriptions.add(subscription)
        if self._ended:
            subscription.close()

    def remove(self, subscription: Subscription) -> None:
        """Not from now on. Legal twice."""
        with self._telling():
            self.subscriptions.discard(subscription)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        before = self.wanted()
        yield
        if self.wanted() != before:
            for tell in self._told:
                tell(self.wanted())

    async def run(self) -> None:
        """Offer until the inbox is closed and empty; then subscriptions end."""
        async for news in self._inbox:
            for subscription in self.subscriptions if news.rows is not None else ():
                subscription.offer(news.kind, news.rows)
        self._ended = True
        for subscription in self.subscriptions:
            subscription.close()
