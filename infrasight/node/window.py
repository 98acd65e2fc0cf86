"""The exporter's decisions, without any I/O: which batches are on their way, which to send next, what an acknowledgement means."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from infrasight.node.flow import Encoded


class Window:
    """Batches sent and not yet acknowledged, up to `limit_bytes`; one heavier than that is let in alone.

    Always: rows taken in == acknowledged + rejected + held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[int, Encoded] = OrderedDict()
        self._unsent: deque[int] = deque()
        self.bytes = 0
        self.acknowledged: dict[str, int] = {}
        """Rows stored, by kind."""
        self.rejected: dict[str, int] = {}
        """Rows that the server refused for good, by kind."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def open(self) -> bool:
        """Whether another batch may be taken in."""
        return not self._held or self.bytes < self._limit

    def add(self, batch: Encoded) -> None:
        """Take a batch in; it is next to be sent after those before it."""
        self._held[batch.seq] = batch
        self._unsent.append(batch.seq)
        self.bytes += batch.weight()

    def to_send(self) -> Iterator[Encoded]:
        """What is to be sent now, oldest first; each is given out once, until `resend`."""
        while self._unsent:
            seq = self._unsent.popleft()
            if seq in self._held:
                yield self._held[seq]

    def resend(self, seq: int | None = None) -> None:
        """Send again: one batch, or, after a new connection, all that are held."""
        if seq is None:
            self._unsent = deque(self._held)
        elif seq in self._held:
            self._unsent.append(seq)

    def settle(self, seq: int, stored: bool) -> Encoded | None:
        """An acknowledgement: the batch is done with, stored or refused for good. None when it was not held (an acknowledgement told twice)."""
        batch = self._held.pop(seq, None)
        if batch:
            self.bytes -= batch.weight()
            counts = self.acknowledged if stored else self.rejected
            counts[batch.kind] = counts.get(batch.kind, 0) + batch.rows
        return batch

    def held_rows(self) -> dict[str, int]:
        """Rows held, by kind."""
        rows: dict[str, int] = {}
        for batch in self._held.values():
            rows[batch.kind] = rows.get(batch.kind, 0) + batch.rows
        return rows
