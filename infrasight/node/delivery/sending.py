"""How sending went, by kind: batches stored and not, and how long it took from the first byte sent to the acknowledgement."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from infrasight.metrics import Histogram
from infrasight.node.delivery.lane import Id


class Sending:
    """Counts only: the window decides."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds."""
        self._clock = clock
        self._under_way: dict[Id, tuple[str, float]] = {}
        """Kind and since when."""
        self.stored: Counter[str] = Counter()
        """Batches stored."""
        self.failed: Counter[str] = Counter()
        """Batches that the server refused, and, each time, those that were on their way when the connection broke: they are sent again."""
        self.latency: dict[str, Histogram] = {}
        """Seconds to the acknowledgement of those stored."""

    def sent(self, id: Id, kind: str) -> None:
        """A batch, or a piece of it, goes out."""
        self._under_way.setdefault(id, (kind, self._clock()))

    def settled(self, id: Id, stored: bool) -> None:
        """Its acknowledgement came. One that came before is passed over."""
        kind, since_s = self._under_way.pop(id, ("", 0.0))
        if kind and stored:
            self.stored[kind] += 1
            self.latency.setdefault(kind, Histogram()).observe(self._clock() - since_s)
        elif kind:
            self.failed[kind] += 1

    def broken(self) -> None:
        """The connection is gone, and what was on its way with it."""
        self.failed.update(kind for kind, _ in self._under_way.values())
        self._under_way.clear()
