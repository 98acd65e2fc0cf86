"""One node's stream: who it is, and the batches that it waits for an Ack of."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from infrasight.actors import Mailbox
from infrasight.errors import InvalidRequest
from infrasight.server.nodes import Node
from infrasight.wire import Ack, AckVerdict, Attention, Batch, Hello

MAX_UNACKED = 64
"""Batches of one stream between arrival and Ack. A node keeps them all in memory, and more would not make it faster."""
MAX_GROWING = 256
"""Batches of one stream that have begun and not ended: a node has one of a kind."""
MAX_GROWING_BYTES = 32 << 20
"""What they hold in memory; a node ends the largest when they are 2.5 MiB."""
_NAME = re.compile(r"[^\s:\x00-\x1f\x7f]{1,253}")
_BOOT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def check_hello(hello: Hello | None) -> Hello:
    """`hello`, if its parts can make up a token. InvalidRequest otherwise."""
    if hello is None:
        raise InvalidRequest("the first message has to be a Hello")
    if not _NAME.fullmatch(hello.node):
        raise InvalidRequest(f"{hello.node[:64]!r} is no name for a node: 1 to 253 characters, no spaces or colons")
    if not _BOOT_ID.fullmatch(hello.boot_id):
        raise InvalidRequest(f"{hello.boot_id[:64]!r} is no boot id: 1 to 64 letters, digits and dashes")
    if len(hello.version) > 64:
        raise InvalidRequest("the version is longer than 64 characters")
    return hello


@dataclass(frozen=True, eq=False)
class Delivery:
    """A batch on its way through the server. `settle` answers its node, once: with "" when it is stored, else with why it never will be."""

    kind: str
    batch: pa.RecordBatch
    token: str
    settle: Callable[[str], None] = field(repr=False)
    doubtful: bool = True
    """Whether it may be stored already."""

    @functools.cached_property
    def nbytes(self) -> int:
        """What it holds in memory, at most."""
        return int(self.batch.get_total_buffer_size())


@dataclass(frozen=True, eq=False)
class News:
    """Rows that nobody who watches has seen yet, and the batch that is whole with them, if it is."""

    kind: str
    rows: pa.RecordBatch | None
    delivery: Delivery | None

    @functools.cached_property
    def nbytes(self) -> int:
        """What it holds in memory, at most."""
        whole = self.delivery.batch if self.delivery else None
        return sum(int(batch.get_total_buffer_size()) for batch in (self.rows, whole if whole is not self.rows else None) if batch)


@dataclass(eq=False)
class Growing:
    """A batch of which pieces have come."""

    kind: str
    pieces: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    problem: str = ""
    """Why it never will be stored, if so."""

    def add(self, piece: pa.RecordBatch) -> None:
        self.pieces.append(piece)
        self.rows += piece.num_rows
        self.bytes += int(piece.get_total_buffer_size())


class Session:
    """One stream. Bounded: `admit` waits while MAX_UNACKED whole batches have no Ack, so acks always fit into their mailbox, with one word about
    attention; what has come of other batches is refused beyond MAX_GROWING and MAX_GROWING_BYTES."""

    def __init__(self, hello: Hello, node: Node) -> None:
        self.hello = hello
        self.node = node
        self.answers: Mailbox[Ack | None] = Mailbox(f"answers to {hello.node}", limit=MAX_UNACKED + 1)
        """None: say whether somebody watches."""
        self.refusal: InvalidRequest | None = None
        """Why the stream ends early, if it does."""
        self._room = asyncio.Semaphore(MAX_UNACKED)
        self._unsettled = 0
        self._receiving = True
        self._growing: dict[int, Growing] = {}
        self._watched = self._attention_asked = False

    def token(self, seq: int) -> str:
        """Names a batch for all time: the same one sent again has the same token."""
        return f"{self.hello.node}:{self.hello.boot_id}:{self.hello.epoch}:{seq}"

    def doubtful(self, message: Batch) -> bool:
        """Whether the batch that `message` ends may have been whole before, here or at another server. A batch that the node says is sent for the
        first time is one only once."""
        return not (self.node.numbers(self.hello).take(message.seq) and message.fresh)

    def growing(self, message: Batch) -> Growing:
        """The batch that `message` is a piece of, or all; kept here while more of it follows. InvalidRequest when this is no piece of it, or too
        much has begun and not ended."""
        growing = self._growing.pop(message.seq, None) or Growing(message.kind)
        if growing.kind != message.kind:
            raise InvalidRequest(f"batch {message.seq} is of {growing.kind[:64]!r}, and now of {message.kind[:64]!r}")
        if message.more:
            self._growing[message.seq] = growing
        if len(self._growing) > MAX_GROWING or self.growing_bytes > MAX_GROWING_BYTES:
            raise InvalidRequest(f"more than {MAX_GROWING} batches or {MAX_GROWING_BYTES >> 20} MiB have begun and not ended")
        return growing

    @property
    def growing_bytes(self) -> int:
        """What has come of batches that have not ended, in memory."""
        return sum(each.bytes for each in self._growing.values())

    def watch(self, watched: bool) -> None:
        """Somebody watches from now on, or nobody does: to be told to the node, once it listens."""
        self._watched = watched
        if not self._attention_asked and not self.answers.closed:
            self._attention_asked = True
            self.answers.put_nowait(None)

    def attention(self) -> Attention:
        """What the node is told now."""
        self._attention_asked = False
        return Attention(watched=self._watched)

    async def admit(self) -> None:
        """Wait until another batch may come. Each is to be settled or withdrawn."""
        await self._room.acquire()
        self._unsettled += 1

    def withdraw(self) -> None:
        """The batch went nowhere: the stream ends without an Ack for it."""
        self._unsettled -= 1
        self._room.release()

    def settle(self, seq: int, rows: int, problem: str) -> None:
        """Answer for one admitted batch. The stream may be gone: then nobody hears it, and a batch sent again is settled then."""
        self._unsettled -= 1
        if problem:
            self.node.rejected_batches += 1
        else:
            self.node.stored(rows)
        if not self.answers.closed:
            verdict = AckVerdict.REJECTED if problem else AckVerdict.OK
            self.answers.put_nowait(Ack(seq=seq, verdict=verdict, reason=problem))
        self._close_when_done()

    def acknowledged(self) -> None:
        """An Ack is on the wire."""
        self._room.release()

    def received_all(self, refusal: InvalidRequest | None = None) -> None:
        """Nothing more comes in; acks of what is on its way still go out."""
        self._receiving, self.refusal = False, refusal
        self._close_when_done()

    def _close_when_done(self) -> None:
        if not self._receiving and not self._unsettled:
            self.answers.close()
