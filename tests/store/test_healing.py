"""Rows that were stored before their container was known."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infrasight.errors import StoreUnavailable
from infrasight.schema import KINDS, Type
from infrasight.schema.parts import TOLD
from infrasight.store import Store, open_store
from tests.store import samples
from tests.store.clickhouse import ClickHouse
from tests.store.conftest import ask
from tests.waiting import LIMIT_S

START_NS = samples.START_NS
DAY_NS = 86_400 * 10**9
KEY = (b"n", b"c")
NOTHING: dict[str, Any] = {c.name: 0 if c.type in (Type.TIME, Type.BOOL) else b"" for c in KINDS["open"].columns if c.name in TOLD}
TEXT = b"told \xff ' \\"
FACTS: dict[str, Any] = dict.fromkeys(TOLD, TEXT) | {"container_labels": b"a=b\0c=it's", "container_created": START_NS - 5, "privileged": 1}
OTHERS = f"SELECT * EXCEPT ({', '.join(TOLD)}, identity) FROM open ORDER BY ALL"


def rows(count: int, identity: bytes = b"pending", kind: str = "open", **more: Any) -> pa.RecordBatch:
    return samples.batch(kind, count, **({"node": b"n", "container_id": b"c", "ts": START_NS, "identity": identity} | NOTHING | more))


def container(state: bytes = b"learned", **more: Any) -> pa.RecordBatch:
    return samples.batch("container", 1, **({"node": b"n", "container_id": b"c", "ts": START_NS, "state": state} | FACTS | more))


async def done(store: Store, kind: str = "open") -> None:
    """Until nothing is being healed any more."""
    async with asyncio.timeout(LIMIT_S):
        while await ask(store, f"SELECT count() FROM system.mutations WHERE table = '{kind}' AND NOT is_done") != "0":  # noqa: ASYNC110 - another's event
            await asyncio.sleep(0.02)


async def heal(store: Store, *containers: tuple[bytes, bytes], kind: str = "open", since_ns: int = START_NS, until_ns: int = START_NS) -> None:
    """To the end."""
    assert await store.heal(kind, containers or (KEY,), since_ns, until_ns)
    await done(store, kind)


async def states(store: Store, kind: str = "open") -> str:
    return (await ask(store, f"SELECT identity, count() FROM `{kind}` GROUP BY identity ORDER BY identity")).replace("\t", " ").replace("\n", ", ")


async def test_every_column_that_a_runtime_tells_is_filled_in_and_no_other(store: Store) -> None:
    """With the last that was learned, whatever was told of its end."""
    await store.insert("open", rows(7), "a")
    await store.insert("container", container(), "b")
    await store.insert("container", container(image=b"older", ts=START_NS - 1), "c")
    await store.insert("container", container(b"ended", ts=START_NS + 1, image=b"of its end"), "d")
    before = await ask(store, OTHERS)
    await heal(store)
    assert await states(store) == "complete 7"
    told = ", ".join(TOLD)
    expected = await ask(store, f"SELECT {told} FROM container WHERE state = 'learned' AND image != 'older'")
    assert await ask(store, f"SELECT DISTINCT {told} FROM open") == expected
    assert await ask(store, OTHERS) == before


@pytest.mark.parametrize("kind", ["execve", "process", "dns"])
async def test_rows_of_any_kind(store: Store, kind: str) -> None:
    await store.insert(kind, rows(3, kind=kind), "a")
    await store.insert("container", container(), "b")
    await heal(store, kind=kind)
    assert await states(store, kind) == "complete 3"


async def test_what_is_not_meant_stays(store: Store) -> None:
    """Other containers, the same id on another node, other times, rows that say that they are complete or in no container; and the insert's token."""
    await store.insert("open", rows(1), "a")
    await store.insert("open", rows(1, container_id=b"other"), "b")
    await store.insert("open", rows(1, node=b"m"), "c")
    await store.insert("open", rows(1, ts=START_NS - 1), "d")
    await store.insert("open", rows(1, ts=START_NS + 1), "e")
    await store.insert("open", rows(1, ts=START_NS - DAY_NS), "f")
    await store.insert("open", rows(1, identity=b"complete", image=b"as it is"), "g")
    await store.insert("open", rows(1, identity=b""), "h")
    for name, more in (("i", {}), ("j", {"container_id": b"other"}), ("k", {"node": b"m"})):
        await store.insert("container", container(**more), name)
    await heal(store)
    assert await states(store) == "1, complete 2, pending 5"
    assert await ask(store, "SELECT image FROM open WHERE image = 'as it is'") == "as it is"
    await store.insert("open", rows(1), "a")
    assert await ask(store, "SELECT count() FROM open") == "8", "the batch is there already"


async def test_of_whom_nothing_is_said_their_path_is_all_that_is_known(store: Store) -> None:
    await store.insert("open", rows(2), "a")
    await store.insert("open", rows(3, b"path", container_id=b"told"), "b")
    await store.insert("container", container(container_id=b"told"), "c")
    await heal(store, KEY, (b"n", b"told"))
    assert await states(store) == "complete 3, path 2"


async def test_what_is_known_of_its_pod_stays(store: Store) -> None:
    """The API server may have told of a pod, and nobody of the container."""
    await store.insert("open", rows(2, pod_name=b"web-1", container_labels=b"a=1"), "a")
    await heal(store)
    assert await ask(store, "SELECT DISTINCT identity, pod_name, container_labels FROM open") == "path\tweb-1\t['a=1']"


async def test_names_that_are_hard_to_say(store: Store) -> None:
    ids = [value for value in samples.HOSTILE if value]
    for number, id in enumerate(ids):
        await store.insert("open", rows(1, node=id, container_id=id), f"row {number}")
        await store.insert("container", container(node=id, container_id=id, image=id), f"container {number}")
    await heal(store, *((id, id) for id in ids))
    assert await states(store) == f"complete {len(ids)}"
    assert await ask(store, "SELECT count() FROM open WHERE image = container_id") == str(len(ids))


async def test_many_at_once_and_a_night_in_between(store: Store) -> None:
    ids = [f"{number:064x}".encode() for number in range(256)]
    for day in range(2):
        many = pa.concat_batches([rows(1, container_id=id, ts=START_NS + day * DAY_NS) for id in ids])
        await store.insert("open", many, f"day {day}")
    await store.insert("container", pa.concat_batches([container(container_id=id, image=id) for id in ids]), "containers")
    await heal(store, *((b"n", id) for id in ids), until_ns=START_NS + DAY_NS)
    assert await states(store) == "complete 512"
    assert await ask(store, "SELECT count() FROM open WHERE image = container_id") == "512"


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    store = open_store(f"chdb://{tmp_path}/store")
    await store.open()
    await store.insert("open", rows(2), "a")
    await store.insert("container", container(), "b")
    assert await store.heal("open", [KEY], START_NS, START_NS)
    await store.close()
    store = open_store(f"chdb://{tmp_path}/store")
    await store.open()
    await done(store)
    assert await states(store) == "complete 2"
    await store.close()


async def test_queries_meanwhile_see_every_row_once(store: Store) -> None:
    for number in range(20):
        await store.insert("open", rows(500), f"part {number}")
    await store.insert("container", container(), "b")
    assert await store.heal("open", [KEY], START_NS, START_NS)
    async with asyncio.timeout(LIMIT_S):
        while await ask(store, "SELECT countIf(identity = 'complete'), count() FROM open") != "10000\t10000":
            found = await ask(store, "SELECT count(), countIf((identity = 'complete') != (image != '')) FROM open")
            assert found == "10000\t0"


@pytest.mark.needs("clickhouse")
@pytest.mark.usefixtures("older")
async def test_a_server_that_refuses(clickhouse: ClickHouse) -> None:
    """As one of 2018 does, or one where the writer may not: it goes on storing."""
    store = open_store(clickhouse.url())
    await store.open()
    with pytest.raises(StoreUnavailable, match="rows of open are not healed"):
        await store.heal("open", [KEY], START_NS, START_NS)
    await store.insert("open", rows(1), "a")
    await store.close()
