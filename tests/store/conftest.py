"""A store of each engine, in a directory of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from infrasight.store import QueryLimits, Store, open_store
from infrasight.store.gate import FORMATS_STREAMED
from infrasight.store.session import Session
from infrasight.store.settings import SERVER_QUERY
from tests.store.clickhouse import ClickHouse, older_migrate

Rows = Callable[..., Awaitable[bytes]]


@pytest.fixture(params=["chdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/store"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = open_store(url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """A running server for all of a module."""
    server = ClickHouse(tmp_path_factory.mktemp("clickhouse") / "server")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ClickHouse]:
    """A server to be mistreated."""
    server = ClickHouse(tmp_path / "own")
    server.start()
    yield server
    server.kill()


class OlderGate:
    """The server of the tests has no EXPLAIN: what a query may be is shown with chDB (test_gate.py)."""

    def __init__(self, session: Session) -> None:
        session.rows("SELECT name FROM system.functions")

    def check(self, session: Session, sql: str, format: str) -> bool:
        return format in FORMATS_STREAMED


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work with a server that this version is too new for."""
    monkeypatch.setattr("infrasight.store.server.OLDEST", (18, 16))
    monkeypatch.setattr("infrasight.store.server.SERVER_INSERT", {"min_insert_block_size_rows": "1000000000"})
    monkeypatch.setattr("infrasight.store.joining._TIME", "toInt64({})")
    monkeypatch.setattr("infrasight.store.joining._DAY", "toUInt32(toDate(toDateTime(intDiv(ts, 1000000000), 'UTC'), 'UTC'))")
    known = {name: value for name, value in SERVER_QUERY.items() if not name.startswith(("cancel_", "allow_"))}
    monkeypatch.setattr("infrasight.store.http.SERVER_QUERY", known)
    monkeypatch.setattr("infrasight.store.server.migrate", older_migrate)
    monkeypatch.setattr("infrasight.store.threads.Rolling", lambda session, shared: None)
    monkeypatch.setattr("infrasight.store.threads.Gate", OlderGate)


@pytest.fixture(params=["chdb", pytest.param("clickhouse", marks=pytest.mark.needs("clickhouse"))])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A store of either engine, its tables empty: for what the server of the tests can too."""
    url = f"chdb://{tmp_path}/store"
    if request.param == "clickhouse":
        request.getfixturevalue("older")
        url = request.getfixturevalue("clickhouse").url()
    store = open_store(url)
    await store.open()
    yield store
    await store.close()


async def ask(store: Store, sql: str, format: str = "TSV", **limits: float) -> str:
    """The whole result, as text."""
    chunks = [chunk async for chunk in store.query(sql, format=format, limits=QueryLimits(**limits))]  # type: ignore[arg-type]  # a test's shorthand
    return b"".join(chunks).decode(errors="surrogateescape").strip()
