"""From every older schema to this one: rows kept, killed anywhere, how long rows are kept."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infrasight.errors import StoreIncompatible
from infrasight.schema.ddl import DATABASE, SCHEMA_VERSION, STORED, own_columns
from infrasight.schema.original import original_ddl
from infrasight.schema.tables import TABLES, comment, ttl, views
from infrasight.store import Keep, Retention, open_store
from infrasight.store.engine import Session
from infrasight.store.session import EngineError
from infrasight.store.steps import STEPS, Step
from infrasight.store.tables import migrate
from tests.store import samples
from tests.store.conftest import ask
from tests.store.engines import session

OLDER = {version: Path(__file__).with_name(f"schema_{version}.sql") for version in range(1, SCHEMA_VERSION)}
"""The tables of each older version, or some of them, as that version made them."""
ROWS = 100
DAY_S = 86_400
OPEN = "import asyncio, sys; from infrasight.store import open_store; asyncio.run(open_store(sys.argv[1]).open())"


def older(directory: Path, version: int) -> None:
    """A database of an older version, with rows."""
    with session(directory) as old:
        for statement in OLDER[version].read_text().split(";\n"):
            if statement.strip():
                old.execute(statement)
        for table in old.rows(f"SELECT name FROM system.tables WHERE database = '{DATABASE}'"):
            old.execute(f"INSERT INTO {DATABASE}.{table[0]} (ts, node) SELECT toDateTime64(number, 9, 'UTC'), 'n' FROM numbers({ROWS})")


def is_as_new(found: Session) -> None:
    """Nothing is left to do, and tables are those of a new database."""
    assert migrate(found) == []
    assert found.rows(f"SELECT comment FROM system.databases WHERE name = '{DATABASE}'") == [[comment(SCHEMA_VERSION)]]
    for table in TABLES.values():
        columns = f"SELECT name, type FROM system.columns WHERE database = '{DATABASE}' AND table = '{table.name}' ORDER BY position"
        assert found.rows(columns) == [[column.name, column.type] for column in table.columns]
        ((engine,),) = found.rows(f"SELECT engine_full FROM system.tables WHERE database = '{DATABASE}' AND name = '{table.name}'")
        assert "ttl_only_drop_parts = 1" in engine
        indexes = f"SELECT name FROM system.data_skipping_indices WHERE database = '{DATABASE}' AND table = '{table.name}'"
        assert found.rows(indexes) == [[name] for name, _ in table.indexes]


@pytest.mark.parametrize("version", OLDER)
async def test_from_an_older_schema_with_all_rows(tmp_path: Path, version: int) -> None:
    older(tmp_path, version)
    store = open_store(f"chdb://{tmp_path}")
    await store.open()
    for kind in ("open", "execve", "resource", "loss"):
        await store.insert(kind, samples.batch(kind, 7), "new")
        assert await ask(store, f"SELECT count(), countIf(stored > 0), countIf(batch > 0) FROM {kind}") == f"{ROWS + 7}\t7\t7"
    await store.close()
    with session(tmp_path) as found:
        is_as_new(found)


def test_from_a_schema_1_that_had_marks_of_batches_already(tmp_path: Path) -> None:
    """They came before `stored`, with no number of their own."""
    older(tmp_path, 1)
    with session(tmp_path) as found:
        for (table,), column in itertools.product(found.rows(f"SELECT name FROM system.tables WHERE database = '{DATABASE}'"), own_columns()):
            if column.name != STORED:
                found.execute(f"ALTER TABLE {DATABASE}.`{table}` ADD COLUMN {column.ddl()}")
        migrate(found)
        is_as_new(found)


@pytest.mark.parametrize("version", OLDER)
def test_killed_anywhere_it_goes_on(tmp_path: Path, version: int) -> None:
    older(tmp_path, version)
    dice = random.Random(version)
    for _ in range(4):
        opening = subprocess.Popen([sys.executable, "-c", OPEN, f"chdb://{tmp_path}"])
        deadline, some, tables = time.monotonic() + 60, dice.randrange(5, 30), tmp_path / "clickhouse/metadata/infrasight"
        while opening.poll() is None and time.monotonic() < deadline and len(list(tables.glob("*.sql"))) < some:
            time.sleep(0.001)
        opening.kill()
        opening.wait()
    with session(tmp_path) as found:
        migrate(found)
        is_as_new(found)
        assert found.rows(f"SELECT toString(count()) FROM {DATABASE}.open") == [[str(ROWS)]]


class Failing:
    """A session that fails before its n-th statement."""

    def __init__(self, inner: Session, after: int) -> None:
        self._inner, self._left = inner, after
        self.rows: Callable[[str], list[list[str]]] = inner.rows

    def execute(self, sql: str) -> None:
        if not self._left:
            raise EngineError("Code: 1. DB::Exception: deliberate")
        self._left -= 1
        self._inner.execute(sql)


def test_failed_anywhere_it_goes_on(tmp_path: Path) -> None:
    older(tmp_path, 1)
    with session(tmp_path) as found:
        for after in (0, 1, 2, 3, 5, 8, 13):
            with pytest.raises(EngineError):
                migrate(Failing(found, after))
        migrate(found)
        is_as_new(found)


def test_steps_are_numbered_one_by_one_up_to_this_schema() -> None:
    assert [step.version for step in STEPS] == list(range(2, SCHEMA_VERSION + 1))


def test_a_step_is_done_once_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = f"ALTER TABLE {DATABASE}.open ADD COLUMN IF NOT EXISTS by_step UInt8"
    with session(tmp_path) as found:
        migrate(found)
        monkeypatch.setattr("infrasight.store.tables.STEPS", (*STEPS, Step(SCHEMA_VERSION + 1, "", lambda *_: [added])))
        assert migrate(found) == [added, f"ALTER DATABASE {DATABASE} MODIFY COMMENT '{comment(SCHEMA_VERSION + 1)}'"]
        with pytest.raises(StoreIncompatible, match="a newer InfraSight made it"):
            migrate(found)


def test_a_database_of_somebody_elses_is_taken_as_it_is(tmp_path: Path) -> None:
    """Made beforehand, so that we need fewer rights: nothing is recorded in it."""
    with session(tmp_path) as found:
        found.execute(f"CREATE DATABASE {DATABASE}")
        assert len(migrate(found)) == len(TABLES) + len(views()) + len(original_ddl())
        assert migrate(found) == []


def kept(found: Session, table: str) -> str:
    ((engine,),) = found.rows(f"SELECT engine_full FROM system.tables WHERE database = '{DATABASE}' AND name = '{table}'")
    return engine


def test_how_long_rows_are_kept_is_changed_when_it_is_said_otherwise(tmp_path: Path) -> None:
    with session(tmp_path) as found:
        migrate(found, Retention(30, {"open": 7}))
        assert [ttl(days) in kept(found, name) for name, days in (("open", 7), ("execve", 30), ("activity_1m", 90), ("alerts", 365))] == [True] * 4
        assert migrate(found, Retention(30, {"open": 7})) == []
        changed = migrate(found, Retention(30, {"open": 0, "execve": 9}))
        assert changed == [f"ALTER TABLE {DATABASE}.`execve` MODIFY TTL {ttl(9)}", f"ALTER TABLE {DATABASE}.`open` REMOVE TTL"]
        assert " TTL " not in kept(found, "open")
        assert len(migrate(found, Retention())) == len(TABLES) - 1
        assert migrate(found) == []


def test_a_table_stays_as_it_is_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    with session(tmp_path) as found:
        migrate(found, Retention(99))
        found.execute(f"DROP TABLE {DATABASE}.execve")
        assert migrate(found, Retention.of(None, [Keep("open=7")]))[-1] == f"ALTER TABLE {DATABASE}.`open` MODIFY TTL {ttl(7)}"
        assert [ttl(days) in kept(found, name) for name, days in (("open", 7), ("execve", 30), ("connect", 99))] == [True] * 3


async def test_days_that_are_over_go_and_the_others_stay(tmp_path: Path) -> None:
    today_ns = int(time.time()) * 10**9
    store = open_store(f"chdb://{tmp_path}")
    await store.open()
    for days in (0, 6, 8, 40):
        await store.insert("open", samples.batch("open", 10, ts=today_ns - days * DAY_S * 10**9), str(days))
    await store.close()
    store = open_store(f"chdb://{tmp_path}", Retention.of(30, [Keep("open=7")]))
    await store.open()
    await store.close()
    with session(tmp_path) as found:
        found.execute(f"OPTIMIZE TABLE {DATABASE}.open FINAL")  # what a merge does by itself, some time
        assert found.rows(f"SELECT toString(dateDiff('day', toDate(ts), today())) AS age FROM {DATABASE}.open GROUP BY age ORDER BY age") == [
            ["0"],
            ["6"],
        ]


@pytest.mark.parametrize("text", ["", "open", "open=", "open=x", "open=-1", "nope=1", "open=99999", "open=1=2"])
def test_a_rule_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not TABLE=DAYS|no table 'nope'"):
        Keep(text)


def test_the_last_rule_counts_and_longer_ones_stay() -> None:
    retention = Retention.of(10, [Keep("open=7"), Keep("open=8"), Keep("activity_1m=3")])
    assert [retention.of_table(name) for name in ("open", "execve", "activity_1m", "activity_1h", "alerts")] == [8, 10, 3, 730, 365]
    assert set(Retention().all().values()) == {0}
