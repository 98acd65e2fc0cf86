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
FLUSH_ROWS, FLUSH_BYTES, FLUSH_S = 10_000, 4 << 20, 2.0
"""What is gathered of one call before it is passed on: rows, bytes as they came, and seconds."""
MAX_EVENTS = 50_000
"""In one Batch."""
_MADE_AT_ONCE = 500
"""Rows that are made into columns on the event loop (about 1 ms); more go to a thread."""
_TAKEN_AT_ONCE = 100
"""Events of a Batch that are read before others have a turn (about 3 ms)."""


class Original(EventCollectorService, Actor):
    """The EventCollector service, and a source of the graph: `run` ends once it was stopped and all that had come is passed on."""

    name = "original"

    def __init__(self, outbox: Mailbox[News], nodes: Nodes) -> None:
        super().__init__()
        self._outbox = outbox
        self._nodes = nodes
        self._stopping = asyncio.Event()
        self._calls: set[Call] = set()
        self._intakes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Wait to be stopped, then until nothing more comes from any call."""
        await self._stopping.wait()
        if self._intakes:
            await asyncio.wait(self._intakes)

    def stop(self) -> None:
        """Read no more from any call."""
        self._stopping.set()
        for call in self._calls:
            call.over.set()

    async def sendevents(self, stream: Stream) -> None:
        """An agent's events, until it leaves or the server stops; then what became of them."""
        async with self._call(stream) as call:
            await self._take_in(self._stream(stream, call))
            await stream.send(await call.answer())

    async def sendbatch(self, stream: Stream) -> None:
        """Some events, and what became of them."""
        async with self._call(stream) as call:
            batch = await stream.receive_bytes()
            if batch is None:
                raise InvalidRequest("the request is missing")
            await self._take_in(self._batch(batch, call))
            await stream.send(await call.answer())

    @asynccontextmanager
    async def _call(self, stream: Stream) -> AsyncIterator[Call]:
        if self._stopping.is_set():
            raise Disconnected("the server is stopping")
        with ExitStack() as stack:
            call = Call(self._outbox, self._nodes, stack, stream)
            self._calls.add(call)
            try:
                yield call
            finally:
                self._calls.discard(call)
                call.over.set()
        if call.refusal is not None:
            raise call.refusal

    async def _take_in(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, to the end also when the agent leaves: what has come from it is stored."""
        intake = asyncio.create_task(work, name="intake of an original agent")
        self._intakes.add(intake)
        intake.add_done_callback(self._done)
        await asyncio.shield(intake)

    def _done(self, intake: asyncio.Task[None]) -> None:
        self._intakes.discard(intake)
        if not intake.cancelled() and (error := intake.exception()):
            log.debug("an original agent's events were cut off: %r", error)

    async def _stream(self, stream: Stream, call: Call) -> None:
        """Receive, and pass on what has come every `FLUSH_S`, until no more comes."""
        receiver = asyncio.create_task(self._receive(stream, call), name="receiver of an original agent")
        over = asyncio.create_task(call.over.wait(), name="end of an original agent")
        try:
            while not receiver.done() and not over.done():
                await asyncio.wait((receiver, over), timeout=FLUSH_S, return_when=asyncio.FIRST_COMPLETED)
                await call.flush()
        finally:
            over.cancel()
            receiver.cancel()
            await asyncio.wait((receiver,))
            await call.flush()

    async def _receive(self, stream: Stream, call: Call) -> None:
        try:
            while (data := await stream.receive_bytes()) is not None:
                self._take(data, call)
                if call.full:
                    await call.flush()
        except (InvalidRequest, AccessDenied) as error:
            call.refusal = error
        except Exception as error:  # noqa: BLE001 - whatever grpclib raises when the agent is gone: what has come of it is stored all the same
            log.debug("an original agent left: %r", error)

    async def _batch(self, batch: bytes, call: Call) -> None:
        try:
            for number, data in enumerate(events_of(batch), 1):
                if number > MAX_EVENTS:
                    raise InvalidRequest(f"more than {MAX_EVENTS} events in one batch")
                self._take(data, call)
                if call.full:
                    await call.flush()
                elif number % _TAKEN_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except (ValueError, InvalidRequest, AccessDenied) as error:
            call.refusal = InvalidRequest(f"not a Batch: {error}") if isinstance(error, ValueError) else error
        finally:
            await call.flush()

    def _take(self, data: bytes, call: Call) -> None:
        try:
            call.take(data)
        except Refused as reason:
            call.refused[str(reason)] += 1
            self.refused["event"] += 1


class Call:
    """One call of an agent: what has come of it and what became of that. Its node is that of its first event."""

    def __init__(self, outbox: Mailbox[News], nodes: Nodes, stack: ExitStack, stream: Stream) -> None:
        """`stack`: left when the call is over."""
        self.refused: Counter[str] = Counter()
        """Events that were not taken, by reason."""
        self.refusal: WireError | None = None
        """Why the call ends with an error, if it does."""
        self.over = asyncio.Event()
        """Nothing more is to be read of it: the agent is gone, or the server stops."""
        self._outbox, self._nodes, self._stack, self._stream = outbox, nodes, stack, stream
        self._gathered = Gathered()
        self._full: deque[Gathered] = deque()
        self._waiting: deque[tuple[str, pa.RecordBatch]] = deque()
        self._flushing = asyncio.Lock()
        self._node: Node | None = None
        self._unsettled = 0
        self._settled = asyncio.Event()
        self._rows = 0
        self._problem = ""

    @property
    def full(self) -> bool:
        """Whether it is time to flush."""
        return self._gathered.rows >= FLUSH_ROWS or self._gathered.bytes >= FLUSH_BYTES

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
        self._gathered.add(event, len(data))

    def _introduced(self, name: Any) -> Node:
        try:
            hello = check_hello(Hello(node=name.decode(), version=VERSION, boot_id=VERSION))
        except (UnicodeDecodeError, InvalidRequest):
            raise Refused("node_name is none") from None
        self._stream.principal.check_node(hello.node)
        log.info("node %s is connected from %s (an agent of the original)", hello.node, self._stream.peer)
        return self._stack.enter_context(self._nodes.connected(hello))

    async def flush(self) -> None:
        """Pass on what has been gathered, which waits while the server is full. What was not passed on when it is cancelled is at the next."""
        async with self._flushing:
            if self._gathered.rows and self._node is not None:
                self._node.received(self._gathered.oldest_ns)
                self._full.append(self._gathered)
                self._gathered = Gathered()
            while self._waiting or self._full:
                if self._waiting:
                    await self._pass_on(*self._waiting[0])
                    self._waiting.popleft()
                else:
                    self._waiting.extend(await _made(self._full[0]))
                    self._full.popleft()

    async def _pass_on(self, kind: str, rows: pa.RecordBatch) -> None:
        token = f"{self._node.hello.node if self._node else ''}:0:{uuid.uuid4().int >> 64}"  # they name no batches: it is never sent again
        self._unsettled += 1
        try:
            await self._outbox.put(News(kind, rows, Delivery(kind, rows, token, functools.partial(self._settle, rows.num_rows), doubtful=False)))
        except BaseException as error:
            self._unsettled -= 1
            if isinstance(error, MailboxClosed):
                raise Disconnected("the server is stopping") from None
            raise

    def _settle(self, rows: int, problem: str, retry_after_ms: int = 0) -> None:
        """They send nothing again: what is not stored now never will be."""
        self._unsettled -= 1
        if problem:
            self._problem = problem
        else:
            self._rows += rows
        if self._node is not None:
            if problem:
                self._node.rejected_batches += 1
            else:
                self._node.stored(rows)
        if not self._unsettled:
            self._settled.set()

    async def answer(self) -> CollectorAck:
        """What became of all that came, once that is known."""
        while self._unsettled:
            self._settled.clear()
            await self._settled.wait()
        status = "ERROR" if self._problem else "PARTIAL" if self.refused else "OK"
        parts = [f"{self._rows} rows stored"]
        if self.refused:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common(8))
            parts.append(f"{self.refused.total()} events refused ({reasons})")
        if self._problem:
            parts.append(f"not stored: {self._problem}")
        return CollectorAck(status=status, message="; ".join(parts))


async def _made(gathered: Gathered) -> list[tuple[str, pa.RecordBatch]]:
    if gathered.rows <= _MADE_AT_ONCE:
        return list(gathered.batches())
    return await asyncio.to_thread(lambda: list(gathered.batches()))
