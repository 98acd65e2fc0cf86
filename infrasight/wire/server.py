"""A listening gRPC server: on loopback unless asked by name, unharmed by anything that comes in, drained before it is closed."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import grpclib.server
from grpclib.metadata import decode_metadata
from grpclib.protocol import H2Protocol, Peer
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from infrasight.errors import CannotListen
from infrasight.wire.access import Access, Open
from infrasight.wire.complaints import complain
from infrasight.wire.framing import Encoder
from infrasight.wire.liveness import asking, give_up_when_silent
from infrasight.wire.service import Service, address_of
from infrasight.wire.status import in_words
from infrasight.wire.tls import CLIENT_HELLO, ServerTls, Tls

log = logging.getLogger(__name__)
MAX_CONNECTIONS = 1024
"""Open connections; one more is closed at once."""

FRAME_BYTES = 1 << 18
"""Of one HTTP/2 frame that a client may send. The default of 16 KiB makes a batch dozens of frames, each of which costs h2 40 us."""
CONNECTION_WINDOW, STREAM_WINDOW = 8 << 20, 4 << 20
"""What clients may send before we read it, in bytes: one stream that is made to wait leaves room for another call."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can be at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GrpcServer:
    """Serves `services` on `host` and `port` (0: any free one).

    `refused` counts by reason what was malformed: `http2` (bytes that are no HTTP/2), `headers` (a request without sound headers),
    `message` (a gRPC message that is too long, cut off or not the protobuf it should be), `connections` (beyond MAX_CONNECTIONS), and who is
    not let in: `tls` (no handshake came about) and `access`; services add reasons of their own (`batch`).
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
    ) -> None:
        """CannotListen for a `host` that other machines reach without `tls` and `access`, unless `insecure_listen`: nothing is encrypted, or
        anybody may ask anything."""
        if not insecure_listen and not is_loopback(host) and not (tls and access):
            what = "anybody may ask: give --tls-client-ca or --tokens" if tls else "nothing is encrypted: give --tls-cert and --tls-key"
            raise CannotListen(f"{host} can be reached by other machines, and {what}, or say --insecure-listen if that is meant")
        self.host = host
        self.port = port
        self.refused: Counter[str] = Counter()
        for service in services:
            service.refused = self.refused
            service.access = access or Open()
        self._services = services
        self._tls = tls
        self._server: _Server | None = None

    async def start(self) -> int:
        """Listen, and return the port. CannotListen when that fails."""
        for name in ("grpclib.server", "grpclib.protocol"):
            logging.getLogger(name).addFilter(_quietly)
        self._server = _Server(self._services, self.refused, self._tls)
        try:
            await self._server.start(self.host, self.port)
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

    def __init__(self, services: Sequence[Service], refused: Counter[str], tls: ServerTls | None) -> None:
        super().__init__(services, codec=Encoder(), config=asking(CONNECTION_WINDOW, STREAM_WINDOW))
        self.refused = refused
        self.tls = tls
        self.handshakes: set[_Handshake] = set()
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

    def hang_up(self) -> None:
        """Close connections. Since Python 3.12, wait_closed waits for clients to leave, which idle ones never do."""
        for protocol in tuple(self.protocols):
            protocol.processor.close("the server is closed")
        for handshake in tuple(self.handshakes):
            handshake.close()

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
        if _sound(headers) and not self._server.draining:
            super().accept(stream, headers, release_stream)
            return
        if not self._server.draining:
            self._server.refused["headers"] += 1
        stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
        release_stream()

    def cancel(self, stream: Any) -> None:
        if stream in self._tasks:  # it is not when the call ended and was swept away before its stream was reset
            super().cancel(stream)


class _Handshake(Tls):
    """One connection with TLS; among `handshakes` until it may speak HTTP/2."""

    def __init__(self, server: _Server, protocol: _Protocol, tls: ServerTls) -> None:
        super().__init__(protocol, tls.context(), self._report)
        self._owner = server
        self._peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._peer = address_of(Peer(cast("asyncio.Transport", transport)))
        self._owner.handshakes.add(self)
        super().connection_made(transport)
        if len(self._owner.protocols) + len(self._owner.handshakes) > MAX_CONNECTIONS:
            self._owner.refused["connections"] += 1
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.handshakes.discard(self)
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        give_up_when_silent(self, transport)
        self.connection._connection.update_settings({SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES})
        # From now on, not once h2 has seen it acknowledged: the first such frame may come in one read with the acknowledgement.
        self.connection._connection.max_inbound_frame_size = FRAME_BYTES
        self.connection.flush()
        self._owner.protocols.add(self)
        if len(self._owner.protocols) > MAX_CONNECTIONS:
            self._refuse("connections")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.protocols.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.connection.feed(data):
                self.processor.process(event)
            if not self.connection.is_closing():
                self.connection.flush()
        except ProtocolError:
            if data.startswith(CLIENT_HELLO):
                complain("refused %s: it speaks TLS, and this server was given no --tls-cert", address_of(self.connection.get_peer()))
            self._refuse("http2")
        except Exception as error:  # noqa: BLE001 - grpclib raises anything at frames that it does not know
            log.debug("malformed HTTP/2: %r", error)
            self._refuse("http2")

    def _refuse(self, reason: str) -> None:
        self._owner.refused[reason] += 1
        self.processor.close("refused")


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
