"""The exporter's decisions, without any I/O: which batches are with the server, which to send next, what an acknowledgement means."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from infrasight.node.delivery.lane import Held, Id


class Window:
    """Batches sent and not yet acknowledged, up to `limit_bytes`; one heavier than that is let in alone. A batch that comes in pieces counts once
    it is whole: its end can always follow.

    Always: rows taken in == acknowledged + rejected + lost + held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[Id, list[Held]] = OrderedDict()
        self._growing: dict[Id, int] = {}
        """Bytes so far of those that lack their end."""
        self._unsent: deque[Held] = deque()
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

    def add(self, piece: Held) -> None:
        """Take a batch in, or a piece of one; it is next to be sent after those before it."""
        self._held.setdefault(piece.id, []).append(piece)
        self._unsent.append(piece)
        self.bytes += piece.weight()
        before = self._growing.pop(piece.id, 0)
        if piece.more:
            self._growing[piece.id] = before + piece.weight()

    def to_send(self) -> Iterator[Held]:
        """What is to be sent now, oldest first; each is given out once, until it is to be sent again."""
        while self._unsent:
            piece = self._unsent.popleft()
            if piece.id in self._held:
                yield piece

    def resend(self) -> None:
        """After a new connection: send again all that are held."""
        self._unsent = deque(piece for pieces in self._held.values() for piece in pieces)

    def retry(self, id: Id) -> bool:
        """The server did not store it for now: send it again, before what was never sent. Whether it was held whole."""
        if id in self._growing or id not in self._held:
            return False
        self._unsent.extendleft(reversed(self._held[id]))
        return True

    def pieces(self, id: Id) -> list[Held]:
        """Those of a batch that are held."""
        return self._held.get(id, [])

    def settle(self, id: Id, stored: bool) -> list[Held]:
        """An acknowledgement: the batch, in its pieces, is done with, stored or refused for good. Nothing when it was not held whole (an
        acknowledgement told twice)."""
        if id in self._growing:
            return []
        pieces = self._held.pop(id, [])
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
