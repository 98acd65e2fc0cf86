"""What inserting into a server costs its client: `python -m tests.store.measure_server DIRECTORY`, next to plain asynch. Figures: docs/STORE.md."""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from asynch.proto.connection import Connection as Protocol

from infrasight.store import batches
from infrasight.store.addresses import parse
from infrasight.store.connection import Connection
from tests.store import samples
from tests.store.clickhouse import ClickHouse, older_tables
from tests.store.measure import events

ROWS = 65_536


def cpu_us_a_row(insert: Callable[[], object], rows: int, times: int) -> tuple[float, float]:
    """Processor and wall time of this process, the best of some: others use the machine too."""
    spent = []
    for _ in range(times):
        cpu, wall = time.process_time(), time.perf_counter()
        insert()
        spent.append(((time.process_time() - cpu) / rows * 1e6, (time.perf_counter() - wall) / rows * 1e6))
    return min(spent)


def ours(server: ClickHouse, rows: int = ROWS, times: int = 5, compression: str = "lz4") -> tuple[float, float]:
    """Columns straight from Arrow, as the store does it."""
    connection = Connection(parse(server.url(compression=compression)))
    older_tables(connection, ("open",))
    batch, statement = samples.as_stored("open", events(rows, 1), 1), batches.native_statement("open")
    try:
        return cpu_us_a_row(lambda: connection.insert(statement, {}, batch), rows, times)
    finally:
        connection.close()


def plain_asynch(server: ClickHouse, rows: int = ROWS, times: int = 3, compression: str | bool = "lz4") -> tuple[float, float]:
    """asynch's own `execute` with columns, its faster way. Making Python values of the columns is not counted."""
    batch = events(rows, 1)
    stored = samples.as_stored("open", batch, 1).columns
    columns = [(column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist() for column in stored]
    protocol = Protocol(host="127.0.0.1", port=server.native, compression=compression, settings={"strings_as_bytes": True})
    with asyncio.Runner() as runner:
        insert = lambda: runner.run(protocol.execute(batches.native_statement("open"), columns, columnar=True))  # noqa: E731 - it is one call
        spent = cpu_us_a_row(insert, rows, times)
        runner.run(protocol.disconnect())
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="an empty directory")
    server = ClickHouse(parser.parse_args().directory.absolute() / "clickhouse")
    server.start()
    try:
        for compression in ("none", "lz4", "zstd"):
            for rows in (ROWS, 10_000, 100):
                cpu, wall = ours(server, rows, compression=compression)
                plain, plain_wall = plain_asynch(server, rows, compression=False if compression == "none" else compression)
                print(
                    f"{rows:>6} rows, {compression:>4}: {cpu:6.2f} us CPU a row ({1 / cpu:5.2f} M rows/s a core), {wall:6.2f} us wall; "
                    f"plain asynch {plain:6.2f} us CPU, {plain_wall:6.2f} us wall; {plain / cpu:.1f} times"
                )
    finally:
        server.kill()


if __name__ == "__main__":
    main()
