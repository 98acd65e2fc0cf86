"""What one client may cost a server: connections, and on each of them frames, headers, calls, bytes and time.

h2 bounds some of it (the size of a header list once it is unpacked, open streams, flow control), grpclib nothing. A frame that brings nothing costs
some 40 us all the same, so frames are counted here before h2 sees them, and a connection that sends more of them than any client of ours is closed.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from h2.connection import H2Connection

log = logging.getLogger(__name__)

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES = 9
_DATA, _HEADERS, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 8, 9  # RFC 9113, section 6
MAX_HEADER_BYTES, MAX_HEADER_FRAMES = 32 << 10, 8
"""Of one request, packed: HEADERS and all its CONTINUATIONs."""
MAX_CONTROL_BYTES = 16 << 10
"""Of a frame that is not DATA."""
SMALL_DATA_BYTES = 1024
FRAMES_AT_ONCE, FRAMES_PER_S = 1000.0, 200.0
"""Frames that bring little, of one connection. A call is two or three; ten small DATA frames count as one."""
UPDATES_AT_ONCE, BYTES_PER_UPDATE, UPDATES_PER_MESSAGE = 1000, 1024, 4
"""WINDOW_UPDATE frames: some, and more the more we sent."""
FILES_ELSEWHERE = 512
"""File descriptors that the store and the rest of the process may need."""

H2Connection.MAX_CLOSED_STREAMS = 1000  # how many it remembers; 65,536 of each connection are 10 MB


@dataclass(frozen=True)
class Limits:
    """Of a server."""

    connections: int = 4096
    connections_per_peer: int = 1024
    """From one address."""
    streams: int = 32
    """Open calls of one connection."""
    first_call_s: float = 10.0
    """From connecting to the first call, and from there to its first message."""
    message_s: float = 60.0
    """From a message's first bytes to its last, and what a client may take to read what it is sent."""
    idle_s: float = 300.0
    """Without an open call."""
    age_s: float = 0.0
    """Of a connection, give or take a tenth, before its calls are ended as when the server stops, and then itself; 0: no matter."""
    received_bytes: int = 256 << 20
    """What has come on all connections of messages that are not whole, or not read yet. Beyond it the connection that has most is closed."""


class Excess(Exception):
    """The client does what no client should; the text is the reason under which it is counted."""


class Frames:
    """Counts the frames of one connection as they come in."""

    def __init__(self, sent: Callable[[], tuple[int, int]], clock: Callable[[], float] = time.monotonic) -> None:
        """`sent` is how many bytes and messages went out so far."""
        self._sent = sent
        self._clock = clock
        self._preface = _PREFACE
        """What of it is still to come."""
        self._skip = 0
        self._head = b""
        self._budget, self._filled_s = FRAMES_AT_ONCE, clock()
        self._updates = 0
        self._header_bytes = self._header_frames = 0

    def check(self, data: bytes) -> None:
        """Look at what came. Raises Excess. Of what does not begin as HTTP/2 does it says nothing: h2 refuses that."""
        place, end = min(len(self._preface), len(data)), len(data)
        if not self._preface.startswith(data[:place]):
            return
        self._preface = self._preface[place:]
        while place < end:
            if self._skip:
                step = min(self._skip, end - place)
                self._skip -= step
                place += step
                continue
            head = self._head + data[place : place + _HEAD_BYTES - len(self._head)]
            place += len(head) - len(self._head)
            if len(head) < _HEAD_BYTES:
                self._head = head
                return
            self._head = b""
            self._skip = int.from_bytes(head[:3])
            self._frame(head[3], self._skip)

    def _frame(self, kind: int, length: int) -> None:
        if kind == _DATA:
            if length < SMALL_DATA_BYTES:
                self._spend(0.1)
            return
        if length > MAX_CONTROL_BYTES:
            raise Excess("flood")
        if kind == _WINDOW_UPDATE:
            self._updates += 1
            if self._updates > UPDATES_AT_ONCE:
                sent_bytes, sent_messages = self._sent()
                if self._updates > UPDATES_AT_ONCE + sent_bytes // BYTES_PER_UPDATE + sent_messages * UPDATES_PER_MESSAGE:
                    raise Excess("flood")
            return
        if kind == _HEADERS:
            self._header_bytes = self._header_frames = 0
        if kind in (_HEADERS, _CONTINUATION):
            self._header_bytes += length
            self._header_frames += 1
            if self._header_bytes > MAX_HEADER_BYTES or self._header_frames > MAX_HEADER_FRAMES:
                raise Excess("flood")
        self._spend(1.0)

    def _spend(self, cost: float) -> None:
        self._budget -= cost
        if self._budget < 0:
            now = self._clock()
            self._budget = min(FRAMES_AT_ONCE, self._budget + (now - self._filled_s) * FRAMES_PER_S)
            self._filled_s = now
            if self._budget < 0:
                raise Excess("flood")


class Peers:
    """Open connections, in all and of each address."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """One more; whether it is not too many. `leave` is due in any case."""
        self._counts[address] += 1
        return self._counts.total() <= self._limits.connections and self._counts[address] <= self._limits.connections_per_peer

    def leave(self, address: str) -> None:
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]


def within_files(limits: Limits) -> Limits:
    """Raise this process's limit of open files to what so many connections need, as far as it may; fewer connections when that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + FILES_ELSEWHERE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    connections = max(1, soft - FILES_ELSEWHERE)
    log.warning("this process may have %d files open (ulimit -Hn): no more than %d connections are taken", soft, connections)
    return replace(limits, connections=connections)
