"""Rollups say what the rows say, whatever happens in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infrasight.errors import StoreUnavailable
from infrasight.schema.rollups import ROLLUPS
from infrasight.store import Store, open_store, rolling
from infrasight.store.rolling import MINUTE_S, SETTLED_S, Rolling
from infrasight.store.tables import migrate
from tests.store import samples
from tests.store.conftest import ask
from tests.store.engines import session

LATER_S = MINUTE_S + SETTLED_S + 1


class Clock:
    """The time that a store goes by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_790_000_000.0
        monkeypatch.setattr("infrasight.store.threads.time.time", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


BY_ROW = "node, comm, container_id"
EXPECTED = {
    "activity": " UNION ALL ".join(
        f"SELECT {BY_ROW}, '{kind.name}' AS event_kind, count() AS events FROM `{kind.name}` GROUP BY {BY_ROW}" for kind in ROLLUPS["activity"].kinds
    ),
    "connections": f"SELECT {BY_ROW}, daddr, dport, count() AS events FROM connect GROUP BY {BY_ROW}, daddr, dport",
    "usage": f"SELECT {BY_ROW}, sum(cpu_ns) AS cpu_ns, sum(bytes_sent) AS bytes_sent FROM resource GROUP BY {BY_ROW}",
}
KEPT = {
    "activity": f"SELECT {BY_ROW}, event_kind, sum(events) FROM activity_%s GROUP BY {BY_ROW}, event_kind",
    "connections": f"SELECT {BY_ROW}, daddr, dport, sum(events) FROM connections_%s GROUP BY {BY_ROW}, daddr, dport",
    "usage": f"SELECT {BY_ROW}, sum(cpu_ns), sum(bytes_sent) FROM usage_%s GROUP BY {BY_ROW}",
}


async def agree(store: Store) -> None:
    """What the rollups say is what a query of the rows says."""
    for name, sql in EXPECTED.items():
        said = sorted((await ask(store, sql)).splitlines())
        assert said
        for grain in ("1m", "1h"):
            assert sorted((await ask(store, KEPT[name] % grain)).splitlines()) == said


async def fill(store: Store, token: str, rows: int = 41) -> None:
    for kind in ("open", "connect", "resource", "process"):
        await store.insert(kind, samples.batch(kind, rows), token)


async def test_rollups_say_what_the_rows_say(store: Store, clock: Clock) -> None:
    for minute in range(3):
        await fill(store, f"{minute}")
        await fill(store, f"{minute}")  # sent again: it counts once
        clock.now_s += LATER_S
        await store.roll_up()
        await store.roll_up()
        await agree(store)
    await fill(store, "0")
    clock.now_s += LATER_S
    await store.roll_up()
    await agree(store)
    assert await ask(store, "SELECT sum(failed) FROM activity_1m") == await ask(
        store, "SELECT (SELECT countIf(ret < 0) FROM open) + (SELECT countIf(ret < 0) FROM connect)"
    )


async def test_a_minute_is_summed_up_when_it_is_over(store: Store, clock: Clock) -> None:
    await fill(store, "a")
    clock.now_s += MINUTE_S - 1
    await store.roll_up()
    assert await ask(store, "SELECT count() FROM activity_1m") == "0"
    clock.now_s += LATER_S
    await store.roll_up()
    await agree(store)


async def test_it_goes_on_after_a_restart(store: Store, url: str, clock: Clock) -> None:
    await fill(store, "a")
    clock.now_s += LATER_S
    await store.roll_up()
    await fill(store, "b")
    await store.close()
    clock.now_s += 3600
    again = open_store(url)
    await again.open()
    await fill(again, "b")
    await fill(again, "c")
    await again.roll_up()
    clock.now_s += LATER_S
    await again.roll_up()
    await agree(again)
    await again.close()


@pytest.mark.parametrize("fails", range(3))
async def test_done_in_part_it_is_done_again(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    """As after a crash: the minute is summed up anew, and what was in counts once."""
    real, calls = Rolling.statements, iter(range(100))

    def failing(self: Rolling, minute: int) -> list[str]:
        statements = list(real(self, minute))
        return [*statements[:fails], "SELECT throwIf(1)"] if next(calls) < 2 else statements

    monkeypatch.setattr(Rolling, "statements", failing)
    await fill(store, "a")
    clock.now_s += LATER_S
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.roll_up()
    await store.roll_up()
    await agree(store)


async def test_what_is_sent_again_in_other_company_counts_once(store: Store, clock: Clock) -> None:
    """Whichever minute it is when it comes again."""
    await fill(store, "a")
    await fill(store, "b")
    clock.now_s += LATER_S
    await store.roll_up()
    for kind in ("open", "connect", "resource", "process"):
        await store.insert_joined(kind, {token: samples.batch(kind, 41) for token in "bca"}, doubtful={"a", "b"})
    clock.now_s += LATER_S
    await store.roll_up()
    await agree(store)
    assert await ask(store, "SELECT sum(events) FROM connections_1h") == str(3 * 41)


async def test_only_the_hour_is_missing(store: Store, clock: Clock) -> None:
    """A kill between the insert into the minutes and what follows from it."""
    await fill(store, "a")
    clock.now_s += LATER_S
    minute = int(clock.now_s - LATER_S) // MINUTE_S * MINUTE_S
    own = store._summer()  # type: ignore[attr-defined]  # what a crash leaves cannot be had otherwise
    for name in ROLLUPS:
        own.execute(f"DETACH TABLE infrasight.{name}_1h_fill SYNC")
    for statement in list(store._rolling.statements(minute)):  # type: ignore[attr-defined]  # likewise
        own.execute(statement)
    assert await ask(store, "SELECT count() > 0, (SELECT count() FROM activity_1h) FROM activity_1m") == "1\t0"
    for name in ROLLUPS:
        own.execute(f"ATTACH TABLE infrasight.{name}_1h_fill")
    await store.roll_up()
    await agree(store)


async def test_a_clock_that_is_set_back_loses_nothing(store: Store, clock: Clock) -> None:
    await fill(store, "a")
    clock.now_s += LATER_S
    await store.roll_up()
    clock.now_s -= 3600
    await fill(store, "b")
    await store.roll_up()
    clock.now_s += 3600 + LATER_S
    await store.roll_up()
    await agree(store)


async def endless(store: Store) -> asyncio.Task[None]:
    """Summing up that does not end by itself, under way."""
    task = asyncio.create_task(store.roll_up(), name="summing up")
    running = "SELECT count() FROM system.processes WHERE query LIKE '%endless%' AND query NOT LIKE '%system.processes%'"
    async with asyncio.timeout(30):
        while await ask(store, running) != "1":  # noqa: ASYNC110 - it is an engine, which tells nobody
            await asyncio.sleep(0.02)
    return task


@pytest.fixture
def never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT sum(sipHash64(number)) AS endless FROM system.numbers_mt SETTINGS max_threads = 1"
    monkeypatch.setattr(Rolling, "statements", lambda *_: iter([sql]))


@pytest.mark.usefixtures("never_ends")
async def test_inserts_and_queries_go_on_meanwhile(store: Store, clock: Clock) -> None:
    await fill(store, "a")
    clock.now_s += LATER_S
    task = await endless(store)
    await fill(store, "b")
    assert await ask(store, "SELECT count() FROM open") == str(2 * 41)
    assert not task.done()


@pytest.mark.usefixtures("never_ends")
async def test_closing_ends_it(store: Store, url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is done after the next start, with what came beside it."""
    await fill(store, "a")
    clock.now_s += LATER_S
    task = await endless(store)
    await fill(store, "b")
    async with asyncio.timeout(30):
        await store.close()
    with pytest.raises(StoreUnavailable):
        await task
    monkeypatch.undo()
    again = open_store(url)
    await again.open()
    await again.roll_up()
    await agree(again)
    await again.close()


async def test_what_takes_too_much_memory_is_given_up(store: Store, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """After some tries, with a word; and what comes after it is summed up."""
    await fill(store, "a")
    clock.now_s += LATER_S
    store._rolling._settings["max_memory_usage"] = "1000"  # type: ignore[attr-defined]  # else it takes gigabytes of rows
    for _ in range(rolling.TRIES - 1):
        with pytest.raises(StoreUnavailable, match="memory"):
            await store.roll_up()
    await store.roll_up()
    assert "minute 2026-09-21T14:13:00+00:00 is in no rollup" in caplog.text
    del store._rolling._settings["max_memory_usage"]  # type: ignore[attr-defined]
    await fill(store, "b")
    clock.now_s += LATER_S
    await store.roll_up()
    assert await ask(store, "SELECT sum(events) FROM connections_1m") == "41"


async def test_several_who_store_into_the_same_tables_sum_up_once(tmp_path: Path) -> None:
    with session(tmp_path) as own:
        migrate(own)
        first, second = Rolling(own, shared=True), Rolling(own, shared=True)
        now_s = 1_790_000_000
        for each in (first, second):
            stored = f"toDateTime({each.stamp('open', now_s)})"
            own.execute(f"INSERT INTO infrasight.open (ts, node, stored) SELECT now64(9), 'n', {stored} FROM numbers(10)")
        for each in (first, second):
            (minute,) = each.close(now_s + LATER_S)
            for statement in each.statements(minute):
                own.execute(statement)
        assert own.rows("SELECT toString(sum(events)) FROM infrasight.activity_1m") == [["20"]]
        assert own.rows("SELECT toString(sum(events)) FROM infrasight.activity_1h") == [["20"]]


def test_the_settings_exist(tmp_path: Path) -> None:
    with session(tmp_path) as own:
        names = {*rolling.SETTINGS, *rolling._NEWER}
        found = {name for (name,) in own.rows("SELECT name FROM system.settings")}
        assert names <= found
