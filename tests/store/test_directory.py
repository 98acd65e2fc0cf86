"""Opening: where, by whom, and what is said when it cannot be."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from infrasight.errors import StoreError, StoreLocked, StoreUnavailable
from infrasight.store import open_store
from tests.store import samples
from tests.store.conftest import ask

HOLD = """
import asyncio, sys
from infrasight.store import open_store

async def hold():
    await open_store(sys.argv[1]).open()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(hold())
"""


@pytest.mark.parametrize(
    "url", ["", "/a", "chdb", "chdb://a/b", "chdb:a", "chdb:///", "clickhouse:/h:1", "chdb:///a?b=c", "chdb:///a\nb", "file:///a"]
)
def test_a_bad_url_is_one_clear_line(url: str) -> None:
    with pytest.raises(StoreError, match=r"^store .*(expected chdb:///absolute/directory|must do without)") as error:
        open_store(url)
    assert "\n" not in str(error.value)


async def test_a_new_directory_is_private(url: str, tmp_path: Path) -> None:
    store = open_store(url)
    await store.open()
    await store.close()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "store" / "users.xml").stat().st_mode) == 0o600


async def test_a_name_with_blanks_and_letters_of_any_kind(tmp_path: Path) -> None:
    store = open_store(f"chdb:///{tmp_path}/wo ist δ; 'hier\"/x")
    await store.open()
    assert await ask(store, "SELECT 1") == "1"
    await store.close()


async def test_a_second_process_is_told_who_has_it_and_takes_over_when_that_dies(url: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220 - it is short
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"open\n"
    store = open_store(url)
    with pytest.raises(StoreLocked, match=f"in use by process {holder.pid}$"):
        await store.open()
    await store.close()
    holder.kill()
    holder.communicate()
    store = open_store(url)
    await store.open()
    await store.close()


async def test_one_process_opens_one_store_at_a_time(url: str, tmp_path: Path) -> None:
    first, same, other = open_store(url), open_store(url), open_store(f"chdb://{tmp_path}/other")
    await first.open()
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        await same.open()
    with pytest.raises(StoreUnavailable, match="different path"):
        await other.open()
    for store in (other, same, first):
        await store.close()
    again = open_store(f"chdb://{tmp_path}/other")
    await again.open()
    await again.close()


async def unavailable(path: Path, says: str) -> None:
    store = open_store(f"chdb://{path}")
    with pytest.raises(StoreUnavailable, match=re.escape(says)) as error:
        await store.open()
    assert str(path.parent.parent) in str(error.value)
    assert "\n" not in str(error.value)
    await store.close()


async def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await unavailable(tmp_path / "file", "File exists")
    await unavailable(tmp_path / "file" / "below", "Not a directory")


def fill_up(filler: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096) == 4096:
            pass


def incompressible(rows: int) -> pa.RecordBatch:
    batch = samples.batch("open", rows)
    paths = pa.array([os.urandom(10_000) for _ in range(rows)], pa.binary()).dictionary_encode()
    return batch.set_column(batch.schema.get_field_index("path"), batch.schema.field("path"), paths)


@pytest.mark.needs("mount")
async def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], check=True)  # noqa: ASYNC221 - it is short
    try:
        store = open_store(f"chdb://{disk}/store")
        await store.open()
        await store.insert("open", samples.batch("open", 10), "before")
        filler = disk / "filler"
        fill_up(filler)
        with pytest.raises(StoreUnavailable, match=r"(?i)no space|space left|not enough space|cannot reserve"):
            await store.insert("open", incompressible(400), "while")
        filler.unlink()
        await store.insert("open", incompressible(400), "while")  # the attempt that failed left no mark
        assert await ask(store, "SELECT count() FROM open") == "410"
        await store.close()
        fill_up(filler)
        await unavailable(disk / "store", "No space left")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # noqa: ASYNC221 - it is short
