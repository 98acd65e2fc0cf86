"""The books of a spool: rows read, written down and done with, and what was lost of them, until rows of `loss` that say so are written down.

What changes together, that rows are lost and that they are counted on no more, is one change of a note: a kill at any moment leaves both or neither.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from threading import RLock

from infrasight.errors import InvalidBatch
from infrasight.node.delivery.lane import Held, LaneState
from infrasight.node.delivery.leftovers import Leftovers
from infrasight.node.delivery.note import Note
from infrasight.node.delivery.segment import Segment
from infrasight.node.delivery.tally import Places, Tally
from infrasight.node.flow import Loss
from infrasight.node.ledger import Ledger, losses_in
from infrasight.schema import KINDS, Lane

LOSS = "loss"
"""The kind whose rows count what others were lost."""
HELD_S = 10.0
"""How old rows may get between ring and spool, about."""


class Accounts:
    """Nothing outlasts the process until they are open."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.tally = ledger, Tally()
        self._note: Note | None = None
        self._reconciled = False
        """Whether the note is this life's: until then it is the last one's."""
        self._noting = RLock()

    def open(self, directory: Path) -> None:
        """Go on where the last life ended. OSError."""
        if self._note is None:
            self._note = Note(directory / "note")
            self.tally.open(directory / "tally", {int(place): value for place, value in self._note.content.get("due", {}).items()})
            self.ledger.keep = self._write

    @property
    def goes(self) -> tuple[str, int | None] | None:
        """What the last life had given up and may not have removed: the name of a segment, and where in it a record begins, if not all of it."""
        name, offset = (self._note and self._note.content.get("goes")) or (None, None)
        return (name, offset) if name else None

    def reconcile(self, left: Leftovers, age_s: float) -> None:
        """At the start: tell what the last life had read and not written down, what it had written down and is not there, and what it had not told.
        Of a life that was killed, that there is more than this. `age_s` is how old what was written down may have been."""
        late = Counter[str]()
        for lane in Lane:
            for _, _, header in left.records(lane, self.tally.written_up_to(lane)):
                late[header.kind] += header.rows
        unwritten, gone, due = self.tally.reconcile(late, left.rows, left.ends)
        owed = self._owed(left)
        with self._noting:
            for loss in owed:
                self.ledger.tell(loss)
            died_ns = self.tally.died_ns
            if self._note and not self._note.content.get("closed", True):
                self.ledger.tell(Loss("", "unseen", 0, died_ns, time.time_ns()))
            for reason, lost, lasted_s in (("killed", unwritten, HELD_S), ("spool_damaged", gone, age_s)):
                for kind, rows in lost.items():
                    self.ledger.add(kind, reason, rows, died_ns - int(lasted_s * 1e9), died_ns)
            self._reconciled = True
            self._write(due)
        self.tally.write(due)

    def _owed(self, left: Leftovers) -> list[Loss]:
        """What the last life owed, without what it had written down just before its end."""
        owed = [Loss(*each) for each in (self._note.content.get("owed", []) if self._note else [])]
        if owed:
            for segment, offset, header in left.records(KINDS[LOSS].lane):
                if header.kind == LOSS:
                    for loss in losses_of(segment.payload_of(offset, header)):
                        with contextlib.suppress(ValueError):
                            owed.remove(loss)
        return owed

    def wrote(self, held: Held, state: LaneState) -> None:
        """It is at the end of its lane."""
        self.tally.keep(held.kind, held.rows, state.lane, state.end)
        self._told(held)

    def settle(self, held: Held) -> None:
        """It is stored, or refused for good."""
        if held.segment is None:
            self._told(held)
        else:
            held.segment.rows[held.kind] -= held.rows
        self.tally.settle(held.kind, held.rows, kept=held.segment is not None)

    def _told(self, held: Held) -> None:
        if held.kind == LOSS and self.ledger.written(losses_of(held.payload)):
            self._write()

    def lose(self, rows: Mapping[str, int], segment: Segment, offset: int | None = None) -> None:
        """Rows that were written down are lost, and the ledger has been told: those of a record, or of a whole segment. It is to be removed now."""
        due = self.tally.settling(rows)
        self._write(due, (segment.path.name, offset))
        self.tally.write(due)

    def _write(self, due: Places | None = None, goes: tuple[str, int | None] | None = None, *, closed: bool = False) -> None:
        """Note what is owed, and what is about to be done."""
        with self._noting:
            if self._note is not None and self._reconciled:
                self._note.write({"owed": [astuple(loss) for loss in self.ledger.owed], "due": due or {}, "goes": goes, "closed": closed})

    def sync(self) -> None:
        """Onto the disk. OSError."""
        if self._note is not None:
            self._note.sync()
        self.tally.sync()

    def close(self) -> None:
        """This life ended well. Legal twice."""
        self._write(closed=True)
        self.tally.close()
        self.ledger.keep = None
        if self._note is not None:
            self._note.close()
            self._note = None


def losses_of(payload: bytes | None) -> list[Loss]:
    """What rows of `loss` say; nothing when they cannot be read."""
    with contextlib.suppress(InvalidBatch):
        return list(losses_in(payload)) if payload else []
    return []
