"""What the node itself lost, until the reader tells it with what the kernel lost: one way to `loss` rows for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from infrasight.node.flow import Loss
from infrasight.wire.codec import decode


class Ledger:
    """Losses that are to be told. `counts` has all there ever were, by kind and reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._untold: dict[tuple[str, str], Loss] = {}

    def add(self, kind: str, reason: str, count: int, since_ns: int, until_ns: int) -> None:
        """So many rows of a kind were lost, of events between two times (ns since the epoch)."""
        self.counts[kind, reason] += count
        self.tell(Loss(kind, reason, count, since_ns, until_ns))

    def tell(self, loss: Loss) -> None:
        """It was counted before; whoever was told will not pass it on."""
        key = loss.probe, loss.reason
        if before := self._untold.get(key):
            since_ns, until_ns = min(loss.since_ns, before.since_ns), max(loss.until_ns, before.until_ns)
            loss = replace(loss, count=loss.count + before.count, since_ns=since_ns, until_ns=until_ns)
        self._untold[key] = loss

    def take(self) -> list[Loss]:
        """Those that were not told yet, one for each kind and reason."""
        untold, self._untold = self._untold, {}
        return list(untold.values())


def losses_in(payload: bytes) -> Iterator[Loss]:
    """What an encoded batch of `loss` says. InvalidBatch."""
    batch = decode("loss", payload)
    times = (batch.column(name).cast(pa.int64()) for name in ("since", "ts"))
    columns = [column.to_pylist() for column in (*(batch.column(name) for name in ("probe", "reason", "count")), *times)]
    for probe, reason, count, since_ns, until_ns in zip(*columns, strict=True):
        yield Loss(probe.decode(), reason.decode(), count, since_ns, until_ns)
