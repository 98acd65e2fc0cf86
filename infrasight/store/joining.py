"""Several batches as one insert, each of them in the table once.

An insert costs as much as ten thousand rows, so a server with many nodes stores batches of theirs together. ClickHouse's own deduplication knows
whole inserts only, and after a crash the same batches come again in other company. So every row says in a hidden column (`MARK`) which batch brought
it, put there by the same insert as the row, and of a batch that may be there already the table is asked first.

What is asked, and left out, is a day of a batch: a day is a partition, and an insert that spans several may have been cut off between them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infrasight.errors import InvalidBatch
from infrasight.schema.ddl import DATABASE, MARK, MARK_GIVEN, quoted
from infrasight.store.batches import DAY_NS, MAX_DAYS

Present = Collection[tuple[int, int]]
"""Marks of batches, each with a day (since 1970) of theirs that the table has."""
MAX_NODES = 64
"""Node names that a question names; beyond, it is asked of all."""
_TIME = "fromUnixTimestamp64Nano({}, 'UTC')"
_DAY = "toUInt32(toDate(ts))"


def mark(token: str) -> int:
    """What stands for a batch in its rows."""
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "little")


def question(kind: str, batches: Mapping[str, pa.RecordBatch]) -> str:
    """The query for those days of `batches` (by token; none is empty) that the table has: rows of a mark and a day, as text.

    The times and the node's name are what the table is sorted by, so it reads little.
    """
    times = [pc.min_max(batch.column("ts").cast(pa.int64())).as_py() for batch in batches.values()]
    first, last = min(each["min"] for each in times), max(each["max"] for each in times)
    marks = ", ".join(str(mark(token)) for token in batches)
    nodes = {name for batch in batches.values() for name in pc.unique(batch.column("node")).to_pylist()}
    of_nodes = f" AND node IN ({', '.join(_literal(name) for name in nodes)})" if len(nodes) <= MAX_NODES else ""
    return (
        f"SELECT DISTINCT toString({MARK}), toString({_DAY}) FROM {DATABASE}.{quoted(kind)} "
        f"WHERE ts >= {_TIME.format(first)} AND ts <= {_TIME.format(last)}{of_nodes} AND {MARK} IN ({marks})"
    )


def present(answer: list[list[str]]) -> Present:
    """What the answer to `question` says."""
    return {(int(batch), int(day)) for batch, day in answer}


def joined(batches: Mapping[str, pa.RecordBatch], there: Present = ()) -> tuple[pa.RecordBatch, str] | None:
    """The rows of `batches` (by token) that are not `there`, marked, and a token for the insert that the same batches always have; None when there
    are none. InvalidBatch when they are of more than `MAX_DAYS` days."""
    left = {token: rows for token, batch in batches.items() if (rows := _without(batch, mark(token), there)).num_rows}
    if not left:
        return None
    rows = pa.concat_batches(list(left.values())) if len(left) > 1 else next(iter(left.values()))
    days = np.unique(_days(rows))
    if len(days) > MAX_DAYS:
        raise InvalidBatch(f"rows of {len(days)} days in one insert, at most {MAX_DAYS} are taken")
    marks = np.repeat(np.array([mark(token) for token in left], np.uint64), [batch.num_rows for batch in left.values()])
    token = next(iter(left)) if len(left) == 1 else hashlib.blake2b("\n".join(left).encode(), digest_size=16).hexdigest()
    return rows.append_column(MARK_GIVEN, pa.array(marks)), token


def _without(batch: pa.RecordBatch, mark: int, there: Present) -> pa.RecordBatch:
    """The rows of days that are not there."""
    found = [day for each, day in there if each == mark]
    if not found:
        return batch
    return batch.filter(pa.array(~np.isin(_days(batch), found)))


def _days(batch: pa.RecordBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    days: np.ndarray[tuple[int], np.dtype[np.int64]] = batch.column("ts").cast(pa.int64()).to_numpy() // DAY_NS
    return days


def _literal(name: bytes) -> str:
    return f"unhex('{name.hex()}')"
