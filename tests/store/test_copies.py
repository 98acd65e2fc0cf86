"""What two inserts brought that did not see each other is there once in the end, and counted once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infrasight.errors import StoreUnavailable
from infrasight.schema import arrow_schema
from infrasight.store import Store, copies, open_store
from infrasight.store.joining import BATCH, mark
from tests.store import samples
from tests.store.conftest import ask
from tests.store.test_rollups import LATER_S, Clock, agree, clock  # noqa: F401 - a fixture
from tests.waiting import LIMIT_S

DAY_NS = 86_400 * 10**9
ROWS = 7


async def shared(path: Path) -> Store:
    """A store as a server's: with others, who may be late."""
    store = open_store(f"chdb://{path}/store")
    store._shared = True  # type: ignore[attr-defined]  # no server that is new enough runs here
    await store.open()
    return store


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Looks everywhere each time."""
    monkeypatch.setattr(copies, "ALL_S", 0.0)
    store = await shared(tmp_path)
    yield store
    await store.close()


@contextmanager
def held_up(store: Store) -> Iterator[list[Callable[[], None]]]:
    """Inserts meanwhile end nobody knows how: they are put into the list, to be made later."""
    write, late = store._write, []  # type: ignore[attr-defined]

    def hold(*insert: Any) -> None:
        late.append(lambda: write(*insert))
        raise StoreUnavailable("deliberate")

    store._write = hold  # type: ignore[attr-defined]
    try:
        yield late
    finally:
        store._write = write  # type: ignore[attr-defined]


async def late(store: Store, batches: dict[str, pa.RecordBatch], *, kind: str = "open", again: bool = False) -> Callable[[], None]:
    """An insert that is under way."""
    with held_up(store) as held, pytest.raises(StoreUnavailable, match="deliberate"):
        await store.insert_joined(kind, batches, doubtful=set(batches) if again else ())
    (insert,) = held
    return insert


async def again(store: Store, batches: dict[str, pa.RecordBatch], kind: str = "open") -> None:
    """What another does of it, who asks first."""
    await store.insert_joined(kind, batches, doubtful=set(batches))


async def cleaned(store: Store, kind: str = "open") -> None:
    """Looked at, and what was begun done."""
    await store.remove_copies()
    async with asyncio.timeout(LIMIT_S):
        while await ask(store, f"SELECT count() FROM system.mutations WHERE table = '{kind}' AND NOT is_done") != "0":  # noqa: ASYNC110 - another's event
            await asyncio.sleep(0.02)


async def counts(store: Store, kind: str = "open") -> dict[int, int]:
    """Rows by the mark of their batch."""
    lines = (await ask(store, f"SELECT {BATCH} AS b, count() FROM {kind} GROUP BY b")).splitlines()
    return {int(mark): int(rows) for mark, rows in (line.split("\t") for line in lines)}


def rows(count: int = ROWS, **more: Any) -> pa.RecordBatch:
    return samples.batch("open", count, **({"node": b"n"} | more))


async def test_a_first_insert_that_comes_late(store: Store) -> None:
    given = {token: rows() for token in "ab"}
    insert = await late(store, given)
    await again(store, given)
    await store.insert("open", rows(), "c")
    await cleaned(store)
    assert await counts(store) == {mark(token): ROWS for token in "abc"}
    insert()
    assert await counts(store) == {mark("a"): 2 * ROWS, mark("b"): 2 * ROWS, mark("c"): ROWS}
    await cleaned(store)
    assert await counts(store) == {mark(token): ROWS for token in "abc"}
    assert await ask(store, "SELECT uniqExact(batch) FROM open WHERE batch % 65536 = 0") == "3", "the first stay"
    await again(store, given)
    assert await counts(store) == {mark(token): ROWS for token in "abc"}


async def test_several_that_are_not_the_first(store: Store) -> None:
    """In other company each, all late but one."""
    a, b, c = ({token: rows()} for token in "abc")
    inserts = [await late(store, each, again=True) for each in (a | b, b | c, c, a | b | c)]
    await again(store, a | c)
    for insert in inserts:
        insert()
        await cleaned(store)
        assert max((await counts(store)).values()) == ROWS
    assert await counts(store) == {mark(token): ROWS for token in "abc"}


async def test_days_are_looked_at_one_by_one(store: Store) -> None:
    """One of which only a day is there, and then the other comes, and then all of it."""
    times = pa.array([samples.START_NS - row % 2 * DAY_NS for row in range(10)], pa.timestamp("ns", "UTC"))
    whole = rows(10).set_column(0, arrow_schema("open").field("ts"), times)
    today = whole.filter(pa.array([row % 2 == 0 for row in range(10)]))
    insert = await late(store, {"a": whole})
    await again(store, {"a": today})
    await again(store, {"a": whole})
    await cleaned(store)
    assert await counts(store) == {mark("a"): 10}
    insert()
    await cleaned(store)
    assert sorted((await ask(store, "SELECT count() FROM open GROUP BY toDate(ts)")).split()) == ["5", "5"]


async def test_nothing_else_is_taken_out(store: Store) -> None:
    """The same batch's name on another node, of another kind, other batches, and copies of which there is no other."""
    hostile = [value for value in samples.HOSTILE if value]
    for node in hostile:
        await again(store, {"same": rows(node=node)})
        await store.insert("open", rows(node=node), f"other {node!r}")
    await again(store, {"same": samples.batch("execve", ROWS)}, "execve")
    insert = await late(store, {"same": rows(node=hostile[-1])})
    await cleaned(store)
    assert await ask(store, "SELECT count() FROM system.mutations") == "0"
    insert()
    await cleaned(store)
    assert sum((await counts(store)).values()) == 2 * ROWS * len(hostile)
    assert await ask(store, "SELECT uniqExact(node), countIf(node = '') FROM open") == f"{len(hostile)}\t0"
    assert await counts(store, "execve") == {mark("same"): ROWS}


async def test_whoever_looks_comes_to_the_same(store: Store) -> None:
    """Two at a time, of whom one does not see all."""
    given = {"a": rows()}
    inserts = [await late(store, given, again=True) for _ in range(4)]
    seen: list[list[copies.Surplus]] = []
    for insert in inserts:
        insert()
        session = store._healer()  # type: ignore[attr-defined]  # what a look finds
        seen += store._surplus(session, {"open": 0}).values()  # type: ignore[attr-defined]
    assert [len(each) for each in seen] == [0, 1, 2, 3]
    for each in reversed(seen[1:]):
        store._mutate("open", copies.removal("open", each))  # type: ignore[attr-defined]
        await cleaned(store)
    assert await counts(store) == {mark("a"): ROWS}


async def test_it_is_found_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever starts: nothing has to be remembered."""
    store = await shared(tmp_path)
    insert = await late(store, {"a": rows()})
    await again(store, {"a": rows()})
    insert()
    await store.close()
    store = await shared(tmp_path)
    await cleaned(store)
    assert await counts(store) == {mark("a"): ROWS}
    await store.close()


async def test_when_is_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after a copy was stored, and then after as long as it has been since; for a day. And everywhere, now and then."""
    now_s = 1_000_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(time, "time", lambda: now_s + 1_790_000_000)
    looks = copies.Looks()
    for look in looks.due():
        assert look.since_s == now_s + 1_790_000_000 - copies.WITHIN_S
        looks.over(look, 0)
    assert looks.due() == []
    monkeypatch.setattr(copies, "ALL_S", float("inf"))
    looks._all_at_s = float("inf")
    stored_s, times = int(now_s + 1_790_000_000), []
    looks.expect("open", stored_s)
    for second in range(2 * copies.WITHIN_S):
        now_s = 1_000_000.0 + second
        for look in looks.due():
            assert look.kind == "open"
            times.append(second)
            looks.over(look, 0)
    assert times == [5 * 2**n for n in range(16)]
    looks.expect("open", stored_s + 3 * copies.WITHIN_S)
    now_s += 5
    (look,) = looks.due()
    looks.again(look, 7)
    looks.expect("open", stored_s)
    now_s += 5
    (look,) = looks.due()
    assert look.newest_s == stored_s + 3 * copies.WITHIN_S


async def test_what_fails_is_looked_at_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    insert = await late(store, {"a": rows()})
    await again(store, {"a": rows()})
    insert()
    with monkeypatch.context() as patch:
        patch.setattr(copies, "removal", lambda *_: "ALTER TABLE infrasight.nothing DELETE WHERE 1")
        with pytest.raises(StoreUnavailable, match="what may be stored twice is not removed"):
            await store.remove_copies()
    await cleaned(store)
    assert await counts(store) == {mark("a"): ROWS}


async def test_more_than_one_mutation_takes_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "TOGETHER", 4)
    given = {str(number): rows(1) for number in range(10)}
    insert = await late(store, given)
    await again(store, given)
    insert()
    for left in (16, 12, 10, 10):
        await cleaned(store)
        assert sum((await counts(store)).values()) == left


async def test_a_minute_is_summed_up_when_what_is_to_go_is_gone(store: Store, clock: Clock) -> None:  # noqa: F811 - the fixture
    for kind in ("open", "connect", "resource", "process"):
        given = {"a": samples.batch(kind, ROWS)}
        insert = await late(store, given, kind=kind)
        await again(store, given, kind)
        insert()
    store._unsure_until_s = 0.0  # type: ignore[attr-defined]  # it was long ago
    clock.now_s += LATER_S
    await store.roll_up()
    assert await ask(store, "SELECT count() FROM activity_1m") == "0"
    await store.remove_copies()
    for kind in ("open", "connect", "resource", "process"):
        await cleaned(store, kind)
        assert await counts(store, kind) == {mark("a"): ROWS}
    await store.roll_up()
    await agree(store)


async def test_what_is_a_copy_and_alone_is_summed_up(store: Store, clock: Clock) -> None:  # noqa: F811 - the fixture
    await again(store, {"a": rows()})
    clock.now_s += LATER_S
    await store.roll_up()
    assert await ask(store, "SELECT sum(events) FROM activity_1m") == str(ROWS)


async def test_a_minute_is_not_summed_up_while_an_insert_may_be_under_way(store: Store, clock: Clock) -> None:  # noqa: F811 - the fixture
    insert = await late(store, {"a": rows()})
    clock.now_s += LATER_S
    await store.roll_up()
    insert()
    assert await ask(store, "SELECT count() FROM activity_1m") == "0"
    store._unsure_until_s = 0.0  # type: ignore[attr-defined]  # it was long ago
    await store.roll_up()
    assert await ask(store, "SELECT sum(events) FROM activity_1m") == str(ROWS)


async def test_what_comes_late_is_not_counted_again(store: Store, clock: Clock) -> None:  # noqa: F811 - the fixture
    insert = await late(store, {"a": rows()})
    await again(store, {"a": rows()})
    store._unsure_until_s = 0.0  # type: ignore[attr-defined]  # it was long ago
    clock.now_s += LATER_S
    await store.roll_up()
    assert await ask(store, "SELECT sum(events) FROM activity_1m") == str(ROWS)
    insert()
    await cleaned(store)
    await store.insert("open", rows(1), "b")
    clock.now_s += LATER_S
    await store.roll_up()
    assert await ask(store, "SELECT sum(events) FROM activity_1m") == str(ROWS + 1)
    assert await ask(store, "SELECT count() FROM open") == str(ROWS + 1)


async def test_an_embedded_store_has_none(tmp_path: Path) -> None:
    """Nobody else stores there, and what failed is over."""
    store = open_store(f"chdb://{tmp_path}/store")
    await store.open()
    store._remove_copies = None  # type: ignore[attr-defined]  # nobody calls it
    await store.remove_copies()
    await store.close()
