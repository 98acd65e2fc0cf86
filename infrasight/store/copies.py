"""Copies of a batch: of what two inserts brought that did not see each other, all but one are found and taken out again.

One copy is the rows of a batch, of one node and day (which are in their table together or not at all), with one mark and one time of storing
(`joining.py`). Of several that one stays which was stored first, of the same second that with the smaller mark. So whoever looks, and however little
of it he sees, takes one out only for another that is there, and one is left. What is looked for are copies that are not a batch's first, by the
number in their mark; no server has to remember any.

How soon another copy comes is nobody's to say: it may lie in a server that hangs, or in a ClickHouse that does. So a table is looked at again after
as long as it has been since its last copy was stored, for a day: what came late is there twice for about as long as it was late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from infrasight.schema.ddl import DATABASE, MARK, STORED, quoted, text
from infrasight.schema.kinds import KINDS
from infrasight.store import joining
from infrasight.store.batches import DAY_NS
from infrasight.store.healing import alter, in_partition, literal

LOOK_S = 5.0
"""After a copy was stored, until its table is looked at first."""
ALL_S = 3600.0
"""How often all tables are looked at: for those who stored copies, and are no more."""
WITHIN_S = 86_400
"""How old copies are that are looked for, at most."""
TOGETHER = 1000
"""Copies that one mutation takes out, at most."""
MOST = 10_000
"""Batches with more than one copy that one look finds, at most; there is another."""
EVER_S = 2**32 - 1
"""After all that is stored, as a table tells times of storing."""
_COPY = f"bitAnd({MARK}, {joining.COPIES - 1}) != 0"


@dataclass(frozen=True)
class Look:
    """At a kind: since when what was stored matters, and when the last copy is known to have been stored (seconds since the epoch; 0: none is);
    and when it is due (monotonic)."""

    kind: str
    since_s: int
    newest_s: int
    at_s: float = 0.0


@dataclass(frozen=True)
class Found:
    """Copies, other than first ones, of a kind: of which days (since 1970), and when the last of them was stored (seconds since the epoch)."""

    kind: str
    days: tuple[int, ...]
    newest_s: int


@dataclass(frozen=True)
class Surplus:
    """A copy that is to go."""

    node: bytes
    day: int
    mark: int
    stored_s: int


def _between(since_s: int, until_s: int) -> str:
    """The condition that a row is of a copy other than the first, stored in this time."""
    return f"{STORED} >= toDateTime({since_s}, 'UTC') AND {STORED} < toDateTime({until_s}, 'UTC') AND {_COPY}"


def _start(day: int) -> str:
    return joining._TIME.format(day * DAY_NS)


def search(since_s: Mapping[str, int], until_s: int = EVER_S) -> str:
    """The query for those kinds that have copies other than first ones, stored since then, by kind."""
    values = f"arrayStringConcat(groupUniqArray(toString({joining._DAY})), ' '), toString(toUInt32(max({STORED})))"
    return " UNION ALL ".join(
        f"SELECT {text(kind)}, {values} FROM {DATABASE}.{quoted(kind)} WHERE {_between(since, until_s)} HAVING count() > 0"
        for kind, since in sorted(since_s.items())
    )


def found(answer: list[list[str]]) -> list[Found]:
    """What the answer to `search` says."""
    return [Found(kind, tuple(map(int, days.split(" "))), int(newest)) for kind, days, newest in answer]


def question(where: Found, since_s: int, until_s: int = EVER_S) -> str:
    """The query for batches that are there more than once, of which a copy other than the first was stored in this time."""
    table = f"{DATABASE}.{quoted(where.kind)}"
    days = " OR ".join(f"(ts >= {_start(day)} AND ts < {_start(day + 1)})" for day in where.days)
    copies = f"groupUniqArray(concat(toString(toUInt32({STORED})), ' ', toString({MARK})))"
    return (
        f"SELECT hex(node), toString({joining._DAY}) AS day, arrayStringConcat({copies}, ',') FROM {table} "
        f"WHERE ({days}) AND (node, {joining.BATCH}) GLOBAL IN "
        f"(SELECT node, {joining.BATCH} FROM {table} WHERE {_between(since_s, until_s)}) "
        f"GROUP BY node, day, {joining.BATCH} HAVING uniqExact({STORED}, {MARK}) > 1 LIMIT {MOST}"
    )


def surplus(answer: list[list[str]]) -> list[Surplus]:
    """What is to go, as the answer to `question` says."""
    gone = []
    for node, day, copies in answer:
        ordered = sorted((int(stored), int(mark)) for stored, mark in (copy.split(" ") for copy in copies.split(",")))
        gone += [Surplus(bytes.fromhex(node), int(day), mark, stored) for stored, mark in ordered[1:]]
    return gone


def removal(kind: str, gone: Collection[Surplus], cluster: str = "") -> str:
    """The mutation that takes them out."""
    parts = []
    for day in sorted({each.day for each in gone}):
        listed = ", ".join(f"({literal(each.node)}, {each.mark}, {each.stored_s})" for each in gone if each.day == day)
        which = f"{joining._DAY} = {day} AND (node, {MARK}, toUInt32({STORED})) IN ({listed})"
        parts.append(f"DELETE {in_partition(day)}WHERE {which}")
    return alter(kind, parts, cluster)


class Looks:
    """When which table is looked at for copies. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, Look] = {}
        self._all_at_s = time.monotonic()

    def expect(self, kind: str, stored_s: int) -> None:
        """A copy is about to be stored, which may not be the only one."""
        self.again(Look(kind, stored_s, stored_s), LOOK_S)

    def again(self, look: Look, in_s: float) -> None:
        """Have a table looked at in that long, or earlier if that is so already."""
        at_s = time.monotonic() + in_s
        with self._lock:
            if (other := self._next.get(look.kind)) is not None:
                at_s = min(at_s, other.at_s)
                look = Look(look.kind, min(look.since_s, other.since_s), max(look.newest_s, other.newest_s))
            self._next[look.kind] = replace(look, at_s=at_s)

    def over(self, look: Look, newest_s: int) -> None:
        """Nothing is there more than once now; the last copy found was stored then (0: there was none)."""
        newest_s = max(look.newest_s, newest_s)
        age_s = time.time() - newest_s
        if age_s < WITHIN_S:
            self.again(replace(look, newest_s=newest_s), max(age_s, LOOK_S))

    def due(self) -> list[Look]:
        """What is to be looked at now; each of it is to be said to be `over`, or wanted `again`."""
        now_s, oldest_s = time.monotonic(), int(time.time()) - WITHIN_S
        with self._lock:
            if now_s >= self._all_at_s:
                self._all_at_s = now_s + ALL_S
                self._next = {kind: Look(kind, oldest_s, self._next[kind].newest_s if kind in self._next else 0, now_s) for kind in KINDS}
            due = [look for look in self._next.values() if look.at_s <= now_s]
            for look in due:
                del self._next[look.kind]
        return [replace(look, since_s=max(look.since_s, oldest_s)) for look in due]
