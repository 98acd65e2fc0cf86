"""What was lost, until the reader tells it: one way to `loss` rows for what the kernel lost and for what the node did."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pyarrow as pa

from infrasight.node.flow import Loss
from infrasight.wire.codec import decode


class Ledger:
    """Losses that are to be told. `counts` has all that the node ever had, by kind and reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._untold: dict[tuple[str, str], Loss] = {}
        self._taken: list[Loss] = []
        """On their way, as rows of `loss`."""
        self.keep: Callable[[], None] | None = None
        """Called when there is more of what is `owed`: somebody keeps that until it is `written`."""

    def add(self, kind: str, reason: str, count: int, since_ns: int, until_ns: int) -> None:
        """So many rows of a kind were lost on the node, of events between two times (ns since the epoch)."""
        self.counts[kind, reason] += count
        self.tell(Loss(kind, reason, count, since_ns, until_ns))

    def tell(self, loss: Loss) -> None:
        """It was counted elsewhere, or before; whoever was told will not pass it on."""
        key = loss.probe, loss.reason
        if before := self._untold.get(key):
            since_ns, until_ns = min(loss.since_ns, before.since_ns), max(loss.until_ns, before.until_ns)
            loss = replace(loss, count=loss.count + before.count, since_ns=since_ns, until_ns=until_ns)
        self._untold[key] = loss

    def take(self) -> list[Loss]:
        """Those that were not taken yet, one for each kind and reason."""
        untold, self._untold = list(self._untold.values()), {}
        if untold and self.keep:
            self._taken += untold
            self.keep()
        return untold

    @property
    def owed(self) -> list[Loss]:
        """Those that are in no row of `loss` that is written down."""
        return [*self._taken, *self._untold.values()]

    def written(self, losses: Iterable[Loss]) -> bool:
        """These are written down, or stored, as rows of `loss`. Whether any of them was owed."""
        before = len(self._taken)
        for loss in losses if before else ():
            with contextlib.suppress(ValueError):
                self._taken.remove(loss)
        return len(self._taken) < before


def losses_in(payload: bytes) -> Iterator[Loss]:
    """What an encoded batch of `loss` says. InvalidBatch."""
    batch = decode("loss", payload)
    times = (batch.column(name).cast(pa.int64()) for name in ("since", "ts"))
    columns = [column.to_pylist() for column in (*(batch.column(name) for name in ("probe", "reason", "count")), *times)]
    for probe, reason, count, since_ns, until_ns in zip(*columns, strict=True):
        yield Loss(probe.decode(), reason.decode(), count, since_ns, until_ns)
