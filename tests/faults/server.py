"""`python -m tests.faults.server [--die POINT] [--older] [--constrain TABLE SQL] OPTION...`: the server program; in its store something happens.

    before    the process ends before an insert
    inside    at any moment of one
    after     when it is stored, before any node hears of it
    between   when one kind is stored, and others that came with it are not
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import random
import sys
import threading
from collections.abc import Collection, Mapping
from contextlib import closing

import pyarrow as pa

from infrasight.server import program, writer
from infrasight.store import Store, connection, open_store
from infrasight.store.threads import ThreadedStore
from infrasight.wire import liveness
from tests.faults.node import SHARES
from tests.store.clickhouse import OLDER

POINTS = ("before", "inside", "after", "between")
STATUS = 77
"""Of a process that ended at the point."""
INSIDE_S = 0.02
"""Most that an insert has run when the process ends inside one."""


def dying(store: Store, point: str, inserts: int) -> Store:
    """The store, ending the process at a point after so many inserts of rows."""
    insert, done, last = store.insert_joined, 0, ""

    async def insert_joined(kind: str, batches: Mapping[str, pa.RecordBatch], doubtful: Collection[str] = ()) -> None:
        nonlocal done, last
        if kind not in SHARES:
            return await insert(kind, batches, doubtful)
        due = done >= inserts
        if due and (point == "before" or (point == "between" and last not in ("", kind))):
            os._exit(STATUS)
        if due and point == "inside":
            threading.Timer(random.uniform(0, INSIDE_S), os._exit, [STATUS]).start()
        await insert(kind, batches, doubtful)
        if due and point == "after":
            os._exit(STATUS)
        done, last = done + 1, kind
        return None

    store.insert_joined = insert_joined  # type: ignore[method-assign]  # what the test is about
    return store


def constrained(store: ThreadedStore, table: str, check: str) -> Store:
    """The store, of which an operator has one table take only rows of which `check` holds."""
    opened = store.open

    async def open() -> None:
        await opened()
        with closing(store._connect()) as session:
            session.execute(f"ALTER TABLE {table} ADD CONSTRAINT IF NOT EXISTS operator CHECK {check}")

    store.open = open  # type: ignore[method-assign]  # what the test is about
    return store


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--die", choices=POINTS)
    parser.add_argument("--inserts", type=int, default=4)
    parser.add_argument("--older", action="store_true", help="work with ClickHouse 18.16")
    parser.add_argument("--constrain", nargs=2, metavar=("TABLE", "SQL"), help="have a table take only some rows")
    parser.add_argument("--impatient", action="store_true", help="leave who is silent for a second, and try again soon")
    given, options = parser.parse_known_args()
    if given.older:
        for name, value in OLDER.items():
            module, _, attribute = name.rpartition(".")
            setattr(pkgutil.resolve_name(module), attribute, value)
    if given.impatient:
        liveness.ASKED_EVERY_S, liveness.ANSWERS_WITHIN_S = 0.5, 1.0
        connection.ANSWER_S = connection.CONNECT_S = 1.0
        writer.RETRY_S = writer._BACKOFF_MAX_S = 0.5
    if given.constrain:
        program.open_store = lambda *store: constrained(open_store(*store), *given.constrain)
    if given.die:
        program.open_store = lambda *store: dying(open_store(*store), given.die, given.inserts)
    return program.main(options)


if __name__ == "__main__":
    sys.exit(main())
