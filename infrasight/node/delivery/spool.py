"""The spool: what is encoded is written down before it is sent, and stays until it is stored. Without a disk, in memory, as much as fits there.

| question                 | answer |
|--------------------------|--------|
| the process is killed?   | nothing of what was written down is lost: the kernel has it |
| the machine crashes?     | what came in the last `fsync_s` may be lost; what was acknowledged by then was never to be kept |
| a record is damaged?     | that one is skipped and counted, whatever is around it |
| too much, or too old?    | the oldest of the lane that is worth least is given up, and told as rows of `loss`; nothing that is on its way |
| the disk fails, is full? | what comes then stays in memory, and upstream waits; the disk is tried again, and gets all of it once it works |
| another node's?          | a lock: one process at a time has a directory |
| threads?                 | one event loop; `open`, `recover`, `load` and what `keep` and `close` sync run in threads, and touch no more than files |

Here is what comes in and goes out, in which order. `disk.py` writes and syncs, `limits.py` gives up, `accounts.py` counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from infrasight.node.delivery.accounts import Accounts
from infrasight.node.delivery.cursors import Cursors, Position
from infrasight.node.delivery.disk import Disk
from infrasight.node.delivery.lane import Held, LaneState
from infrasight.node.delivery.leftovers import Leftovers
from infrasight.node.delivery.limits import USUAL, GivingUp, SpoolLimits
from infrasight.node.delivery.record import Header
from infrasight.node.delivery.segment import Segment
from infrasight.node.flow import Encoded
from infrasight.node.ledger import Ledger
from infrasight.schema import KINDS, Lane

READY_BYTES = 1 << 20
"""Payloads in memory that wait to be sent: what is more is read from the disk when its turn comes."""
IDLE_S = 60.0
"""How often ages are looked at when nothing else happens."""

log = logging.getLogger(__name__)


class Spool:
    """Pieces in by `append`, out by `next` in the order of lanes, and `done` with when they are stored or refused."""

    def __init__(
        self,
        directory: Path | None = None,
        limits: SpoolLimits = USUAL,
        *,
        ledger: Ledger | None = None,
        epoch: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Without a directory everything is kept in memory. `epoch` is what this life has then: the time, unless given."""
        self._limits = limits
        self._lanes = {lane: LaneState(lane) for lane in Lane}
        self._accounts = Accounts(Ledger() if ledger is None else ledger)
        self.disk = Disk(directory, limits.segment_bytes, self._accounts, clock)
        self._giving_up = GivingUp(limits, self._lanes.values(), self.disk, self._accounts, wall_s)
        self._ready_bytes = 0
        self.ledger, self.tally = self._accounts.ledger, self._accounts.tally
        """Of what was lost; of rows that were read and not written down."""
        self.epoch = epoch or time.time_ns()
        self.skipped: Counter[str] = Counter()
        """What was damaged: stretches of `bytes` that are no records, `payload`s, `segment`s that are missing; and records that were there twice."""

    def open(self) -> None:
        """Take the directory, and begin a new epoch. A disk that fails is told, and tried again later."""
        if self.disk.open() and not self.disk.problem:  # it had an epoch, then, that others know
            self.epoch = self.disk.epoch

    def recover(self) -> None:
        """Find what earlier lives left. Takes a second for a spool of a GiB, so it is for a thread, before anything comes in. Legal twice."""
        self.disk.recover(self._recover)

    def _recover(self, left: Leftovers, cursors: Cursors) -> None:
        self.skipped += left.skipped
        for lane, segments in left.segments.items():
            state = self._lanes[lane]
            state.segments[:0], state.pieces, state.number = segments, left.pieces[lane], left.numbers[lane]
            state.read = cursors.of(lane) if segments else state.end
        self._accounts.reconcile(left, self._limits.age_s)

    # What comes in.

    @property
    def room(self) -> bool:
        """Whether another piece may come in: on the disk always, in memory while there is little."""
        return (self.disk.lasting and not self.disk.problem) or self._ready_bytes < READY_BYTES

    @property
    def lasting(self) -> bool:
        """Whether it is meant to be on a disk."""
        return self.disk.lasting

    @property
    def waiting(self) -> bool:
        """Whether there is something for `next` to give out."""
        return any(state.parts or state.ready or state.unread or state.begun.keys() - state.growing for state in self._lanes.values())

    @property
    def safe(self) -> bool:
        """Whether all that is not stored is on the disk."""
        return self.disk.held and not self.unsafe_rows()

    def append(self, piece: Encoded) -> None:
        """Write a piece down, and have it delivered after those before it in its lane."""
        piece = piece if piece.epoch else replace(piece, epoch=self.epoch)
        state = self._lanes[KINDS[piece.kind].lane]
        held = Held.new(piece, state.lane)
        (state.growing.add if piece.more else state.growing.discard)(held.id)
        unread = state.unread
        if self._usable() and self.disk.write(state, held):
            if unread:
                held.release()
                return self._giving_up.too_much()
            state.read = state.end
        state.ready.append(held)
        self._ready_bytes += held.size
        if self._ready_bytes > READY_BYTES:
            self._spill(state)
        return self._giving_up.too_much()

    def _spill(self, state: LaneState) -> None:
        """Let the disk alone have what waits, when it has all of it."""
        if state.ready and all(held.segment is not None for held in state.ready):
            state.read = state.ready[0].at or state.read
            for held in state.ready:
                self._ready_bytes -= held.size
                held.release()
            state.ready.clear()

    # A disk that fails.

    def _usable(self) -> bool:
        return self.disk.usable or (self.disk.due and self._back())

    def _back(self) -> bool:
        """Try the disk again, with all that is in memory only. Whether it works."""
        if not (self.disk.open() and self.disk.recover(self._recover) and self.disk.works()):
            return False
        if not all(self._write_late(state) for state in self._lanes.values()):
            return False
        self.disk.mended()
        return True

    def _write_late(self, state: LaneState) -> bool:
        """Write down what of a lane is in memory only. Whether the disk took it all."""
        unread = state.unread
        late = [held for held in (*state.held, *state.ready) if held.segment is None and not held.done]
        took = all(self.disk.write(state, held) for held in late)
        if not unread:
            state.read = state.end
            return took
        while state.ready and state.ready[0].segment is not None:  # it is read when what is before it on the disk has been
            held = state.ready.popleft()
            self._ready_bytes -= held.size
            held.release()
        return took

    # What goes out.

    def next(self) -> Held | None:
        """What is to be sent next, of the lane that is worth most; None when there is nothing. It is held until it is `done` with."""
        for state in self._lanes.values():
            if held := self._next_in(state):
                state.held.append(held)
                if not held.more:
                    state.begun.pop(held.id, None)
                else:
                    state.begun[held.id] = held
                return held
        return None

    def _next_in(self, state: LaneState) -> Held | None:
        while True:
            if state.parts:
                return state.parts.popleft()
            if not state.unread:
                break
            self._read_on(state)
        if state.ready:
            held = state.ready.popleft()
            self._ready_bytes -= held.size
            return held
        return next((held.end() for id, held in state.begun.items() if id not in state.growing), None)

    def _read_on(self, state: LaneState) -> None:
        """Read the next record of the segments into `parts`, with the other pieces of its batch; or skip what is damaged."""
        number, offset = state.reading
        segment = state.segment(number)
        try:
            found = segment.next_record(offset)
        except OSError as error:
            log.error("a segment of the spool cannot be read: %s", error)
            return self._giving_up.lose(state, segment, "spool_damaged")
        start, header = found or (segment.size, None)
        self.skipped["bytes"] += start > offset
        if header is None:
            state.read = Position(number, segment.size)
            return None
        end = start + header.size + header.length
        if end > segment.size:  # cut off
            state.read = Position(number, start + 1)
            return None
        at, state.read = Position(number, start), Position(number, end)
        if start in segment.twice:
            self.skipped["twice"] += 1
        elif header.whole or not segment.old:
            state.parts.append(Held.found(header, state.lane, segment, start, at))
        elif pieces := state.pieces.pop((header.epoch, header.seq), None):
            for _, (where, place, each) in sorted(pieces.items()):
                state.parts.append(Held.found(each, state.lane, where, place, at))
            if state.parts[-1].more:
                state.parts.append(state.parts[-1].end())
        return None

    def load(self, held: Held) -> bytes | None:
        """The payload of something that is in the spool only, to be called in a thread; None when it is damaged."""
        for segment, offset, header in self._copies(held):
            with contextlib.suppress(OSError):
                payload = segment.payload_of(offset, header)
                if payload is not None:
                    return payload
        return None

    def _copies(self, held: Held) -> Iterator[tuple[Segment, int, Header]]:
        """Where a piece is in the spool: once, unless damage to the spool was that something is there twice."""
        assert held.segment is not None
        twins = ((segment, offset) for segment in list(self._lanes[held.lane].segments) for offset in segment.twice)
        for segment, offset in itertools.chain([(held.segment, held.offset)], twins):
            with contextlib.suppress(OSError):
                header = segment.header_at(offset)
                if header is not None and (header.epoch, header.seq, header.piece) == (*held.id, held.piece):
                    yield segment, offset, header

    def damaged(self, held: Held) -> None:
        """Its payload could not be loaded: its rows are lost."""
        self.skipped["payload"] += 1
        self._giving_up.lose_one(held, list(self._copies(held)))
        held.rows, held.payload = 0, b""

    def done(self, pieces: list[Held]) -> None:
        """All pieces of a batch are stored, or refused for good, or lost."""
        for held in pieces:
            held.done = True
            self._accounts.settle(held)
            held.release()
        for lane in {held.lane for held in pieces}:
            self._lanes[lane].pass_done()
            self.disk.advance(self._lanes[lane])

    # Keeping it.

    async def keep(self) -> None:
        """For ever: what is not stored goes onto the disk in time, what is not needed is removed, what is too old is given up."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self.disk.changed.wait()
            await asyncio.sleep(self._limits.fsync_s / 2)
            self._usable()  # tries a disk that failed
            self._giving_up.too_old()
            await self.disk.keep(self._lanes.values())

    def sync(self) -> None:
        """Everything onto the disk, now."""
        self.disk.sync(self._lanes.values())

    def close(self) -> None:
        """Sync, and give the directory back: nothing comes any more. Legal twice."""
        self.disk.close(self._lanes.values())

    # What can be told of it.

    @property
    def segments(self) -> int:
        """How many there are."""
        return sum(len(state.segments) for state in self._lanes.values())

    @property
    def given_up(self) -> dict[str, int]:
        """Rows, by lane."""
        return {lane.value: state.given_up for lane, state in self._lanes.items()}

    def unsafe_rows(self) -> dict[str, int]:
        """Rows in memory only that are not stored, by kind."""
        rows: Counter[str] = Counter()
        for state in self._lanes.values():
            for held in (*state.held, *state.ready):
                if held.segment is None and held.rows and not held.done:
                    rows[held.kind] += held.rows
        return dict(rows)

    def rows(self) -> dict[str, int]:
        """Rows on the disk that are not stored, by kind."""
        rows: Counter[str] = Counter()
        for state in self._lanes.values():
            for segment in state.segments:
                rows.update(segment.rows)
        return {kind: count for kind, count in rows.items() if count}
