"""Results arrive in pieces, stay within limits, end when nobody listens, and keep nobody waiting."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from infrasight.errors import QueryFailed
from infrasight.store import QueryLimits, Store
from infrasight.store.threads import MAX_QUERIES
from tests.store import samples
from tests.store.conftest import ask
from tests.waiting import LIMIT_S

ENDLESS = "SELECT sum(cityHash64(number, number)) FROM system.numbers"
LONG = "SELECT number FROM system.numbers LIMIT 1000000000000"


async def none_runs(store: Store) -> bool:
    return await ask(store, "SELECT count() FROM system.processes WHERE query NOT LIKE '%system.processes%'") == "0"


async def test_a_row_format_streams(either: Store) -> None:
    chunks = [chunk async for chunk in either.query("SELECT number FROM system.numbers LIMIT 300007")]
    assert len(chunks) > 1
    assert [json.loads(line)["number"] for line in b"".join(chunks).splitlines()] == list(range(300007))


async def is_one_document(store: Store, format: str) -> None:
    many = await ask(store, "SELECT number AS head FROM system.numbers LIMIT 300007", format)
    none = await ask(store, "SELECT number AS head FROM system.numbers LIMIT 0", format)
    assert many.count("head") == none.count("head") == 1


@pytest.mark.parametrize("format", ["CSVWithNames", "TSVWithNames"])
async def test_a_format_with_a_head_comes_as_one_document(either: Store, format: str) -> None:
    await is_one_document(either, format)


@pytest.mark.parametrize("format", ["JSONCompactStringsEachRowWithNamesAndTypes", "Markdown"])
async def test_newer_formats_with_a_head(store: Store, format: str) -> None:
    await is_one_document(store, format)


async def test_show_and_explain_come_in_row_formats_too(either: Store) -> None:
    assert json.loads(await ask(either, "SHOW TABLES LIKE 'open'", "JSONEachRow"))["name"] == "open"


@pytest.mark.parametrize(
    ("sql", "limits", "says"),
    [
        (ENDLESS, {"seconds": 1}, "TIMEOUT_EXCEEDED|Timeout exceeded"),
        ("SELECT number FROM system.numbers LIMIT 100000", {"rows": 1000}, "max rows"),
        (LONG, {"result_bytes": 10_000, "rows": 10**12}, "larger than 10000 bytes|max bytes"),
        ("SELECT groupArray(number) FROM (SELECT number FROM system.numbers LIMIT 100000000)", {"memory_bytes": 50 << 20}, "emory limit"),
    ],
)
async def test_a_limit_ends_a_query(either: Store, sql: str, limits: dict[str, float], says: str) -> None:
    with pytest.raises(QueryFailed, match=says):
        await ask(either, sql, **limits)
    assert await none_runs(either)
    assert either.statistics().query_failures == 1


async def test_a_query_ends_when_its_reader_leaves(either: Store) -> None:
    async with aclosing(either.query(LONG)) as chunks:
        async for _ in chunks:
            break
    assert either.statistics().queries_running == 0
    assert await none_runs(either)


@pytest.mark.parametrize("sql", [ENDLESS, LONG])
async def test_cancelling_the_reader_kills_the_query(either: Store, sql: str) -> None:
    async def read() -> None:
        async for _ in either.query(sql, limits=QueryLimits(rows=10**13, result_bytes=10**13)):
            pass

    reader = asyncio.create_task(read(), name="reader")
    while await none_runs(either):  # noqa: ASYNC110 - asking is the only way to know
        await asyncio.sleep(0.001)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reader, QueryLimits().seconds / 2)  # or it would end by itself
    assert await none_runs(either)


async def test_inserts_go_on_beside_running_queries(either: Store) -> None:
    readers = [asyncio.create_task(ask(either, ENDLESS), name=f"reader {i}") for i in range(3)]
    running = "SELECT count() FROM system.processes WHERE query LIKE '%cityHash%' AND query NOT LIKE '%processes%'"
    while await ask(either, running) != "3":  # noqa: ASYNC110 - asking is the only way to know
        await asyncio.sleep(0.001)
    for i in range(5):
        await asyncio.wait_for(either.insert("open", samples.batch("open", 101), str(i)), LIMIT_S)
    assert not any(reader.done() for reader in readers)
    await either.close()  # ends them
    assert {type(end) for end in await asyncio.gather(*readers, return_exceptions=True)} <= {QueryFailed, str}


async def test_the_loop_runs_while_the_database_works(either: Store) -> None:
    query, turns = asyncio.create_task(ask(either, ENDLESS, seconds=1), name="query"), 0
    while not query.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert isinstance(query.exception(), QueryFailed)
    assert turns > 20, "of 200, on a machine that does nothing else; of one or two, where the loop waits for the database"


async def test_too_many_readers_are_refused_and_those_who_leave_make_room(either: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.threads.UNREAD_S", 3600)
    open_queries = [either.query(LONG) for _ in range(MAX_QUERIES)]
    for each in open_queries:
        await anext(each)
    with pytest.raises(QueryFailed, match="running already"):
        await ask(either, "SELECT 1")
    for each in open_queries:
        await each.aclose()  # type: ignore[attr-defined]  # it is a generator, which AsyncIterator does not say
    assert await ask(either, "SELECT 1") == "1"


async def test_a_chunk_is_small_however_wide_its_rows(store: Store) -> None:
    wide = store.query("SELECT repeat('x', 1000) FROM numbers(30000)", format="TSV")
    chunks = [len(chunk) async for chunk in wide]
    assert sum(chunks) == 30000 * 1001
    assert max(chunks) <= 8192 * 1001


async def test_who_does_not_read_gives_the_place_to_others(either: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.threads.UNREAD_S", 0.2)
    unread = [either.query(LONG) for _ in range(MAX_QUERIES)]
    for each in unread:
        await anext(each)
    await asyncio.sleep(0.3)
    await anext(unread[0])  # it reads
    assert await asyncio.gather(*(ask(either, "SELECT 1") for _ in range(MAX_QUERIES - 1))) == ["1"] * (MAX_QUERIES - 1)
    with pytest.raises(QueryFailed, match="was not read"):
        await anext(unread[1])
    await anext(unread[0])
    for each in unread:
        await each.aclose()  # type: ignore[attr-defined]  # it is a generator, which AsyncIterator does not say
    assert either.statistics().queries_running == 0


async def test_one_query_leaves_nothing_for_the_next(either: Store) -> None:
    await ask(either, "SELECT 1", rows=5)
    assert await ask(either, "SELECT count() FROM (SELECT number FROM system.numbers LIMIT 10)") == "10"
    assert len((await ask(either, "SELECT number FROM system.numbers LIMIT 10")).splitlines()) == 10
