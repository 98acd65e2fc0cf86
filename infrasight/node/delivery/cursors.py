"""How far what is in the spool has been delivered, for each lane."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from infrasight.node.delivery.slots import Slots
from infrasight.schema import Lane

_ONES = 2**64 - 1
_LANES = list(Lane)


class Position(NamedTuple):
    """A place in a lane: before all that is at greater ones."""

    segment: int
    offset: int


class Cursors:
    """A position for each lane. All records before it are stored, or given up. Each number is there twice, the second time with its bits turned
    round: one that was damaged says nothing, and then the lane is delivered from its first segment on."""

    def __init__(self, path: Path) -> None:
        """OSError."""
        self._slots = Slots(path, 2 * len(_LANES))
        self._moved = False

    def of(self, lane: Lane) -> Position:
        """Of one lane: (0, 0) when nothing is known."""
        value, turned = self._slots.values[2 * _LANES.index(lane) :][:2]
        return Position(value >> 32, value & 0xFFFFFFFF) if value ^ turned == _ONES else Position(0, 0)

    def move(self, lane: Lane, to: Position) -> None:
        """What is before `to` has been delivered."""
        if to != self.of(lane):
            place, value = 2 * _LANES.index(lane), to.segment << 32 | to.offset
            self._slots.values[place], self._slots.values[place + 1] = value, value ^ _ONES
            self._slots.write(place, 2)
            self._moved = True

    def sync(self) -> None:
        """Onto the disk, if it has moved. OSError."""
        if self._moved:
            self._moved = False
            self._slots.sync()

    def close(self) -> None:
        """Legal twice."""
        self._slots.close()
