"""The exporter's decisions, without any I/O: which batches are on their way, which to send next, what an acknowledgement means."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from infrasight.node.flow import Encoded


class Window:
    """Batches sent and not yet acknowledged, up to `limit_bytes`; one heavier than that is let in alone. A batch that comes in pieces counts once
    it is whole: its end can always follow.

    Always: rows taken in == acknowledged + rejected + held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[int, list[Encoded]] = OrderedDict()
        self._growing: dict[int, int] = {}
        """Bytes so far of those that lack their end."""
        self._unsent: deque[tuple[Encoded, bool]] = deque()
        """Each with whether it was never given out before."""
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
        return len(self._held) == len(self._growing) or self.bytes - sum(self._growing.values()) < self._limit

    def add(self, piece: Encoded) -> None:
        """Take a batch in, or a piece of one; it is next to be sent after those before it."""
        self._held.setdefault(piece.seq, []).append(piece)
        self._unsent.append((piece, True))
        self.bytes += piece.weight()
        before = self._growing.pop(piece.seq, 0)
        if piece.more:
            self._growing[piece.seq] = before + piece.weight()

    def to_send(self) -> Iterator[tuple[Encoded, bool]]:
        """What is to be sent now, oldest first, each with whether this is the first time; each is given out once, until `resend`."""
        while self._unsent:
            piece, fresh = self._unsent.popleft()
            if piece.seq in self._held:
                yield piece, fresh

    def resend(self) -> None:
        """After a new connection: send again all that are held."""
        never = {id(piece) for piece, fresh in self._unsent if fresh}
        self._unsent = deque((piece, id(piece) in never) for pieces in self._held.values() for piece in pieces)

    def settle(self, seq: int, stored: bool) -> list[Encoded]:
        """An acknowledgement: the batch, in its pieces, is done with, stored or refused for good. Nothing when it was not held whole (an
        acknowledgement told twice)."""
        if seq in self._growing:
            return []
        pieces = self._held.pop(seq, [])
        counts = self.acknowledged if stored else self.rejected
        for piece in pieces:
            self.bytes -= piece.weight()
            counts[piece.kind] = counts.get(piece.kind, 0) + piece.rows
        return pieces

    def held_rows(self) -> dict[str, int]:
        """Rows held, by kind."""
        rows: dict[str, int] = {}
        for pieces in self._held.values():
            for piece in pieces:
                rows[piece.kind] = rows.get(piece.kind, 0) + piece.rows
        return rows
