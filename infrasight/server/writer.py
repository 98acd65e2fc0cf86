"""The writer: deliveries into the store, in order, and an answer to their node only afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from infrasight.actors import Actor, Mailbox
from infrasight.errors import InvalidBatch, MailboxClosed, StoreError
from infrasight.server.healer import Note, note
from infrasight.server.session import Delivery
from infrasight.store import Store

log = logging.getLogger(__name__)
_BACKOFF_S, _BACKOFF_MAX_S = 0.1, 5.0


class Writer(Actor):
    """Inserts one delivery at a time. While the store fails it tries again, and everything upstream waits: nothing is dropped or
    reordered."""

    name = "writer"

    def __init__(
        self, inbox: Mailbox[Delivery], store: Store, notes: Mailbox[Note], *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """`notes`: of what was stored, for the healer; it never waits for that."""
        self._inbox = inbox
        self._store = store
        self._notes = notes
        self._sleep = sleep
        self._in_hand: Delivery | None = None
        self.retries = 0
        self.problem = ""
        """Why the store fails now, in one line; empty when it does not."""

    async def run(self) -> None:
        """Write until the inbox is closed and empty. After a crash it goes on with the delivery that it had in hand."""
        while True:
            if self._in_hand is None:
                try:
                    self._in_hand = await self._inbox.get()
                except MailboxClosed:
                    return
            await self._write(self._in_hand)
            self._in_hand = None

    async def _write(self, delivery: Delivery) -> None:
        try:
            await self._insert(delivery)
        except InvalidBatch as error:
            log.warning("the store rejected %s: %s", delivery.token, error)
            delivery.settle(str(error))
            return
        delivery.settle("")
        if (noted := note(delivery.kind, delivery.batch)) is not None:
            self._notes.put_nowait(noted)

    async def _insert(self, delivery: Delivery) -> None:
        backoff_s = _BACKOFF_S
        while True:
            try:
                await self._store.insert(delivery.kind, delivery.batch, delivery.token)
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
