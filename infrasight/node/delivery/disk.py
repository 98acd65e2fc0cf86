"""The spool's directory: who has it, what is written into it, when that is synced, and what happens when it fails. What is kept, others decide."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path

from infrasight.node.delivery.accounts import Accounts
from infrasight.node.delivery.cursors import Cursors, Position
from infrasight.node.delivery.epoch import next_epoch, sync_directory
from infrasight.node.delivery.lane import Held, LaneState
from infrasight.node.delivery.leftovers import Leftovers, find
from infrasight.node.delivery.segment import Segment

RETRY_S, RETRY_MAX_S = 1.0, 30.0
"""Until a disk that failed is tried again."""
CURSOR_S = 10.0
"""How often, at most, the cursors are synced when no segment is removed; what a crash of the machine takes back is sent again, and stored once."""
PROBE_BYTES = 64 << 10
"""What a disk must take before it is used again."""

log = logging.getLogger(__name__)


class Disk:
    """A directory that is this process's alone, once it is `open`. One event loop; `open`, `recover` and what is synced may be in threads."""

    def __init__(self, directory: Path | None, segment_bytes: int, accounts: Accounts, clock: Callable[[], float]) -> None:
        """Without a directory nothing is ever written. A segment that has `segment_bytes` is not written to any more."""
        self._directory, self._segment_bytes, self._accounts, self._clock = directory, segment_bytes, accounts, clock
        self._lock = -1
        self._cursors: Cursors | None = None
        self._recovered = False
        self._trash: list[Segment] = []
        self._new_files = False
        self._cursors_synced_s = clock()
        self._retry_s, self._retry_at_s = RETRY_S, 0.0
        self.changed = asyncio.Event()
        """Set when there may be something to be synced, or removed."""
        self.epoch = 0
        """Of this life; 0 while it was not opened."""
        self.problem = ""
        """Why it is not used now, though it should be."""
        self.bytes = 0
        """Of the segments."""
        self.written = 0
        """Records written down."""
        self.failures = 0
        """Times that it failed."""
        self.fsyncs, self.fsync_s = 0, 0.0

    @property
    def lasting(self) -> bool:
        """Whether there is to be one."""
        return self._directory is not None

    @property
    def held(self) -> bool:
        """Whether the directory is ours."""
        return self._lock >= 0

    @property
    def usable(self) -> bool:
        """Whether it can be written to."""
        return self.lasting and self._recovered and not self.problem

    @property
    def due(self) -> bool:
        """Whether it failed and is to be tried again now."""
        return bool(self.problem) and self._clock() >= self._retry_at_s

    # Having it.

    def open(self) -> bool:
        """Take the directory, and begin a new epoch. Whether that went well; a failure is told."""
        return self._directory is not None and (self.held or self._try(self._open, self._directory))

    def recover(self, take: Callable[[Leftovers, Cursors], None]) -> bool:
        """Have `take` take what earlier lives left, once. Whether that is done; a failure is told."""

        def recover(directory: Path) -> None:
            assert self._cursors is not None
            self._finish(directory)
            left = find(directory, self._cursors)
            self._trash += left.delivered
            self.bytes += sum(segment.size for segments in left.segments.values() for segment in segments)
            take(left, self._cursors)
            self._recovered = True

        return self._recovered or (self._directory is not None and self.held and self._try(recover, self._directory))

    def works(self) -> bool:
        """Whether a file can be written now; a failure is told."""
        return self._directory is not None and self._try(_probe, self._directory)

    def mended(self) -> None:
        """It took all that it had refused."""
        log.warning("the spool works again")
        self.problem, self._retry_s = "", RETRY_S

    def _try(self, work: Callable[[Path], None], directory: Path) -> bool:
        try:
            work(directory)
        except OSError as error:
            if not self._recovered:
                self._release()
            self._fail(error)
            return False
        return True

    def _fail(self, error: OSError) -> None:
        said = error.strerror or str(error)
        if said != self.problem:
            log.error("no spool at %s: %s; what the server does not take is kept in memory", self._directory, said)
        self.problem = said
        self.failures += 1
        self.changed.set()
        self._retry_at_s = self._clock() + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _open(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (owner := directory.stat().st_uid) not in (0, os.geteuid()):  # who could have a link in place of any file
            raise OSError(None, f"{directory} belongs to user {owner}")
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(None, f"another node uses {directory}") from None
        self.epoch = next_epoch(directory / "epoch")
        self._accounts.open(directory)
        self._cursors = Cursors(directory / "cursors")

    def _finish(self, directory: Path) -> None:
        """Remove what the last life had given up."""
        if goes := self._accounts.goes:
            name, offset = goes
            with contextlib.suppress(OSError):
                if segment := Segment.found(directory / name):
                    segment.wipe(offset)

    def _release(self) -> None:
        if self._cursors is not None:
            self._cursors.close()
            self._cursors = None
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    # Writing.

    def write(self, state: LaneState, held: Held) -> bool:
        """Append to the lane's last segment, or to a new one. Whether the disk took it."""
        piece = held.encoded()
        try:
            if state.fd >= 0 and state.segments[-1].size >= self._segment_bytes:
                self.end_segment(state)
            if state.fd < 0:
                self._begin_segment(state)
            segment = state.segments[-1]
            held.offset = segment.append(state.fd, piece)
        except OSError as error:
            self._fail(error)
            self.end_segment(state, torn=True)
            return False
        held.segment, held.at = segment, Position(segment.number, held.offset)
        segment.held += 1
        self.bytes += segment.size - held.offset
        self.written += 1
        self._accounts.wrote(held, state)
        self.changed.set()
        return True

    def _begin_segment(self, state: LaneState) -> None:
        assert self._directory is not None
        segment = Segment.at(self._directory, state.lane, state.number + 1)
        state.fd = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        state.number = segment.number
        state.segments.append(segment)
        self._new_files = True

    def end_segment(self, state: LaneState, *, torn: bool = False) -> None:
        """Write no more to the lane's last one; `torn` is whether its end was not written whole."""
        if state.fd >= 0:
            with contextlib.suppress(OSError):
                if torn:
                    os.ftruncate(state.fd, state.segments[-1].size)
            os.close(state.fd)
            state.fd = -1

    def empty(self, state: LaneState, segment: Segment) -> None:
        """Give up all that is in a segment."""
        if state.fd >= 0 and segment is state.segments[-1]:
            self.end_segment(state)
        self.bytes -= segment.size
        with contextlib.suppress(OSError):
            segment.wipe()
        segment.size = 0
        self.advance(state)

    def advance(self, state: LaneState) -> None:
        """Move the lane's cursor to what is not done with; the segments before it are not needed any more."""
        to = state.done
        if self._cursors is not None:
            self._cursors.move(state.lane, to)
        while state.segments and state.segments[0].number < to.segment:
            gone = state.segments.pop(0)
            self.bytes -= gone.size
            self._trash.append(gone)
            self.changed.set()

    # Syncing.

    async def keep(self, lanes: Collection[LaneState]) -> None:
        """Sync what has been there for a while, and remove what is not needed."""
        due = self._due(lanes)
        removed, self._trash = self._trash, []
        cursors_due = bool(removed) or self._clock() - self._cursors_synced_s > CURSOR_S
        if not (due or cursors_due) or not self.held:
            return
        try:
            await asyncio.to_thread(self._sync, due, removed)
        except OSError as error:
            self._trash += removed
            self._fail(error)

    def sync(self, lanes: Collection[LaneState]) -> None:
        """Everything onto the disk, now."""
        if not self.held:
            return
        for state in lanes:
            self.advance(state)
        try:
            self._sync([segment for state in lanes for segment in state.segments if segment.size], self._trash)
            self._trash = []
        except OSError as error:
            self._fail(error)

    def _due(self, lanes: Collection[LaneState]) -> list[Segment]:
        """The segments that are to be synced: what is not done with and was there at the last look. Usually what comes is stored by then, and that is
        nothing."""
        due: list[Segment] = []
        waiting = False
        for state in lanes:
            done, end = state.done, state.end
            if done < state.marked and state.synced < state.marked:
                first = max(state.synced, done).segment
                due += [segment for segment in state.segments if segment.number >= first and segment.size]
                state.synced = end
            state.marked = end
            waiting |= max(done, state.synced) < end
        if not waiting and not self.problem:
            self.changed.clear()
        return due

    def _sync(self, segments: list[Segment], removed: list[Segment]) -> None:
        assert self._directory is not None
        began_s = self._clock()
        for segment in segments:
            with contextlib.suppress(FileNotFoundError):
                _sync_file(segment.path)
            self.fsyncs += 1
        if self._cursors is not None:
            self._cursors.sync()  # before what they say is delivered goes
        self._accounts.sync()
        self._cursors_synced_s = self._clock()
        for segment in removed:
            segment.path.unlink(missing_ok=True)
        if removed or (segments and self._new_files):
            self._new_files = False
            sync_directory(self._directory)
        self.fsync_s += self._clock() - began_s

    def close(self, lanes: Collection[LaneState]) -> None:
        """Sync, and give the directory back: nothing comes any more. Segments that are not needed are removed. Legal twice."""
        for state in lanes:
            self.end_segment(state)
            if self._cursors is not None and state.segments and state.done == state.end:
                state.number = state.segments[-1].number
                self._trash += state.segments
                state.segments = []
                state.read = state.end
        self.sync(lanes)
        self._release()
        self._accounts.close()


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
