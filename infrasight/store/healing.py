"""The statement that fills in what rows of containers lack: one mutation of a table, of some containers, in the days that it is needed in."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from infrasight.schema.ddl import DATABASE, quoted
from infrasight.schema.parts import TOLD
from infrasight.store.interface import ContainerKey

DAYS_MAX = 3
"""Days that a mutation is for, the newest of the span: each names its partition, so that parts of other days are not looked into."""
_DAY_NS = 86_400 * 10**9
_PLAIN = re.compile(rb"[A-Za-z0-9_.:/@-]*")


def literal(value: bytes) -> str:
    """A string literal of any bytes."""
    return f"'{value.decode()}'" if _PLAIN.fullmatch(value) else "'" + "".join(f"\\x{byte:02x}" for byte in value) + "'"


def among(containers: Collection[ContainerKey]) -> str:
    """The condition that a row is of one of these."""
    return "(node, container_id) IN (" + ", ".join(f"({literal(node)}, {literal(id)})" for node, id in containers) + ")"


def statement(kind: str, containers: Collection[ContainerKey], since_ns: int, until_ns: int) -> str:
    """The ALTER TABLE. What is known of a container is the last that was learned of it."""
    last = "ORDER BY node, container_id, ts DESC LIMIT 1 BY node, container_id"
    known = f"(SELECT * FROM {DATABASE}.container WHERE {among(containers)} AND state = 'learned' {last})"
    place = f"indexOf((SELECT groupArray((node, container_id)) FROM {known}), (node, container_id))"
    values = {name: f"(SELECT groupArray({quoted(name)}) FROM {known})[{place}]" for name in TOLD}
    # Of one of which nothing was told what is known of its pod stays.
    columns = [f"{quoted(name)} = if({place} = 0, {quoted(name)}, {value})" for name, value in values.items()]
    updates = ", ".join([*columns, f"identity = if({place} = 0, 'path', 'complete')"])
    span = f"ts >= fromUnixTimestamp64Nano({since_ns}, 'UTC') AND ts <= fromUnixTimestamp64Nano({until_ns}, 'UTC')"
    which = f"identity IN ('pending', 'path') AND {among(containers)} AND {span}"
    parts = [f"UPDATE {updates} IN PARTITION ID '{day}' WHERE {which}" for day in _days(since_ns, until_ns)]
    return f"ALTER TABLE {DATABASE}.{quoted(kind)} {', '.join(parts)}"


def _days(since_ns: int, until_ns: int) -> Iterator[str]:
    """The partitions of a span (`infrasight.schema.tables.table_of`)."""
    last = until_ns // _DAY_NS
    for day in range(max(since_ns // _DAY_NS, last - DAYS_MAX + 1), last + 1):
        yield f"{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}"


def unfinished(kind: str) -> str:
    """The query for mutations of a table that go on: each with why it failed last, or nothing."""
    return f"SELECT mutation_id, hex(latest_fail_reason) FROM system.mutations WHERE database = '{DATABASE}' AND table = '{kind}' AND NOT is_done"


def kill(kind: str, mutation: str) -> str:
    """The statement that gives up one that fails: ClickHouse would try it again without end, and merge nothing meanwhile."""
    return f"KILL MUTATION WHERE database = '{DATABASE}' AND table = '{kind}' AND mutation_id = '{mutation}' SYNC"
