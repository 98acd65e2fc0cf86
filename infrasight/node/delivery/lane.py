"""One lane of the spool: its segments in order, how far they have been read, and what is on its way. Decides nothing and writes nothing."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

from infrasight.node.delivery.cursors import Position
from infrasight.node.delivery.record import Header
from infrasight.node.delivery.segment import Segment
from infrasight.node.flow import Encoded
from infrasight.schema import Lane

Id = tuple[int, int]
"""Of a batch: epoch and seq."""


@dataclass(eq=False)
class Held:
    """A batch, or a piece of one, that is on its way: to be sent, or sent and without an Ack."""

    id: Id
    kind: str
    rows: int
    size: int
    """Bytes of the payload."""
    oldest_ns: int
    more: bool
    lane: Lane
    payload: bytes | None = field(default=None, repr=False)
    """None while only the spool has it."""
    segment: Segment | None = None
    """Where the spool has it; None when it does not."""
    offset: int = 0
    at: Position | None = None
    """Where its batch was come upon: the lane's cursor is not to pass before it is done with."""
    piece: int = 0
    sent: bool = False
    """To a server, at least once."""
    done: bool = False

    def weight(self) -> int:
        """Bytes."""
        return self.size

    @classmethod
    def new(cls, piece: Encoded, lane: Lane) -> Held:
        """One that is in memory."""
        whole = (piece.epoch, piece.seq), piece.kind, piece.rows, len(piece.payload), piece.oldest_ns, piece.more
        return cls(*whole, lane, piece.payload, piece=piece.piece)

    @classmethod
    def found(cls, header: Header, lane: Lane, segment: Segment, offset: int, at: Position) -> Held:
        """One that is in the spool."""
        segment.held += 1
        told = (header.epoch, header.seq), header.kind, header.rows, header.length, header.oldest_ns, header.more
        return cls(*told, lane, None, segment, offset, at, header.piece)

    def release(self) -> None:
        """It is on its way no more; the spool may have it still."""
        if self.segment is not None:
            self.segment.held -= 1

    def end(self) -> Held:
        """What ends its batch, when nothing else will."""
        return Held(self.id, self.kind, 0, 0, self.oldest_ns, False, self.lane, b"", at=self.at, piece=self.piece + 1)

    def encoded(self) -> Encoded:
        """It as it came; it is in memory."""
        assert self.payload is not None
        return Encoded(self.id[1], self.kind, self.rows, self.payload, self.oldest_ns, self.more, self.id[0], self.piece)


class LaneState:
    """In the order of delivery: `held`, `parts`, what is unread in the segments, `ready`."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.segments: list[Segment] = []
        self.number = 0
        """That of the last segment ever."""
        self.fd = -1
        """Of the last segment, when it is open for more."""
        self.read = Position(0, 0)
        self.held: deque[Held] = deque()
        """Given out."""
        self.parts: deque[Held] = deque()
        """Of a batch of an earlier life, pieces that are still to be given out."""
        self.ready: deque[Held] = deque()
        """In memory."""
        self.pieces: dict[Id, dict[int, tuple[Segment, int, Header]]] = {}
        """Batches of earlier lives that came in pieces."""
        self.growing: set[Id] = set()
        """Batches whose end has not come in yet."""
        self.begun: dict[Id, Held] = {}
        """Batches whose end has not been given out, with their last piece that was."""
        self.marked = self.synced = Position(0, 0)
        """Where the end was at the last look of the spool's keeper; what is on the disk for sure."""
        self.given_up = 0
        """Rows."""

    @property
    def end(self) -> Position:
        """Of the last segment."""
        return Position(self.segments[-1].number, self.segments[-1].size) if self.segments else Position(self.number + 1, 0)

    @property
    def done(self) -> Position:
        """Before it, all is done with."""
        waiting = itertools.chain(self.held, self.parts, self.ready)
        return next((held.at for held in waiting if held.at is not None and not held.done), self.reading)

    @property
    def reading(self) -> Position:
        """The next that is to be read: never the end of a segment that another follows."""
        for segment in self.segments:
            if segment.number > self.read.segment:
                self.read = Position(segment.number, 0)
            if segment.number == self.read.segment and self.read.offset < segment.size:
                return self.read
        self.read = self.end
        return self.read

    @property
    def unread(self) -> bool:
        """Whether there is something in the segments that was not read."""
        return self.reading != self.end

    def segment(self, number: int) -> Segment:
        """By its number."""
        return next(segment for segment in self.segments if segment.number == number)

    def pass_done(self) -> Held | None:
        """Forget what was given out and is done with; the first that is not."""
        while self.held and self.held[0].done:
            self.held.popleft()
        return self.held[0] if self.held else None
