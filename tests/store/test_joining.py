"""Several batches in one insert, each in its table once, whatever company they come in."""

from __future__ import annotations

import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infrasight.errors import InvalidBatch, StoreUnavailable
from infrasight.schema import arrow_schema
from infrasight.server.joining import MAX_ROWS
from infrasight.store import Store, open_store
from infrasight.store.joining import BATCH, COPIES, MAX_NODES, joined, mark, present, question
from tests.store import samples
from tests.store.conftest import ask

DAY_NS = 86_400 * 10**9
ROWS = 13


def batches(*tokens: str, rows: int = ROWS) -> dict[str, pa.RecordBatch]:
    return {token: samples.batch("open", rows) for token in tokens}


async def counts(store: Store) -> dict[int, int]:
    """Rows by mark, of whichever copy."""
    lines = (await ask(store, f"SELECT {BATCH} AS b, count() FROM open GROUP BY b")).splitlines()
    return {int(mark): int(rows) for mark, rows in (line.split("\t") for line in lines)}


def as_expected(*tokens: str, rows: int = ROWS) -> dict[int, int]:
    return {mark(token): rows for token in tokens}


async def test_batches_go_in_together_as_one_part_and_are_what_they_were(store: Store) -> None:
    parts = {str(i): samples.batch("execve", 10 + i, first=100 * i) for i in range(5)}
    await store.insert_joined("execve", parts)
    assert await ask(store, "SELECT count() FROM system.parts WHERE active AND table = 'execve'") == "1"
    lines = (await ask(store, "SELECT batch, count(), min(pid) <= max(pid) FROM execve GROUP BY batch")).splitlines()
    assert {int(line.split("\t")[0]): int(line.split("\t")[1]) for line in lines} == {mark(str(i)): 10 + i for i in range(5)}
    statistics = store.statistics()
    assert (statistics.batches["execve"], statistics.rows["execve"]) == (5, 10 + 11 + 12 + 13 + 14)
    assert "batch" not in await ask(store, "SELECT * FROM execve LIMIT 1", format="JSONEachRow")


async def test_what_is_there_is_left_out_whatever_company_it_comes_in(either: Store) -> None:
    await either.insert("open", samples.batch("open", ROWS), "a")
    await either.insert_joined("open", batches("b", "c"))
    await either.insert_joined("open", batches("c", "a", "d"), doubtful={"a", "c", "d"})
    await either.insert_joined("open", batches("a", "b", "c", "d"), doubtful={"a", "b", "c", "d"})
    await either.insert_joined("open", batches("e", "b"), doubtful={"b"})
    assert await counts(either) == as_expected("a", "b", "c", "d", "e")
    assert either.statistics().batches["open"] == 12  # its sender cannot know


async def test_the_same_group_again_is_there_once_also_by_its_token(store: Store) -> None:
    """What a server is told that did not hear the end of an insert, and cannot see it yet."""
    for _ in range(2):
        await store.insert_joined("open", batches("a", "b"))
    assert await counts(store) == as_expected("a", "b")


def over_midnight(rows: int) -> pa.RecordBatch:
    midnight = samples.START_NS // DAY_NS * DAY_NS
    times = pa.array([midnight - 1 + row % 2 for row in range(rows)], pa.timestamp("ns", "UTC"))
    return samples.batch("open", rows).set_column(0, arrow_schema("open").field("ts"), times)


async def test_an_insert_that_was_cut_off_at_midnight_is_completed(store: Store) -> None:
    whole = {"a": over_midnight(10), "b": over_midnight(4), "c": samples.batch("open", 3)}
    today = {"a": whole["a"].filter(pa.array([row % 2 == 0 for row in range(10)])), "b": whole["b"].slice(0, 1)}
    await store.insert_joined("open", {"a": today["a"]})
    await store.insert_joined("open", whole, doubtful=set(whole))
    assert await counts(store) == {mark("a"): 10, mark("b"): 4, mark("c"): 3}
    assert today["b"].num_rows == 1


async def test_one_that_cannot_be_stored_keeps_all_of_them_out(store: Store) -> None:
    bad = pa.concat_batches([samples.batch("open", 1, ts=0), samples.batch("open", 1)])
    with pytest.raises(InvalidBatch, match="days apart"):
        await store.insert_joined("open", {**batches("a"), "bad": bad})
    days = {str(day): samples.batch("open", 1, ts=day * DAY_NS) for day in range(101)}
    with pytest.raises(InvalidBatch, match="rows of 101 days"):
        await store.insert_joined("open", days)
    assert await counts(store) == {}


async def test_an_insert_whose_end_nobody_heard(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = type(store)._write  # type: ignore[attr-defined]

    def deaf(self: Store, kind: str, batch: pa.RecordBatch, token: str) -> None:
        write(self, kind, batch, token)
        raise StoreUnavailable("deliberate")

    monkeypatch.setattr(type(store), "_write", deaf)
    with pytest.raises(StoreUnavailable):
        await store.insert_joined("open", batches("a", "b"))
    monkeypatch.undo()
    await store.insert_joined("open", batches("b", "c", "a"), doubtful={"a", "b", "c"})
    assert await counts(store) == as_expected("a", "b", "c")


async def test_a_token_that_was_noted_without_its_rows_loses_nothing(store: Store) -> None:
    """As an attempt leaves it that failed between the two: the rows are taken out, and ClickHouse goes on calling the same insert a duplicate."""
    for group in (batches("a"), batches("b", "c")):
        await store.insert_joined("open", group)
        with store._writing() as writer:  # type: ignore[attr-defined]
            writer.execute("DELETE FROM infrasight.open WHERE 1 SETTINGS mutations_sync = 2")
        await store.insert_joined("open", group)
        assert await counts(store) == {}, "the engine does not deduplicate"
        await store.insert_joined("open", group, doubtful=set(group))
        assert await counts(store) == as_expected(*group)
        with store._writing() as writer:  # type: ignore[attr-defined]
            writer.execute("TRUNCATE TABLE infrasight.open")


async def test_the_largest_group_is_one_block_of_each_day(store: Store) -> None:
    """So it is there whole or not at all: of an insert of several blocks a part may be left."""
    rows = samples.batch("open", MAX_ROWS)
    assert rows.nbytes > 12 << 20
    half = rows.num_rows // 2
    times = pc.add(rows.column("ts").slice(half).cast(pa.int64()), 3 * DAY_NS).cast(rows.schema.field("ts").type)
    second = rows.slice(half).set_column(0, rows.schema.field("ts"), times)
    await store.insert_joined("open", {"a": rows.slice(0, half), "b": second})
    sql = "SELECT partition, sum(rows), max(max_block_number) FROM system.parts WHERE table = 'open' AND active GROUP BY partition"
    found = await ask(store, sql)
    parts = sorted(tuple(map(int, line.split("\t")[1:])) for line in found.splitlines())
    assert [rows for rows, _ in parts] == [half, half]
    assert sorted(block for _, block in parts) == [1, 2], "a block for each day, of one number each"


async def test_a_batch_that_is_refused_again_is_a_dead_letter_once(store: Store) -> None:
    """Whenever that is, on that day."""
    noon = samples.START_NS // DAY_NS * DAY_NS + DAY_NS // 2
    for ts in (noon, noon + 7, noon - 7):
        await store.insert_joined("dead_letter", {"a": samples.batch("dead_letter", 3, ts=ts)}, doubtful={"a"})
    assert await ask(store, "SELECT count() FROM dead_letter") == "3"


def test_a_question_names_nodes_as_bytes_and_no_more_than_it_should() -> None:
    hostile = b"' OR 1=1 -- \xff\n"
    sql = question("open", {"a": samples.batch("open", 2, node=hostile)})
    assert hostile.hex() in sql
    assert "OR 1" not in sql
    many = {str(i): samples.batch("open", 1, node=b"%d" % i) for i in range(MAX_NODES + 1)}
    assert "node" not in question("open", many)


async def test_a_question_is_answered_for_any_name(store: Store) -> None:
    for name in samples.HOSTILE:
        given = {str(name): samples.batch("open", 3, node=name)}
        await store.insert_joined("open", given)
        await store.insert_joined("open", {**given, "other": samples.batch("open", 1)}, doubtful=set(given))
    assert sum((await counts(store)).values()) == 3 * len(samples.HOSTILE) + 1


def test_marks_and_tokens() -> None:
    one = joined(batches("a"))
    assert one is not None
    assert (one.token, one.copies) == ("a", False)
    two, again, turned = (joined(batches(*tokens)) for tokens in ("ab", "ab", "ba"))
    assert two is not None
    assert again is not None
    assert turned is not None
    assert two.token == again.token != turned.token
    assert two.rows.column("batch_given").to_pylist() == [mark("a")] * ROWS + [mark("b")] * ROWS
    day = samples.START_NS // DAY_NS
    assert joined(batches("a"), {"a"}, present([[str(mark("a")), str(day)]])) is None


def test_what_may_be_there_is_a_copy_of_its_own_each_time() -> None:
    first, second = joined(batches("a", "b"), {"b"}), joined(batches("a", "b"), {"b"})
    assert first is not None
    assert second is not None
    assert first.copies
    assert first.token != second.token
    (a, b), (other_a, other_b) = (sorted(set(each.rows.column("batch_given").to_pylist()), key=lambda m: m // COPIES != mark("a") // COPIES)
                                  for each in (first, second))
    assert a == other_a == mark("a")
    assert b // COPIES == other_b // COPIES == mark("b") // COPIES
    assert len({b, other_b, mark("b")}) == 3


WRITE = """
import asyncio, random, sys
from infrasight.store import open_store
from tests.store import samples

async def write():
    store, chance, number = open_store(sys.argv[1]), random.Random(sys.argv[2]), int(sys.argv[4])
    await store.open()
    batch = samples.batch("open", int(sys.argv[3]))
    while True:
        group = [str(number + i) for i in range(chance.randint(1, 9))]
        print(*group, flush=True)
        await store.insert_joined("open", dict.fromkeys(group, batch))
        print("stored", flush=True)
        number += len(group)

asyncio.run(write())
"""


@pytest.mark.parametrize("seed", range(3))
async def test_killed_while_inserting_and_sent_again_in_other_groups(url: str, seed: int) -> None:
    """Again and again, the store being what the last kill left."""
    chance = random.Random(seed)
    known: list[str] = []
    for kill in range(2):
        command = [sys.executable, "-c", WRITE, url, f"{seed} {kill}", str(ROWS), str(len(known))]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - reading it is the point
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(chance.randint(1, 30))]
        writer.kill()
        lines += writer.communicate()[0].splitlines()
        acknowledged, begun = [], []
        for line in lines:
            acknowledged += begun if line.strip() == "stored" else []
            begun = [] if line.strip() == "stored" else line.split()
        store = open_store(url)
        await store.open()
        try:
            assert set(as_expected(*known, *acknowledged)) <= set(await counts(store))
            again = [*acknowledged, *begun, str(len(known) + len(acknowledged) + len(begun))]
            known += again
            chance.shuffle(again)
            while again:
                group, again = again[:4], again[4:]
                await store.insert_joined("open", batches(*group), doubtful=set(group))
            assert await counts(store) == as_expected(*known)
        finally:
            await store.close()
