"""The store on a ClickHouse server of today: what Debian's is too old for, over the real protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infrasight.errors import QueryFailed, QueryRefused, StoreUnavailable
from infrasight.schema import KINDS
from infrasight.store import Store, copies, open_store
from infrasight.store.joining import mark
from tests.store import samples
from tests.store.conftest import ask
from tests.store.modern import Modern
from tests.store.test_copies import again, cleaned, counts, late
from tests.store.test_copies import rows as of_one_node
from tests.store.test_healing import container, heal, rows, states
from tests.store.test_rollups import LATER_S, Clock, agree, clock, fill  # noqa: F401 - a fixture

pytestmark = pytest.mark.needs("libchdb")


@pytest.fixture
def modern(tmp_path: Path) -> Iterator[Modern]:
    server = Modern(tmp_path / "modern")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def store(modern: Modern, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr(copies, "ALL_S", 0.0)
    store = open_store(modern.url)
    await store.open()
    yield store
    await store.close()


async def test_every_kind_is_stored_once_by_its_token(store: Store, modern: Modern) -> None:
    for kind in KINDS:
        for _ in range(2):
            await store.insert(kind, samples.batch(kind, 41), "t")
        assert await ask(store, f"SELECT count() FROM `{kind}`") == "41"
    other = open_store(modern.url)
    await other.open()  # everything is as it should be
    await other.insert("open", samples.batch("open", 41), "t")
    assert await ask(other, "SELECT count() FROM open") == "41"
    await other.close()


async def test_rows_are_healed(store: Store) -> None:
    await store.insert("open", rows(7), "a")
    await store.insert("container", container(), "b")
    await heal(store)
    assert await states(store) == "complete 7"


async def test_what_was_stored_twice_is_taken_out(store: Store) -> None:
    given = {token: of_one_node() for token in "ab"}
    insert = await late(store, given)
    await again(store, given)
    await asyncio.to_thread(insert)
    assert set((await counts(store)).values()) == {14}
    await cleaned(store)
    assert await counts(store) == {mark("a"): 7, mark("b"): 7}


async def test_rollups(store: Store, clock: Clock) -> None:  # noqa: F811 - the fixture
    await fill(store, "a")
    clock.now_s += LATER_S
    for _ in range(2):
        await store.roll_up()
        await agree(store)


async def test_people_may_only_read_and_not_for_ever(store: Store) -> None:
    for sql in ("SELECT * FROM file('/etc/passwd')", "DROP TABLE open", "SELECT 1 SETTINGS max_threads = 9"):
        with pytest.raises(QueryRefused):
            await ask(store, sql)
    with pytest.raises(QueryFailed, match="Timeout"):
        await ask(store, "SELECT count() FROM system.numbers", seconds=0.5)
    with pytest.raises(QueryFailed):
        await ask(store, "SELECT number, throwIf(number = 300000) FROM system.numbers LIMIT 400000")


async def test_kill_9_and_restart(store: Store, modern: Modern) -> None:
    """What was acknowledged is there, what was not is stored once when it is sent again."""
    batches = {str(number): of_one_node() for number in range(40)}
    stored: set[str] = set()

    async def insert_all() -> None:
        for token, batch in batches.items():
            await store.insert_joined("open", {token: batch})
            stored.add(token)

    inserting = asyncio.create_task(insert_all())
    while len(stored) < 5:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.001)
    await asyncio.to_thread(modern.kill)
    with pytest.raises(StoreUnavailable):
        await inserting
    await asyncio.to_thread(modern.start)
    assert {mark(token) for token in stored} <= set(await counts(store))
    await store.insert_joined("open", batches, doubtful=set(batches))
    await cleaned(store)
    assert await counts(store) == {mark(token): 7 for token in batches}
