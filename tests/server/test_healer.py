"""Rows that were stored before their container was known: what is noted of a batch, and what becomes of it, in a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infrasight.errors import QueryFailed, StoreUnavailable
from infrasight.schema import KINDS
from infrasight.server import healer as module
from infrasight.server.healer import Healer, Note, note
from infrasight.store import Store, open_store
from tests.server.running import MemoryStore
from tests.store import samples
from tests.store.conftest import ask
from tests.store.test_healing import container, rows
from tests.waiting import LIMIT_S, until

A, B = (b"n", b"a"), (b"n", b"b")
NOW_NS = time.time_ns()


def lacking(*keys: tuple[bytes, bytes], identity: bytes = b"pending", kind: str = "open", ts: int = NOW_NS) -> pa.RecordBatch:
    """A batch of which each row is in one of these containers."""
    return pa.concat_batches([rows(1, identity, kind, node=node, container_id=id, ts=ts) for node, id in keys]) if keys else rows(0)


def learned(*keys: tuple[bytes, bytes], state: bytes = b"learned") -> pa.RecordBatch:
    return pa.concat_batches([container(state, node=node, container_id=id, ts=NOW_NS) for node, id in keys])


def whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With one dictionary for each column, as batches come."""
    return pa.Table.from_batches([batch]).unify_dictionaries().combine_chunks().to_batches()[0]


@pytest.mark.parametrize("kind", ["open", "process", "resource"])
def test_what_is_noted_of_a_batch(kind: str) -> None:
    first, last = lacking(A, kind=kind, ts=5), lacking(A, B, (b"m", b"a"), kind=kind, ts=9)
    noted = note(kind, pa.concat_batches([first, last, rows(3, b"complete", kind)]))
    assert noted == Note(kind, frozenset({A, B, (b"m", b"a")}), 5, samples.START_NS, True)


def test_what_is_in_no_container_or_known_is_not_noted() -> None:
    """Nor an entry of a dictionary that no row has."""
    assert note("open", rows(3, b"complete")) is None
    assert note("open", rows(3, b"")) is None
    both = pa.Table.from_batches([rows(2, b"complete"), rows(1, b"pending")]).unify_dictionaries().to_batches()
    assert b"pending" in both[0].column("identity").dictionary.to_pylist()
    assert note("open", both[0]) is None
    assert note("loss", samples.batch("loss", 3)) is None


def test_a_path_alone_is_noted_too() -> None:
    """Its runtime may come yet."""
    assert note("open", lacking(A, identity=b"path")) == Note("open", frozenset({A}), NOW_NS, NOW_NS, False)


def test_of_containers_it_is_noted_which_are_known() -> None:
    assert note("container", learned(A, B)) == Note("container", frozenset({A, B}))
    assert note("container", learned(A, state=b"ended")) is None


class Knowing(MemoryStore):
    """Says that these containers are known, and what it was asked."""

    def __init__(self, *known: tuple[bytes, bytes]) -> None:
        super().__init__()
        self.known, self.asked, self.busy = set(known), list[str](), 0

    async def query(self, sql: str, **_: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        if self.failures:
            self.failures -= 1
            raise QueryFailed("no")
        self.asked.append(sql)
        if "FROM container" in sql:
            yield "".join(f"{node.hex()}\t{id.hex()}\n" for node, id in self.known if f"('{node.decode()}', '{id.decode()}')" in sql).encode()

    async def heal(self, kind: str, containers: Any, since_ns: int, until_ns: int) -> bool:
        if self.busy:
            self.busy -= 1
            return False
        return await super().heal(kind, containers, since_ns, until_ns)

    async def insert(self, *_: Any) -> None:
        raise AssertionError


@asynccontextmanager
async def healing(store: Store, **more: Any) -> AsyncIterator[Healer]:
    """One that runs, and ends when nothing more can come."""
    healer = Healer(store, every_s=0.01, **more)
    running = asyncio.create_task(healer.run())
    try:
        yield healer
    finally:
        healer.notes.close()
        await asyncio.wait_for(running, LIMIT_S)


async def test_what_is_known_is_healed_kind_by_kind() -> None:
    store = Knowing(A, B)
    async with healing(store) as healer:
        healer.notes.put_nowait(Note("open", frozenset({A}), 5, 7, True))
        healer.notes.put_nowait(Note("open", frozenset({A, B}), 3, 6, True))
        healer.notes.put_nowait(Note("execve", frozenset({B}), 9, 9, True))
        await until(lambda: healer.healed == 2)
    assert sorted((kind, sorted(keys), *span) for kind, keys, *span in store.healings) == [("execve", [B], 9, 9), ("open", [A, B], 3, 7)]
    assert healer.waiting == 0


async def test_a_clock_that_is_years_ahead_hides_nothing() -> None:
    store = Knowing(A, B)
    async with healing(store) as healer:
        healer.notes.put_nowait(Note("open", frozenset({A}), NOW_NS, 2**63 - 1, True))
        healer.notes.put_nowait(Note("open", frozenset({B}), NOW_NS, NOW_NS, True))
        await until(lambda: healer.healed == 2)
    ((_, _, since_ns, until_ns),) = store.healings
    assert since_ns == NOW_NS
    assert until_ns <= time.time_ns() + module._DAY_NS


async def test_what_is_not_known_waits_until_it_is_told_of() -> None:
    """It is asked about once, not at each round."""
    store = Knowing()
    async with healing(store) as healer:
        healer.notes.put_nowait(Note("open", frozenset({A, B}), 5, 7, True))
        await until(lambda: any("FROM container" in sql for sql in store.asked))
        asked = len(store.asked)
        healer.notes.put_nowait(Note("open", frozenset({A}), 8, 8, True))
        await asyncio.sleep(0.1)
        assert (len(store.asked), store.healings, healer.waiting) == (asked, [], 2)
        store.known.add(A)
        healer.notes.put_nowait(Note("container", frozenset({A})))
        await until(lambda: healer.healed == 1)
    assert (store.healings, healer.waiting) == ([("open", (A,), 5, 8)], 1)


async def test_a_table_that_is_busy_is_healed_later() -> None:
    store = Knowing(A)
    store.busy = 3
    async with healing(store) as healer:
        healer.notes.put_nowait(Note("open", frozenset({A}), 5, 7, True))
        await until(lambda: healer.healed == 1)
    assert store.healings == [("open", (A,), 5, 7)]


async def test_nobody_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a runtime should have, rows say so; where none is there that could, they do already."""
    monkeypatch.setattr(module, "GIVE_UP_S", 0.05)
    store = Knowing()
    async with healing(store) as healer:
        healer.notes.put_nowait(Note("open", frozenset({A}), 5, 7, True))
        healer.notes.put_nowait(Note("open", frozenset({B}), 5, 7, False))
        await until(lambda: healer.waiting == 0 and healer.given_up == 1)
    assert store.healings == [("open", (A,), 5, 7)]
    assert healer.healed == 0


async def test_a_store_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is told of once, tried again, and nothing is forgotten."""
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)
    store = Knowing(A)
    store.failures = 3
    async with healing(store) as healer:
        healer.notes.put_nowait(Note("open", frozenset({A}), 5, 7, True))
        await until(lambda: healer.healed == 1)
    assert healer.failures == 3
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == ["rows are not healed for now: no"]

    class Refusing(Knowing):
        async def heal(self, *_: Any) -> bool:
            self.failures += 1
            raise StoreUnavailable("not granted")

    refusing = Refusing(A)
    async with healing(refusing) as healer:
        healer.notes.put_nowait(Note("open", frozenset({A}), 5, 7, True))
        await until(lambda: healer.problem == "not granted")
        assert healer.waiting == 1


async def test_there_are_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    async with healing(Knowing()) as healer:
        for number in range(5):
            healer.notes.put_nowait(Note("open", frozenset({(b"n", b"%d" % number)}), 5, 7, True))
        await until(lambda: healer.forgotten == 2)
        assert healer.waiting == 3


async def test_notes_that_were_dropped_are_looked_for_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Knowing()
    healer = Healer(store, every_s=0.01)
    healer._look_back = False
    for _ in range(module.NOTES_MAX + 1):
        healer.notes.put_nowait(Note("open", frozenset({A}), 5, 7, True))
    assert healer._look_back


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(f"chdb://{tmp_path}/store")
    await store.open()
    yield store
    await store.close()


async def found(store: Store, kind: str = "open") -> str:
    said = await ask(store, f"SELECT container_id, identity, image != '', count() FROM `{kind}` GROUP BY ALL ORDER BY ALL")
    return said.replace("\t", " ").replace("\n", ", ")


async def shows(store: Store, wanted: str, kind: str = "open") -> None:
    """Once it does."""
    async with asyncio.timeout(LIMIT_S):
        while (said := await found(store, kind)) != wanted:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.05)
    assert said == wanted


@pytest.mark.parametrize("container_first", [True, False])
async def test_in_a_real_store(store: Store, container_first: bool) -> None:
    """Whichever comes first; rows that come later than the healing of the first, too."""
    async with healing(store) as healer:
        batches = [("open", lacking(A, A, B)), ("execve", lacking(A, kind="execve")), ("container", learned(A))]
        for number, (kind, batch) in enumerate(reversed(batches) if container_first else batches):
            await store.insert(kind, whole(batch), str(number))
            if (noted := note(kind, whole(batch))) is not None:
                healer.notes.put_nowait(noted)
        await shows(store, "a complete 1 2, b pending 0 1")
        await shows(store, "a complete 1 1", "execve")
        await store.insert("open", lacking(A), "late")
        healer.notes.put_nowait(note("open", lacking(A)))  # type: ignore[arg-type]
        await shows(store, "a complete 1 3, b pending 0 1")


async def test_what_waited_is_found_again_at_the_start(store: Store) -> None:
    """Of every kind that has it, and of the last days alone."""
    kinds = [kind.name for kind in KINDS.values() if any(column.name == "identity" for column in kind.columns)][:5]
    for kind in kinds:
        await store.insert(kind, whole(lacking(A, kind=kind)), "now")
    await store.insert("open", lacking(A, ts=NOW_NS - 10 * module._DAY_NS), "long ago")
    await store.insert("open", lacking(B, identity=b"path"), "path")
    async with healing(store) as healer:
        await until(lambda: healer.waiting == 2)
        await store.insert("container", whole(learned(A, B)), "container")
        healer.notes.put_nowait(Note("container", frozenset({A, B})))
        for kind in kinds:
            await shows(store, "a complete 1 1, a pending 0 1, b complete 1 1" if kind == "open" else "a complete 1 1", kind)
