"""A client's connection to a server, and its calls. Whatever goes wrong is one of our errors, with one line."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpclib.client
from betterproto2 import Message
from betterproto2.grpclib import ServiceBase
from grpclib.const import Handler
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from grpclib.utils import Wrapper
from h2.exceptions import H2Error

from infrasight.errors import Disconnected, InvalidRequest, Unreachable
from infrasight.wire.framing import Encoder, read_message
from infrasight.wire.liveness import asking, give_up_when_silent
from infrasight.wire.status import from_grpc, in_words
from infrasight.wire.tls import ALERT_TYPE, Credentials, Tls, is_loopback

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

MAX_ANSWER_BYTES = 64 << 20
"""Of one message from a server."""
CONNECTION_WINDOW, STREAM_WINDOW = 2**31 - 1, 4 << 20
"""What a server may send before we read it, in bytes. Each call is bounded; all together are not, or an unread one would hold up the others."""


@functools.cache
def _calls(service: type[ServiceBase]) -> dict[type[Message], tuple[str, Handler]]:
    """Route and types of each call of a service by its request: no two have the same."""
    generated: Any = service()
    routes: dict[str, Handler] = generated.__mapping__()
    return {handler.request_type: (route, handler) for route, handler in routes.items()}


class Channel:
    """One connection to `host` and `port`, made when it is first needed and again when it broke. As a context manager it is made at once, Unreachable
    when nobody listens there, and closed at the end."""

    def __init__(
        self, host: str, port: int, *, insecure: bool = False, credentials: Credentials | None = None, answer_within_s: float = 10.0
    ) -> None:
        """Unreachable for a `host` beyond this machine without TLS, unless `insecure`: nothing is encrypted. A token never goes there so. A
        server that does not begin to answer a call within `answer_within_s` seconds is Unreachable too."""
        self.target = f"{host}:{port}"
        self._credentials = credentials or Credentials()
        if not self._credentials.encrypts and not is_loopback(host):
            if self._credentials.token_file:
                raise Unreachable(f"{self.target} is another machine, and a token goes there encrypted only: give --tls-ca")
            if not insecure:
                raise Unreachable(
                    f"{self.target} is another machine, and nothing would be encrypted: give --tls-ca, or say so with --insecure if that is meant"
                )
        self.answer_within_s = answer_within_s
        self._channel = _GrpcChannel(host, port, self._credentials)

    @property
    def trouble(self) -> str:
        """Why the connection is no good, where more is known than that it broke."""
        return self._channel.trouble

    async def connect(self) -> None:
        """Connect now. Unreachable when nobody listens there."""
        with translated(self.target, Unreachable, trouble=lambda: self.trouble):
            async with asyncio.timeout(self.answer_within_s):
                await self._channel.__connect__()

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def call(self, service: type[ServiceBase], request: type[Request], response: type[Response]) -> Call[Request, Response]:
        """The call of `service` that takes `request`s and gives `response`s; it begins when it is entered."""
        route, handler = _calls(service)[request]
        metadata = self._credentials.headers()
        stream = self._channel.request(route, handler.cardinality, handler.request_type, handler.reply_type, metadata=metadata)
        return Call(stream, response, self)

    def close(self) -> None:
        """Close the connection; calls that run fail with Disconnected. Legal twice."""
        self._channel.close()


class _GrpcChannel(grpclib.client.Channel):
    """grpclib's channel with TLS of ours. `_create_connection`, `_protocol_factory` and `_scheme` are private there: tests/wire proves that they
    work."""

    def __init__(self, host: str, port: int, credentials: Credentials) -> None:
        super().__init__(host, port, codec=Encoder(), config=asking(CONNECTION_WINDOW, STREAM_WINDOW))
        self._credentials = credentials
        self.trouble = ""
        if credentials.encrypts:
            self._scheme = "https"

    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(grpclib.client.Handler(), self._config, self._h2_config, self._note)

    async def _create_connection(self) -> H2Protocol:
        self.trouble = ""
        if not self._credentials.encrypts:
            return await super()._create_connection()
        shaken = self._loop.create_future()
        protocol = self._protocol_factory()
        context = self._credentials.context()
        transport, _ = await self._loop.create_connection(
            lambda: Tls(protocol, context, self._note, server_hostname=self._host, shaken=shaken), self._host, self._port
        )
        try:
            await shaken
        except asyncio.CancelledError:
            transport.abort()
            raise
        return protocol

    def _note(self, trouble: str) -> None:
        self.trouble = trouble


class _Protocol(H2Protocol):
    """One connection: notices when a server speaks TLS, or speaks no more."""

    def __init__(self, handler: Any, config: Any, h2_config: Any, note: Callable[[str], None]) -> None:
        super().__init__(handler, config, h2_config)
        self._note = note
        self._heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        give_up_when_silent(self, transport)

    def data_received(self, data: bytes) -> None:
        if not self._heard and data.startswith(ALERT_TYPE):
            self._note("it speaks TLS: give --tls-ca")
        self._heard = True
        super().data_received(data)


class Call(Generic[Request, Response]):
    """One call: an async context manager that ends it in any case, and cancels it when it is left early."""

    def __init__(self, stream: grpclib.client.Stream[Any, Any], response: type[Response], channel: Channel) -> None:
        self._stream = stream
        self._response = response
        self._channel = channel
        self._answer_within_s = channel.answer_within_s

    async def __aenter__(self) -> Self:
        """Begin, and see that it is our server that answers. Unreachable when it is not."""
        await self._stream.__aenter__()
        self._stream._wrapper = Waking()
        try:
            with self._translated(Unreachable):
                async with asyncio.timeout(self._answer_within_s):
                    await self._stream.send_request()
                    await self._stream.recv_initial_metadata()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def send(self, message: Request, *, end: bool = False) -> None:
        """Send a message, waiting while the server is slow. Disconnected when it is gone, or what it refused the call with."""
        with self._translated():
            await self._stream.send_message(message, end=end)

    async def end(self) -> None:
        """Send no more; the server may still answer."""
        with self._translated():
            await self._stream.end()

    async def receive(self) -> Response | None:
        """The next answer, None when the server ended the call well. Disconnected when it is gone, or what it refused the call with."""
        with self._translated():
            with self._stream._wrapper:
                data = await read_message(self._stream._stream, MAX_ANSWER_BYTES)
            if data is None:
                self._stream._maybe_raise()  # the status that came with the end
            return None if data is None else self._response.parse(data)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the call; one that still runs is cancelled."""
        over = GeneratorExit()  # an exception, whichever: without one grpclib waits for the server to end the call
        with self._translated():
            await self._stream.__aexit__(type(over), over, None)

    def _translated(self, broken: type[Unreachable] | type[Disconnected] = Disconnected) -> contextlib.AbstractContextManager[None]:
        return translated(self._channel.target, broken, self._stream, trouble=lambda: self._channel.trouble)


class Waking(Wrapper):
    """How grpclib wakes who waits for a call that is over: by cancelling the task, once. Its own does so again when a connection says that it is
    closed and then is, of which `translated` could take back one."""

    def cancel(self, error: Exception) -> None:
        """Wake them; from then on nobody waits."""
        if self._error is None:
            super().cancel(error)


@contextlib.contextmanager
def translated(
    target: str,
    broken: type[Unreachable] | type[Disconnected],
    stream: grpclib.client.Stream[Any, Any] | None = None,
    server: str = "InfraSight server",
    trouble: Callable[[], str] = str,
) -> Iterator[None]:
    """What grpclib, h2 and sockets raise, as our errors; `broken` is what a broken connection means at this point. `trouble` is what else is
    known of one."""
    task = asyncio.current_task()
    cancels = task.cancelling() if task is not None else 0
    try:
        yield
    except GRPCError as error:
        raise from_grpc(error, target) from None
    except StreamTerminatedError as error:
        if task is not None and task.cancelling() > cancels:
            task.uncancel()  # grpclib cancels the task to wake it, and forgets to take that back
        if task is not None and task.cancelling() > cancels:
            raise asyncio.CancelledError from None
        if why := trouble():
            raise broken(f"cannot talk to {target}: {why}") from None
        raise _reason(stream, target) or broken(f"the server at {target} is gone, or is no {server} ({error})") from None
    except TimeoutError:
        raise broken(f"{target} does not answer") from None
    except (H2Error, OSError, ValueError, InvalidRequest) as error:
        raise broken(f"cannot talk to {target}: {trouble() or in_words(error)}") from None


def _reason(stream: grpclib.client.Stream[Any, Any] | None, target: str) -> Exception | None:
    """Why the server ended a call, if it said so before it reset the stream."""
    try:
        if stream is not None:
            stream._maybe_raise()  # grpclib itself asks this, but only after the call was left
    except GRPCError as error:
        return from_grpc(error, target)
    return None
