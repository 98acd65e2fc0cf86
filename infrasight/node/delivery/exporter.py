"""The exporter: puts encoded batches into the spool, ships them to a server, and has the spool keep each until it is acknowledged."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import replace

from infrasight.actors import Actor, Mailbox
from infrasight.errors import InvalidRequest, Unreachable, WireError
from infrasight.node.delivery.lane import Held
from infrasight.node.delivery.sending import Sending
from infrasight.node.delivery.spool import Spool
from infrasight.node.delivery.window import Window
from infrasight.node.flow import Attention, Encoded
from infrasight.wire import Ack, AckVerdict, Hello
from infrasight.wire import Batch as Message
from infrasight.wire.channel import Channel
from infrasight.wire.shipment import Shipment
from infrasight.wire.tls import Credentials

WINDOW_BYTES = 4 << 20
"""Encoded bytes with the server at most: about half a million opens. In memory only without a spool."""
BACKOFF_S, BACKOFF_MAX_S = 0.1, 10.0
"""Most that is waited after all servers were tried once in vain, doubled each time; how long it is within that is chance, so that a fleet does not
come back all at once."""
REFUSALS_SAID = 100
"""Different reasons for a refusal that are logged."""

log = logging.getLogger(__name__)
Server = tuple[str, int]
"""Host and port."""


class Exporter(Actor):
    """Takes in what the spool has room for, whether there is a server or not. Tries the servers in turn, for ever, unless it has no disk and none was
    ever reached within `reach_within_s`."""

    name = "exporter"

    def __init__(
        self,
        inbox: Mailbox[Encoded],
        servers: Sequence[Server],
        hello: Hello,
        spool: Spool | None = None,
        *,
        insecure: bool = False,
        credentials: Credentials | None = None,
        reach_within_s: float = 20.0,
        attention: Attention | None = None,
    ) -> None:
        """The epoch of `hello` is the spool's, if there is one. `attention` is kept as the server says it is."""
        self._inbox, self._servers, self._hello = inbox, list(servers), hello
        self._connect = functools.partial(Channel, insecure=insecure, credentials=credentials)
        self.spool = spool or Spool(epoch=hello.epoch)
        self._reach_by_s = time.monotonic() + reach_within_s
        self._attention = attention or Attention()
        self._reached = False
        self._failed = 0
        """Attempts since the last Ack."""
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._not_before_s = 0.0
        """What a server asked for when it could not store."""
        self._refusals: set[tuple[str, str]] = set()
        self.window = Window(WINDOW_BYTES)
        self.sending = Sending()
        self.drained = False
        """Whether nothing more will come in."""
        self.connected = False
        self.connections = 0
        """How often a server was reached."""
        self.retries = 0
        """Batches that a server asked for again."""
        self.lag_s = 0.0
        """Age of the oldest event of the last acknowledged batch when the acknowledgement came."""

    async def run(self) -> None:
        """Until the inbox is closed and empty, and everything is acknowledged; or is on the disk, when there is no server then. Unreachable when
        there never was one, nor a disk."""
        await asyncio.to_thread(self.spool.recover)
        shipping = asyncio.create_task(self._ship(), name="exporter.ships")
        tasks = [shipping, *(asyncio.create_task(work, name="exporter.spools") for work in (self._take(), self.spool.keep()))]
        try:
            while not shipping.done():
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                tasks = [task for task in tasks if not task.done()]
                if self._nobody_is_there:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.spool.sync()

    async def _take(self) -> None:
        """Everything from the inbox into the spool."""
        async for piece in self._inbox:
            self.spool.append(piece)
            self._changed.set()
            while not self.spool.room:
                self._room.clear()
                await self._room.wait()
        self.drained = True
        self._changed.set()

    @property
    def _finished(self) -> bool:
        return self.drained and not len(self.window) and not self.spool.waiting

    @property
    def _nobody_is_there(self) -> bool:
        """Whether the end need not wait: no server could be reached, and the disk has everything for the next start."""
        return self.drained and self._failed >= len(self._servers) and self.spool.safe

    async def _ship(self) -> None:
        while not self._finished:
            host, port = server = self._servers[0]
            try:
                await self._connection(server)
            except InvalidRequest:
                raise  # the server does not like who we say we are: saying it again changes nothing
            except WireError as error:
                if not self._reached and not self.spool.lasting and time.monotonic() >= self._reach_by_s:
                    raise Unreachable(f"the server at {host}:{port} cannot be reached: {error}") from error
                if self.connected or self._failed < len(self._servers):
                    log.warning("server at %s:%d: %s; trying again", host, port, error)
                self.connected = False
                self._failed += 1
                self._servers.append(self._servers.pop(0))
                if self._nobody_is_there:
                    return
                await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        """Before the next attempt: none while there is another server to be tried."""
        rounds, more = divmod(self._failed, len(self._servers))
        pause_s = 0.0 if more else random.uniform(0, min(BACKOFF_S * 2 ** min(rounds, 30), BACKOFF_MAX_S))
        return pause_s if self._reached or self.spool.lasting else min(pause_s, max(self._reach_by_s - time.monotonic(), 0.0))

    async def _connection(self, server: Server) -> None:
        hello = replace(self._hello, epoch=self.spool.epoch)
        host, port = server
        async with self._connect(host, port) as channel, Shipment(channel, hello, self._attend) as shipment:
            if self._reached:
                log.warning("server at %s:%d is back", host, port)
            self.connected = self._reached = True
            self._failed = min(self._failed, len(self._servers) - 1)
            self.connections += 1
            self._not_before_s = 0.0
            self.window.resend()
            acks = asyncio.create_task(self._acknowledge(shipment), name="exporter.acks")
            sends = asyncio.create_task(self._send(shipment), name="exporter.sends")
            try:
                await asyncio.wait((acks, sends), return_when=asyncio.FIRST_EXCEPTION)
            finally:
                self._attend(False)
                self.sending.broken()
                acks.cancel()
                sends.cancel()
                results = await asyncio.gather(acks, sends, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    def _attend(self, watched: bool) -> None:
        self._attention.watched = watched

    async def _send(self, shipment: Shipment) -> None:
        while not self._finished:
            self._changed.clear()
            await asyncio.sleep(max(self._not_before_s - time.monotonic(), 0.0))
            while self.window.open and (held := self.spool.next()):
                self.window.add(held)
                self._room.set()
            sent = False
            for held in self.window.to_send():
                sent = True
                await self._send_one(shipment, held)
                if self._not_before_s > time.monotonic():
                    break
            if not sent and not self._finished:
                await self._changed.wait()
        await shipment.end()

    async def _send_one(self, shipment: Shipment, held: Held) -> None:
        """Send a piece; not one that is damaged, but the end of a batch that has others."""
        payload = held.payload
        if payload is None:
            payload = await asyncio.to_thread(self.spool.load, held)
        if payload is None:
            self.spool.damaged(held)
            payload = b""
        if not held.rows and (held.more or not any(piece.rows for piece in self.window.pieces(held.id))):
            if not held.more:
                self.spool.done(self.window.settle(held.id, stored=True))
            return
        epoch, seq = held.id
        fresh, held.sent = not held.sent and epoch == self.spool.epoch, True
        self.sending.sent(held.id, held.kind)
        await shipment.send(Message(seq, held.kind, held.rows, payload, held.oldest_ns, held.more, epoch, fresh))
        if held.segment is not None:
            held.payload = None  # the spool has it

    async def _acknowledge(self, shipment: Shipment) -> None:
        async for ack in shipment:
            self._failed = 0
            id = ack.epoch, ack.seq
            if ack.verdict is AckVerdict.RETRY:
                if self.window.retry(id):
                    self.retries += 1
                    self._not_before_s = time.monotonic() + ack.retry_after_ms / 1000
            else:
                self.sending.settled(id, ack.verdict is AckVerdict.OK)
                pieces = self.window.settle(id, stored=ack.verdict is AckVerdict.OK)
                self.spool.done(pieces)
                if pieces:
                    self._note(ack, pieces)
            self._changed.set()
        if not self._finished:
            raise WireError("the server ended the connection")

    def _note(self, ack: Ack, pieces: list[Held]) -> None:
        """What became of a batch."""
        kind = pieces[0].kind
        if ack.verdict is AckVerdict.OK:
            self.lag_s = max(0.0, (time.time_ns() - pieces[0].oldest_ns) / 1e9)
        elif (kind, ack.reason) not in self._refusals and len(self._refusals) < REFUSALS_SAID:
            self._refusals.add((kind, ack.reason))
            rows = sum(piece.rows for piece in pieces)
            log.error("the server refused %d rows of %s: %s", rows, kind, ack.reason)
