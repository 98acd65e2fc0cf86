"""What the spool may take, and what is given up when it is too much, too old or damaged: the oldest of the lane that is worth least, and nothing that
is on its way. All of it is told as rows of `loss`, and what rows of `loss` among it said is told again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from infrasight.node.delivery.accounts import LOSS, Accounts, losses_of
from infrasight.node.delivery.disk import Disk
from infrasight.node.delivery.lane import Held, LaneState
from infrasight.node.delivery.record import Header
from infrasight.node.delivery.segment import Segment


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


USUAL = SpoolLimits()


class GivingUp:
    """Keeps `lanes`, whose order is by worth, within `limits`."""

    def __init__(self, limits: SpoolLimits, lanes: Iterable[LaneState], disk: Disk, accounts: Accounts, wall_s: Callable[[], float]) -> None:
        self._limits, self._lanes, self._disk, self._accounts, self._wall_s = limits, list(lanes), disk, accounts, wall_s

    def too_much(self) -> None:
        """Make room."""
        while self._disk.bytes > self._limits.bytes and (found := self._least_worth()):
            self.lose(*found, "spool_full")

    def _least_worth(self) -> tuple[LaneState, Segment] | None:
        for state in reversed(self._lanes):
            for segment in state.segments:
                if segment.size and not segment.held:
                    return state, segment
        return None

    def too_old(self) -> None:
        """Let go of what nothing was written to for long."""
        for state in self._lanes:
            for segment in list(state.segments):
                if segment.size and not segment.held and self._wall_s() - segment.written_s > self._limits.age_s:
                    self.lose(state, segment, "spool_expired")

    def lose(self, state: LaneState, segment: Segment, reason: str) -> None:
        """Give up what is in a segment, and tell of it."""
        rows = +segment.rows
        for kind, count in rows.items():
            lost = max(count - self._tell_again(state, segment), 0) if kind == LOSS else count
            if lost:
                self._accounts.ledger.add(kind, reason, lost, segment.oldest_ns, segment.newest_ns)
                state.given_up += lost
        self._accounts.lose(rows, segment)
        segment.rows.clear()
        self._disk.empty(state, segment)

    def lose_one(self, held: Held, copies: Iterable[tuple[Segment, int, Header]]) -> None:
        """Give up a record that is damaged, wherever it is, and tell of it."""
        assert held.segment is not None
        self._accounts.ledger.add(held.kind, "spool_damaged", held.rows, held.oldest_ns, held.oldest_ns)
        held.segment.rows[held.kind] -= held.rows
        self._accounts.lose({held.kind: held.rows}, held.segment, held.offset)
        for segment, offset, _ in copies:
            with contextlib.suppress(OSError):
                segment.wipe(offset)

    def _tell_again(self, state: LaneState, segment: Segment) -> int:
        """What rows of `loss` in a segment say goes into others. How many they were."""
        reading, told = state.reading, 0
        with contextlib.suppress(OSError):
            for start, header in segment.records(reading.offset if reading.segment == segment.number else 0):
                if header.kind == LOSS and start not in segment.twice:
                    for loss in losses_of(segment.payload_of(start, header)):
                        self._accounts.ledger.tell(loss)
                        told += 1
        return told
