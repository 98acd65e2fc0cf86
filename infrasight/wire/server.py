"""A listening gRPC server: on loopback unless asked by name, unharmed by anything that comes in, drained before it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import grpclib.server
from grpclib.metadata import decode_metadata
from grpclib.protocol import H2Protocol, Peer, UnackedData
from h2.errors import ErrorCodes
from h2.events import RequestReceived
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes

from infrasight.errors import CannotListen
from infrasight.wire.access import Access, Open
from infrasight.wire.complaints import complain
from infrasight.wire.framing import Encoder
from infrasight.wire.limits import Excess, Frames, Limits, Peers, within_files
from infrasight.wire.liveness import asking, give_up_when_silent
from infrasight.wire.service import Service, address_of, age_of
from infrasight.wire.status import in_words
from infrasight.wire.tls import CLIENT_HELLO, ServerTls, Tls, is_loopback
from infrasight.wire.windows import LEAST, Room, Window

log = logging.getLogger(__name__)
FRAME_BYTES = 1 << 18
"""Of one HTTP/2 frame that a client may send. The default of 16 KiB makes a batch dozens of frames, each of which costs h2 40 us."""
HOUSEKEEPING_S = 1.0
CHECK_BYTES = 16 << 20
"""Received on all connections together between two looks at what they hold."""


class GrpcServer:
    """Serves `services` on `host` and `port` (0: any free one).

    `refused` counts by reason what was malformed: `http2` (bytes that are no HTTP/2), `headers` (a request without sound headers),
    `message` (a gRPC message that is too long, late, cut off or not the protobuf it should be); who is not let in: `tls` (no handshake came about)
    and `access`; and of what is too much `connections`, `streams`, `flood` (frames that bring nothing), `slow` (no call in time) and `memory`.
    Services add reasons of their own (`batch`).
    """

    def __init__(
        self,
        services: Sequence[Service],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        insecure_listen: bool = False,
        tls: ServerTls | None = None,
        access: Access | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        """CannotListen for a `host` that other machines reach without `tls` and `access`, unless `insecure_listen`: nothing is encrypted, or
        anybody may ask anything."""
        if not insecure_listen and not is_loopback(host) and not (tls and access):
            what = "anybody may ask: give --tls-client-ca or --tokens" if tls else "nothing is encrypted: give --tls-cert and --tls-key"
            raise CannotListen(f"{host} can be reached by other machines, and {what}, or say --insecure-listen if that is meant")
        self.host = host
        self.port = port
        self.refused: Counter[str] = Counter()
        self.limits = limits
        for service in services:
            service.refused, service.limits = self.refused, limits
            service.access = access or Open()
        self._services = services
        self._tls = tls
        self._server: _Server | None = None

    async def start(self) -> int:
        """Listen, and return the port. CannotListen when that fails."""
        for name in ("grpclib.server", "grpclib.protocol"):
            logging.getLogger(name).addFilter(_quietly)
        self._server = _Server(self._services, self.refused, within_files(self.limits), self._tls)
        try:
            await self._server.start(self.host, self.port, backlog=1024)
        except (OSError, OverflowError) as error:
            self._server = None
            raise CannotListen(f"cannot listen on {self.host}:{self.port}: {in_words(error)}") from None
        self.port = self._server.port()
        return self.port

    def stop_accepting(self) -> None:
        """Take no new connection and no new call; those that run go on. Legal before start and twice."""
        if self._server is not None:
            self._server.stop_accepting()

    async def drained(self, within_s: float) -> bool:
        """Wait until no call runs; False when some still do after `within_s` seconds."""
        calls = self._server.calls() if self._server is not None else set()
        if not calls:
            return True
        _, running = await asyncio.wait(calls, timeout=within_s)
        return not running

    async def close(self) -> None:
        """Cancel what still runs and close every connection. Legal before start and twice."""
        server, self._server = self._server, None
        if server is not None:
            server.stop_accepting()
            server.close()
            server.hang_up()
            await server.wait_closed()


class _Server(grpclib.server.Server):
    """grpclib's server with protocols and handlers of ours. `_protocol_factory` and `_server` are private there: tests/wire proves that
    they work."""

    def __init__(self, services: Sequence[Service], refused: Counter[str], limits: Limits, tls: ServerTls | None) -> None:
        super().__init__(services, codec=Encoder(), config=asking(LEAST, LEAST))
        self.refused = refused
        self.limits = limits
        self.peers = Peers(limits)
        self.room = Room(limits.received_bytes // 2)
        self.tls = tls
        self.handshakes: set[_Handshake] = set()
        self._unchecked_bytes = 0
        self._housekeeping: asyncio.TimerHandle | None = None
        self.draining = False
        self.protocols: set[_Protocol] = set()

    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]  # called once started only
        return port

    def stop_accepting(self) -> None:
        self.draining = True
        if self._server is not None:
            self._server.close()

    def calls(self) -> set[asyncio.Task[None]]:
        return {task for handler in self._handlers for task in handler._tasks.values() if not task.done()}

    def received(self, size: int) -> None:
        """So many bytes came: what lies about unread is looked at now and then, and once a second, when anything comes or not."""
        self._unchecked_bytes += size
        if self._unchecked_bytes >= CHECK_BYTES:
            self._check_held()
        if self._housekeeping is None:
            self._housekeeping = asyncio.get_running_loop().call_later(HOUSEKEEPING_S, self._keep_house)

    def _keep_house(self) -> None:
        """End connections that have had their time. It goes on for as long as there are any."""
        self._housekeeping = None
        now = time.monotonic()
        for protocol in tuple(self.protocols):
            protocol.end_if_over(now)
        self._check_held()
        if self.protocols:
            self._housekeeping = asyncio.get_running_loop().call_later(HOUSEKEEPING_S, self._keep_house)

    def _check_held(self) -> None:
        self._unchecked_bytes = 0
        held = sorted(((protocol.held_bytes(), id(protocol), protocol) for protocol in self.protocols), reverse=True)
        total = sum(size for size, *_ in held)
        for size, _, protocol in held:
            if total <= self.limits.received_bytes:
                return
            protocol.refuse("memory")
            total -= size

    def hang_up(self) -> None:
        """Close connections. Since Python 3.12, wait_closed waits for clients to leave, which idle ones never do."""
        for protocol in tuple(self.protocols):
            protocol.processor.close("the server is closed")
        for handshake in tuple(self.handshakes):
            handshake.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()

    def _protocol_factory(self) -> asyncio.BaseProtocol:  # type: ignore[override]  # all that asyncio wants
        self.__gc_step__()
        handler = _Handler(self)
        self._handlers.add(handler)
        protocol = _Protocol(self, handler)
        return _Handshake(self, protocol, self.tls) if self.tls else protocol


class _Handler(grpclib.server.Handler):
    """Refuses calls whose headers grpclib would stumble over."""

    def __init__(self, server: _Server) -> None:
        super().__init__(server._mapping, server._codec, server._status_details_codec, server.__dispatch__)
        self._server = server

    def accept(self, stream: Any, headers: list[tuple[str, str]], release_stream: Callable[[], Any]) -> None:
        reason = self._objection(headers)
        if reason is None and not self._server.draining and not age_of(stream.connection).over:
            super().accept(stream, headers, release_stream)
            return
        if reason is not None:
            self._server.refused[reason] += 1
        stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
        release_stream()

    def _objection(self, headers: list[tuple[str, str]]) -> str | None:
        if sum(not task.done() for task in self._tasks.values()) >= self._server.limits.streams:
            return "streams"
        return None if _sound(headers) else "headers"

    def cancel(self, stream: Any) -> None:
        if stream in self._tasks:  # it is not when the call ended and was swept away before its stream was reset
            super().cancel(stream)


class _Handshake(Tls):
    """One connection with TLS; among `handshakes` until it may speak HTTP/2."""

    def __init__(self, server: _Server, protocol: _Protocol, tls: ServerTls) -> None:
        super().__init__(protocol, tls.context(), self._report)
        self._owner = server
        self._peer = self._address = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._peer = address_of(Peer(cast("asyncio.Transport", transport)))
        self._owner.handshakes.add(self)
        super().connection_made(transport)
        self._address = peer_of(transport)
        if not self._owner.peers.enter(self._address):
            self._owner.refused["connections"] += 1
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.handshakes.discard(self)
        self._owner.peers.leave(self._address)
        super().connection_lost(exc)

    def _on_handshake_complete(self, error: BaseException | None) -> None:
        self._owner.handshakes.discard(self)
        super()._on_handshake_complete(error)

    def _report(self, why: str) -> None:
        self._owner.refused["tls"] += 1
        complain("refused %s: %s", self._peer, why)


class _Protocol(H2Protocol):
    """One connection: what is no HTTP/2 closes it, and nothing else."""

    def __init__(self, server: _Server, handler: _Handler) -> None:
        super().__init__(handler, server._config, server._h2_config)
        self._owner = server
        self._frames = Frames(lambda: (self.connection.data_sent, self.connection.messages_sent))
        self._address: str | None = None
        """Where it counts as an open connection; with TLS its handshake does."""
        self._busy_s = time.monotonic()
        """When there was an open call last, or the connection was made."""
        self._called = False
        self._old_at_s = self._busy_s + server.limits.age_s * random.uniform(0.9, 1.1) if server.limits.age_s else math.inf
        """Spread, so that those that came together do not come back together."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        give_up_when_silent(self, transport)
        self._window = Window(self.connection, self._owner.room)
        self._owner.protocols.add(self)
        if self._owner.tls is None:  # else its handshake has
            self._address = peer_of(transport)
            if not self._owner.peers.enter(self._address):
                self.refuse("connections")
                return
        told: dict[SettingCodes | int, int] = {
            SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
            SettingCodes.MAX_CONCURRENT_STREAMS: self._owner.limits.streams,
            SettingCodes.INITIAL_WINDOW_SIZE: LEAST // 2,
        }
        self.connection._connection.update_settings(told)
        # From now on, not once h2 has seen it acknowledged: the first such frame may come in one read with the acknowledgement.
        self.connection._connection.max_inbound_frame_size = FRAME_BYTES
        self.connection.flush()
        self._owner.received(0)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self in self._owner.protocols:
            self._owner.protocols.discard(self)
            self._window.close()
            if self._address is not None:
                self._owner.peers.leave(self._address)
        super().connection_lost(exc)

    def end_if_over(self, now: float) -> None:
        """Close it when it has not made a call in time, or has none since long."""
        if self.processor.streams:
            self._busy_s, self._called = now, True
        elif now - self._busy_s > (self._owner.limits.idle_s if self._called else self._owner.limits.first_call_s):
            self.refuse("" if self._called else "slow")
        if now > self._old_at_s and not self.connection.is_closing():
            self._end_of_age(now)

    def _end_of_age(self, now: float) -> None:
        """Have its calls end well, and then close it; what does not end in the time that a message may take is cut off."""
        age, unsent = age_of(self.connection), self.connection._transport.get_write_buffer_size()
        if not age.over:
            age.over = True
            for end in tuple(age.endings):
                end()
        elif not (self.processor.streams or unsent) or now > self._old_at_s + self._owner.limits.message_s:
            self.refuse("")

    def held_bytes(self) -> int:
        """What has come and was not read yet."""
        held = 0
        for stream in self.processor.streams.values():
            unread: Iterable[UnackedData] = stream.buffer._unacked._queue  # type: ignore[attr-defined]  # an asyncio.Queue's own
            held += stream.buffer._acked_size + sum(each.data_size for each in unread)
        return held

    def data_received(self, data: bytes) -> None:
        if self.connection.is_closing():
            return
        try:
            self._frames.check(data)
            for event in self.connection.feed(data):
                self.processor.process(event)
                if isinstance(event, RequestReceived):
                    self._busy_s, self._called = time.monotonic(), True
            if not self.connection.is_closing():
                self.connection.flush()
            self._owner.received(len(data))
        except Excess as excess:
            self.refuse(str(excess))
        except ProtocolError:
            if data.startswith(CLIENT_HELLO):
                complain("refused %s: it speaks TLS, and this server was given no --tls-cert", address_of(self.connection.get_peer()))
            self.refuse("http2")
        except Exception as error:  # noqa: BLE001 - grpclib raises anything at frames that it does not know
            log.debug("malformed HTTP/2: %r", error)
            self.refuse("http2")

    def refuse(self, reason: str) -> None:
        """Close it, with a word where that is possible; counted, unless `reason` is empty. What waits to be sent is given up: nobody may read it."""
        if reason:
            self._owner.refused[reason] += 1
        if self.connection.is_closing():
            return
        with contextlib.suppress(H2Error):
            self.connection._connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM if reason else ErrorCodes.NO_ERROR)
            self.connection.flush()
        transport = self.connection._transport
        self.processor.close("refused")
        if transport.get_write_buffer_size():
            transport.abort()


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Address of the other side, without its port."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else "?"


def _sound(headers: list[tuple[str, str]]) -> bool:
    try:
        decode_metadata(headers)
    except (Base64Error, ValueError):
        return False
    return {":method", ":path"} <= {name for name, _ in headers}


def _quietly(record: logging.LogRecord) -> bool:
    """grpclib reports malformed requests and lost connections as errors with tracebacks: for us they are a counter and a line for
    debuggers."""
    record.msg, record.args = f"{record.getMessage()} {record.exc_info[1]!r}" if record.exc_info else record.getMessage(), None
    record.exc_info, record.levelno, record.levelname = None, logging.DEBUG, "DEBUG"
    return log.isEnabledFor(logging.DEBUG)
