"""The tally: how many rows were read, how many of them were written down, and of how many of those it is known what became. So what a kill, or a
disk, took can be told at the next start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infrasight.node.delivery.cursors import Position
from infrasight.node.delivery.slots import Slots
from infrasight.schema import KINDS, Kind, Lane

_KINDS = 256
"""Numbers of event kinds that there is room for."""
_TAKEN, _SETTLED, _KEPT, _ENDS = 0, _KINDS, 2 * _KINDS, 3 * _KINDS
_LANES = list(Lane)
_MOST = {_TAKEN: 10_000_000, _KEPT: 10_000_000_000}
"""Rows that a node could have had in memory, and in a spool, by far: more were not lost, the file is damaged."""
_ALL = 2**64

Places = dict[int, int]
"""Numbers that are to be written, by their places."""


def read_as_rows(kind: Kind) -> bool:
    """Whether each record of it becomes one row, so that rows can be counted when the ring is read; else when they are made."""
    return kind.origin == "kernel" and not kind.account and kind.name != "process"


class Tally:
    """Counts by kind, in a file that survives a kill. Nothing is counted until one is open."""

    def __init__(self) -> None:
        self._slots: Slots | None = None
        self._unwritten: dict[str, int] = {}
        """Rows that an earlier life had read and not written down."""
        self.died_ns = 0
        """When the last life counted last."""

    def open(self, path: Path, due: Places) -> None:
        """Count from here on, after what was `due` to be written before. OSError."""
        if self._slots is None:
            self.died_ns = path.stat().st_mtime_ns if path.exists() else 0
            self._slots = Slots(path, 3 * _KINDS + len(_LANES))
            values = self._slots.values
            self.write({place: value for place, value in due.items() if 0 < (value - values[place]) % _ALL < _ALL // 2})  # it may have been
            self._unwritten = {kind: lost for kind in KINDS if (lost := self._between(kind, _TAKEN, _KEPT))}

    def written_up_to(self, lane: Lane) -> Position:
        """Where the last record of a lane ends that was counted as written down."""
        value = self._slots.values[_ENDS + _LANES.index(lane)] if self._slots is not None else 0
        return Position(value >> 32, value & 0xFFFFFFFF)

    def reconcile(
        self, late: Mapping[str, int], found: Mapping[str, int], ends: Mapping[Lane, Position]
    ) -> tuple[dict[str, int], dict[str, int], Places]:
        """At the start, with rows that were written down too late to be counted, all that are in the spool, and where its lanes end: rows that were
        never written down, rows that were and are not there, and what to write once they are told."""
        unwritten: dict[str, int] = {}
        gone: dict[str, int] = {}
        due: Places = {}
        if self._slots is None:
            return unwritten, gone, due
        for kind in KINDS:
            missing = self._between(kind, _KEPT, _SETTLED) + late.get(kind, 0) - found.get(kind, 0)
            if missing < 0:  # the disk gave back more of the spool than of the tally
                self._add(_SETTLED, kind, missing)
            elif missing:
                gone[kind] = missing
            if lost := max(self._unwritten.get(kind, 0) - late.get(kind, 0), 0):
                unwritten[kind] = lost
            due |= self._more(_KEPT, kind, late.get(kind, 0) + lost) | self._more(_SETTLED, kind, max(missing, 0) + lost)
        due |= {_ENDS + _LANES.index(lane): end.segment << 32 | end.offset for lane, end in ends.items()}
        return unwritten, gone, due

    def settling(self, rows: Mapping[str, int]) -> Places:
        """What to write once it is known what became of rows that were written down."""
        return {place: value for kind, count in rows.items() for place, value in self._more(_SETTLED, kind, count).items()}

    def write(self, due: Places) -> None:
        """Put numbers into their places."""
        if self._slots is not None:
            for place, value in due.items():
                self._slots.values[place] = value
                self._slots.write(place)

    def take(self, kind: str, rows: int) -> None:
        """Rows were read, or made."""
        self._add(_TAKEN, kind, rows)

    def keep(self, kind: str, rows: int, lane: Lane, end: Position) -> None:
        """They were written down, in a record that ends there."""
        if self._slots is None:
            return
        self._slots.values[_ENDS + _LANES.index(lane)] = end.segment << 32 | end.offset
        self._slots.values[_KEPT + KINDS[kind].number] += rows
        self._slots.write(_KEPT, _KINDS + len(_LANES))  # in one, and in one page, so that a kill leaves both or none

    def settle(self, kind: str, rows: int, *, kept: bool) -> None:
        """It is known what became of rows: they are stored, or refused. `kept` is whether they were written down before."""
        if not kept:
            self._add(_KEPT, kind, rows)
        self._add(_SETTLED, kind, rows)

    def sync(self) -> None:
        """Onto the disk. OSError."""
        if self._slots is not None:
            self._slots.sync()

    def close(self) -> None:
        """Legal twice."""
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def _between(self, kind: str, more: int, less: int) -> int:
        """How much larger one count is than another; 0, and both the same, when that cannot be."""
        assert self._slots is not None
        number = KINDS[kind].number
        difference = self._slots.values[more + number] - self._slots.values[less + number]
        if 0 <= difference <= _MOST[more]:
            return difference
        self._slots.values[less + number] = self._slots.values[more + number]
        self._slots.write(less + number)
        return 0

    def _more(self, bank: int, kind: str, rows: int) -> Places:
        """A count, so many larger."""
        place = bank + KINDS[kind].number
        return {place: (self._slots.values[place] + rows) % _ALL} if self._slots is not None and rows else {}

    def _add(self, bank: int, kind: str, rows: int) -> None:
        self.write(self._more(bank, kind, rows))
