"""Original: agents of the original InfraSight in. Their events go the way of our own nodes' batches, and are answered once they are stored."""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pyarrow as pa

from infrasight.actors import Actor, Mailbox
from infrasight.errors import AccessDenied, Disconnected, InvalidRequest, MailboxClosed, WireError
from infrasight.server.nodes import Node, Nodes
from infrasight.server.session import Delivery, News, check_hello
from infrasight.server.translation import MAX_EVENT_BYTES, Gathered, Refused
from infrasight.wire import Hello
from infrasight.wire.original import CollectorAck, EventCollectorService, events_of, read_event
from infrasight.wire.service import ServerStream

log = logging.getLogger(__name__)
Stream = ServerStream[Any, CollectorAck]
VERSION = "original"
"""What Status says that such a node's version is."""
FLUSH_ROWS, FLUSH_BYTES, FLUSH_S = 10_000, 8 << 20, 2.0
"""What is gathered of all agents before it is passed on: rows, bytes as they came, and seconds."""
ANSWER_S = 0.2
"""How long an agent that waits for its answer waits for others to be stored with."""
MAX_EVENTS = 50_000
"""In one Batch."""
_MADE_AT_ONCE = 500
"""Rows that are made into columns on the event loop (about 1 ms); more go to a thread."""
_TAKEN_AT_ONCE = 100
"""Events of a Batch that are read before others have a turn (about 3 ms)."""

Shares = dict[str, Counter["Call"]]
"""By kind: how many rows are of which call."""


class Original(EventCollectorService, Actor):
    """The EventCollector service, and a source of the graph: `run` ends once it was stopped and all that had come is passed on.

    An agent has a stream for each of its tracers: what comes of all agents is gathered together, or each would cost an insert every `FLUSH_S`.
    """

    name = "original"

    def __init__(self, outbox: Mailbox[News], nodes: Nodes) -> None:
        super().__init__()
        self._nodes = nodes
        self._gathering = Gathering(outbox)
        self._stopping = asyncio.Event()
        self._receivers: set[asyncio.Task[None]] = set()
        self._readers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Pass on what has come every `FLUSH_S`, until stopped and nothing more comes from any call."""
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            while not stopping.done():
                await asyncio.wait((stopping,), timeout=FLUSH_S)
                await self._gathering.flush()
        finally:
            stopping.cancel()
        for receiver in self._receivers:
            receiver.cancel()
        if coming := self._receivers | self._readers:
            await asyncio.wait(coming)
        await self._gathering.flush()

    def stop(self) -> None:
        """Read no more from any call."""
        self._stopping.set()

    async def sendevents(self, stream: Stream) -> None:
        """An agent's events, until it leaves or the server stops; then what became of them."""
        async with self._call(stream) as call:
            await _in_a_task(self._receive(stream, call), self._receivers)
            await stream.send(await call.answer())

    async def sendbatch(self, stream: Stream) -> None:
        """Some events, and what became of them."""
        async with self._call(stream) as call:
            batch = await stream.receive_bytes()
            if batch is None:
                raise InvalidRequest("the request is missing")
            await _in_a_task(self._read(batch, call), self._readers)
            await stream.send(await call.answer())

    @asynccontextmanager
    async def _call(self, stream: Stream) -> AsyncIterator[Call]:
        if self._stopping.is_set():
            raise Disconnected("the server is stopping")
        with ExitStack() as stack:
            yield Call(self._gathering, self._nodes, stack, stream)

    async def _receive(self, stream: Stream, call: Call) -> None:
        while not self._stopping.is_set() and not call.refusal and (data := await self._next(stream, call)) is not None:
            await self._take(data, call)

    async def _next(self, stream: Stream, call: Call) -> bytes | None:
        try:
            return await stream.receive_bytes()
        except InvalidRequest as error:
            call.refusal = error
            return None

    async def _read(self, batch: bytes, call: Call) -> None:
        try:
            for number, data in enumerate(events_of(batch), 1):
                if number > MAX_EVENTS:
                    call.refusal = InvalidRequest(f"more than {MAX_EVENTS} events in one batch")
                    return
                await self._take(data, call)
                if call.refusal:
                    return
                if number % _TAKEN_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except ValueError as error:
            call.refusal = InvalidRequest(f"not a Batch: {error}")

    async def _take(self, data: bytes, call: Call) -> None:
        try:
            call.take(data)
        except Refused as reason:
            call.refused[str(reason)] += 1
            self.refused["event"] += 1
        except AccessDenied as error:
            call.refusal = error
        if self._gathering.full:
            await self._gathering.flush()


async def _in_a_task(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    """Do `work` in one of `tasks`, which may be cancelled there: then it is done with."""
    task = asyncio.create_task(work, name="receiver of an original agent")
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    try:
        await asyncio.wait((task,))
    finally:
        task.cancel()
    if not task.cancelled():
        task.result()


class Gathering:
    """What has come and is not passed on."""

    def __init__(self, outbox: Mailbox[News]) -> None:
        self._outbox = outbox
        self._gathered, self._shares = Gathered(), Shares()
        self._full: deque[tuple[Gathered, Shares]] = deque()
        self._made: deque[tuple[str, pa.RecordBatch, Counter[Call]]] = deque()
        self._flushing = asyncio.Lock()

    @property
    def full(self) -> bool:
        """Whether it is time to flush."""
        return self._gathered.rows >= FLUSH_ROWS or self._gathered.bytes >= FLUSH_BYTES

    def add(self, data: bytes, event: Any, call: Call) -> int:
        """Add an event's rows; how many there are. Refused when it is not taken."""
        kind, rows = self._gathered.add(event, len(data))
        self._shares.setdefault(kind, Counter())[call] += rows
        return rows

    def has(self, call: Call) -> bool:
        """Whether rows of `call` are gathered and not on their way."""
        return any(call in counts for counts in self._shares.values())

    async def flush(self) -> None:
        """Pass on what has been gathered, which waits while the server is full. What was not passed on when it is cancelled is at the next.
        Disconnected when the server is stopping."""
        async with self._flushing:  # who waits here has added one event since it was full
            if self._gathered.rows:
                self._full.append((self._gathered, self._shares))
                self._gathered, self._shares = Gathered(), Shares()
            while self._made or self._full:
                if not self._made:
                    await self._make(*self._full[0])
                    self._full.popleft()
                    continue
                try:
                    await self._outbox.put(_news(*self._made[0]))
                except MailboxClosed:
                    raise Disconnected("the server is stopping") from None
                self._made.popleft()

    async def _make(self, gathered: Gathered, shares: Shares) -> None:
        try:
            batches = gathered.batches() if gathered.rows <= _MADE_AT_ONCE else await asyncio.to_thread(gathered.batches)
        except Exception:  # a bug of ours costs these rows, not all that come after them
            log.exception("events of the original's agents could not be made into columns")
            for counts in shares.values():
                _settle(counts, "the server made a mistake, its log says which")
            return
        for call in {call for counts in shares.values() for call in counts}:
            call.passed_on(gathered.oldest_ns)
        self._made.extend((kind, batch, shares[kind]) for kind, batch in batches)


def _news(kind: str, rows: pa.RecordBatch, counts: Counter[Call]) -> News:
    token = f"{VERSION}:0:{uuid.uuid4().int >> 64}"  # their batches have no names, and are never sent again
    return News(kind, rows, Delivery(kind, rows, token, functools.partial(_settle, counts), doubtful=False))


def _settle(counts: Counter[Call], problem: str, retry_after_ms: int = 0) -> None:
    """They send nothing again: what is not stored now never will be."""
    for call, rows in counts.items():
        call.settle(rows, problem)


class Call:
    """One call of an agent: what became of what came. Its node is that of its first event."""

    def __init__(self, gathering: Gathering, nodes: Nodes, stack: ExitStack, stream: Stream) -> None:
        """`stack`: left when the call is over."""
        self.refused: Counter[str] = Counter()
        """Events that were not taken, by reason."""
        self.refusal: WireError | None = None
        """Why the call ends with an error, if it does."""
        self._gathering, self._nodes, self._stack, self._stream = gathering, nodes, stack, stream
        self._node: Node | None = None
        self._unsettled = self._stored = 0
        self._settled = asyncio.Event()
        self._problem = ""

    def take(self, data: bytes) -> None:
        """Add an event. Refused when it is none."""
        if len(data) > MAX_EVENT_BYTES:
            raise Refused("an event that is too long")
        try:
            event = read_event(data)
        except ValueError as error:
            raise Refused(str(error)) from None
        name = event.about.get("node_name", b"")
        if self._node is None:
            self._node = self._introduced(name)
        elif name != self._node.hello.node.encode():
            raise Refused("of another node than those before it")
        self._unsettled += self._gathering.add(data, event, self)

    def _introduced(self, name: Any) -> Node:
        try:
            hello = check_hello(Hello(node=name.decode(), version=VERSION, boot_id=VERSION))
        except (UnicodeDecodeError, InvalidRequest):
            raise Refused("node_name is none") from None
        self._stream.principal.check_node(hello.node)
        log.info("node %s is connected from %s (an agent of the original)", hello.node, self._stream.peer)
        return self._stack.enter_context(self._nodes.connected(hello))

    def passed_on(self, oldest_ns: int) -> None:
        """Rows of it are on their way."""
        if self._node is not None:
            self._node.received(oldest_ns)

    def settle(self, rows: int, problem: str) -> None:
        """Rows of it are stored, or never will be."""
        self._unsettled -= rows
        if problem:
            self._problem = problem
        else:
            self._stored += rows
        if self._node is not None and problem:
            self._node.rejected_batches += 1
        elif self._node is not None:
            self._node.stored(rows)
        if not self._unsettled:
            self._settled.set()

    async def answer(self) -> CollectorAck:
        """What became of all that came, once that is known. Raises what the call was refused for."""
        if self._unsettled and self._gathering.has(self):
            await asyncio.sleep(ANSWER_S)
            if self._gathering.has(self):
                await self._gathering.flush()
        while self._unsettled:
            self._settled.clear()
            await self._settled.wait()
        if self.refusal is not None:
            raise self.refusal
        status = "ERROR" if self._problem else "PARTIAL" if self.refused else "OK"
        parts = [f"{self._stored} rows stored"]
        if self.refused:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common(8))
            parts.append(f"{self.refused.total()} events refused ({reasons})")
        if self._problem:
            parts.append(f"not stored: {self._problem}")
        return CollectorAck(status=status, message="; ".join(parts))
