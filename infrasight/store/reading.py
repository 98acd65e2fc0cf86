"""One query, from its text to the last chunk, off the event loop."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable

from infrasight.errors import QueryFailed
from infrasight.store.gate import Gate
from infrasight.store.interface import QueryLimits
from infrasight.store.session import EngineError, Session, Stream

_KILL_AGAIN_AFTER_S = 0.05


class Reading:
    """A query in a session of its own, which ends with it: nothing that one query does can reach the next."""

    def __init__(self, connect: Callable[[], Session], gate: Gate, sql: str, format: str, limits: QueryLimits) -> None:
        self._connect = connect
        self._gate = gate
        self._sql = sql
        self._format = format
        self._limits = limits
        self._mark = secrets.token_hex(8)
        self._busy = threading.Lock()
        self._session: Session | None = None
        self._stream: Stream | None = None
        self._over = False
        self._ended = ""
        self._bytes = 0
        self.unread_since_s = math.inf
        """When its last chunk was handed out, while nobody has asked for the next (monotonic)."""

    def next(self) -> bytes | None:
        """Blocks for the next chunk; None is the end. Raises QueryRefused, QueryFailed, StoreUnavailable."""
        with self._busy:
            if self._ended:
                raise QueryFailed(self._ended)
            if self._over:
                return None
            try:
                chunk = self._fetch()
            except EngineError as error:
                self._over = True
                raise QueryFailed(str(error)) from error
            self._over = self._over or chunk is None
            self._bytes += len(chunk or b"")
        if self._bytes > self._limits.result_bytes:
            raise QueryFailed(f"the result is larger than {self._limits.result_bytes} bytes: ask for fewer rows or columns")
        return chunk

    def finish(self, kill: Callable[[Session, str], None], why: str = "the query was ended") -> None:
        """End the query, whatever it is doing, and its session. Blocks until it has ended. `kill` ends what runs in a session under a mark; `why` is
        what who asks for the next chunk is told."""
        while not self._busy.acquire(timeout=_KILL_AGAIN_AFTER_S):
            if self._session is not None:
                kill(self._session, self._mark)
        try:
            self._ended = why
            if self._stream is not None:
                self._stream.cancel()
        finally:
            if self._session is not None:
                self._session.close()
            self._busy.release()

    def _fetch(self) -> bytes | None:
        if self._stream is not None:
            return self._stream.fetch()
        self._session = session = self._connect()
        session.restrict(self._limits, self._mark)
        if self._gate.check(session, self._sql, self._format):
            self._stream = session.stream(self._sql, self._format)
            return self._stream.fetch()
        self._over = True
        return session.execute(self._sql, self._format)
