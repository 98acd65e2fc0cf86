"""What the node itself lost, until the reader tells it with what the kernel lost: one way to `loss` rows for both."""

from __future__ import annotations

from collections import Counter

from infrasight.node.flow import Loss


class Ledger:
    """Losses that are to be told. `counts` has all there ever were, by kind and reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._untold: dict[tuple[str, str], Loss] = {}

    def add(self, kind: str, reason: str, count: int, since_ns: int, until_ns: int) -> None:
        """So many rows of a kind were lost, of events between two times (ns since the epoch)."""
        key = kind, reason
        self.counts[key] += count
        if before := self._untold.get(key):
            count, since_ns, until_ns = count + before.count, min(since_ns, before.since_ns), max(until_ns, before.until_ns)
        self._untold[key] = Loss(kind, reason, count, since_ns, until_ns)

    def take(self) -> list[Loss]:
        """Those that were not told yet, one for each kind and reason."""
        untold, self._untold = self._untold, {}
        return list(untold.values())
