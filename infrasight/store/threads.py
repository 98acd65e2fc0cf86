"""ThreadedStore: what is the same for every engine. Its calls block, so they run in threads."""

from __future__ import annotations

import abc
import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import TypeVar

import pyarrow as pa

from infrasight.errors import InvalidBatch, QueryFailed, QueryRefused, StoreUnavailable
from infrasight.schema.retention import Retention
from infrasight.store import batches as shapes
from infrasight.store import copies, healing, joining
from infrasight.store.gate import Gate
from infrasight.store.interface import ContainerKey, QueryLimits, Store, StoreStatistics
from infrasight.store.reading import Reading
from infrasight.store.rolling import MINUTE_S, SETTLED_S, SUMMED, Rolling
from infrasight.store.session import EngineError, Rows, Session

log = logging.getLogger(__name__)
_T = TypeVar("_T")
MAX_QUERIES = 16
"""At a time, those included whose client is slow to read."""
CONSTRAINT_VIOLATED, TOO_MUCH_MEMORY = 469, 241
"""ClickHouse's errors: of rows that it does not take, another attempt ends the same, while others are taken; for memory there may be room later."""
UNREAD_S = 1.0
"""When there are so many, one that was not read for longer than this gives its place to another."""


class ThreadedStore(Store):
    """Threads: one that inserts, a few that read, one that heals, one that sums up, one that opens, kills and closes. An engine fills in the methods
    below, which all block."""

    def __init__(self, name: str, retention: Retention, *, shared: bool, cluster: str = "") -> None:
        """`name` says in errors which store it is; `shared`, whether others may store into the same tables, or an insert may come late; `cluster`,
        which one the tables are spread over."""
        self._name = name
        self._shared, self._cluster = shared, cluster
        self._retention = retention
        self._statistics = StoreStatistics()
        self._inserting = ThreadPoolExecutor(1, "store-insert")
        self._reading = ThreadPoolExecutor(4, "store-read")
        self._healing = ThreadPoolExecutor(1, "store-heal")
        self._summing = ThreadPoolExecutor(1, "store-sum")
        self._managing = ThreadPoolExecutor(1, "store-manage")
        self._readings: set[Reading] = set()
        self._gate: Gate | None = None
        self._rolling: Rolling | None = None
        self._looks = copies.Looks()
        self._unsure_until_s = 0.0
        """When an insert whose end nobody heard is not under way any more."""
        self._is_open = False
        self._closed = False

    @abc.abstractmethod
    def _begin(self) -> Session:
        """Get the database ready; a session of ours. Raises EngineError, StoreError."""

    @abc.abstractmethod
    def _write(self, kind: str, batch: pa.RecordBatch, token: str) -> None:
        """Insert a batch that is checked, marked, named as stored, and has rows. Raises EngineError, StoreError, InvalidBatch."""

    @abc.abstractmethod
    def _ask(self, sql: str) -> list[list[str]]:
        """The result of a query of ours, asked where `_write` writes. Raises EngineError, StoreError."""

    @abc.abstractmethod
    def _healer(self) -> Rows:
        """Where rows are healed; the same as long as it works. Raises EngineError, StoreError."""

    @abc.abstractmethod
    def _summer(self) -> Rows:
        """Where minutes are summed up; the same as long as it works. Raises EngineError, StoreError."""

    @abc.abstractmethod
    def _interrupt(self) -> None:
        """End what runs in `_summer`, if anything does, from another thread. Raises EngineError, StoreUnavailable."""

    @abc.abstractmethod
    def _connect(self) -> Session:
        """A session for one query of somebody's. Raises EngineError, StoreError."""

    @abc.abstractmethod
    def _kill(self, session: Session, mark: str) -> None:
        """End the query that runs in `session`, which another thread is waiting for. Raises EngineError, StoreUnavailable."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Give everything back. Legal whatever `_begin` came to."""

    async def open(self) -> None:
        if self._closed or self._is_open:
            raise StoreUnavailable(f"store {self._name}: opened before")
        await self._in(self._managing, self._open)
        self._is_open = not self._closed

    async def insert(self, kind: str, batch: pa.RecordBatch, token: str) -> None:
        await self.insert_joined(kind, {token: batch})

    async def insert_joined(self, kind: str, batches: Mapping[str, pa.RecordBatch], doubtful: Collection[str] = ()) -> None:
        self._check_open()
        for batch in batches.values():
            shapes.check(kind, batch)
        try:
            if filled := {token: batch for token, batch in batches.items() if batch.num_rows}:
                await self._in(self._inserting, lambda: self._insert(kind, filled, doubtful))
        except StoreUnavailable:
            self._statistics.insert_failures += 1
            raise
        self._statistics.batches[kind] += len(batches)
        self._statistics.rows[kind] += sum(batch.num_rows for batch in batches.values())

    async def roll_up(self) -> None:
        self._check_open()
        for minute in await self._in(self._inserting, self._close_minutes):
            if not await self._in(self._summing, lambda minute=minute: self._sum_up(minute)):  # type: ignore[misc]  # mypy cannot infer its type
                return

    async def query(self, sql: str, *, format: str = "JSONEachRow", limits: QueryLimits = QueryLimits()) -> AsyncIterator[bytes]:  # noqa: B008 - frozen
        gate = self._check_open()
        unread = self._unread()
        reading = Reading(self._connect, gate, sql, format, limits)
        self._readings.add(reading)
        self._statistics.queries += 1
        try:
            if unread is not None:
                await self._in(self._managing, lambda: self._finish(unread, "its result was not read, and others waited for a place"))
            while (chunk := await self._in(self._reading, reading.next)) is not None:
                reading.unread_since_s = time.monotonic()
                yield chunk
                reading.unread_since_s = math.inf
                self._check_open()
        except (QueryRefused, QueryFailed, StoreUnavailable):
            self._statistics.query_failures += 1
            raise
        finally:
            if reading in self._readings:  # else close() has ended it
                await self._in(self._managing, lambda: self._finish(reading))

    async def heal(self, kind: str, containers: Collection[ContainerKey], since_ns: int, until_ns: int) -> bool:
        self._check_open()
        return await self._in(self._healing, lambda: self._heal(kind, containers, since_ns, until_ns))

    async def remove_copies(self) -> None:
        self._check_open()
        if self._shared:
            await self._in(self._healing, self._remove_copies)

    async def close(self) -> None:
        self._is_open = False
        if not self._closed:
            self._closed = True
            for threads in (self._inserting, self._healing):
                threads.shutdown(wait=False)
            await self._in(self._managing, self._close)
        await asyncio.to_thread(self._managing.shutdown)

    def statistics(self) -> StoreStatistics:
        self._statistics.queries_running = len(self._readings)
        return self._statistics

    def _unread(self) -> Reading | None:
        """The query that is to give its place to another, if one must. Raises QueryFailed when all are at work, or read."""
        if len(self._readings) < MAX_QUERIES:
            return None
        slowest = min(self._readings, key=lambda reading: reading.unread_since_s)
        if time.monotonic() - slowest.unread_since_s < UNREAD_S:
            raise QueryFailed(f"{MAX_QUERIES} queries are running already")
        slowest.unread_since_s = math.inf  # nobody else chooses it
        return slowest

    def _check_open(self) -> Gate:
        if not self._is_open or self._gate is None:
            raise StoreUnavailable(f"store {self._name}: not open")
        return self._gate

    @staticmethod
    async def _in(threads: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        """Run `work` in one of `threads`. Cancelling the wait leaves the work alone: nothing in a thread is ever half done."""
        future = asyncio.get_running_loop().run_in_executor(threads, work)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, also when nobody waits any more
        return await asyncio.shield(future)

    def _open(self) -> None:
        try:
            self._gate = Gate(self._begin())
            self._rolling = Rolling(self._summer(), shared=self._shared)
        except BaseException as error:
            self._release()
            if isinstance(error, EngineError):
                raise StoreUnavailable(f"store {self._name}: {error}") from error
            raise

    def _insert(self, kind: str, batches: Mapping[str, pa.RecordBatch], doubtful: Collection[str]) -> None:
        started = time.monotonic()
        try:
            asked = {token: batch for token, batch in batches.items() if token in doubtful}
            there = joining.present(self._ask(joining.question(kind, asked))) if asked else ()
            if incoming := joining.joined(batches, asked, there):
                shapes.check_nulls(kind, incoming.rows)
                stored_s = self._rolling.stamp(kind, time.time()) if self._rolling else int(time.time())
                if incoming.copies:
                    self._looks.expect(kind, stored_s)
                self._write(kind, shapes.as_stored(kind, incoming.rows, stored_s), incoming.token)
        except (EngineError, StoreUnavailable) as error:
            if isinstance(error, EngineError) and error.code == CONSTRAINT_VIOLATED:
                raise InvalidBatch(f"{kind}: {error}") from error
            self._unsure_until_s = time.monotonic() + SETTLED_S
            if isinstance(error, EngineError):
                raise StoreUnavailable(f"store {self._name}: {error}") from error
            raise
        finally:
            self._statistics.insert_s += time.monotonic() - started

    def _close_minutes(self) -> list[int]:
        """Those that can be summed up, from now on beside inserts. Where inserts run, so that none of ours is under way; nor any that we gave up."""
        if (rolling := self._rolling) is None or (self._shared and time.monotonic() < self._unsure_until_s):
            return []
        return rolling.close(time.time())

    def _sum_up(self, minute: int) -> bool:
        """False when it is too early: what is to go must not be counted."""
        try:
            if self._shared and any(self._surplus(self._summer(), dict.fromkeys(SUMMED, minute), minute + MINUTE_S).values()):
                return False
            for statement in self._rolling.statements(minute) if self._rolling else ():
                if self._closed:
                    raise StoreUnavailable(f"store {self._name}: closed before minute {minute} was summed up")
                self._summer().execute(statement)
        except EngineError as error:
            if not (error.code == TOO_MUCH_MEMORY and self._rolling and self._rolling.failed(minute)):
                raise StoreUnavailable(f"store {self._name}: {error}") from error
            log.warning("store %s: minute %s is in no rollup: %s", self._name, datetime.fromtimestamp(minute, UTC).isoformat(), error)
        if self._rolling:
            self._rolling.done(minute)
        return True

    def _heal(self, kind: str, containers: Collection[ContainerKey], since_ns: int, until_ns: int) -> bool:
        try:
            return self._mutate(kind, healing.statement(kind, containers, since_ns, until_ns, self._cluster))
        except EngineError as error:
            raise StoreUnavailable(f"store {self._name}: rows of {kind} are not healed: {error}") from error

    def _mutate(self, kind: str, statement: str) -> bool:
        """Begin a mutation of a table. False when one is still going on there. Raises EngineError, also with why the last one failed."""
        healer = self._healer()
        for mutation, reason in healer.rows(healing.unfinished(kind, self._cluster)):
            if not reason:
                return False
            healer.execute(healing.kill(kind, mutation, self._cluster))
            raise EngineError(bytes.fromhex(reason).decode(errors="replace"))
        healer.execute(statement)
        return True

    def _surplus(self, session: Rows, since_s: Mapping[str, int], until_s: int = copies.EVER_S) -> dict[copies.Found, list[copies.Surplus]]:
        """Of those kinds that have copies stored in this time, what is to go."""
        found = copies.found(session.rows(copies.search(since_s, until_s)))
        return {each: copies.surplus(session.rows(copies.question(each, since_s[each.kind], until_s))) for each in found}

    def _remove_copies(self) -> None:
        looks = self._looks.due()
        if not looks:
            return
        try:
            surplus = self._surplus(self._healer(), {look.kind: look.since_s for look in looks})
            for found, gone in surplus.items():
                if gone and self._mutate(found.kind, copies.removal(found.kind, gone[: copies.TOGETHER], self._cluster)):
                    log.info("store %s: rows of %s that were stored twice are removed", self._name, found.kind)
        except (EngineError, StoreUnavailable) as error:
            for look in looks:
                self._looks.again(look, copies.LOOK_S)
            raise StoreUnavailable(f"store {self._name}: what may be stored twice is not removed: {error}") from error
        newest_s = {found.kind: found.newest_s for found in surplus}
        twice = {found.kind for found, gone in surplus.items() if gone}
        for look in looks:
            if look.kind in twice:
                self._looks.again(look, copies.LOOK_S)
            else:
                self._looks.over(look, newest_s.get(look.kind, 0))

    def _finish(self, reading: Reading, why: str = "the query was ended") -> None:
        if reading in self._readings:
            self._readings.remove(reading)
            try:
                reading.finish(self._kill, why)
            except (EngineError, StoreUnavailable) as error:
                log.warning("store %s: ending a query: %s", self._name, error)

    def _close(self) -> None:
        for reading in list(self._readings):
            self._finish(reading)
        self._end_summing()
        for threads in (self._inserting, self._healing, self._summing, self._reading):
            threads.shutdown()
        self._release()

    def _end_summing(self) -> None:
        """It may take as long as all the others together, and is done anew after a start."""
        over = self._summing.submit(lambda: None)
        while not wait([over], timeout=0.1).done:
            try:
                self._interrupt()
            except (EngineError, StoreUnavailable) as error:
                log.debug("store %s: %s", self._name, error)
