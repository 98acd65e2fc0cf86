"""One node's stream: who it is, and the batches that it waits for an Ack of."""

from __future__ import annotations

import asyncio
import functools
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from infrasight.actors import Mailbox
from infrasight.errors import InvalidRequest
from infrasight.server.dead_letters import Letter
from infrasight.server.nodes import Node
from infrasight.wire import Ack, AckVerdict, Attention, Batch, Hello
from infrasight.wire.codec import encode

MAX_UNACKED = 64
"""Batches of one stream between arrival and Ack. More would not make it faster."""
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


@dataclass(frozen=True)
class Origin:
    """Whose batch it is, and which: what is written down of it once it is stored."""

    hello: Hello
    epoch: int
    seq: int
    bytes: int
    """What it was on the wire."""
    oldest_ns: int
    """When its oldest event happened, as the node says; ns since the epoch."""


class Settle(Protocol):
    """How a batch is answered."""

    def __call__(self, problem: str, retry_after_ms: int = 0) -> None: ...


@dataclass(eq=False)
class Answer:
    """Of a batch that came whole: unanswered until it has a verdict."""

    epoch: int
    seq: int
    verdict: AckVerdict = AckVerdict.UNSPECIFIED
    problem: str = ""
    retry_after_ms: int = 0

    def ack(self) -> Ack:
        return Ack(self.seq, self.verdict, self.problem, self.retry_after_ms, self.epoch)


@dataclass(frozen=True, eq=False)
class Delivery:
    """A batch on its way through the server. `settle` answers its node, once: with "" when it is stored; with why it never will be; or with why it is
    not now, and in how many ms the node should send it again."""

    kind: str
    batch: pa.RecordBatch
    token: str
    settle: Settle = field(repr=False)
    origin: Origin | None = None
    doubtful: bool = True
    """Whether it may have been stored already when it came."""
    left: Callable[[], bool] = field(default=lambda: False, repr=False)
    """Whether its node has left without an answer: then another server may have stored it since."""

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
    nbytes: int = 0
    """In memory."""
    encoded_bytes: int = 0
    oldest_ns: int = 2**63 - 1
    problem: str = ""
    """Why it never will be stored, if so."""
    letters: list[Letter] = field(default_factory=list)
    """Then, what came of it."""

    def add(self, piece: pa.RecordBatch, message: Batch) -> None:
        self.encoded_bytes += len(message.arrow)
        self.oldest_ns = min(self.oldest_ns, message.oldest_unix_ns)
        self.pieces.append(piece)
        self.rows += piece.num_rows
        self.nbytes += int(piece.get_total_buffer_size())

    def refuse(self, problem: str) -> None:
        """It never will be stored as what it is; what came of it is kept."""
        self.problem = problem
        self.nbytes = 0
        for piece in self.pieces:
            self.add_letter(Letter.of(piece.num_rows, encode(piece)))
        self.pieces.clear()

    def add_letter(self, letter: Letter) -> None:
        """Another piece of what never will be stored."""
        self.letters.append(letter)
        self.nbytes += letter.nbytes


class Session:
    """One stream. Bounded: `admit` waits while MAX_UNACKED whole batches have no Ack, so acks always fit into their mailbox, with one word about
    attention; what has come of other batches is refused beyond MAX_GROWING and MAX_GROWING_BYTES."""

    def __init__(self, hello: Hello, node: Node) -> None:
        self.hello = hello
        self.node = node
        self.answers: Mailbox[Ack | Attention] = Mailbox(f"answers to {hello.node}", limit=MAX_UNACKED + 1)
        """An Attention: say whether somebody watches, as it is by then."""
        self.refusal: InvalidRequest | None = None
        """Why the stream ends early, if it does."""
        self._room = asyncio.Semaphore(MAX_UNACKED)
        self._unsettled = 0
        self._receiving = True
        self._growing: dict[tuple[int, int], Growing] = {}
        self._whole: deque[Answer] = deque()
        """Batches that came whole and have not been answered, or come after one that has not."""
        self._watched = self._attention_asked = False

    def epoch(self, message: Batch) -> int:
        """That of a batch. InvalidRequest for one that is still to come."""
        if message.epoch > self.hello.epoch:
            raise InvalidRequest(f"batch {message.seq} is of epoch {message.epoch}, after {self.hello.epoch}, which the node is in")
        return message.epoch or self.hello.epoch

    def token(self, message: Batch) -> str:
        """Names a batch for all time: the same one sent again has the same token."""
        return f"{self.hello.node}:{self.epoch(message)}:{message.seq}"

    def doubtful(self, message: Batch) -> bool:
        """Whether the batch that `message` ends may have been whole before, here or at another server. A batch that the node says is sent for the
        first time is one only once."""
        return not (self.node.numbers(self.epoch(message)).take(message.seq) and message.fresh)

    def growing(self, message: Batch) -> Growing:
        """The batch that `message` is a piece of, or all; kept here while more of it follows. InvalidRequest when this is no piece of it, or too
        much has begun and not ended."""
        id = self.epoch(message), message.seq
        growing = self._growing.pop(id, None) or Growing(message.kind)
        if growing.kind != message.kind:
            raise InvalidRequest(f"batch {message.seq} is of {growing.kind[:64]!r}, and now of {message.kind[:64]!r}")
        if message.more:
            self._growing[id] = growing
        if len(self._growing) > MAX_GROWING or self.growing_bytes > MAX_GROWING_BYTES:
            raise InvalidRequest(f"more than {MAX_GROWING} batches or {MAX_GROWING_BYTES >> 20} MiB have begun and not ended")
        return growing

    @property
    def growing_bytes(self) -> int:
        """What has come of batches that have not ended, in memory."""
        return sum(each.nbytes for each in self._growing.values())

    def watch(self, watched: bool) -> None:
        """Somebody watches from now on, or nobody does: to be told to the node, once it listens."""
        self._watched = watched
        if not self._attention_asked and not self.answers.closed:
            self._attention_asked = True
            self.answers.put_nowait(Attention())

    def attention(self) -> Attention:
        """What the node is told now."""
        self._attention_asked = False
        return Attention(watched=self._watched)

    async def admit(self, message: Batch) -> Answer:
        """Wait until another whole batch may come. It is to be settled or withdrawn."""
        await self._room.acquire()
        answer = Answer(self.epoch(message), message.seq)
        self._whole.append(answer)
        self._unsettled += 1
        return answer

    def withdraw(self) -> None:
        """The last batch admitted went nowhere: the stream ends without an Ack for it."""
        self._unsettled -= 1

    def settle(self, answer: Answer, rows: int, rejected: str, problem: str, retry_after_ms: int = 0) -> None:
        """Answer for one admitted batch of so many rows; one that is `rejected` for a reason has that as its answer once what is stored in its place
        is settled. And tell what can be told now: answers go out in the order in which the batches came. The stream may be
        gone: then nobody hears it, and a batch sent again is settled then."""
        self._unsettled -= 1
        problem = problem if retry_after_ms else rejected or problem
        if retry_after_ms:
            answer.verdict = AckVerdict.RETRY
            self.node.retried_batches += 1
        elif problem:
            answer.verdict = AckVerdict.REJECTED
            self.node.rejected_batches += 1
        else:
            answer.verdict = AckVerdict.OK
            self.node.stored(rows)
        answer.problem, answer.retry_after_ms = problem, retry_after_ms
        while self._whole and self._whole[0].verdict is not AckVerdict.UNSPECIFIED:
            ack = self._whole.popleft().ack()
            if not self.answers.closed:
                self.answers.put_nowait(ack)
        self._close_when_done()

    def left(self) -> bool:
        """Whether the stream is over."""
        return self.answers.closed

    def acknowledged(self, batches: int = 1) -> None:
        """An Ack for so many is on the wire."""
        for _ in range(batches):
            self._room.release()

    def received_all(self, refusal: InvalidRequest | None = None) -> None:
        """Nothing more comes in; acks of what is on its way still go out."""
        self._receiving, self.refusal = False, refusal
        self._close_when_done()

    def _close_when_done(self) -> None:
        if not self._receiving and not self._unsettled:
            self.answers.close()
