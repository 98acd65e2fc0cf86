"""The table of containers: what their runtimes say of them, before it is asked for."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection

from infrasight.node.containers.containment import Container
from infrasight.runtimes import Facts

CONTAINERS_MAX = 16_384
"""Containers remembered at most, some kilobytes each where they have many labels; those that ended go first, then those not asked for the longest."""
ENDED_KEPT_S = 60.0
"""How much longer a container is remembered than its runtime does: what happened in it is told a moment later."""
WAIT_S = 0.1
"""How long events of a new container wait, at most, for its runtime to tell of it."""
_SHARE = 0.1
"""Of the time, that may be spent in vain on such waits."""


class Containers:
    """Keyed by container id. Told by the inquirer, asked by the enricher, on one event loop."""

    def __init__(self, most: int = CONTAINERS_MAX) -> None:
        self._most = most
        self._table: OrderedDict[bytes, Facts] = OrderedDict()
        self._ended: OrderedDict[bytes, float] = OrderedDict()
        self._news = asyncio.Event()
        self._wait_from_s = 0.0
        self._told_of: Collection[bytes] = frozenset()
        self.hits = self.misses = self.evictions = 0
        """Times that a container was asked for and known, and not known; containers forgotten for want of room."""

    def __len__(self) -> int:
        return len(self._table)

    def are_told_of(self, runtimes: Collection[bytes]) -> None:
        """The runtimes, as paths of cgroups name them, whose containers somebody tells us of from now on."""
        self._told_of = runtimes
        self._news.set()

    def learn(self, id: bytes, facts: Facts) -> bool:
        """What a container is, now. Whether that is news."""
        news = self._ended.pop(id, None) is not None or self._table.get(id) != facts
        self._table[id] = facts
        while len(self._table) > self._most:
            oldest = self._ended.popitem(last=False)[0] if self._ended else next(iter(self._table))
            self.evictions += self._table.pop(oldest, None) is not None
        self._news.set()
        return news

    def end(self, id: bytes) -> Facts | None:
        """It is no more. What it was, if that was known and it had not ended before. Those that ended long ago are forgotten."""
        facts = self._table.get(id) if id not in self._ended else None
        if facts is not None:
            self._ended[id] = time.monotonic()
        while self._ended and next(iter(self._ended.values())) + ENDED_KEPT_S < time.monotonic():
            self._table.pop(self._ended.popitem(last=False)[0], None)
        return facts

    def find(self, id: bytes) -> Facts | None:
        """What its runtime says of a container; None when it says nothing, or nothing yet."""
        facts = self._table.get(id)
        if facts is None:
            self.misses += 1
            return None
        self.hits += 1
        self._table.move_to_end(id)
        return facts

    def awaited(self, container: Container) -> bool:
        """Whether nothing is known of it yet, and somebody is there who could tell."""
        return bool(container.id) and container.id not in self._table and container.runtime in self._told_of

    async def wait_for(self, containers: Collection[Container], within_s: float = WAIT_S) -> None:
        """Until all of these are known, or nobody is there any more who could tell, or time is over. Who has waited in vain goes without for some
        time: a runtime may never tell."""
        began_s = time.monotonic()
        if began_s < self._wait_from_s:
            return
        try:
            async with asyncio.timeout(within_s):
                while any(map(self.awaited, containers)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self._wait_from_s = time.monotonic() + (time.monotonic() - began_s) / _SHARE
