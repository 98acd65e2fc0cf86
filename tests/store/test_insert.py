"""What goes in comes out, once."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from infrasight.errors import InvalidBatch, StoreUnavailable
from infrasight.schema import KINDS, arrow_schema
from infrasight.store import Store, blocks, open_store
from infrasight.store.threads import ThreadedStore
from tests.store import samples
from tests.store.conftest import ask


async def stored(store: Store, kind: str, order: str = "ts") -> list[dict[str, Any]]:
    """All rows of a table, every value as bytes or number."""
    chunks = [chunk async for chunk in store.query(f"SELECT * EXCEPT stored FROM `{kind}` ORDER BY {order}", format="ArrowStream")]
    table = pa.ipc.open_stream(b"".join(chunks)).read_all()
    return [{name: plain(value) for name, value in row.items()} for row in _as_bytes(table).to_pylist()]


def plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _as_bytes(table: pa.Table) -> pa.Table:
    def changed(type: pa.DataType) -> pa.DataType:
        if pa.types.is_list(type):
            return pa.list_(changed(type.value_type))
        if pa.types.is_timestamp(type):
            return pa.int64()
        return pa.binary() if pa.types.is_string(type) or pa.types.is_dictionary(type) else type

    arrays = []
    for column in table.columns:
        if pa.types.is_list(column.type) and pa.types.is_dictionary(column.type.value_type):
            column = column.cast(pa.list_(column.type.value_type.value_type))
        arrays.append(column.cast(changed(column.type)))
    return pa.table(arrays, names=table.column_names)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_value_of_every_kind_comes_back_exactly(store: Store, kind: str) -> None:
    batch = samples.batch(kind, 41)
    await store.insert(kind, batch, "t")
    assert await stored(store, kind) == samples.expected(kind, batch)


@pytest.mark.parametrize(("offset", "rows"), [(0, 1), (7, 11), (40, 1), (5, 0)])
async def test_slices_of_a_batch(store: Store, offset: int, rows: int) -> None:
    part = samples.batch("execve", 41).slice(offset, rows)
    await store.insert("execve", part, "t")
    assert await stored(store, "execve") == samples.expected("execve", part)


async def test_an_empty_dictionary_and_no_rows(store: Store) -> None:
    await store.insert("open", samples.batch("open", 0), "t")
    assert await ask(store, "SELECT count() FROM open") == "0"


async def test_a_big_batch_is_one_part(store: Store) -> None:
    rows = 997 * 1103  # more than ClickHouse puts into one block unless told otherwise
    batch = pa.concat_batches([samples.batch("loss", 997)] * 1103)
    for _ in range(2):
        await store.insert("loss", batch, "big")
    assert await ask(store, "SELECT count(), uniqExact(probe) FROM loss") == f"{rows}\t{len(samples.HOSTILE)}"
    assert await ask(store, "SELECT count() FROM system.parts WHERE active AND table = 'loss'") == "1"


async def test_a_token_is_inserted_once_also_after_reopening(store: Store, url: str) -> None:
    for token in ("a", "b'\\", "a", "b'\\"):
        await store.insert("open", samples.batch("open", 13), token)
    assert await ask(store, "SELECT count() FROM open") == "26"
    await store.insert("connect", samples.batch("connect", 13), "a")  # tokens are a table's own
    assert await ask(store, "SELECT count() FROM connect") == "13"
    await store.close()
    again = open_store(url)
    await again.open()
    try:
        await again.insert("open", samples.batch("open", 13), "a")
        await again.insert("open", samples.batch("open", 13), "c")
        assert await ask(again, "SELECT count() FROM open") == "39"
    finally:
        await again.close()


async def test_a_batch_over_midnight_is_stored_once(store: Store) -> None:
    midnight = samples.START_NS // (86_400 * 10**9) * 86_400 * 10**9
    batch = samples.batch("open", 2).set_column(0, arrow_schema("open").field("ts"), pa.array([midnight - 1, midnight], pa.timestamp("ns", "UTC")))
    for _ in range(2):
        await store.insert("open", batch, "t")
    assert await ask(store, "SELECT count(), uniqExact(toDate(ts)) FROM open") == "2\t2"


def nulls() -> pa.RecordBatch:
    batch = samples.batch("open", 2)
    return batch.set_column(batch.schema.get_field_index("pid"), "pid", pa.array([1, None], pa.uint32()))


@pytest.mark.parametrize(
    ("kind", "batch", "says"),
    [
        ("nope", samples.batch("open", 1), "no such event kind"),
        ("open", samples.batch("connect", 1), "not the columns"),
        ("open", samples.batch("open", 1).drop_columns("pid"), "not the columns"),
        ("open", nulls(), "nulls in pid"),
        ("loss", pa.concat_batches([samples.batch("loss", 1, ts=0), samples.batch("loss", 1)]), "days apart"),
    ],
)
async def test_a_batch_that_cannot_be_stored_is_refused(store: Store, kind: str, batch: pa.RecordBatch, says: str) -> None:
    with pytest.raises(InvalidBatch, match=says):
        await store.insert(kind, batch, "t")


async def test_a_failed_insert_leaves_nothing_and_the_next_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.embedded.block", lambda batch, types: blocks.block(batch, types)[:-1])
    with pytest.raises(StoreUnavailable, match="Cannot read all data"):
        await store.insert("open", samples.batch("open", 3), "t")
    monkeypatch.undo()
    await store.insert("open", samples.batch("open", 3), "t")
    assert await ask(store, "SELECT count() FROM open") == "3"
    statistics = store.statistics()
    assert (statistics.rows["open"], statistics.batches["open"], statistics.insert_failures) == (3, 1, 1)
    assert statistics.insert_s > 0


async def test_cancelling_the_wait_does_not_cancel_the_insert(store: Store) -> None:
    waiting = asyncio.ensure_future(store.insert("open", samples.batch("open", 5), "t"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await store.insert("open", samples.batch("open", 1), "u")  # behind it in the line
    assert await ask(store, "SELECT count() FROM open") == "6"


async def test_a_store_that_is_not_open_says_so(url: str) -> None:
    store = open_store(url)
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.insert("open", samples.batch("open", 1), "t")
    with pytest.raises(StoreUnavailable, match="not open"):
        await ask(store, "SELECT 1")
    await store.close()


async def test_rows_that_a_constraint_of_the_table_refuses(store: Store) -> None:
    """For themselves: it is no use to try again, and others are taken."""
    assert isinstance(store, ThreadedStore)
    with closing(store._connect()) as operator:
        operator.execute("ALTER TABLE infrasight.open ADD CONSTRAINT ours CHECK cgroup_id != 7")
    with pytest.raises(InvalidBatch, match=r"^open: Constraint `?ours`? for table infrasight\.open"):
        await store.insert_joined("open", {"a": samples.batch("open", 3), "b": samples.batch("open", 3, cgroup_id=7)})
    await store.insert_joined("open", {"a": samples.batch("open", 3)}, doubtful={"a"})
    assert await ask(store, "SELECT count() FROM open") == "3"
    assert store.statistics().insert_failures == 0
