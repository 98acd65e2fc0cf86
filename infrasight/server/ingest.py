"""Ingest: one gRPC stream per node in, checked batches out."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pyarrow as pa

from infrasight import __version__
from infrasight.actors import Actor, Mailbox
from infrasight.errors import Disconnected, InvalidBatch, InvalidRequest
from infrasight.schema.events.dead_letter import DEAD_LETTER
from infrasight.server.budget import Budget
from infrasight.server.dead_letters import Letter, as_rows
from infrasight.server.live import Live
from infrasight.server.nodes import Nodes
from infrasight.server.session import Delivery, Growing, News, Origin, Session, check_hello
from infrasight.wire import Ack, AckVerdict, Attention, Batch, ShipRequest, ShipResponse, Welcome
from infrasight.wire.codec import MAX_BATCH_BYTES, MAX_ROWS, Claim, join, read, weigh
from infrasight.wire.service import CollectorService, ServerStream

log = logging.getLogger(__name__)
Stream = ServerStream[ShipRequest, ShipResponse]
MAX_STREAMS = 8
"""Of one node. It has one; those of connections that broke end when that is noticed."""
GROWING_BYTES = 256 << 20
"""What batches that have begun and not ended hold in memory, of all streams together. Beyond it a stream that has more than its share ends."""
_DECODED_AT_ONCE = 256 << 10
"""Bytes, decompressed, that are decoded on the event loop (about 1 ms); more goes to a thread, and pyarrow releases the GIL."""


class Ingest(CollectorService, Actor):
    """The Collector service, and the source of the graph: `run` ends once it was stopped and no stream is being read."""

    name = "ingest"
    max_message_bytes = MAX_BATCH_BYTES + (64 << 10)

    def __init__(self, outbox: Mailbox[News], nodes: Nodes, live: Live, *, decoding_bytes: int = 64 << 20) -> None:
        """Nodes are told whether somebody watches `live`. `decoding_bytes` bounds what is decoded and not in the outbox yet."""
        super().__init__()
        self._decoding = Budget(decoding_bytes)
        self._outbox = outbox
        self._nodes = nodes
        self._live = live
        self._stopping = asyncio.Event()
        self._receivers: set[asyncio.Task[None]] = set()
        self._sessions: set[Session] = set()

    async def run(self) -> None:
        """Wait to be stopped, then until nothing more comes from any stream. Streams stay open for the acks of what came."""
        await self._stopping.wait()
        for receiver in self._receivers:
            receiver.cancel()
        if self._receivers:
            await asyncio.wait(self._receivers)

    def stop(self) -> None:
        """Read no more from any stream."""
        self._stopping.set()

    async def ship(self, stream: Stream) -> None:
        """One node's stream. What is malformed ends it; a batch that is not its kind's is rejected and the stream goes on. When the server stops,
        or the connection is too old, it ends well, after the acks: with an error status, acks that the node had not read yet would be lost."""
        if self._stopping.is_set():
            raise Disconnected("the server is stopping")
        first = await stream.receive()
        hello = check_hello(first.hello if first is not None else None)
        stream.principal.check_node(hello.node)
        with self._nodes.connected(hello) as node:
            if node.connections > MAX_STREAMS:
                self.refused["streams"] += 1
                raise Disconnected(f"{hello.node} has {MAX_STREAMS} streams already")
            await stream.send(ShipResponse(welcome=Welcome(version=__version__, max_batch_bytes=MAX_BATCH_BYTES)))
            log.info("node %s is connected from %s (version %s, epoch %d)", hello.node, stream.peer, hello.version, hello.epoch)
            session = Session(hello, node)
            self._sessions.add(session)
            try:
                with self._live.watched_by(session.watch):
                    await self._converse(stream, session)
            finally:
                self._sessions.discard(session)
                session.answers.close()
                log.info("node %s is disconnected", hello.node)
        if session.refusal is not None:
            raise session.refusal

    async def _converse(self, stream: Stream, session: Session) -> None:
        """Receive and acknowledge at the same time, until both are done."""
        async with asyncio.TaskGroup() as tasks:
            receiver = tasks.create_task(self._receive(stream, session), name=f"receiver of {session.hello.node}")
            self._receivers.add(receiver)
            receiver.add_done_callback(self._receivers.discard)
            if self._stopping.is_set():
                receiver.cancel()
            with stream.ended_with_age(receiver.cancel):
                await _answer(stream, session)
            receiver.cancel()

    async def _receive(self, stream: Stream, session: Session) -> None:
        refusal: InvalidRequest | None = None
        try:
            while (message := await stream.receive()) is not None:
                if message.batch is None:
                    raise InvalidRequest("after the Hello come batches only")
                await self._take(session, message.batch)
        except InvalidRequest as error:
            refusal = error
        except Disconnected:
            log.debug("node %s left in the middle of a message, or was too slow with it", session.hello.node)
        finally:
            session.received_all(refusal)

    async def _take(self, session: Session, message: Batch) -> None:
        """Pass on what one message brought, which waits while the server is full. The node's own turn comes first: who does not read its acks
        holds up nobody else."""
        growing = session.growing(message)
        if message.more:
            async with self._weighed(session, growing, message) as rows:
                if rows is not None:
                    await self._outbox.put(News(message.kind, rows, None))
            return
        answer = await session.admit(message)
        token = session.token(message)
        try:
            async with self._weighed(session, growing, message) as rows:
                if growing.problem:
                    kind, rows, whole = DEAD_LETTER.name, None, as_rows(token, message.kind, growing.problem, growing.letters)
                    origin = None
                else:
                    kind, whole = message.kind, await _whole(growing.pieces)
                    origin = Origin(session.hello, session.epoch(message), message.seq, growing.encoded_bytes, growing.oldest_ns)
                settle = functools.partial(session.settle, answer, growing.rows, growing.problem)
                delivery = Delivery(kind, whole, token, settle, origin, session.doubtful(message), session.left)
                await self._outbox.put(News(kind, rows, delivery))
        except BaseException:
            session.withdraw()
            raise

    @asynccontextmanager
    async def _weighed(self, session: Session, growing: Growing, message: Batch) -> AsyncIterator[pa.RecordBatch | None]:
        """The rows of `message`, added to its batch; None when there are none, or when they are invalid, and then the batch has a problem. They have
        a place in the memory that decoding may take for as long as this lasts."""
        if growing.problem:
            growing.add_letter(Letter.of(message.rows, message.arrow))
        if growing.problem or (growing.pieces and not message.rows and not message.arrow):
            yield None
            return
        try:
            if len(message.arrow) > MAX_BATCH_BYTES:
                raise InvalidBatch(f"{len(message.arrow)} bytes, at most {MAX_BATCH_BYTES} are taken")
            claim = weigh(message.kind, message.arrow)
        except InvalidBatch as error:
            self._reject(session, growing, message, error)
            yield None
            return
        async with self._decoding.hold(claim.bytes):
            yield await self._rows(session, growing, message, claim)

    async def _rows(self, session: Session, growing: Growing, message: Batch, claim: Claim) -> pa.RecordBatch | None:
        try:
            rows = await _decoded(message, claim)
            if growing.rows + rows.num_rows > MAX_ROWS:
                raise InvalidBatch(f"{growing.rows + rows.num_rows} rows in one batch, at most {MAX_ROWS} are taken")
            growing.add(rows, message)
        except InvalidBatch as error:
            self._reject(session, growing, message, error)
            return None
        if message.more:
            self._check_growing(session)
        session.node.received(message.oldest_unix_ns)
        return rows

    def _reject(self, session: Session, growing: Growing, message: Batch, error: InvalidBatch) -> None:
        self.refused["batch"] += 1
        log.warning("node %s: batch %d rejected: %s", session.hello.node, message.seq, error)
        growing.refuse(str(error))
        growing.add_letter(Letter.of(message.rows, message.arrow))

    def _check_growing(self, session: Session) -> None:
        if session.growing_bytes <= GROWING_BYTES // len(self._sessions):
            return
        if sum(each.growing_bytes for each in self._sessions) > GROWING_BYTES:
            raise InvalidRequest("too much has begun and not ended, of all nodes together")


async def _decoded(batch: Batch, claim: Claim) -> pa.RecordBatch:
    if claim.bytes <= _DECODED_AT_ONCE:
        columns = read(batch.kind, batch.arrow, claim)
    else:
        columns = await asyncio.to_thread(read, batch.kind, batch.arrow, claim)
    if columns.num_rows != batch.rows:
        raise InvalidBatch(f"{columns.num_rows} rows, where the message says {batch.rows}")
    return columns


async def _whole(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(pieces) == 1 or sum(piece.nbytes for piece in pieces) <= _DECODED_AT_ONCE:
        return join(pieces)
    return await asyncio.to_thread(join, pieces)


def _together(first: Ack | Attention, answers: Mailbox[Ack | Attention]) -> tuple[Ack | Attention, int, Ack | Attention | None]:
    """What can be said in one: the last of the OKs that are there, for as many batches. And the answer after them that was taken out, if any."""
    last, batches = first, 1
    following = answers.get_nowait()
    while _is_ok(last) and following is not None and _is_ok(following):
        last, batches, following = following, batches + 1, answers.get_nowait()
    return last, batches, following


def _is_ok(answer: Ack | Attention) -> bool:
    return isinstance(answer, Ack) and answer.verdict is AckVerdict.OK


async def _answer(stream: Stream, session: Session) -> None:
    """Send acks, and whether somebody watches, until there will be no more, or nobody listens."""
    try:
        async for answer in session.answers:
            pending: Ack | Attention | None = answer
            while pending is not None:
                said, batches, pending = _together(pending, session.answers)
                if isinstance(said, Ack):
                    await stream.send(ShipResponse(ack=said))
                    session.acknowledged(batches)
                else:
                    await stream.send(ShipResponse(attention=session.attention()))
    except Disconnected:
        log.debug("node %s left without its acks", session.hello.node)
