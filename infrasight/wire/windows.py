"""What clients may send before it is read, by HTTP/2's flow control: little each, so that all of them together may wait; and more for one that is
read as fast as it sends, which a small window would make to wait for the way there and back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from grpclib.protocol import Connection
from h2.settings import SettingCodes

LEAST, MOST = (1 << 16) - 1, 8 << 20
"""Bytes of one connection; less than the first HTTP/2 does not know. Of them one call may have half: one that is made to wait leaves room for
another."""
FAST_S = 2.0
"""A window that is read in less than this is doubled."""


class Room:
    """Bytes that windows may have beyond the least, together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0

    def take(self, size: int) -> bool:
        """Whether there is so much; then it is taken."""
        fits = self.taken + size <= self._limit
        self.taken += size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        """So much is free again."""
        self.taken -= size


class Window:
    """One connection's; it grows while there is room, and has its room until it is `close`d."""

    def __init__(self, connection: Connection, room: Room, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes note of what grpclib has read of `connection`, of which no call has begun yet."""
        self._connection, self._room, self._clock = connection, room, clock
        self._ack = connection.ack
        connection.ack = self._note  # type: ignore[method-assign]  # what its streams call; tests/wire/test_windows.py proves that it works
        self.size = LEAST
        self._read, self._since_s = 0, clock()

    def close(self) -> None:
        """Legal twice."""
        self._room.give_back(self.size - LEAST)
        self.size = LEAST

    def _note(self, stream_id: int, size: int) -> None:
        self._ack(stream_id, size)
        self._read += size
        if self._read < self.size:
            return
        since_s, self._since_s = self._since_s, self._clock()
        self._read = 0
        if self._since_s - since_s < FAST_S and self.size < MOST and not self._connection.is_closing() and self._room.take(self.size):
            self._grow()

    def _grow(self) -> None:
        h2 = self._connection._connection
        manager = h2._inbound_flow_control_window_manager
        most = manager.max_window_size + self.size
        h2.increment_flow_control_window(self.size)
        manager.max_window_size = most  # by itself it grows only as far as what has not come
        self.size *= 2
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.size // 2})
        self._connection.flush()
