"""Every table there is: one per kind, and the rollups. Their DDL is for one server, or for a cluster of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infrasight.schema.columns import Kind
from infrasight.schema.ddl import DATABASE, SCHEMA_VERSION, STORED, TableColumn, on, own_columns, quoted, table_columns, text
from infrasight.schema.kinds import KINDS
from infrasight.schema.original import original_ddl
from infrasight.schema.rollups import GRAINS, ROLLUPS, Rollup

DEDUPLICATION_WINDOW = 10_000
"""Tokens that a table remembers."""
_BY_STORED = ("stored_range", f"{STORED} TYPE minmax GRANULARITY 1")
_LOOKED_UP = ("path", "process_id")
"""Columns that people ask for one rare value of; which others are not worth an index, and what these are, was measured (docs/STORE.md)."""
OWN_DAYS: dict[str, int] = {"alerts": 365}
"""Tables that are kept longer than events, and for how many days at least."""


@dataclass(frozen=True)
class Table:
    """A MergeTree of some sort. `indexes` by name; `keep_days` is how long it is kept at least, unless it is said for this table."""

    name: str
    columns: tuple[TableColumn, ...]
    order: str
    doc: str
    engine: str = "MergeTree"
    partition: str = "toDate(ts)"
    indexes: tuple[tuple[str, str], ...] = ()
    keep_days: int = 0

    def local(self, cluster: str) -> str:
        """The name of the table that holds the rows: in a cluster, each server has its own behind the Distributed one."""
        return f"{self.name}_local" if cluster else self.name

    def names(self, cluster: str) -> tuple[str, ...]:
        """The tables that have its columns: that with the rows first."""
        return tuple(dict.fromkeys((self.local(cluster), self.name)))

    def create(self, days: int = 0, cluster: str = "") -> list[str]:
        """CREATE TABLE IF NOT EXISTS of each; `days` that rows are kept, 0 for ever.

        `merge_selector_base` is twice the default: parts are merged more at a time, so a row is rewritten less often (docs/STORE.md).
        """
        lines = [*(column.ddl() for column in self.columns), *(f"INDEX {name} {what}" for name, what in self.indexes)]
        engine, window = self.engine, "non_replicated_deduplication_window"
        if cluster:
            engine = f"Replicated{self.engine}('/clickhouse/tables/{{shard}}/{DATABASE}/{self.name}', '{{replica}}')"
            window = "replicated_deduplication_window"
        settings = {window: DEDUPLICATION_WINDOW, "merge_selector_base": 10} | TTL_SETTINGS
        listed, body = ", ".join(f"{name} = {value}" for name, value in settings.items()), ",\n    ".join(lines)
        kept = f"TTL {ttl(days)}\n" if days else ""
        where = f"{DATABASE}.{quoted(self.local(cluster))}"
        rows = (
            f"CREATE TABLE IF NOT EXISTS {where}{on(cluster)} (\n    {body}\n)\n"
            f"ENGINE = {engine} PARTITION BY {self.partition} ORDER BY {self.order}\n"
            f"{kept}SETTINGS {listed}\nCOMMENT {text(self.doc)}"
        )
        if not cluster:
            return [rows]
        spread = f"Distributed({text(cluster)}, {DATABASE}, {quoted(self.local(cluster))}, cityHash64(node))"
        return [rows, f"CREATE TABLE IF NOT EXISTS {DATABASE}.{quoted(self.name)}{on(cluster)} AS {where} ENGINE = {spread}"]


TTL_SETTINGS = {"ttl_only_drop_parts": 1, "materialize_ttl_recalculate_only": 1}
"""A part goes as a whole, when its day is over long enough; nothing is rewritten for it."""


def ttl(days: int) -> str:
    """When a row is to go, as ClickHouse itself writes it."""
    return f"toDate(ts) + toIntervalDay({days})"


def database_ddl(cluster: str = "") -> str:
    """CREATE DATABASE IF NOT EXISTS, with the schema version in its comment."""
    return f"CREATE DATABASE IF NOT EXISTS {DATABASE}{on(cluster)} ENGINE = Atomic COMMENT {text(comment(SCHEMA_VERSION))}"


def comment(version: int) -> str:
    """What the database's comment says of its schema."""
    return f"schema {version}"


def table_of(kind: Kind) -> Table:
    """Sorted by time within a node; a partition is a day."""
    columns = tuple(each for column in kind.columns for each in table_columns(column))
    sought = [name for name in _LOOKED_UP if any(column.name == name for column in kind.columns)]
    looked_up = ((f"{name}_is", f"{name} TYPE bloom_filter(0.01) GRANULARITY 1") for name in sought)
    indexes, keep_days = (_BY_STORED, *looked_up), OWN_DAYS.get(kind.name, 0)
    return Table(kind.name, (*columns, *own_columns()), "(node, ts)", kind.doc, indexes=indexes, keep_days=keep_days)


def _rollup_tables(rollup: Rollup) -> list[Table]:
    keys = ", ".join(quoted(name) for name, _ in rollup.keys)
    columns = [TableColumn("ts", "DateTime('UTC')", " COMMENT 'Start of the time that it sums up.' CODEC(Delta(4), ZSTD(1))")]
    columns += [TableColumn(name, type, " CODEC(ZSTD(1))") for name, type in rollup.keys]
    columns += [TableColumn(name, "UInt64", f" COMMENT {text(each.doc)} CODEC(ZSTD(1))") for name, each in rollup.sums.items()]
    columns.append(TableColumn("filled", "SimpleAggregateFunction(max, DateTime('UTC'))", " COMMENT 'Up to when of `stored` it is.' CODEC(ZSTD(1))"))
    return [
        Table(
            f"{rollup.name}_{grain.suffix}",
            tuple(columns),
            f"({keys.partition(', ')[0]}, ts, {keys.partition(', ')[2]})",
            f"{rollup.doc} Sums of {grain.doc}: a row can be in several parts, so ask for sum().",
            engine="SummingMergeTree",
            partition=grain.partition,
            keep_days=grain.keep_days,
        )
        for grain in GRAINS
    ]


TABLES: dict[str, Table] = {
    table.name: table for table in (*map(table_of, KINDS.values()), *(each for rollup in ROLLUPS.values() for each in _rollup_tables(rollup)))
}
"""All tables by name."""


def views(cluster: str = "") -> dict[str, str]:
    """CREATE MATERIALIZED VIEW IF NOT EXISTS by name: they carry on what is filled into the tables of minutes to those of hours."""
    minute, hour = GRAINS
    made = {}
    for rollup in ROLLUPS.values():
        source, target = (TABLES[f"{rollup.name}_{grain.suffix}"] for grain in (minute, hour))
        keys = [quoted(name) for name, _ in rollup.keys]
        sums = [f"sum(m.{name}) AS {name}" for name in rollup.sums]
        grouped = ", ".join([f"{hour.start}(m.ts)", *(f"m.{key}" for key in keys)])
        select = ", ".join([f"{hour.start}(m.ts) AS ts", *(f"m.{key} AS {key}" for key in keys), *sums, "max(m.filled) AS filled"])
        name = f"{target.name}_fill"
        made[name] = (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {DATABASE}.{quoted(name)}{on(cluster)} TO {DATABASE}.{quoted(target.local(cluster))} AS "
            f"SELECT {select} FROM {DATABASE}.{quoted(source.local(cluster))} AS m GROUP BY {grouped}"
        )
    return made


def whole_ddl(days: Mapping[str, int], cluster: str = "") -> list[str]:
    """All statements that make the database and the original's tables, in order; `days` by table."""
    tables = [statement for table in TABLES.values() for statement in table.create(days.get(table.name, 0), cluster)]
    return [database_ddl(cluster), *tables, *views(cluster).values(), *original_ddl(cluster)]
