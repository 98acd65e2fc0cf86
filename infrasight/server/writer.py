"""The writer: deliveries into the store, in order, and an answer to their node only afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from infrasight.actors import Actor, Mailbox
from infrasight.errors import InvalidBatch, MailboxClosed, StoreError
from infrasight.schema.events.dead_letter import DEAD_LETTER
from infrasight.server.dead_letters import Letter, as_rows
from infrasight.server.healer import Note, note
from infrasight.server.joining import Group, Joiner
from infrasight.server.ledger import Entry, entry_of
from infrasight.server.session import Delivery
from infrasight.store import Store
from infrasight.wire.codec import encode

log = logging.getLogger(__name__)
_BACKOFF_S, _BACKOFF_MAX_S = 0.1, 5.0
PATIENCE_S = 30.0
"""How long nodes wait for a store that fails. Then what comes is handed back to them, to be sent again later: they have disks for it."""
RETRY_S = 5.0
"""Until then: how often a store that has failed for so long is tried."""


class Writer(Actor):
    """Inserts one group of deliveries at a time. While the store fails it tries again, and everything upstream waits: nothing is dropped, and
    nothing of one kind reordered. One that fails for longer than `patience_s` is tried with one group every `RETRY_S`, and nodes are asked to send
    the others again."""

    name = "writer"

    def __init__(
        self,
        inbox: Mailbox[Delivery],
        ledger: Mailbox[Entry],
        notes: Mailbox[Note],
        store: Store,
        *,
        hold_bytes: int = 16 << 20,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hold_bytes` bounds what is taken out of the inbox to find what can be stored together. `ledger` and `notes` (for the healer) are told of
        what was stored, and never make it wait."""
        self._joiner = Joiner(inbox, hold_bytes)
        self._ledger, self._notes = ledger, notes
        self._store = store
        self._patience_s = patience_s
        self._sleep, self._clock = sleep, clock
        self._in_hand: list[Group] = []
        """To be stored next, the last first."""
        self._failing_since_s = self._again_at_s = 0.0
        self.retries = 0
        self.handed_back = 0
        """Deliveries that their nodes are to send again."""
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
        problem = ""
        try:
            stored = await self._insert(group)
        except InvalidBatch as error:
            if len(group.deliveries) > 1:
                self._in_hand[-1:] = reversed(group.halves())
                return
            problem = str(error)
            log.warning("the store rejected %s: %s", group.deliveries[0].token, problem)
            stored = await self._bury(group.deliveries[0], problem)
        self._in_hand.pop()
        for delivery in group.deliveries:
            if not stored:
                self.handed_back += 1
                delivery.settle(self.problem, max(1, int(1000 * (self._again_at_s - self._clock()))))
                continue
            delivery.settle(problem)
            if not problem:
                self._tell_of(delivery)

    def _tell_of(self, delivery: Delivery) -> None:
        """It is stored."""
        if (entry := entry_of(delivery, time.time_ns())) is not None:
            self._ledger.put_nowait(entry)
        if (noted := note(delivery.kind, delivery.batch)) is not None:
            self._notes.put_nowait(noted)

    async def _bury(self, delivery: Delivery, problem: str) -> bool:
        """What never will be stored goes among the dead letters. Whether that worked; if not even they take it, there is nothing left to be done."""
        letter = Letter.of(delivery.batch.num_rows, encode(delivery.batch))
        rows = as_rows(delivery.token, delivery.kind, problem, [letter])
        try:
            return await self._insert(Group(DEAD_LETTER.name, [Delivery(DEAD_LETTER.name, rows, delivery.token, delivery.settle)]))
        except InvalidBatch as error:
            log.error("the store does not take %s as a dead letter either: %s", delivery.token, error)
            return True

    async def _insert(self, group: Group) -> bool:
        """Whether it is stored. InvalidBatch when it never will be."""
        backoff_s = _BACKOFF_S
        while not (self.problem and self._clock() < self._again_at_s):
            doubtful, group.tried = group.doubtful(), True
            try:
                await self._store.insert_joined(group.kind, group.batches(), doubtful)
            except StoreError as error:
                self._note(str(error))
                self.retries += 1
                if self._clock() - self._failing_since_s >= self._patience_s:
                    self._again_at_s = self._clock() + RETRY_S
                    return False
                await self._sleep(backoff_s)
                backoff_s = min(_BACKOFF_MAX_S, 2 * backoff_s)
            else:
                self._note("")
                return True
        return False

    def _note(self, problem: str) -> None:
        """Log when the store begins to fail and when it is back, not each attempt."""
        if problem and not self.problem:
            self._failing_since_s = self._clock()
            log.warning("the store fails, nodes wait: %s", problem)
        elif self.problem and not problem:
            self._again_at_s = 0.0
            log.info("the store is back")
        self.problem = " ".join(problem.split())
