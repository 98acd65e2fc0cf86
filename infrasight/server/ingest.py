"""Ingest: one gRPC stream per node in, checked batches out."""

from __future__ import annotations

import asyncio
import logging

import pyarrow as pa

from infrasight import __version__
from infrasight.actors import Actor, Mailbox
from infrasight.errors import Disconnected, InvalidBatch, InvalidRequest
from infrasight.schema import KINDS
from infrasight.schema.events.dead_letter import DEAD_LETTER
from infrasight.server.dead_letters import Letter, as_rows
from infrasight.server.live import Live
from infrasight.server.nodes import Nodes
from infrasight.server.session import Delivery, Growing, News, Origin, Session, check_hello
from infrasight.wire import Ack, AckVerdict, Attention, Batch, ShipRequest, ShipResponse, Welcome
from infrasight.wire.codec import MAX_BATCH_BYTES, MAX_ROWS, decode, join
from infrasight.wire.service import CollectorService, ServerStream

log = logging.getLogger(__name__)
Stream = ServerStream[ShipRequest, ShipResponse]
_DECODED_AT_ONCE = 256 << 10
"""Bytes of a payload that are decoded on the event loop (about 1 ms); longer ones go to a thread, and pyarrow releases the GIL."""


class Ingest(CollectorService, Actor):
    """The Collector service, and the source of the graph: `run` ends once it was stopped and no stream is being read."""

    name = "ingest"
    max_message_bytes = MAX_BATCH_BYTES + (64 << 10)

    def __init__(self, outbox: Mailbox[News], nodes: Nodes, live: Live) -> None:
        """Nodes are told whether somebody watches `live`."""
        super().__init__()
        self._outbox = outbox
        self._nodes = nodes
        self._live = live
        self._stopping = asyncio.Event()
        self._receivers: set[asyncio.Task[None]] = set()

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
        """One node's stream. What is malformed ends it; a batch that is not its kind's is rejected and the stream goes on. When the server stops
        it ends well, after the acks: with an error status, acks that the node had not read yet would be lost."""
        if self._stopping.is_set():
            raise Disconnected("the server is stopping")
        first = await stream.receive()
        hello = check_hello(first.hello if first is not None else None)
        stream.principal.check_node(hello.node)
        with self._nodes.connected(hello) as node:
            await stream.send(ShipResponse(welcome=Welcome(version=__version__, max_batch_bytes=MAX_BATCH_BYTES)))
            log.info("node %s is connected from %s (version %s, epoch %d)", hello.node, stream.peer, hello.version, hello.epoch)
            session = Session(hello, node)
            try:
                with self._live.watched_by(session.watch):
                    await self._converse(stream, session)
            finally:
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
        finally:
            session.received_all(refusal)

    async def _take(self, session: Session, message: Batch) -> None:
        """Pass on what one message brought, which waits while the server is full."""
        growing = session.growing(message)
        rows = await self._rows(session, growing, message)
        if message.more:
            if rows is not None:
                await self._outbox.put(News(message.kind, rows, None))
            return
        settle = await session.admit(message, growing.rows, growing.problem)
        token = session.token(message)
        try:
            if growing.problem:
                kind, rows, whole = DEAD_LETTER.name, None, as_rows(token, message.kind, growing.problem, growing.letters)
                origin = None
            else:
                kind, whole = message.kind, await _whole(growing.pieces)
                origin = Origin(session.hello, session.epoch(message), message.seq, growing.encoded_bytes, growing.oldest_ns)
            delivery = Delivery(kind, whole, token, settle, origin, session.doubtful(message), session.left)
            await self._outbox.put(News(kind, rows, delivery))
        except BaseException:
            session.withdraw()
            raise

    async def _rows(self, session: Session, growing: Growing, message: Batch) -> pa.RecordBatch | None:
        """The rows of `message`, added to its batch; None when there are none, or when they are invalid, and then the batch has a problem."""
        if growing.problem:
            growing.add_letter(Letter.of(message.rows, message.arrow))
            return None
        if growing.pieces and not message.rows and not message.arrow:
            return None
        try:
            rows = await self._decoded(message)
            if growing.rows + rows.num_rows > MAX_ROWS:
                raise InvalidBatch(f"{growing.rows + rows.num_rows} rows in one batch, at most {MAX_ROWS} are taken")
            growing.add(rows, message)
        except InvalidBatch as error:
            self.refused["batch"] += 1
            log.warning("node %s: batch %d rejected: %s", session.hello.node, message.seq, error)
            growing.refuse(str(error))
            growing.add_letter(Letter.of(message.rows, message.arrow))
            return None
        session.node.received(message.oldest_unix_ns)
        return rows

    async def _decoded(self, batch: Batch) -> pa.RecordBatch:
        if batch.kind in KINDS and KINDS[batch.kind].origin == "server":
            raise InvalidBatch(f"{batch.kind} is made by the server alone")
        if len(batch.arrow) > MAX_BATCH_BYTES:
            raise InvalidBatch(f"{len(batch.arrow)} bytes, at most {MAX_BATCH_BYTES} are taken")
        if len(batch.arrow) <= _DECODED_AT_ONCE:
            columns = decode(batch.kind, batch.arrow)
        else:
            columns = await asyncio.to_thread(decode, batch.kind, batch.arrow)
        if columns.num_rows != batch.rows:
            raise InvalidBatch(f"{columns.num_rows} rows, where the message says {batch.rows}")
        return columns


async def _whole(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    if sum(piece.nbytes for piece in pieces) <= _DECODED_AT_ONCE:
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
