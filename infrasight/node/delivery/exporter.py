"""The exporter: ships encoded batches to the server and keeps each until it is acknowledged."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time

from infrasight.actors import Actor, Mailbox
from infrasight.client import Client, Credentials, Shipment
from infrasight.errors import InvalidRequest, MailboxClosed, Unreachable, WireError
from infrasight.node.delivery.sending import Sending
from infrasight.node.delivery.window import Window
from infrasight.node.flow import Attention, Encoded
from infrasight.wire import AckVerdict, Hello
from infrasight.wire import Batch as Message

WINDOW_BYTES = 4 << 20
"""Encoded bytes on their way at most: about half a million opens."""
BACKOFF_S, BACKOFF_MAX_S = 0.1, 5.0
"""Wait before the first reconnection, doubled each time; jittered, so that a fleet does not come back all at once."""

log = logging.getLogger(__name__)


class _Retry(WireError):
    """The server asked for a batch again, later."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"the server asks to try again in {after_s:g} s")
        self.after_s = after_s


class Exporter(Actor):
    """Blocks upstream when its window is full. Reconnects for ever, unless the server was never reached within `reach_within_s`."""

    name = "exporter"

    def __init__(
        self,
        inbox: Mailbox[Encoded],
        host: str,
        port: int,
        hello: Hello,
        *,
        insecure: bool = False,
        credentials: Credentials | None = None,
        reach_within_s: float = 20.0,
        attention: Attention | None = None,
    ) -> None:
        """`attention` is kept as the server says it is."""
        self._inbox, self._host, self._port, self._hello = inbox, host, port, hello
        self._connect = functools.partial(Client, host, port, insecure=insecure, credentials=credentials)
        self._reach_by_s = time.monotonic() + reach_within_s
        self._attention = attention or Attention()
        self._reached = False
        self._drained = False
        self._changed = asyncio.Event()
        self.window = Window(WINDOW_BYTES)
        self.sending = Sending()
        self.connected = False
        self.lag_s = 0.0
        """Age of the oldest event of the last acknowledged batch when the acknowledgement came."""

    async def run(self) -> None:
        """Until the inbox is closed and empty and everything is acknowledged. Unreachable when there never was a server."""
        backoff_s = BACKOFF_S
        while not (self._drained and not len(self.window)):
            try:
                await self._connection()
                backoff_s = BACKOFF_S
            except InvalidRequest:
                raise  # the server does not like who we say we are: saying it again changes nothing
            except WireError as error:
                if not self._reached and time.monotonic() >= self._reach_by_s:
                    raise Unreachable(f"the server at {self._host}:{self._port} cannot be reached: {error}") from error
                if self.connected or backoff_s == BACKOFF_S:
                    log.warning("server at %s:%d: %s; trying again", self._host, self._port, error)
                backoff_s = BACKOFF_S if self.connected else min(backoff_s * 2, BACKOFF_MAX_S)
                self.connected = False
                pause_s = error.after_s if isinstance(error, _Retry) else backoff_s * random.uniform(0.5, 1.5)
                await asyncio.sleep(pause_s if self._reached else min(pause_s, max(self._reach_by_s - time.monotonic(), 0.0)))

    async def _connection(self) -> None:
        async with self._connect() as client, client.ship(self._hello, self._attend) as shipment:
            if self._reached:
                log.warning("server at %s:%d is back", self._host, self._port)
            self.connected = self._reached = True
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
        while not (self._drained and not len(self.window)):
            for batch, fresh in self.window.to_send():
                self.sending.sent(batch.seq, batch.kind)
                await shipment.send(Message(batch.seq, batch.kind, batch.rows, batch.payload, batch.oldest_ns, batch.more, fresh))
            if self._drained or not self.window.open:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                self.window.add(await self._inbox.get())
            except MailboxClosed:
                self._drained = True
        await shipment.end()

    async def _acknowledge(self, shipment: Shipment) -> None:
        async for ack in shipment:
            if ack.verdict is AckVerdict.RETRY:
                raise _Retry(ack.retry_after_ms / 1000)
            self.sending.settled(ack.seq, ack.verdict is AckVerdict.OK)
            pieces = self.window.settle(ack.seq, stored=ack.verdict is AckVerdict.OK)
            if pieces and ack.verdict is AckVerdict.OK:
                self.lag_s = max(0.0, (time.time_ns() - pieces[0].oldest_ns) / 1e9)
            elif pieces:
                log.error("the server refused %d rows of %s: %s", sum(piece.rows for piece in pieces), pieces[0].kind, ack.reason)
            self._changed.set()
        if not self._drained or len(self.window):
            raise WireError("the server ended the connection")
