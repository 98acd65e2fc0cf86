"""What a server is told with each request, understood and enforced by an engine of today (chDB), under a user that has every right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infrasight.schema.ddl import DATABASE, text
from infrasight.store import QueryLimits, http
from infrasight.store.addresses import parse
from infrasight.store.engine import Session
from infrasight.store.session import EngineError
from infrasight.store.settings import ENGINE_XML, SERVER_INSERT, USERS_XML
from infrasight.store.tables import migrate

LIMITS = QueryLimits(rows=1000, seconds=0.5, memory_bytes=50 << 20, result_bytes=10_000)
NOT_SETTINGS = {"database"}
"""Parameters of the HTTP interface itself."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("settings")
    (directory / "engine.xml").write_text(ENGINE_XML)
    (directory / "users.xml").write_text(USERS_XML)
    (directory / "secret").write_text("secret")
    return directory


@pytest.fixture
def asking(directory: Path) -> Iterator[Session]:
    """A session with the rights of the writer and the settings of a query."""
    session = Session(directory / "clickhouse", directory / "engine.xml")
    session.execute("SET ROLE writer")
    migrate(session)
    over_http = http.Session(parse("clickhouse://127.0.0.1"))
    over_http.restrict(LIMITS, "0a")
    given = {name: value for name, value in over_http._settings.items() if name not in NOT_SETTINGS}
    session.execute(f"USE {DATABASE}; SET " + ", ".join(f"{name} = {text(value)}" for name, value in given.items()))
    yield session
    session.close()


def test_reading_works(asking: Session) -> None:
    assert asking.execute("SELECT count() FROM open") == b"0\n"
    assert asking.execute("SELECT toUInt64(1) AS n", "JSONEachRow") == b'{"n":1}\n'


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO open (pid) VALUES (1)",
        "DROP TABLE open",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "ALTER TABLE open DELETE WHERE 1",
        "SET max_execution_time = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM file('{directory}/secret', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1:1', 'system', 'one')",
        "SELECT * FROM executable('x', 'TSV', 'a String')",
    ],
)
def test_readonly_alone_keeps_whoever_has_every_right(asking: Session, directory: Path, sql: str) -> None:
    """But for SYSTEM, which it lets pass and the gate does not (test_gate.py)."""
    with pytest.raises(EngineError, match="readonly"):
        asking.execute(sql.replace("{directory}", str(directory)))


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT sum(number) FROM system.numbers", "TIMEOUT_EXCEEDED"),
        ("SELECT number FROM numbers(100000)", "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT groupArray(number) FROM numbers(100000000)", "MEMORY_LIMIT_EXCEEDED"),
    ],
)
def test_limits_end_a_query(asking: Session, sql: str, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        asking.execute(sql)


def test_the_settings_of_an_insert_exist(asking: Session) -> None:
    names = sorted([*SERVER_INSERT, "insert_deduplication_token"])
    listed = ", ".join(map(text, names))
    assert asking.rows(f"SELECT name FROM system.settings WHERE name IN ({listed}) ORDER BY name") == [[name] for name in names]
