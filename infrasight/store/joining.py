"""Several batches as one insert, each of them in the table once.

An insert costs as much as ten thousand rows, so a server with many nodes stores batches of theirs together. ClickHouse's own deduplication knows
whole inserts only, and after a crash the same batches come again in other company. So every row says in a hidden column (`MARK`) which batch brought
it, put there by the same insert as the row, and of a batch that may be there already the table is asked first.

What is asked, and left out, is a day of a batch: a day is a partition, and an insert that spans several may have been cut off between them.

An insert that is not seen yet may still come: of a server that was cut off from the node, or one that a ClickHouse has in hand that stands still. So
what is inserted after such a question is marked as another copy of its batch, each with a number of its own, and `copies.py` takes back what is there
more than once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infrasight.errors import InvalidBatch
from infrasight.schema.ddl import DATABASE, MARK, MARK_GIVEN, quoted
from infrasight.schema.events.dead_letter import DEAD_LETTER
from infrasight.store.batches import DAY_NS, MAX_DAYS

Present = Collection[tuple[int, int]]
"""Marks of batches, each with a day (since 1970) of theirs that the table has."""
COPIES = 1 << 16
"""A mark is a multiple of it for a batch that is stored for the first time; what is more is the number of another copy, which chance says."""
MAX_NODES = 64
"""Node names that a question names; beyond, it is asked of all."""
BATCH = f"bitAnd({MARK}, {2**64 - COPIES})"
"""The mark of a batch, of whichever copy a row is."""
_TIME = "fromUnixTimestamp64Nano({}, 'UTC')"
_DAY = "toUInt32(toDate(ts))"


def mark(token: str) -> int:
    """What stands for a batch in its rows, those of its first copy."""
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "little") // COPIES * COPIES


class Joined(NamedTuple):
    """What an insert is made of: rows, marked; its token; and whether they are copies that may be there twice in the end."""

    rows: pa.RecordBatch
    token: str
    copies: bool


def question(kind: str, batches: Mapping[str, pa.RecordBatch]) -> str:
    """The query for those days of `batches` (by token; none is empty) that the table has: rows of a mark and a day, as text.

    The times and the node's name are what the table is sorted by, so it reads little.
    """
    times = [pc.min_max(batch.column("ts").cast(pa.int64())).as_py() for batch in batches.values()]
    first, last = min(each["min"] for each in times), max(each["max"] for each in times)
    if kind == DEAD_LETTER.name:  # its time is when it was refused, which may not be for the first time
        first, last = first // DAY_NS * DAY_NS, (last // DAY_NS + 1) * DAY_NS - 1
    marks = ", ".join(str(mark(token)) for token in batches)
    nodes = {name for batch in batches.values() for name in pc.unique(batch.column("node")).to_pylist()}
    of_nodes = f" AND node IN ({', '.join(_literal(name) for name in nodes)})" if len(nodes) <= MAX_NODES else ""
    return (
        f"SELECT DISTINCT toString({BATCH}), toString({_DAY}) FROM {DATABASE}.{quoted(kind)} "
        f"WHERE ts >= {_TIME.format(first)} AND ts <= {_TIME.format(last)}{of_nodes} AND {BATCH} IN ({marks})"
    )


def present(answer: list[list[str]]) -> Present:
    """What the answer to `question` says."""
    return {(int(batch), int(day)) for batch, day in answer}


def joined(batches: Mapping[str, pa.RecordBatch], doubtful: Collection[str] = (), there: Present = ()) -> Joined | None:
    """The rows of `batches` (by token) that are not `there`; None when there are none. Batches that are not `doubtful` have their own marks, and if
    there are no others together a token that the same always have; those of doubtful ones are new each time. InvalidBatch when the rows are of
    more than `MAX_DAYS` days."""
    left = {token: rows for token, batch in batches.items() if (rows := _without(batch, mark(token), there)).num_rows}
    if not left:
        return None
    rows = pa.concat_batches(list(left.values())) if len(left) > 1 else next(iter(left.values()))
    days = np.unique(_days(rows))
    if len(days) > MAX_DAYS:
        raise InvalidBatch(f"rows of {len(days)} days in one insert, at most {MAX_DAYS} are taken")
    copies = [1 + secrets.randbelow(COPIES - 1) if token in doubtful else 0 for token in left]
    marks = np.array([mark(token) + copy for token, copy in zip(left, copies, strict=True)], np.uint64)
    column = pa.array(np.repeat(marks, [batch.num_rows for batch in left.values()]))
    return Joined(rows.append_column(MARK_GIVEN, column), secrets.token_hex(16) if any(copies) else _token(left), any(copies))


def _token(batches: Collection[str]) -> str:
    return next(iter(batches)) if len(batches) == 1 else hashlib.blake2b("\n".join(batches).encode(), digest_size=16).hexdigest()


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
