"""What the embedded store costs: `python -m tests.store.measure DIRECTORY`. The figures in docs/STORE.md come from here."""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from infrasight.schema import arrow_schema
from infrasight.store import Store, open_store

PROCESSES, PATHS = 30, 5000
PARTS = "SELECT count(), round(sum(bytes_on_disk) / sum(rows), 1) FROM system.parts WHERE active AND table = 'open'"


CONTAINED = {
    "container_id": lambda i: b"%064x" % i,
    "container_runtime": lambda i: b"containerd",
    "container_name": lambda i: b"service-%d" % i,
    "image": lambda i: b"registry.example/team/service-%d:1.%d" % (i, i),
    "image_digest": lambda i: b"sha256:%064x" % (i * 7),
    "pod_name": lambda i: b"service-%d-5d9c7b8f6d-x2x4%d" % (i, i),
    "pod_namespace": lambda i: b"shop",
}
"""Columns of events in containers, by the number of the container; the first processes are in none."""


def events(rows: int, seed: int) -> pa.RecordBatch:
    """`open` events of 30 processes, one of them making 60 % of the calls, on 5,000 paths of a Zipf distribution, at 200,000 a second."""
    random = np.random.default_rng(seed)
    who = np.where(random.random(rows) < 0.6, 0, random.integers(0, PROCESSES, rows))
    distinct, which = np.unique(np.minimum(random.zipf(1.2, rows) - 1, PATHS - 1), return_inverse=True)
    ids = np.random.default_rng(1).integers(1, 2**63, PROCESSES).astype(np.uint64)
    lineages = [b"\0".join([*(b"worker", b"supervisor")[: i % 3], b"container-%d" % (i // 4), b"systemd"]) for i in range(PROCESSES)]
    paths = [b"/usr/lib/x86_64-linux-gnu/lib%d.so.%d" % (i, i % 7) if i % 3 else b"/var/lib/app/%d/segment-%d" % (i // 50, i) for i in distinct]
    names = {
        "node": ([b"node-1"], who * 0),
        "user": ([b"root", b"www-data", b"postgres"], who % 3),
        "group": ([b"root", b"www-data", b"postgres"], who % 3),
        "comm": ([b"program-%d" % i for i in range(PROCESSES)], who),
        "ancestors": (list(dict.fromkeys(lineages)), np.array([list(dict.fromkeys(lineages)).index(each) for each in lineages])[who]),
        "tty": ([b"", b"/dev/pts/0"], who % 2),
        "exe": ([b"/usr/bin/program-%d" % i for i in range(PROCESSES)], who),
        "cwd": ([b"/", b"/var/lib/app"], who % 2),
        **{name: ([b""] + [make(i) for i in range(1, PROCESSES // 4 + 1)], who // 4) for name, make in CONTAINED.items()},
        "path": (paths, which),
        "path_resolved": (paths, which),
    }
    numbers = {
        "ts": 1_790_000_000_000_000_000 + (seed * rows + np.arange(rows)) * 5000 + random.integers(-3000, 0, rows),
        "pid": who + 1000,
        "tid": who + 1000 + (random.random(rows) < 0.1),
        "ppid": who + 500,
        "uid": who % 3 * 33,
        "gid": who % 3 * 33,
        "ns_pid": who + 10,
        "euid": who % 3 * 33,
        "login_uid": np.where(who % 2, 1000, 2**32 - 1),
        "session_id": who // 4,
        "cap_effective": np.where(who % 3, 0, 2**41 - 1),
        "cgroup_id": who // 4 + 4000,
        "process_id": ids[who],
        "parent_id": ids[who // 3],
        "ret": np.where(random.random(rows) < 0.2, -2, random.integers(3, 40, rows)),
        "latency_ns": random.lognormal(7.5, 0.7, rows),
        "flags": np.where(random.random(rows) < 0.8, 0x80000, 0x241),
        "mode": np.where(random.random(rows) < 0.9, 0, 0o644),
        "dirfd": np.where(random.random(rows) < 0.9, -100, 5),
    }
    return pa.RecordBatch.from_arrays([_array(field, names, numbers) for field in arrow_schema("open")], schema=arrow_schema("open"))


def _array(field: pa.Field, names: dict[str, tuple[list[bytes], np.ndarray]], numbers: dict[str, np.ndarray]) -> pa.Array:
    if field.name not in numbers and not pa.types.is_dictionary(field.type):
        return pa.array(np.zeros(len(numbers["ts"]), np.int64)).cast(field.type)
    if field.name in numbers:
        as_integers = pa.array(numbers[field.name].astype(np.int64 if pa.types.is_timestamp(field.type) else field.type.to_pandas_dtype()))
        return as_integers.cast(field.type)
    values, indices = names.get(field.name, ([b""], np.zeros(len(numbers["ts"]))))
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), pa.array(values, pa.binary()))


async def ask(store: Store, sql: str) -> list[str]:
    return b"".join([chunk async for chunk in store.query(sql, format="TSV")]).decode().split()


@asynccontextmanager
async def fresh(directory: Path, name: str) -> AsyncIterator[Store]:
    store = open_store(f"chdb://{directory / name}")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def at_full_speed(directory: Path, rows: int, batches: int) -> None:
    """Insert one batch after the other; merges run beside it and count."""
    made = [events(rows, seed) for seed in range(8)]
    async with fresh(directory, f"full-{rows}") as store:
        wall, cpu = time.monotonic(), time.process_time()
        for i in range(batches):
            await store.insert("open", made[i % len(made)], str(i))
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        parts, size = await ask(store, PARTS)
    total = rows * batches
    print(f"{rows:>6} rows a batch: {total / wall / 1e3:5.0f} k rows/s, {cpu / total * 1e6:.2f} us CPU a row, {size} bytes a row in {parts} parts")


async def when_little_happens(directory: Path, seconds: float) -> None:
    """Four batches of 10 rows a second."""
    made = events(10, 0)
    async with fresh(directory, "little") as store:
        start = cpu = time.process_time()
        await asyncio.sleep(seconds)
        idle = time.process_time() - start
        end, i, cpu = time.monotonic() + seconds, 0, time.process_time()
        while time.monotonic() < end:
            await store.insert("open", made, str(i))
            i += 1
            await asyncio.sleep(0.25)
        cpu = time.process_time() - cpu
        parts, size = await ask(store, PARTS)
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024  # noqa: ASYNC240 - /proc does not block
    print(f"idle {idle / seconds:.1%} of a core; {i} batches of 10 rows: {cpu / seconds:.1%} of a core, {cpu / i * 1e3:.1f} ms each; ", end="")
    print(f"{size} bytes a row in {parts} parts; resident {rss} MiB")


async def asking(directory: Path) -> None:
    """How long people wait, for the rows of the first measurement."""
    async with fresh(directory, "full-65536") as store:
        for sql in (
            "SELECT 1",
            "SELECT count() FROM open WHERE has(ancestors, 'supervisor')",
            "SELECT comm, count(), quantile(0.99)(latency_ns) FROM open GROUP BY comm",
            "SELECT * FROM open ORDER BY ts DESC LIMIT 50",
        ):
            start = time.monotonic()
            await ask(store, sql)
            print(f"{(time.monotonic() - start) * 1e3:6.1f} ms  {sql}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="an empty directory on the disk to be measured")
    directory = parser.parse_args().directory.absolute()
    await when_little_happens(directory, 10)
    await at_full_speed(directory, 65_536, 120)
    await at_full_speed(directory, 10_000, 100)
    await asking(directory)


if __name__ == "__main__":
    asyncio.run(main())
