"""Rollups, filled from what was stored: which minutes are still to be summed up, and the statements that do it.

A minute is summed up once it is over, of the clock by which rows are stored (`stored`), whenever their events happened: so what comes late counts.
Each INSERT has the minute as its token, so that doing it again, by us after a crash or by another server, changes nothing. Not by materialized views
on the tables of events: each would cost every small batch a third more (docs/STORE.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from infrasight.schema.ddl import DATABASE, quoted, text
from infrasight.schema.rollups import ROLLUPS
from infrasight.store.session import Rows

MINUTE_S = 60
SETTLED_S = 30
"""After the end of a minute, until nothing more is stored in it: clocks of several servers may differ, and inserts take time."""
SETTINGS = {
    "max_threads": "1",
    "max_insert_threads": "1",
    "deduplicate_blocks_in_dependent_materialized_views": "1",
    "max_partitions_per_insert_block": "0",
    "min_insert_block_size_rows": "1000000000",
    "min_insert_block_size_bytes": "1000000000000",
    "distributed_foreground_insert": "1",
    "max_bytes_before_external_group_by": str(256 << 20),
}
"""One block for each day, so that the token stands for all of it. Where nearly each row is somebody else's, what is added up goes to the disk."""
_NEWER = {"insert_select_deduplicate": "1"}
"""Of versions that do not deduplicate an INSERT SELECT by themselves."""
TRIES = 3
"""How often a minute is summed up that takes more memory than there is."""
SUMMED = frozenset(kind.name for rollup in ROLLUPS.values() for kind in rollup.kinds)
"""Kinds that are summed up."""


class Rolling:
    """One store's. Minutes that are closed may be summed up in one thread while rows are stamped in another."""

    def __init__(self, session: Rows, *, shared: bool) -> None:
        """What has been stored and not summed up, by us before or by others. `shared`: others may store into the same tables while we do. Raises
        EngineError, StoreUnavailable."""
        self._shared = shared
        self._settings = dict(SETTINGS)
        listed = ", ".join(map(text, _NEWER))
        for (name,) in session.rows(f"SELECT name FROM system.settings WHERE name IN ({listed})"):
            self._settings[name] = _NEWER[name]
        last = list(ROLLUPS.values())[-1]
        ((filled,),) = session.rows(f"SELECT toString(toUInt32(max(filled))) FROM {DATABASE}.{last.name}_1m")
        self._closed_s = int(filled)
        """Before it, every minute is summed up: nothing must be stored there any more."""
        since = f"stored >= toDateTime({max(self._closed_s, 1)}, 'UTC')"
        each = "SELECT DISTINCT toString(toUInt32(toStartOfMinute(stored))) AS minute"
        stored = " UNION ALL ".join(f"{each}, {text(kind)} AS kind FROM {DATABASE}.{quoted(kind)} WHERE {since}" for kind in sorted(SUMMED))
        self._failures: Counter[int] = Counter()
        self._minutes: dict[int, set[str]] = {}
        """Kinds of what was stored in each minute, as far as we know."""
        for minute, kind in session.rows(stored):
            self._minutes.setdefault(int(minute), set()).add(kind)

    def stamp(self, kind: str, now_s: float) -> int:
        """The time, in seconds since the epoch, at which a batch is stored now: not in a minute that is summed up, whatever the clock says."""
        stored_s = max(int(now_s), self._closed_s)
        if kind in SUMMED:
            self._minutes.setdefault(stored_s // MINUTE_S * MINUTE_S, set()).add(kind)
        return stored_s

    def close(self, now_s: float) -> list[int]:
        """Minutes that can be summed up, the oldest first: from now on nothing is stored in them."""
        due = sorted(minute for minute in list(self._minutes) if minute + MINUTE_S + SETTLED_S <= now_s)
        self._closed_s = max([self._closed_s, *(minute + MINUTE_S for minute in due)])
        return due

    def failed(self, minute: int) -> bool:
        """It took too much memory; whether it has often enough."""
        self._failures[minute] += 1
        return self._failures[minute] >= TRIES

    def done(self, minute: int) -> None:
        """It is summed up, or never will be."""
        del self._failures[minute]
        self._minutes.pop(minute, None)

    def statements(self, minute: int) -> Iterator[str]:
        """Of a minute that is closed, to be run in this order; once or again."""
        kinds = SUMMED if self._shared else self._minutes.get(minute, ())  # the same for all who share, since their tokens are the same
        for rollup in ROLLUPS.values():
            select = rollup.select(kinds, minute, minute + MINUTE_S)
            if not select:
                continue
            settings = self._settings | {"insert_deduplication_token": text(f"{rollup.name}:{minute}")}
            listed = ", ".join(f"{name} = {value}" for name, value in settings.items())
            yield f"INSERT INTO {DATABASE}.{quoted(rollup.name + '_1m')} ({rollup.columns()}) SETTINGS {listed} {select}"
