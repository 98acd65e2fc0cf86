"""The writer: deliveries into the store, in order, and an answer to their node only afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from infrasight.actors import Actor, Mailbox
from infrasight.errors import InvalidBatch, MailboxClosed, StoreError
from infrasight.server.joining import Group, Joiner
from infrasight.server.ledger import Entry, entry_of
from infrasight.server.session import Delivery
from infrasight.store import Store

log = logging.getLogger(__name__)
_BACKOFF_S, _BACKOFF_MAX_S = 0.1, 5.0


class Writer(Actor):
    """Inserts one group of deliveries at a time. While the store fails it tries again, and everything upstream waits: nothing is dropped, and
    nothing of one kind reordered."""

    name = "writer"

    def __init__(
        self,
        inbox: Mailbox[Delivery],
        ledger: Mailbox[Entry],
        store: Store,
        *,
        hold_bytes: int = 16 << 20,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`hold_bytes` bounds what is taken out of the inbox to find what can be stored together; `ledger` never makes it wait."""
        self._joiner = Joiner(inbox, hold_bytes)
        self._ledger = ledger
        self._store = store
        self._sleep = sleep
        self._in_hand: list[Group] = []
        """To be stored next, the last first."""
        self.retries = 0
        self.problem = ""
        """Why the store fails now, in one line; empty when it does not."""

    async def run(self) -> None:
        """Write until the inbox is closed and empty. After a crash it goes on with what it had in hand."""
        while True:
            if not self._in_hand:
                try:
                    self._in_hand.append(await self._joiner.next())
                except MailboxClosed:
                    return
            await self._write(self._in_hand[-1])

    async def _write(self, group: Group) -> None:
        """Store the group that is in hand, or find those in it that the store will never take: they must not sink the others."""
        try:
            await self._insert(group)
        except InvalidBatch as error:
            if len(group.deliveries) > 1:
                self._in_hand[-1:] = reversed(group.halves())
                return
            log.warning("the store rejected %s: %s", group.deliveries[0].token, error)
            problem = str(error)
        else:
            problem = ""
        self._in_hand.pop()
        for delivery in group.deliveries:
            delivery.settle(problem)
            if not problem and (entry := entry_of(delivery, time.time_ns())):
                self._ledger.put_nowait(entry)

    async def _insert(self, group: Group) -> None:
        backoff_s = _BACKOFF_S
        while True:
            doubtful, group.tried = group.doubtful(), True
            try:
                await self._store.insert_joined(group.kind, group.batches(), doubtful)
            except StoreError as error:
                self._note(str(error))
                self.retries += 1
                await self._sleep(backoff_s)
                backoff_s = min(_BACKOFF_MAX_S, 2 * backoff_s)
            else:
                self._note("")
                return

    def _note(self, problem: str) -> None:
        """Log when the store begins to fail and when it is back, not each attempt."""
        if problem and not self.problem:
            log.warning("the store fails, nodes wait: %s", problem)
        elif self.problem and not problem:
            log.info("the store is back")
        self.problem = " ".join(problem.split())
