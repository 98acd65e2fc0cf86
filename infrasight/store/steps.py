"""What has to be done to tables that an older version made, step by step, each numbered by the schema that it leads to.

What a declaration adds needs no step: columns, indexes, tables, views and how long rows are kept are compared with what is there, whatever the
version (`infrasight.store.tables`). A step is for what no comparison sees, or what older code must not go on with. Once released it never changes.

A step is made of statements that can be run again: one that was killed in the middle begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from infrasight.schema.ddl import DATABASE, on, quoted
from infrasight.schema.tables import TABLES


@dataclass(frozen=True)
class Step:
    """`statements` of a cluster (empty: one server) for the tables that there are; `why` it is there."""

    version: int
    why: str
    statements: Callable[[str, Collection[str]], list[str]]


def _parts_go_as_a_whole(cluster: str, tables: Collection[str]) -> list[str]:
    settings = "ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1"
    names = [table.local(cluster) for table in TABLES.values()]
    return [f"ALTER TABLE {DATABASE}.{quoted(name)}{on(cluster)} MODIFY SETTING {settings}" for name in names if name in tables]


STEPS = (
    Step(
        2,
        "a day's rows expire as a whole; and have `stored` and `batch`: rollups would miss what older code inserts, and it might store a batch twice",
        _parts_go_as_a_whole,
    ),
)
