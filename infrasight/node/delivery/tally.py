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


def read_as_rows(kind: Kind) -> bool:
    """Whether each record of it becomes one row, so that rows can be counted when the ring is read; else when they are made."""
    return kind.origin == "kernel" and not kind.account and kind.name != "process"


class Tally:
    """Counts by kind, in a file that survives a kill. Nothing is counted until one is open."""

    def __init__(self) -> None:
        self._slots: Slots | None = None
        self._unwritten: dict[str, int] = {}
        """Rows that an earlier life had read and not written down."""
        self._untold: dict[str, int] = {}
        """Of those, what has not been told in a row of `loss` that is written down."""
        self.died_ns = 0
        """When the last life counted last."""

    def open(self, path: Path) -> None:
        """Count from here on. OSError."""
        if self._slots is None:
            self.died_ns = path.stat().st_mtime_ns if path.exists() else 0
            self._slots = Slots(path, 3 * _KINDS + len(_LANES))
            self._unwritten = {kind: lost for kind in KINDS if (lost := self._between(kind, _TAKEN, _KEPT))}

    def written_up_to(self, lane: Lane) -> Position:
        """Where the last record of a lane ends that was counted as written down."""
        value = self._slots.values[_ENDS + _LANES.index(lane)] if self._slots is not None else 0
        return Position(value >> 32, value & 0xFFFFFFFF)

    def reconcile(self, late: Mapping[str, int], found: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
        """At the start, with rows that were written down too late to be counted, and all that are in the spool: rows that were never written down,
        and rows that were and are not there."""
        if self._slots is None:
            return {}, {}
        for kind, rows in late.items():
            self._add(_KEPT, kind, rows)
            self._unwritten[kind] = max(self._unwritten.get(kind, 0) - rows, 0)
        gone: dict[str, int] = {}
        for kind in KINDS:
            missing = self._between(kind, _KEPT, _SETTLED) - found.get(kind, 0)
            if missing > 0:
                gone[kind] = missing
            self._add(_SETTLED, kind, missing)
        self._untold = {kind: rows for kind, rows in self._unwritten.items() if rows}
        return dict(self._untold), gone

    def take(self, kind: str, rows: int) -> None:
        """Rows were read, or made."""
        self._add(_TAKEN, kind, rows)

    def keep(self, kind: str, rows: int, lane: Lane, end: Position) -> None:
        """They were written down, in a record that ends there. With the first rows of `loss`, what an earlier life lost is written down."""
        if self._slots is None:
            return
        if kind == "loss":
            untold, self._untold = self._untold, {}
            for each, lost in untold.items():
                self.settle(each, lost, kept=False)
        self._slots.values[_ENDS + _LANES.index(lane)] = end.segment << 32 | end.offset
        self._slots.values[_KEPT + KINDS[kind].number] += rows
        self._slots.write(_KEPT, _KINDS + len(_LANES))  # in one, so that a kill leaves both or none

    def settle(self, kind: str, rows: int, *, kept: bool) -> None:
        """It is known what became of rows: they are stored, refused, or told as lost. `kept` is whether they were written down before."""
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

    def _add(self, bank: int, kind: str, rows: int) -> None:
        if self._slots is not None and rows:
            place = bank + KINDS[kind].number
            self._slots.values[place] = (self._slots.values[place] + rows) % 2**64
            self._slots.write(place)
