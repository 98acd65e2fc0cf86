"""What earlier lives of the node left in the spool: found once at the start, by the headers of records only."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from infrasight.node.delivery.cursors import Cursors, Position
from infrasight.node.delivery.lane import Id
from infrasight.node.delivery.record import Header
from infrasight.node.delivery.segment import Segment
from infrasight.schema import Lane

Pieces = dict[Id, dict[int, tuple[Segment, int, Header]]]
START = Position(0, 0)
_DENSE = 1 << 24
"""Numbers of batches are kept a bit each up to here: a node that makes ten in a second needs three weeks."""


class Seen:
    """Which batches there were. Those of one epoch are numbered without gaps."""

    def __init__(self) -> None:
        self._bits: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._others: set[Id] = set()

    def add(self, id: Id) -> bool:
        """Whether it is new."""
        epoch, seq = id
        if seq >= _DENSE:
            new = id not in self._others
            self._others.add(id)
            return new
        bits, place, bit = self._bits[epoch], seq >> 3, 1 << (seq & 7)
        if place >= len(bits):
            bits.extend(bytes(place + 1 - len(bits)))
        new = not bits[place] & bit
        bits[place] |= bit
        return new


@dataclass
class Leftovers:
    """By lane: segments in order, with what of them is to be delivered counted; the pieces of batches that came in such; the last number used."""

    segments: dict[Lane, list[Segment]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    pieces: dict[Lane, Pieces] = field(default_factory=lambda: {lane: {} for lane in Lane})
    numbers: dict[Lane, int] = field(default_factory=dict)
    delivered: list[Segment] = field(default_factory=list)
    """Segments that are not needed any more."""
    skipped: Counter[str] = field(default_factory=Counter)
    starts: dict[Lane, Position] = field(default_factory=dict)
    """Where what is to be delivered begins."""

    @property
    def rows(self) -> Counter[str]:
        """To be delivered, by kind."""
        counts = Counter[str]()
        for segments in self.segments.values():
            for segment in segments:
                counts.update(segment.rows)
        return counts

    @property
    def ends(self) -> dict[Lane, Position]:
        """Of the last segments."""
        return {lane: Position(segments[-1].number, segments[-1].size) for lane, segments in self.segments.items() if segments}

    def records(self, lane: Lane, start: Position = START) -> Iterator[tuple[Segment, int, Header]]:
        """Those to be delivered, from `start` on. What cannot be read is passed over."""
        number, offset = max(start, self.starts[lane])
        for segment in self.segments[lane]:
            if segment.number >= number:
                with contextlib.suppress(OSError):
                    for place, header in segment.records(offset if segment.number == number else 0):
                        if place not in segment.twice:
                            yield segment, place, header


def find(directory: Path, cursors: Cursors) -> Leftovers:
    """All that is there and was not delivered. OSError when the directory cannot be read; a segment that cannot is skipped."""
    left, seen = Leftovers(), Seen()
    for segment in sorted(filter(None, map(Segment.found, directory.iterdir())), key=lambda segment: segment.number):
        needed = segment.number >= cursors.of(segment.lane).segment
        (left.segments[segment.lane] if needed else left.delivered).append(segment)
    for lane, segments in left.segments.items():
        left.starts[lane] = cursor = cursors.of(lane)
        left.numbers[lane] = max([cursor.segment - 1, 0, *(segment.number for segment in segments)])
        if segments:
            first = cursor.segment or segments[0].number
            left.skipped["segment"] += left.numbers[lane] - first + 1 - len(segments)
        for segment in segments:
            start = cursor.offset if segment.number == cursor.segment else 0
            _count(segment, start, seen, left)
    return left


def _count(segment: Segment, start: int, seen: Seen, left: Leftovers) -> None:
    """Count the records of a segment, and note those that are there twice, or in pieces."""
    try:
        for offset, header in segment.records(start):
            id = header.epoch, header.seq
            if not header.whole:
                pieces = left.pieces[segment.lane].setdefault(id, {})
                new = header.piece not in pieces
                pieces.setdefault(header.piece, (segment, offset, header))
            else:
                new = seen.add(id)
            if new:
                segment.count(header.kind, header.rows, header.oldest_ns)
            else:
                segment.twice.add(offset)
    except OSError:
        left.skipped["segment"] += 1
