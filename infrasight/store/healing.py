"""Mutations of tables; above all the one that fills in what rows of containers lack: of some containers, in the days that it is needed in."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from infrasight.schema.ddl import DATABASE, on, quoted, text
from infrasight.schema.parts import TOLD
from infrasight.schema.tables import TABLES
from infrasight.store.interface import ContainerKey

DAYS_MAX = 3
"""Days that a mutation is for, the newest of the span: each names its partition, so that parts of other days are not looked into."""
_DAY_NS = 86_400 * 10**9
_IN_PARTITION = "IN PARTITION ID '{}' "
_REASON = "latest_fail_reason"
_PLAIN = re.compile(rb"[A-Za-z0-9_.:/@-]*")


def literal(value: bytes) -> str:
    """A string literal of any bytes."""
    return f"'{value.decode()}'" if _PLAIN.fullmatch(value) else "'" + "".join(f"\\x{byte:02x}" for byte in value) + "'"


def among(containers: Collection[ContainerKey]) -> str:
    """The condition that a row is of one of these."""
    return "(node, container_id) IN (" + ", ".join(f"({literal(node)}, {literal(id)})" for node, id in containers) + ")"


def alter(kind: str, parts: Collection[str], cluster: str = "") -> str:
    """The mutation of a kind's rows; in a cluster, of those of all servers."""
    return f"ALTER TABLE {DATABASE}.{quoted(TABLES[kind].local(cluster))}{on(cluster)} {', '.join(parts)}"


def in_partition(day: int) -> str:
    """Of a mutation, the partition of a day (since 1970; `infrasight.schema.tables.table_of`), and a space."""
    return _IN_PARTITION.format(f"{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}")


def statement(kind: str, containers: Collection[ContainerKey], since_ns: int, until_ns: int, cluster: str = "") -> str:
    """The mutation. What is known of a container is the last that was learned of it; in a cluster that is where the rows of its node are."""
    last = "ORDER BY node, container_id, ts DESC LIMIT 1 BY node, container_id"
    container = f"{DATABASE}.{quoted(TABLES['container'].local(cluster))}"
    known = f"(SELECT * FROM {container} WHERE {among(containers)} AND state = 'learned' {last})"
    place = f"indexOf((SELECT groupArray((node, container_id)) FROM {known}), (node, container_id))"
    values = {name: f"(SELECT groupArray({quoted(name)}) FROM {known})[{place}]" for name in TOLD}
    # Of one of which nothing was told what is known of its pod stays.
    columns = [f"{quoted(name)} = if({place} = 0, {quoted(name)}, {value})" for name, value in values.items()]
    updates = ", ".join([*columns, f"identity = if({place} = 0, 'path', 'complete')"])
    span = f"ts >= fromUnixTimestamp64Nano({since_ns}, 'UTC') AND ts <= fromUnixTimestamp64Nano({until_ns}, 'UTC')"
    which = f"identity IN ('pending', 'path') AND {among(containers)} AND {span}"
    parts = [f"UPDATE {updates} {in_partition(day)}WHERE {which}" for day in _days(since_ns, until_ns)]
    return alter(kind, parts, cluster)


def _days(since_ns: int, until_ns: int) -> range:
    last = until_ns // _DAY_NS
    return range(max(since_ns // _DAY_NS, last - DAYS_MAX + 1), last + 1)


def unfinished(kind: str, cluster: str = "") -> str:
    """The query for mutations of a table that go on, in a cluster on any server: each with why it failed last, or nothing."""
    mutations = f"clusterAllReplicas({text(cluster)}, system.mutations)" if cluster else "system.mutations"
    return f"SELECT mutation_id, hex({_REASON}) FROM {mutations} WHERE {_of(kind, cluster)} AND NOT is_done"


def kill(kind: str, mutation: str, cluster: str = "") -> str:
    """The statement that gives up one that fails: ClickHouse would try it again without end, and merge nothing meanwhile. One of the same name that
    does not fail, on another server of the cluster, goes on."""
    return f"KILL MUTATION{on(cluster)} WHERE {_of(kind, cluster)} AND mutation_id = {text(mutation)} AND {_REASON} != '' SYNC"


def _of(kind: str, cluster: str) -> str:
    return f"database = '{DATABASE}' AND table = {text(TABLES[kind].local(cluster))}"
