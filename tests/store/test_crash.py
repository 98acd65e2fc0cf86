"""Killed at any moment: what was acknowledged is there once, what was not can be sent again."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infrasight.store import Store, open_store
from infrasight.store.repair import repair
from tests.store import samples
from tests.store.conftest import ask
from tests.waiting import LIMIT_S

ROWS = 211
WRITE = """
import asyncio, sys
from infrasight.store import open_store
from tests.store import samples

async def write():
    store = open_store(sys.argv[1])
    await store.open()
    batch = samples.batch("open", int(sys.argv[2]))
    for token in range(10**6):
        print(token, flush=True)
        await store.insert("open", batch, str(token))

asyncio.run(write())
"""


@pytest.mark.parametrize("lines", [1, 5, 23])
async def test_killed_while_inserting(url: str, lines: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITE, url, str(ROWS)], stdout=subprocess.PIPE)  # noqa: ASYNC220 - reading it is the point
    assert writer.stdout is not None
    for _ in range(lines):
        begun = int(writer.stdout.readline())
    writer.kill()  # in the middle of inserting batch `begun`, or one that began since
    begun = max([begun, *map(int, writer.communicate()[0].split())])
    store = open_store(url)
    await store.open()
    try:
        found = int(await ask(store, "SELECT count() FROM open"))
        assert begun * ROWS <= found <= (begun + 1) * ROWS
        assert found % ROWS == 0
        for token in range(begun + 2):  # all of it again, and one more
            await store.insert("open", samples.batch("open", ROWS), str(token))
        assert int(await ask(store, "SELECT count() FROM open")) == (begun + 2) * ROWS
    finally:
        await store.close()


async def fill(url: str, tokens: list[str]) -> Store:
    store = open_store(url)
    await store.open()
    for token in tokens:
        await store.insert("open", samples.batch("open", ROWS), token)
    return store


def lose_last_part(directory: Path) -> None:
    """What a kill between the mark and the part leaves."""
    logs = next(
        path for path in directory.glob("clickhouse/store/*/*/deduplication_logs") if any(path.iterdir()) and any(path.parent.glob("*_1_1_0"))
    )
    last = max(logs.iterdir()).read_bytes().splitlines()[-1].split(b"\t")[1].decode()
    shutil.rmtree(logs.parent / last)


@pytest.mark.parametrize("repaired", [True, False])
async def test_a_mark_without_its_rows_is_taken_back(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repaired: bool) -> None:
    if not repaired:  # shows that ClickHouse alone would lose the batch
        monkeypatch.setattr("infrasight.store.embedded.repair", lambda _data: 0)
    await (await fill(url, ["a", "b", "c"])).close()
    lose_last_part(tmp_path / "store")
    store = await fill(url, ["a", "b", "c"])
    assert int(await ask(store, "SELECT count() FROM open")) == (3 if repaired else 2) * ROWS
    await store.close()


async def test_marks_of_merged_rows_stay(url: str, tmp_path: Path) -> None:
    store = await fill(url, [str(token) for token in range(30)])
    async with asyncio.timeout(LIMIT_S):
        while int(await ask(store, "SELECT max(level) FROM system.parts WHERE active")) == 0:  # noqa: ASYNC110 - ClickHouse tells nobody
            await asyncio.sleep(0.05)
    await store.close()
    assert repair(tmp_path / "store" / "clickhouse") == 0
    store = await fill(url, [str(token) for token in range(31)])
    assert int(await ask(store, "SELECT count() FROM open")) == 31 * ROWS
    await store.close()


@pytest.mark.parametrize(
    ("log", "parts", "kept"),
    [
        (b"1\t20260921_1_1_0\tx\n1\t20260921_2_2_0\ty\n", ["20260921_1_1_0"], b"1\t20260921_1_1_0\tx\n"),
        (b"1\t20260921_1_1_0\tx\n1\t20260922_2_2_0\ty\n", [], b""),
        (b"1\t20260921_1_1_0\tx\n1\t20260921_2_2_0\ty\n", ["20260921_1_2_1"], None),
        (b"1\t20260921_1_1_0\tx\n1\t20260921_2", ["20260921_1_1_0"], b"1\t20260921_1_1_0\tx\n"),
        (b"1\t20260921_1_1_0\tx\n2\t20260921_1_1_0\tx\n", [], None),
        (b"1\t20260921_1_1_0\tx\n", ["tmp_insert_20260921_1_1_0", "20260920_1_1_0", "detached"], b""),
        (b"something else\n", [], None),
        (b"", [], None),
    ],
)
def test_which_marks_are_taken_back(tmp_path: Path, log: bytes, parts: list[str], kept: bytes | None) -> None:
    table = tmp_path / "store" / "abc" / "abc-uuid"
    for part in (*parts, "deduplication_logs"):
        (table / part).mkdir(parents=True)
    file = table / "deduplication_logs" / "deduplication_log_1.txt"
    file.write_bytes(log)
    assert (repair(tmp_path) > 0) == (kept is not None)
    assert file.read_bytes() == (log if kept is None else kept)
