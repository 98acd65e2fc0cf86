"""What every engine can do."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

ContainerKey = tuple[bytes, bytes]
"""A node's name, and a container's id there."""


@dataclass(frozen=True)
class QueryLimits:
    """What one query may use. Over any of them it ends with QueryFailed."""

    rows: int = 1_000_000
    """Rows of the result."""
    seconds: float = 60.0
    """Time the database works on it."""
    memory_bytes: int = 1 << 30
    """Memory the database uses for it."""
    result_bytes: int = 256 << 20
    """Bytes of the result, as it is sent."""


@dataclass
class StoreStatistics:
    """Counts since the store was opened."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows inserted, by kind. A batch that was there already counts too: its sender cannot know."""
    batches: Counter[str] = field(default_factory=Counter)
    """Batches inserted, by kind."""
    insert_failures: int = 0
    insert_s: float = 0.0
    """Seconds spent inserting."""
    queries: int = 0
    query_failures: int = 0
    """Queries refused or failed."""
    queries_running: int = 0


class Store(abc.ABC):
    """A database of events. Made by `open_store`, then `open`ed; every method belongs to one event loop.

    | question              | answer |
    |-----------------------|--------|
    | is an insert atomic?  | a batch is in the table or not; one that spans midnight may show its days one after the other |
    | the same token again? | the batch is there once, also after a crash of this process at any moment and a restart |
    | how long are tokens kept? | the last 10,000 inserts of a table; of a batch that is said to be doubtful, for as long as its rows |
    | what survives a crash? | of this process: all that was acknowledged. Of the machine: not the last seconds (no fsync per batch) |
    | who waits for whom?   | inserts run one at a time; queries, healing and summing up block neither them nor each other |

    Of a server, tokens and what survives its crash are as its tables' engine has them (docs/STORE.md).
    """

    @abc.abstractmethod
    async def open(self) -> None:
        """Get the database ready: exclusive use of an embedded one, tables created and migrated.

        Raises StoreLocked, StoreUnavailable, StoreIncompatible.
        """

    @abc.abstractmethod
    async def insert(self, kind: str, batch: pa.RecordBatch, token: str) -> None:
        """Store a batch of `kind`, laid out as `arrow_schema(kind)`, unless one with this token is there already.

        Raises InvalidBatch (never will be stored), StoreUnavailable (not stored, try again). Cancelling the wait does not cancel the insert.
        """

    async def insert_joined(self, kind: str, batches: Mapping[str, pa.RecordBatch], doubtful: Collection[str] = ()) -> None:
        """`insert` of several batches, by token, all at once where the engine can, and then all of them or, of each day, none.

        `doubtful` are those tokens whose batches may be there already, in whatever company they came then: they are looked for first. After
        StoreUnavailable that is all of them.
        """
        for token, batch in batches.items():
            await self.insert(kind, batch, token)

    @abc.abstractmethod
    def query(self, sql: str, *, format: str = "JSONEachRow", limits: QueryLimits = QueryLimits()) -> AsyncIterator[bytes]:
        """The result of one read-only statement, in chunks, in one of ClickHouse's output formats. The database is `infrasight`.

        Row formats arrive while the query runs, the others in one piece. Closing the iterator (`contextlib.aclosing`) ends the query. Raises
        QueryRefused (not read-only, out of bounds, no such format), QueryFailed (ClickHouse's own words, one line), StoreUnavailable.
        """

    async def roll_up(self) -> None:
        """Sum up what can be by now: to be called every minute or so. Raises StoreUnavailable (call again)."""
        return

    @abc.abstractmethod
    async def heal(self, kind: str, containers: Collection[ContainerKey], since_ns: int, until_ns: int) -> bool:
        """Have what the table `container` says of these put into rows of `kind` that were stored before it was known (`identity` is `pending` or
        `path`) and happened in this time, ns since the epoch; of those of which it says nothing, `identity` becomes `path`. `kind` is one with the
        columns that say who did it.

        Begun, not done, when this returns: it goes on beside inserts and queries, which see each part as before or as after, and after a restart.
        False when the one before is still going on in that table. Asking twice does no harm. Raises StoreUnavailable.
        """

    async def remove_copies(self) -> None:
        """Have taken out what several inserts brought that did not know of each other: to be called every few seconds, and costs nothing where there
        is no reason to look. Goes on beside inserts and queries, as `heal` does. Raises StoreUnavailable (call again)."""
        return

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish the inserts, end the queries, give the database back. Legal before open and twice."""

    @abc.abstractmethod
    def statistics(self) -> StoreStatistics:
        """The counts, live: do not change them."""
