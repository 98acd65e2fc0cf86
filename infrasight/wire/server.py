"""A listening gRPC server: on loopback unless asked by name, unharmed by anything that comes in, drained before it is closed."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import grpclib.server
from grpclib.metadata import decode_metadata
from grpclib.protocol import H2Protocol
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from infrasight.errors import CannotListen
from infrasight.wire.framing import Encoder
from infrasight.wire.liveness import asking, give_up_when_silent
from infrasight.wire.service import Service
from infrasight.wire.status import in_words

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
    `message` (a gRPC message that is too long, cut off or not the protobuf it should be) and `connections` (beyond MAX_CONNECTIONS);
    services add reasons of their own (`batch`).
    """

    def __init__(self, services: Sequence[Service], host: str = "127.0.0.1", port: int = 0, *, insecure_listen: bool = False) -> None:
        """CannotListen for a `host` that other machines reach, unless `insecure_listen`: nothing is encrypted and anybody may ask
        anything."""
        if not insecure_listen and not is_loopback(host):
            raise CannotListen(f"{host} can be reached by other machines, and nothing is encrypted: say --insecure-listen if that is meant")
        self.host = host
        self.port = port
        self.refused: Counter[str] = Counter()
        for service in services:
            service.refused = self.refused
        self._services = services
        self._server: _Server | None = None

    async def start(self) -> int:
        """Listen, and return the port. CannotListen when that fails."""
        for name in ("grpclib.server", "grpclib.protocol"):
            logging.getLogger(name).addFilter(_quietly)
        self._server = _Server(self._services, self.refused)
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

    def __init__(self, services: Sequence[Service], refused: Counter[str]) -> None:
        super().__init__(services, codec=Encoder(), config=asking(CONNECTION_WINDOW, STREAM_WINDOW))
        self.refused = refused
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

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = _Handler(self)
        self._handlers.add(handler)
        return _Protocol(self, handler)


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


class _Protocol(H2Protocol):
    """One connection: what is no HTTP/2 closes it, and nothing else."""

    def __init__(self, server: _Server, handler: _Handler) -> None:
        super().__init__(handler, server._config, server._h2_config)
        self._owner = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        give_up_when_silent(self, transport)
        self.connection._connection.update_settings({SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES})
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
