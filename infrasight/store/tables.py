"""Database and tables, created and migrated: forward only, columns are added, never changed or dropped."""

from __future__ import annotations

import re
from collections.abc import Callable

from infrasight.errors import StoreIncompatible
from infrasight.schema.ddl import DATABASE, SCHEMA_VERSION, on, quoted
from infrasight.schema.retention import Retention
from infrasight.schema.tables import TABLES, Table, comment, database_ddl, ttl, views
from infrasight.store.session import Rows
from infrasight.store.steps import STEPS
from infrasight.store.views import make_views

_TTL = re.compile(r" TTL (?P<ttl>.+?) SETTINGS ")


def migrate(session: Rows, retention: Retention = Retention(), cluster: str = "") -> list[str]:  # noqa: B008 - frozen
    """Bring the tables up to what `schema/` declares; the statements that were needed. Killed anywhere, it goes on where it was when called again.

    Raises StoreIncompatible (a newer version's database, a column of another type), EngineError.
    """
    done: list[str] = []

    def run(statement: str) -> None:
        session.execute(statement)
        done.append(statement)

    version = _version(session)
    if version is None:
        run(database_ddl(cluster))
    tables = _existing(session)
    for step in STEPS:
        if version is not None and step.version > version:
            for statement in step.statements(cluster, tables):
                run(statement)
            run(f"ALTER DATABASE {DATABASE}{on(cluster)} MODIFY COMMENT '{comment(step.version)}'")
    indexes, kept = _indexes(session), _kept(session)
    for table in TABLES.values():
        _bring_up(table, tables, indexes, kept, retention, cluster, run)
    for name, statement in views(cluster).items():
        if name not in tables:
            run(statement)
    return done + make_views(session, cluster)


def _bring_up(
    table: Table,
    tables: dict[str, dict[str, str]],
    indexes: set[tuple[str, str]],
    kept: dict[str, str],
    retention: Retention,
    cluster: str,
    run: Callable[[str], None],
) -> None:
    """Create one table, or add to it what is missing."""
    if not tables.keys() >= set(table.names(cluster)):
        for statement in table.create(retention.of_table(table.name), cluster):
            run(statement)
    for name in table.names(cluster):
        for addition in _additions(table, name, tables.get(name), cluster):
            run(addition)
    local = table.local(cluster)
    if local not in tables:
        return
    where = f"ALTER TABLE {DATABASE}.{quoted(local)}{on(cluster)}"
    for index, what in table.indexes:
        if (local, index) not in indexes:
            run(f"{where} ADD INDEX IF NOT EXISTS {index} {what}")
    days = retention.of_existing(table.name)
    if days is not None and kept.get(local, "") != (ttl(days) if days else ""):
        run(f"{where} MODIFY TTL {ttl(days)}" if days else f"{where} REMOVE TTL")


def _version(session: Rows) -> int | None:
    """The schema of the database; None when there is no database."""
    comments = session.rows(f"SELECT comment FROM system.databases WHERE name = '{DATABASE}'")
    if not comments:
        return None
    recorded = re.match(r"schema (\d+)", comments[0][0])
    version = int(recorded[1]) if recorded else SCHEMA_VERSION  # somebody else made it, and nothing in it is older than us
    if version > SCHEMA_VERSION:
        raise StoreIncompatible(
            f"the database {DATABASE} has schema {version} and this version knows {SCHEMA_VERSION}: a newer InfraSight made it, use that one"
        )
    return version


def _existing(session: Rows) -> dict[str, dict[str, str]]:
    """Types by column by table."""
    tables: dict[str, dict[str, str]] = {}
    for table, name, type in session.rows(f"SELECT table, name, type FROM system.columns WHERE database = '{DATABASE}' ORDER BY table, position"):
        tables.setdefault(table, {})[name] = type
    return tables


def _indexes(session: Rows) -> set[tuple[str, str]]:
    """Table and name of each skip index."""
    return {(table, name) for table, name in session.rows(f"SELECT table, name FROM system.data_skipping_indices WHERE database = '{DATABASE}'")}


def _kept(session: Rows) -> dict[str, str]:
    """The TTL of each table that has one."""
    engines = session.rows(f"SELECT name, engine_full FROM system.tables WHERE database = '{DATABASE}'")
    return {name: match["ttl"] for name, engine in engines if (match := _TTL.search(engine))}


def _additions(table: Table, name: str, existing: dict[str, str] | None, cluster: str) -> list[str]:
    """ALTER statements for the columns that the table called `name` lacks, each placed after its predecessor."""
    statements, previous = [], "FIRST"
    for column in table.columns if existing is not None else ():
        found = (existing or {}).get(column.name)
        if found is None:
            statements.append(f"ALTER TABLE {DATABASE}.{quoted(name)}{on(cluster)} ADD COLUMN IF NOT EXISTS {column.ddl()} {previous}")
        elif found != column.type:
            raise StoreIncompatible(f"the table {DATABASE}.{name} has {column.name} as {found}, this version needs {column.type}")
        previous = f"AFTER {quoted(column.name)}"
    return statements
