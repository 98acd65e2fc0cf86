"""Tables grow with the declarations, and say no to what they cannot become."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from infrasight.errors import StoreIncompatible
from infrasight.schema.ddl import DATABASE, SCHEMA_VERSION
from infrasight.schema.original import original_ddl
from infrasight.schema.tables import TABLES, views
from infrasight.store import Store, open_store
from infrasight.store.engine import Session
from infrasight.store.tables import migrate
from tests.store import samples
from tests.store.conftest import ask
from tests.store.engines import session


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Store]:
    store = open_store(f"chdb://{directory}")
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def layout(session: Session, table: str) -> list[list[str]]:
    return session.rows(f"SELECT name, type FROM system.columns WHERE database = '{DATABASE}' AND table = '{table}' ORDER BY position")


def test_a_new_database_is_as_declared_and_a_second_look_changes_nothing(tmp_path: Path) -> None:
    with session(tmp_path) as new:
        assert len(migrate(new)) == 1 + len(TABLES) + len(views()) + len(original_ddl())
        for table in TABLES.values():
            assert layout(new, table.name) == [[column.name, column.type] for column in table.columns]
        assert migrate(new) == []
    with session(tmp_path) as again:
        assert migrate(again) == []


async def test_missing_columns_and_tables_are_added_in_place_and_rows_stay(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.insert("open", samples.batch("open", 7), "old")
    with session(tmp_path) as older:
        declared = layout(older, "open")
        for column in ("latency_ns", "ancestors", "ancestors_joined", "dirfd"):
            older.execute(f"ALTER TABLE {DATABASE}.open DROP COLUMN {column}")
        older.execute(f"DROP TABLE {DATABASE}.loss")
        older.execute(f"ALTER TABLE {DATABASE}.open ADD COLUMN newer_than_us UInt8")  # by a newer version, then this one came back
    async with opened(tmp_path) as store:
        await store.insert("open", samples.batch("open", 7, first=7), "new")
        counts = "count(), countIf(latency_ns > 0), countIf(notEmpty(ancestors)), countIf(newer_than_us = 0)"
        assert await ask(store, f"SELECT {counts} FROM open") == "14\t4\t6\t14"
    with session(tmp_path) as newer:
        assert layout(newer, "open")[: len(declared)] == declared
        assert migrate(newer) == []


async def incompatible(path: Path, says: str) -> None:
    store = open_store(f"chdb://{path}")
    with pytest.raises(StoreIncompatible, match=says):
        await store.open()
    await store.close()


@pytest.mark.parametrize("column", ["path", "process_id"])
async def test_what_is_rare_is_found_without_reading_all(store: Store, column: str) -> None:
    rare = samples.batch("open", 1, **{column: b"rare" if column == "path" else 7}, node=b"n", ts=samples.START_NS + 2)
    await store.insert("open", pa.concat_batches([samples.batch("open", 30_000, node=b"n"), rare]), "a")
    said = await ask(store, f"EXPLAIN indexes = 1 SELECT count() FROM open WHERE {column} = {'7' if column == 'process_id' else repr('rare')}")
    assert re.search(rf"Name: {column}_is.*?Granules: 1/[4-9]", said, re.DOTALL), said


async def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    with session(tmp_path) as changed:
        migrate(changed)
        changed.execute(f"ALTER TABLE {DATABASE}.connect MODIFY COLUMN dport String")
    await incompatible(tmp_path, r"connect has dport as String, this version needs UInt16$")


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with session(tmp_path) as newer:
        migrate(newer)
        newer.execute(f"ALTER DATABASE {DATABASE} MODIFY COMMENT 'schema {SCHEMA_VERSION + 1}'")
    await incompatible(tmp_path, f"schema {SCHEMA_VERSION + 1} and this version knows {SCHEMA_VERSION}")
