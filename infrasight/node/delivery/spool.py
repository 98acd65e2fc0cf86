"""The spool: what is encoded is written down before it is sent, and stays until it is stored. Without a disk, in memory, as much as fits there.

| question                 | answer |
|--------------------------|--------|
| the process is killed?   | nothing of what was written down is lost: the kernel has it |
| the machine crashes?     | what came in the last `fsync_s` may be lost; what was acknowledged by then was never to be kept |
| a record is damaged?     | that one is skipped and counted, whatever is around it |
| too much, or too old?    | the oldest of the lane that is worth least is given up, and told as rows of `loss`; nothing that is on its way |
| the disk fails, is full? | what comes then stays in memory, and upstream waits; the disk is tried again, and gets all of it once it works |
| another node's?          | a lock: one process at a time has a directory |
| threads?                 | one event loop; `open`, `load` and what `keep` and `close` sync run in threads, and touch no more than files |
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from infrasight.errors import InvalidBatch
from infrasight.node.delivery.cursors import Cursors, Position
from infrasight.node.delivery.epoch import next_epoch, sync_directory
from infrasight.node.delivery.lane import Held, LaneState
from infrasight.node.delivery.leftovers import Leftovers, find
from infrasight.node.delivery.segment import Segment
from infrasight.node.delivery.tally import Tally
from infrasight.node.flow import Encoded
from infrasight.node.ledger import Ledger, losses_in
from infrasight.schema import KINDS, Lane

LOSS = "loss"
"""The kind whose rows count what others were lost."""
READY_BYTES = 1 << 20
"""Payloads in memory that wait to be sent: what is more is read from the disk when its turn comes."""
RETRY_S, RETRY_MAX_S = 1.0, 30.0
"""Until a disk that failed is tried again."""
CURSOR_S = 10.0
"""How often, at most, the cursors are synced when no segment is removed; what a crash of the machine takes back is sent again, and stored once."""
PROBE_BYTES = 64 << 10
"""What a disk must take before it is used again."""
HELD_S = 10.0
"""How old rows may get between ring and spool, about."""
IDLE_S = 60.0
"""How often ages are looked at when nothing else happens."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpoolLimits:
    """What the spool may take."""

    bytes: int = 1 << 30
    age_s: float = 7 * 86400.0
    fsync_s: float = 1.0
    """What comes within this time may be lost when the machine crashes."""

    @property
    def segment_bytes(self) -> int:
        """Of a segment: what is given up at a time is a small part of all."""
        return min(max(self.bytes // 128, 64 << 10), 16 << 20)


class Spool:
    """Pieces in by `append`, out by `next` in the order of lanes, and `done` with when they are stored or refused."""

    def __init__(
        self,
        directory: Path | None = None,
        limits: SpoolLimits = SpoolLimits(),
        *,
        ledger: Ledger | None = None,
        epoch: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Without a directory everything is kept in memory. `epoch` is what this life has then: the time, unless given."""
        self._directory, self.limits = directory, limits
        self.ledger = Ledger() if ledger is None else ledger
        self.tally = Tally()
        """Of rows that were read and not written down."""
        self._clock, self._wall_s = clock, wall_s
        self._lanes = {lane: LaneState(lane) for lane in Lane}
        self._lock = -1
        self._recovered = False
        self._cursors: Cursors | None = None
        self._trash: list[Segment] = []
        self._ready_bytes = 0
        self._dirty = asyncio.Event()
        self._new_files = False
        self._cursors_synced_s = clock()
        self._retry_s, self._retry_at_s = RETRY_S, 0.0
        self.epoch = epoch or time.time_ns()
        self.problem = ""
        """Why the disk is not used now, though it should be."""
        self.bytes = 0
        """Of the segments."""
        self.written = 0
        """Records written down."""
        self.failures = 0
        """Times that the disk failed."""
        self.skipped: Counter[str] = Counter()
        """What was damaged: stretches of `bytes` that are no records, `payload`s, `segment`s that are missing; and records that were there twice."""
        self.fsyncs, self.fsync_s = 0, 0.0

    # What comes in.

    def open(self) -> None:
        """Take the directory, and begin a new epoch. A disk that fails is told, and tried again later."""
        if self._directory is not None and self._lock < 0:
            self._try(self._open, self._directory)

    def recover(self) -> None:
        """Find what earlier lives left. Takes a second for a spool of a GiB, so it is for a thread, before anything comes in. Legal twice."""
        if self._directory is not None and self._lock >= 0 and not self._recovered:
            self._try(self._recover, self._directory)

    def _try(self, work: Callable[[Path], None], directory: Path) -> bool:
        try:
            work(directory)
        except OSError as error:
            if not self._recovered:
                self._release()
            self._fail(error)
            return False
        return True

    def _open(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(None, f"another node uses {directory}") from None
        epoch = next_epoch(directory / "epoch")
        self.epoch = epoch if not self.written and not self.problem else self.epoch
        self.tally.open(directory / "tally")
        self._cursors = Cursors(directory / "cursors")

    def _recover(self, directory: Path) -> None:
        assert self._cursors is not None
        left = find(directory, self._cursors)
        self.skipped += left.skipped
        self._trash += left.delivered
        for lane, segments in left.segments.items():
            state = self._lanes[lane]
            state.segments[:0], state.pieces, state.number = segments, left.pieces[lane], left.numbers[lane]
            state.read = self._cursors.of(lane) if segments else state.end
            self.bytes += sum(segment.size for segment in segments)
        self._tell_losses(left)
        self._recovered = True

    def _tell_losses(self, left: Leftovers) -> None:
        """What the last life had read and not written down, and what it had written down and is not there."""
        late: Counter[str] = Counter()
        for lane, segments in left.segments.items():
            last = self.tally.written_up_to(lane)
            for segment in segments:
                if segment.number >= last.segment:
                    start = last.offset if segment.number == last.segment else 0
                    for _, header in segment.records(start):
                        late[header.kind] += header.rows
        unwritten, gone = self.tally.reconcile(late, self.rows())
        died_ns = self.tally.died_ns
        for kind, rows in unwritten.items():
            self.ledger.add(kind, "killed", rows, died_ns - int(HELD_S * 1e9), died_ns)
        for kind, rows in gone.items():
            self.ledger.add(kind, "spool_damaged", rows, died_ns - int(self.limits.age_s * 1e9), died_ns)

    @property
    def room(self) -> bool:
        """Whether another piece may come in: on the disk always, in memory while there is little."""
        return (self._directory is not None and not self.problem) or self._ready_bytes < READY_BYTES

    @property
    def lasting(self) -> bool:
        """Whether it is meant to be on a disk."""
        return self._directory is not None

    @property
    def waiting(self) -> bool:
        """Whether there is something for `next` to give out."""
        return any(state.parts or state.ready or state.unread or state.begun.keys() - state.growing for state in self._lanes.values())

    @property
    def safe(self) -> bool:
        """Whether all that is not stored is on the disk."""
        return self._lock >= 0 and not self.unsafe_rows()

    def append(self, piece: Encoded) -> None:
        """Write a piece down, and have it delivered after those before it in its lane."""
        piece = piece if piece.epoch else replace(piece, epoch=self.epoch)
        state = self._lanes[KINDS[piece.kind].lane]
        held = Held.new(piece, state.lane)
        (state.growing.add if piece.more else state.growing.discard)(held.id)
        unread = state.unread
        if self._usable() and self._write(state, held):
            if unread:
                self._on_disk_only(held)
                return self._make_room()
            state.read = state.end
        state.ready.append(held)
        self._ready_bytes += held.size
        if self._ready_bytes > READY_BYTES:
            self._spill(state)
        return self._make_room()

    def _spill(self, state: LaneState) -> None:
        """Let the disk alone have what waits, when it has all of it."""
        if state.ready and all(held.segment is not None for held in state.ready):
            state.read = state.ready[0].at or state.read
            for held in state.ready:
                self._ready_bytes -= held.size
                self._on_disk_only(held)
            state.ready.clear()

    @staticmethod
    def _on_disk_only(held: Held) -> None:
        if held.segment is not None:
            held.segment.held -= 1

    # The disk.

    def _usable(self) -> bool:
        if self._directory is None:
            return False
        if not self.problem:
            return self._recovered
        return self._clock() >= self._retry_at_s and self._back()

    def _back(self) -> bool:
        """Try the disk again, with all that is in memory only. Whether it works."""
        assert self._directory is not None
        if self._lock < 0 and not self._try(self._open, self._directory):
            return False
        if not self._recovered and not self._try(self._recover, self._directory):
            return False
        if not self._try(_probe, self._directory):
            return False
        if not all(self._write_late(state) for state in self._lanes.values()):
            return False
        log.warning("the spool works again")
        self.problem, self._retry_s = "", RETRY_S
        return True

    def _write_late(self, state: LaneState) -> bool:
        """Write down what of a lane is in memory only. Whether the disk took it all."""
        unread = state.unread
        late = [held for held in (*state.held, *state.ready) if held.segment is None and not held.done]
        took = all(self._write(state, held) for held in late)
        if not unread:
            state.read = state.end
            return took
        while state.ready and state.ready[0].segment is not None:  # it is read when what is before it on the disk has been
            held = state.ready.popleft()
            self._ready_bytes -= held.size
            self._on_disk_only(held)
        return took

    def _fail(self, error: OSError) -> None:
        said = error.strerror or str(error)
        if said != self.problem:
            log.error("no spool at %s: %s; what the server does not take is kept in memory", self._directory, said)
        self.problem = said
        self.failures += 1
        self._dirty.set()
        self._retry_at_s = self._clock() + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _write(self, state: LaneState, held: Held) -> bool:
        """Append to the lane's last segment, or to a new one. Whether the disk took it."""
        piece = held.encoded()
        try:
            if state.fd >= 0 and state.segments[-1].size >= self.limits.segment_bytes:
                self._end_segment(state)
            if state.fd < 0:
                self._begin_segment(state)
            segment = state.segments[-1]
            held.offset, before = segment.append(state.fd, piece), segment.size
        except OSError as error:
            self._fail(error)
            self._end_segment(state, torn=True)
            return False
        held.segment, held.at = segment, Position(segment.number, held.offset)
        segment.held += 1
        self.bytes += before - held.offset
        self.written += 1
        self.tally.keep(piece.kind, piece.rows, state.lane, state.end)
        self._dirty.set()
        return True

    def _begin_segment(self, state: LaneState) -> None:
        assert self._directory is not None
        segment = Segment.at(self._directory, state.lane, state.number + 1)
        state.fd = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        state.number = segment.number
        state.segments.append(segment)
        self._new_files = True

    def _end_segment(self, state: LaneState, *, torn: bool = False) -> None:
        if state.fd >= 0:
            with contextlib.suppress(OSError):
                if torn:
                    os.ftruncate(state.fd, state.segments[-1].size)
            os.close(state.fd)
            state.fd = -1

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
            return self._lose(state, segment, "spool_damaged")
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
        assert held.segment is not None
        twins = ((segment, offset) for segment in list(self._lanes[held.lane].segments) for offset in segment.twice)
        for segment, offset in itertools.chain([(held.segment, held.offset)], twins):
            with contextlib.suppress(OSError):
                header = segment.header_at(offset)
                if header is not None and (header.epoch, header.seq, header.piece) == (*held.id, held.piece):
                    payload = segment.payload_of(offset, header)
                    if payload is not None:
                        return payload
        return None

    def damaged(self, held: Held) -> None:
        """Its payload could not be loaded: its rows are lost."""
        self.skipped["payload"] += 1
        self.ledger.add(held.kind, "spool_damaged", held.rows, held.oldest_ns, held.oldest_ns)
        if held.segment is not None:
            held.segment.rows[held.kind] -= held.rows
            self.tally.settle(held.kind, held.rows, kept=True)
        held.rows, held.payload = 0, b""

    def done(self, pieces: list[Held]) -> None:
        """All pieces of a batch are stored, or refused for good, or lost."""
        for held in pieces:
            held.done = True
            if held.segment is not None:
                held.segment.held -= 1
                held.segment.rows[held.kind] -= held.rows
            self.tally.settle(held.kind, held.rows, kept=held.segment is not None)
        for lane in {held.lane for held in pieces}:
            self._lanes[lane].pass_done()
            self._advance(self._lanes[lane])

    def _advance(self, state: LaneState) -> None:
        """Move the lane's cursor to what is not done with; the segments before it are not needed any more."""
        to = state.done
        if self._cursors is not None:
            self._cursors.move(state.lane, to)
        while state.segments and state.segments[0].number < to.segment:
            gone = state.segments.pop(0)
            self.bytes -= gone.size
            self._trash.append(gone)
            self._dirty.set()

    # What is given up.

    def _make_room(self) -> None:
        while self.bytes > self.limits.bytes and (found := self._least_worth()):
            self._lose(*found, "spool_full")

    def _least_worth(self) -> tuple[LaneState, Segment] | None:
        """The oldest segment of the lane that is worth least of which nothing is on its way."""
        for state in reversed(self._lanes.values()):
            for segment in state.segments:
                if segment.size and not segment.held:
                    return state, segment
        return None

    def _expire(self) -> None:
        for state in self._lanes.values():
            for segment in list(state.segments):
                if segment.size and not segment.held and self._wall_s() - segment.written_s > self.limits.age_s:
                    self._lose(state, segment, "spool_expired")

    def _lose(self, state: LaneState, segment: Segment, reason: str) -> None:
        """Give up what is in a segment, and tell of it."""
        if state.fd >= 0 and segment is state.segments[-1]:
            self._end_segment(state)
        for kind, rows in segment.rows.items():
            lost = max(rows - self._tell_again(state, segment), 0) if kind == LOSS else rows
            if lost:
                self.ledger.add(kind, reason, lost, segment.oldest_ns, segment.newest_ns)
                state.given_up += lost
            self.tally.settle(kind, rows, kept=True)
        segment.rows.clear()
        self.bytes -= segment.size
        segment.size = 0
        with contextlib.suppress(OSError):
            os.truncate(segment.path, 0)  # there still, or it would be missing when others before it are not done with
        self._advance(state)

    def _tell_again(self, state: LaneState, segment: Segment) -> int:
        """Rows of `loss` in a segment that is given up: what they say goes into others. How many they were."""
        reading, told = state.reading, 0
        with contextlib.suppress(OSError):
            for start, header in segment.records(reading.offset if reading.segment == segment.number else 0):
                if header.kind == LOSS and start not in segment.twice and (payload := segment.payload_of(start, header)):
                    with contextlib.suppress(InvalidBatch):
                        for loss in losses_in(payload):
                            self.ledger.tell(loss)
                        told += header.rows
        return told

    # Keeping it.

    async def keep(self) -> None:
        """For ever: what is not stored goes onto the disk in time, what is not needed is removed, what is too old is given up."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._dirty.wait()
            await asyncio.sleep(self.limits.fsync_s / 2)
            self._usable()  # tries a disk that failed
            self._expire()
            await self._sync(self._due())

    def _due(self) -> list[Segment]:
        """The segments that are to be synced. What comes is usually stored within half of `fsync_s`, and then there is nothing to be done."""
        due: list[Segment] = []
        waiting = False
        for state in self._lanes.values():
            done, end = state.done, state.end
            if done < state.marked and state.synced < state.marked:
                first = max(state.synced, done).segment
                due += [segment for segment in state.segments if segment.number >= first and segment.size]
                state.synced = end
            state.marked = end
            waiting |= max(done, state.synced) < end
        if not waiting and not self.problem:
            self._dirty.clear()
        return due

    async def _sync(self, segments: list[Segment]) -> None:
        removed, self._trash = self._trash, []
        cursors_due = bool(removed) or self._clock() - self._cursors_synced_s > CURSOR_S
        if not (segments or cursors_due) or self._lock < 0:
            return
        try:
            await asyncio.to_thread(self._sync_now, segments, removed)
        except OSError as error:
            self._trash += removed
            self._fail(error)

    def _sync_now(self, segments: list[Segment], removed: list[Segment]) -> None:
        assert self._directory is not None
        began_s = self._clock()
        for segment in segments:
            with contextlib.suppress(FileNotFoundError):
                _sync_file(segment.path)
            self.fsyncs += 1
        if self._cursors is not None:
            self._cursors.sync()  # before what they say is delivered goes
        self.tally.sync()
        self._cursors_synced_s = self._clock()
        for segment in removed:
            segment.path.unlink(missing_ok=True)
        if removed or (segments and self._new_files):
            self._new_files = False
            sync_directory(self._directory)
        self.fsync_s += self._clock() - began_s

    def sync(self) -> None:
        """Everything onto the disk, now."""
        if self._lock < 0:
            return
        for state in self._lanes.values():
            self._advance(state)
        try:
            self._sync_now([segment for state in self._lanes.values() for segment in state.segments if segment.size], self._trash)
            self._trash = []
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Sync, and give the directory back: nothing comes any more. Segments that are not needed are removed. Legal twice."""
        for state in self._lanes.values():
            self._end_segment(state)
            if self._cursors is not None and state.segments and state.done == state.end:
                state.number = state.segments[-1].number
                self._trash += state.segments
                state.segments = []
                state.read = state.end
        self.sync()
        self._release()
        self.tally.close()

    def _release(self) -> None:
        if self._cursors is not None:
            self._cursors.close()
            self._cursors = None
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

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


def _probe(directory: Path) -> None:
    """See whether a file can be written. OSError."""
    file = directory / "probe"
    file.write_bytes(bytes(PROBE_BYTES))
    file.unlink()


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)
