"""Database and tables, created and migrated: columns are added, never changed or dropped."""

from __future__ import annotations

import re

from infrasight.errors import StoreIncompatible
from infrasight.schema import KINDS, Kind
from infrasight.schema.ddl import DATABASE, SCHEMA_VERSION, database_ddl, own_columns, quoted, table_columns, table_ddl
from infrasight.store.session import Rows
from infrasight.store.views import make_views


def migrate(session: Rows) -> list[str]:
    """Bring the tables up to what `schema/` declares; the statements that were needed.

    Raises StoreIncompatible (a newer version's database, a column of another type), EngineError.
    """
    _check_version(session)
    existing = _existing(session)
    statements = [database_ddl()] if DATABASE not in {row[0] for row in session.rows("SHOW DATABASES")} else []
    for kind in KINDS.values():
        columns = existing.get(kind.name)
        statements += [table_ddl(kind)] if columns is None else _additions(kind, columns)
    for statement in statements:
        session.execute(statement)
    return statements + make_views(session)


def _check_version(session: Rows) -> None:
    comments = session.rows(f"SELECT comment FROM system.databases WHERE name = '{DATABASE}'")
    recorded = re.match(r"schema (\d+)", "".join(comment for (comment,) in comments))
    if recorded and int(recorded[1]) > SCHEMA_VERSION:
        raise StoreIncompatible(
            f"the database {DATABASE} has schema {recorded[1]} and this version knows {SCHEMA_VERSION}: a newer InfraSight made it, use that one"
        )


def _existing(session: Rows) -> dict[str, dict[str, str]]:
    """Types by column by table."""
    tables: dict[str, dict[str, str]] = {}
    for table, name, type in session.rows(f"SELECT table, name, type FROM system.columns WHERE database = '{DATABASE}' ORDER BY table, position"):
        tables.setdefault(table, {})[name] = type
    return tables


def _additions(kind: Kind, existing: dict[str, str]) -> list[str]:
    """ALTER statements for the columns that are missing, each placed after its predecessor."""
    statements, previous = [], "FIRST"
    for column in (*(each for declared in kind.columns for each in table_columns(declared)), *own_columns()):
        found = existing.get(column.name)
        if found is None:
            statements.append(f"ALTER TABLE {DATABASE}.{quoted(kind.name)} ADD COLUMN {column.ddl()} {previous}")
        elif found != column.type:
            raise StoreIncompatible(f"the table {DATABASE}.{kind.name} has {column.name} as {found}, this version needs {column.type}")
        previous = f"AFTER {quoted(column.name)}"
    return statements
