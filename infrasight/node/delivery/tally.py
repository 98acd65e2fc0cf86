"""The tally: how many rows were read, and how many of them written down. What lies between is lost when the node is killed, and can be told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from infrasight.node.delivery.slots import Slots
from infrasight.node.ledger import Ledger
from infrasight.schema import KINDS, Kind

_KINDS = 256
"""Numbers of event kinds that there is room for."""
_MOST = 10_000_000
"""Rows that a node could have had in memory, by far: more were not lost, the file is damaged."""
HELD_S = 10.0
"""How old rows may get between ring and spool, about."""


def read_as_rows(kind: Kind) -> bool:
    """Whether each record of it becomes one row, so that rows can be counted when the ring is read; else when they are made."""
    return kind.origin == "kernel" and not kind.account and kind.name != "process"


class Tally:
    """Counts by kind, in a file that survives a kill. Nothing is counted until one is open."""

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._slots: Slots | None = None
        self._owed: dict[int, int] = {}

    def open(self, path: Path, ledger: Ledger) -> None:
        """Count from here on; what an earlier life lost is put into the ledger. OSError."""
        if self._slots is not None:
            return
        died_ns = path.stat().st_mtime_ns if path.exists() else 0
        self._slots = Slots(path, 2 * _KINDS)
        for kind in KINDS.values():
            taken, kept = self._slots.values[kind.number], self._slots.values[_KINDS + kind.number]
            if not kept <= taken <= kept + _MOST:  # damaged, or the machine crashed between the two
                self._settle(kind.number, kept - taken, written=False)
            elif taken > kept:
                self._owed[kind.number] = taken - kept
                ledger.add(kind.name, "killed", taken - kept, died_ns - int(HELD_S * 1e9), min(died_ns, self._wall_ns()))

    def take(self, kind: str, rows: int) -> None:
        """Rows were read, or made."""
        self._settle(KINDS[kind].number, rows, written=False)

    def keep(self, kind: str, rows: int) -> None:
        """They were written down, or else accounted for. With the first rows of `loss`, so is what an earlier life lost."""
        self._settle(KINDS[kind].number, rows, written=True)
        if kind == "loss" and self._owed:
            owed, self._owed = self._owed, {}
            for number, lost in owed.items():
                self._settle(number, lost, written=True)

    def close(self) -> None:
        """Legal twice."""
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def _settle(self, number: int, rows: int, *, written: bool) -> None:
        if self._slots is not None and rows:
            place = number + _KINDS * written
            self._slots.values[place] = (self._slots.values[place] + rows) % 2**64
            self._slots.write(place)
