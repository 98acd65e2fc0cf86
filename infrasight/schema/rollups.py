"""Rollups: what people ask most, summed up by the minute and by the hour, derived from the kinds.

The server fills the tables of minutes a minute after its rows were stored, from all rows whose `stored` lies in that minute; those of hours follow
(`infrasight.store.rolling`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from infrasight.schema.columns import Kind
from infrasight.schema.ddl import DATABASE, TYPES, quoted, text
from infrasight.schema.kinds import KINDS, PROBES

_WHO = ("node", "comm", "user", "container_id", "container_name", "image", "pod_namespace", "pod_name")
"""Columns of every kind that rows are told apart by."""


@dataclass(frozen=True)
class Grain:
    """Over what time a table sums up. `start` is ClickHouse's function for the start of it."""

    suffix: str
    doc: str
    start: str
    partition: str
    keep_days: int


GRAINS = (
    Grain("1m", "a minute", "toStartOfMinute", "toDate(ts)", 90),
    Grain("1h", "an hour", "toStartOfHour", "toYYYYMM(ts)", 730),
)


@dataclass(frozen=True)
class Sum:
    """What is added up: an aggregate over the rows of a kind, 0 for a kind that lacks one of the columns `of`."""

    sql: str
    doc: str
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rollup:
    """`by` are columns that rows of `kinds` are told apart by; `event_kind` stands for the kind itself."""

    name: str
    doc: str
    kinds: tuple[Kind, ...]
    by: tuple[str, ...]
    sums: dict[str, Sum]

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Name and ClickHouse type of each column in `by`."""
        return tuple((name, "LowCardinality(String)" if name == "event_kind" else TYPES[self.kinds[0].column(name).type]) for name in self.by)

    def select(self, kinds: Collection[str], since: int, until: int) -> str:
        """The sums by the minute of all rows of those of `kinds` that it is of, stored from `since` on and before `until`, seconds since the epoch;
        empty when it is of none of them."""
        return " UNION ALL ".join(self._select(kind, since, until) for kind in self.kinds if kind.name in kinds)

    def columns(self) -> str:
        """The columns of `select`, for an INSERT."""
        return ", ".join(quoted(name) for name in ("ts", *self.by, *self.sums, "filled"))

    def _select(self, kind: Kind, since: int, until: int) -> str:
        has = {column.name for column in kind.columns}
        keys = [f"{text(kind.name)} AS event_kind" if name == "event_kind" else f"e.{quoted(name)} AS {quoted(name)}" for name in self.by]
        sums = [f"{each.sql if has.issuperset(each.of) else '0'} AS {name}" for name, each in self.sums.items()]
        listed = ", ".join([f"{GRAINS[0].start}(e.ts) AS ts", *keys, *sums, f"toDateTime({until}, 'UTC') AS filled"])
        where = f"e.stored >= toDateTime({since}, 'UTC') AND e.stored < toDateTime({until}, 'UTC')"
        grouped = ", ".join([f"{GRAINS[0].start}(e.ts)", *(f"e.{quoted(name)}" for name in self.by if name != "event_kind")])
        return f"SELECT {listed} FROM {DATABASE}.{quoted(kind.name)} AS e WHERE {where} GROUP BY {grouped}"


_CALLS = {
    "events": Sum("count()", "How many events."),
    "failed": Sum("countIf(e.ret < 0)", "Those of them that failed.", ("ret",)),
    "latency_ns": Sum("sum(e.latency_ns)", "How long they took together.", ("latency_ns",)),
}
_COUNTERS = {
    column.name: Sum(f"sum(e.{column.name})", column.doc, (column.name,)) for column in KINDS["resource"].columns if 20 <= column.number < 100
}

ROLLUPS: dict[str, Rollup] = {
    rollup.name: rollup
    for rollup in (
        Rollup("usage", "What processes used of the machine, of `resource`.", (KINDS["resource"],), _WHO, _COUNTERS),
        Rollup(
            "connections",
            "Who connected to what, of `connect`.",
            (KINDS["connect"],),
            (*_WHO, "protocol", "daddr", "dport", "name"),
            _CALLS,
        ),
        Rollup(
            "activity",
            "How much of each kind happened, and to whom, of all kinds of events.",
            tuple(KINDS[name] for name in PROBES if not KINDS[name].account),
            (*_WHO, "event_kind"),
            _CALLS,
        ),
    )
}
"""All rollups by name, in the order in which they are filled: by the last it is known how far they are."""
