"""A store of each engine, in a directory of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from infrasight.store import QueryLimits, Store, open_store

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


async def ask(store: Store, sql: str, format: str = "TSV", **limits: float) -> str:
    """The whole result, as text."""
    chunks = [chunk async for chunk in store.query(sql, format=format, limits=QueryLimits(**limits))]  # type: ignore[arg-type]  # a test's shorthand
    return b"".join(chunks).decode(errors="surrogateescape").strip()
