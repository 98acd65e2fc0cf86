"""The roller: has the store fill the rollups."""

from __future__ import annotations

import asyncio
import logging

from infrasight.actors import Actor
from infrasight.errors import StoreError
from infrasight.store import Store

log = logging.getLogger(__name__)
EVERY_S = 10.0
"""How often it is looked whether a minute can be summed up."""


class Roller(Actor):
    """Waits for nobody but the store, and nobody waits for it: what is not summed up when it ends is after the next start."""

    name = "roller"

    def __init__(self, store: Store, *, every_s: float = EVERY_S) -> None:
        self._store, self._every_s = store, every_s
        self._stopping = asyncio.Event()
        self._problem = ""

    async def run(self) -> None:
        """Until it is stopped. What the store is at then is left to its `close`."""
        work, stopping = asyncio.create_task(self._work(), name="rolling up"), asyncio.create_task(self._stopping.wait(), name="roller's end")
        try:
            await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            stopping.cancel()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    async def _work(self) -> None:
        while True:
            try:
                await self._store.roll_up()
                self._note("")
            except StoreError as error:
                self._note(str(error))
            await asyncio.sleep(self._every_s)

    def _note(self, problem: str) -> None:
        """Log when it begins to fail and when it works again, not each attempt."""
        if problem and not self._problem:
            log.warning("minutes are not summed up for now: %s", problem)
        elif self._problem and not problem:
            log.info("minutes are summed up again")
        self._problem = problem
