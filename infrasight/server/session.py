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
from infrasight.wire import Ack, AckVerdict, Hello

MAX_UNACKED = 64
"""Batches of one stream between arrival and Ack. A node keeps them all in memory, and more would not make it faster."""
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

    @functools.cached_property
    def nbytes(self) -> int:
        """What it holds in memory, at most."""
        return int(self.batch.nbytes)


class Session:
    """One stream. Bounded: `admit` waits while MAX_UNACKED batches have no Ack, so acks always fit into their mailbox."""

    def __init__(self, hello: Hello, node: Node) -> None:
        self.hello = hello
        self.node = node
        self.acks: Mailbox[Ack] = Mailbox(f"acks of {hello.node}", limit=MAX_UNACKED)
        self.refusal: InvalidRequest | None = None
        """Why the stream ends early, if it does."""
        self._room = asyncio.Semaphore(MAX_UNACKED)
        self._unsettled = 0
        self._receiving = True

    def token(self, seq: int) -> str:
        """Names a batch for all time: the same one sent again has the same token."""
        return f"{self.hello.node}:{self.hello.boot_id}:{self.hello.epoch}:{seq}"

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
        if not self.acks.closed:
            verdict = AckVerdict.REJECTED if problem else AckVerdict.OK
            self.acks.put_nowait(Ack(seq=seq, verdict=verdict, reason=problem))
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
            self.acks.close()
