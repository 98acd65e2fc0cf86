"""A store of each engine, in a directory of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from infrasight.store import QueryLimits, Store, open_store
from tests.store.clickhouse import OLDER, ClickHouse

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


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work with a server that this version is too new for."""
    for place, value in OLDER.items():
        monkeypatch.setattr(place, value)


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
