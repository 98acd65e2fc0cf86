"""The healer: rows that were stored before their container was known are completed in the store once it is. And it has what was stored twice taken
out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infrasight.actors import Actor, Mailbox, WhenFull
from infrasight.errors import MailboxClosed, QueryFailed, QueryRefused, StoreError
from infrasight.schema import KINDS
from infrasight.schema.ddl import quoted, text
from infrasight.schema.events.container import CONTAINER, LEARNED
from infrasight.store import QueryLimits, Store
from infrasight.store.healing import DAYS_MAX, among
from infrasight.store.interface import ContainerKey

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""How long what is to be healed is collected: a mutation costs about as much for one container as for all."""
SHARE = 20
"""How many times as long as the last round took nothing is healed, at least."""
GIVE_UP_S = 3600.0
"""How long after its last row it is waited for a runtime to tell of a container."""
WAITING_MAX = 16_384
"""Containers that are waited for, about 500 bytes each; of more, those met first are forgotten until the next start."""
TOGETHER = 256
"""Containers healed in one mutation, at most."""
NOTES_MAX = 1024
"""What may wait for the healer, one note a batch; it never makes the writer wait."""
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 60.0
_DAY_NS = 86_400 * 10**9
_LOOK = QueryLimits(rows=WAITING_MAX, seconds=10)
"""What looking for such rows may take, of one kind."""
_FEW = 1 << 16
"""Combinations of nodes and containers of a batch up to which each has a place of its own."""
HEALED = sorted(kind.name for kind in KINDS.values() if any(column.name == "identity" for column in kind.columns))
"""Kinds whose rows say what is known of their container."""
Mask = npt.NDArray[np.bool_]
_UNKNOWN = (b"pending", b"path")
"""What `identity` is in rows that can be healed."""


@dataclass(frozen=True)
class Note:
    """What a stored batch says of containers: those that it was told of, or those that rows of it lack, and in which time (ns since the epoch)."""

    kind: str
    containers: frozenset[ContainerKey]
    since_ns: int = 0
    until_ns: int = 0
    pending: bool = False
    """Whether a runtime is there that should tell; else one may come."""


def note(kind: str, batch: pa.RecordBatch) -> Note | None:
    """What there is to note of a batch that was stored; nothing of most. Rows are looked at only where a dictionary says that it is worth it."""
    if kind == CONTAINER.name:
        learned = _is(batch.column("state"), [LEARNED])
        return Note(kind, _containers(batch, learned)) if learned.any() else None
    if "identity" not in batch.schema.names:
        return None
    identity = batch.column("identity")
    if not _is_among(identity.dictionary, _UNKNOWN).any():
        return None
    unknown = _is(identity, _UNKNOWN)
    if not unknown.any():
        return None
    times = pc.min_max(batch.column("ts").cast(pa.int64())).as_py()
    pending = bool(_is(identity, _UNKNOWN[:1]).any())
    return Note(kind, _containers(batch, unknown), times["min"], times["max"], pending)


def _is_among(values: pa.Array, wanted: Sequence[bytes]) -> Mask:
    return np.asarray(pc.is_in(values, pa.array(wanted, pa.binary())).to_numpy(zero_copy_only=False), np.bool_)


def _is(column: pa.DictionaryArray, wanted: Sequence[bytes]) -> Mask:
    rows: Mask = _is_among(column.dictionary, wanted)[column.indices.to_numpy()]
    return rows


def _containers(batch: pa.RecordBatch, rows: Mask) -> frozenset[ContainerKey]:
    """The distinct ones of these rows (n,), without looking at one twice."""
    node, id = batch.column("node"), batch.column("container_id")
    nodes, ids = node.dictionary.to_pylist(), id.dictionary.to_pylist()
    codes = node.indices.to_numpy()[rows].astype(np.int64) * len(ids) + id.indices.to_numpy()[rows]
    found = np.flatnonzero(np.bincount(codes)) if len(nodes) * len(ids) <= _FEW else np.unique(codes)
    return frozenset((nodes[code // len(ids)], ids[code % len(ids)]) for code in found.tolist())


async def _problem_of(work: Callable[[], Awaitable[None]]) -> str:
    """Do it. Why that failed, if it did."""
    try:
        await work()
    except (StoreError, QueryFailed, QueryRefused) as error:
        return str(error)
    return ""


@dataclass
class _Waiting:
    """A container that rows lack: of which kinds, each in which time; and until when (monotonic) it is waited for."""

    until_s: float
    pending: bool = False
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, told: Note, until_s: float) -> None:
        since, until = self.spans.get(told.kind, (told.since_ns, told.until_ns))
        self.spans[told.kind] = min(since, told.since_ns), max(until, told.until_ns)
        self.until_s, self.pending = until_s, self.pending or told.pending


class Healer(Actor):
    """Waits for nobody but the store, and nobody waits for it: what it has not done when it ends is found in the store at the next start."""

    name = "healer"

    def __init__(self, store: Store, *, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._every_s, self._clock = store, every_s, clock
        self.notes: Mailbox[Note] = Mailbox("writer to healer", limit=NOTES_MAX, when_full=WhenFull.DROP_OLDEST, on_drop=self._missed)
        self._waiting: OrderedDict[ContainerKey, _Waiting] = OrderedDict()
        self._asked_about: dict[ContainerKey, None] = {}
        """Of which it is to be asked whether they are known by now."""
        self._look_back = True
        self.healed = self.given_up = self.forgotten = self.failures = 0
        """Containers whose rows were completed, and of which nobody told in time; those forgotten for want of room; times that the store failed."""
        self.problem = ""

    @property
    def waiting(self) -> int:
        """Containers that are waited for."""
        return len(self._waiting)

    def _missed(self, _: Note) -> None:
        self._look_back = True

    async def run(self) -> None:
        """Until there are no more notes to come."""
        pause_s, backoff_s = 0.0, _BACKOFF_S
        while await self._listen(pause_s):
            began_s = self._clock()
            problem = "; ".join(filter(None, [await _problem_of(self._round), await _problem_of(self._store.remove_copies)]))
            self._note_problem(problem)
            if problem:
                pause_s, backoff_s = max(backoff_s, self._every_s), min(2 * backoff_s, _BACKOFF_MAX_S)
            else:
                pause_s, backoff_s = max(self._every_s, SHARE * (self._clock() - began_s)), _BACKOFF_S

    async def _listen(self, for_s: float) -> bool:
        """Take in what is told meanwhile. Whether more can come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while True:
                    try:
                        self._learn(await self.notes.get())
                    except MailboxClosed:
                        return False
        return True

    def _learn(self, told: Note) -> None:
        if told.kind == CONTAINER.name:
            self._asked_about |= dict.fromkeys(told.containers & self._waiting.keys())
            return
        until_s = self._clock() + GIVE_UP_S
        for key in told.containers:
            waiting = self._waiting.get(key)
            if waiting is None:
                waiting = self._waiting[key] = _Waiting(until_s)
                self._asked_about[key] = None
            waiting.add(told, until_s)
            self._waiting.move_to_end(key)
        while len(self._waiting) > WAITING_MAX:
            self._asked_about.pop(self._waiting.popitem(last=False)[0], None)
            self.forgotten += 1

    async def _round(self) -> None:
        if self._look_back:
            await self._look_into_the_store()
            self._look_back = False
        asked_about, self._asked_about = list(self._asked_about), {}
        while asked_about:
            keys = asked_about[:TOGETHER]
            try:
                self.healed += await self._heal(await self._known(keys))
            except BaseException:
                self._asked_about |= dict.fromkeys(asked_about)
                raise
            del asked_about[:TOGETHER]
        now_s = self._clock()
        over = [key for key, waiting in self._waiting.items() if waiting.until_s <= now_s]
        late = [key for key in over if self._waiting[key].pending]
        for key in set(over) - set(late):
            del self._waiting[key]
        for start in range(0, len(late), TOGETHER):
            self.given_up += await self._heal(late[start : start + TOGETHER])

    async def _heal(self, keys: Sequence[ContainerKey]) -> int:
        """Have the rows of these completed, kind by kind. How many are done with; the others, of which a table is busy, come again."""
        done = 0
        for kind in sorted({kind for key in keys for kind in self._waiting[key].spans}):
            concerned = [key for key in keys if kind in self._waiting[key].spans]
            since, until = zip(*(self._waiting[key].spans[kind] for key in concerned), strict=True)
            # A node whose clock is years ahead must not keep the others' rows from being among the newest days.
            if await self._store.heal(kind, concerned, min(since), min(max(until), time.time_ns() + _DAY_NS)):
                for key in concerned:
                    del self._waiting[key].spans[kind]
        for key in keys:
            if self._waiting[key].spans:
                self._asked_about[key] = None
            else:
                del self._waiting[key]
                done += 1
        return done

    async def _known(self, keys: Sequence[ContainerKey]) -> list[ContainerKey]:
        """Those of which the table `container` says something."""
        rows = await self._rows(f"SELECT DISTINCT hex(node), hex(container_id) FROM container WHERE state = 'learned' AND {among(keys)}")
        found = {(bytes.fromhex(node), bytes.fromhex(id)) for node, id in rows}
        return [key for key in keys if key in found and key in self._waiting]

    async def _look_into_the_store(self) -> None:
        """What rows of the last days lack, as if it were noted now. A kind of which there are too many rows to look through is left as it is."""
        first_ns = time.time_ns() // _DAY_NS * _DAY_NS - (DAYS_MAX - 1) * _DAY_NS
        since = f"ts >= fromUnixTimestamp64Nano({first_ns}, 'UTC')"
        for (kind,) in await self._rows(" UNION ALL ".join(f"(SELECT {text(kind)} FROM {quoted(kind)} WHERE {since} LIMIT 1)" for kind in HEALED)):
            times = "toUnixTimestamp64Nano(min(ts)), toUnixTimestamp64Nano(max(ts)), max(identity = 'pending')"
            lacking = f"identity IN ('pending', 'path') AND {since} GROUP BY node, container_id ORDER BY max(ts) DESC LIMIT {WAITING_MAX}"
            try:
                found = await self._rows(f"SELECT hex(node), hex(container_id), {times} FROM {quoted(kind)} WHERE {lacking}", _LOOK)
            except QueryFailed as error:
                log.warning("rows of %s are not searched for containers that were not known: %s", kind, error)
                continue
            for node, id, first, last, pending in reversed(found):
                key = bytes.fromhex(node), bytes.fromhex(id)
                self._learn(Note(kind, frozenset({key}), int(first), int(last), pending not in ("0", "false")))

    async def _rows(self, sql: str, limits: QueryLimits = _LOOK) -> list[list[str]]:
        """Of columns that are no text."""
        said = b"".join([chunk async for chunk in self._store.query(sql, format="TSV", limits=limits)])
        return [line.split("\t") for line in said.decode().splitlines()]

    def _note_problem(self, problem: str) -> None:
        """Log when it begins to fail and when it works again, not each attempt."""
        self.failures += bool(problem)
        if problem and not self.problem:
            log.warning("rows are not healed for now: %s", problem)
        elif self.problem and not problem:
            log.info("rows are healed again")
        self.problem = problem
