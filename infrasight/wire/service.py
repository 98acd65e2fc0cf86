"""A gRPC service's base class, and the stream that its methods get: no message is too big, malformed or fatal."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import grpclib.server
from betterproto2 import Message
from betterproto2.grpclib import ServiceBase
from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import Peer
from h2.exceptions import H2Error

from infrasight.errors import AccessDenied, Disconnected, InfraSightError, InvalidRequest
from infrasight.wire import CollectorBase, EventsBase
from infrasight.wire.access import Access, Open, Principal, Role
from infrasight.wire.complaints import complain
from infrasight.wire.framing import Late, read_message
from infrasight.wire.limits import Limits
from infrasight.wire.status import to_grpc
from infrasight.wire.strict import parse

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
log = logging.getLogger(__name__)


@dataclass(eq=False)
class Age:
    """Of a connection: whether it is too old, and what ends its calls then."""

    over: bool = False
    endings: set[Callable[[], object]] = field(default_factory=set)


def age_of(connection: Any) -> Age:
    """That of one of grpclib's connections, which it keeps."""
    age: Age = vars(connection).setdefault("age", Age())
    return age


class ServerStream(Generic[Request, Response]):
    """One call, as the method that serves it sees it."""

    def __init__(
        self, stream: grpclib.server.Stream[Any, Any], request: type[Request], max_bytes: int, principal: Principal, limits: Limits
    ) -> None:
        self.principal = principal
        self._stream = stream
        self._request = request
        self._max_bytes = max_bytes
        self._limits = limits
        self._heard = False

    @property
    def peer(self) -> str:
        """Address of the other side, for people."""
        return address_of(self._stream.peer)

    @contextmanager
    def ended_with_age(self, end: Callable[[], object]) -> Iterator[None]:
        """For as long as this lasts, `end` is called when the connection has become too old (at once, if it is): the call should soon be over."""
        age = age_of(self._stream._stream.connection)
        age.endings.add(end)
        try:
            if age.over:
                end()
            yield
        finally:
            age.endings.discard(end)

    async def receive(self) -> Request | None:
        """The next message, None when the other side will send no more. InvalidRequest when it is malformed or longer than the service allows, Late
        when it is late: the first may not keep us waiting."""
        data = await self.receive_bytes()
        return None if data is None else parse(data, self._request)

    async def receive_bytes(self) -> bytes | None:
        """The same, not read as protobuf: a message that is no message ends nothing."""
        first_within_s = None if self._heard else self._limits.first_call_s
        try:
            async with asyncio.timeout(first_within_s):
                data = await read_message(self._stream._stream, self._max_bytes, self._limits.message_s)
        except TimeoutError:
            raise Late(f"no message has come within {first_within_s:g} s") from None
        self._heard = True
        return data

    async def request(self) -> Request:
        """The only message of a call that has one. InvalidRequest when there is none."""
        message = await self.receive()
        if message is None:
            raise InvalidRequest("the request is missing")
        return message

    async def send(self, message: Response | bytes) -> None:
        """Send a message (bytes: one that is encoded already), waiting while the other side is slow. Disconnected when it is gone, or reads nothing
        for too long."""
        try:
            async with asyncio.timeout(self._limits.message_s):
                await self._stream.send_message(message)
            self._stream._stream.connection.messages_sent += 1  # limits.py asks; grpclib counts a client's only
        except TimeoutError:
            raise Disconnected(f"{self.peer} does not read what it is sent") from None
        except (H2Error, ConnectionError) as error:
            raise Disconnected(f"{self.peer} is gone: {error}") from None


class Service(abc.ABC):
    """A gRPC service. `generated` is its class in the generated code, whose every method `Name` a subclass has as `async name(stream)`."""

    generated: ClassVar[type[ServiceBase]]
    roles: ClassVar[frozenset[Role]] = frozenset()
    """Who may call it, besides an admin."""
    purpose: ClassVar[str] = "do that"
    """What those may."""
    max_message_bytes: ClassVar[int] = 256 << 10
    limits: Limits = Limits()
    """A GrpcServer gives its own."""
    refused: Counter[str]
    """Malformed calls; a GrpcServer has one counter for everything."""
    access: Access
    """Who is let in; a GrpcServer has one for everything."""

    def __init__(self) -> None:
        self.refused = Counter()
        self.access = Open()

    def __mapping__(self) -> Mapping[str, Handler]:
        """For grpclib: the routes, each with its method."""
        routes: dict[str, Handler] = self.generated().__mapping__()  # type: ignore[attr-defined]  # its subclasses have it
        return {route: handler._replace(func=self._guarded(route, handler)) for route, handler in routes.items()}

    def _guarded(self, route: str, handler: Handler) -> Callable[[Any], Awaitable[None]]:
        """The method, with everything it may raise made into a status."""
        method = getattr(self, route.rsplit("/", 1)[1].lower())

        async def call(stream: grpclib.server.Stream[Any, Any]) -> None:
            try:
                await stream.send_initial_metadata()  # at once: by this a client sees that we are here
                await method(ServerStream(stream, handler.request_type, self.max_message_bytes, self._admitted(stream), self.limits))
            except (TimeoutError, GRPCError, StreamTerminatedError):
                raise
            except (H2Error, ConnectionError):
                raise to_grpc(Disconnected("the other side is gone")) from None
            except InfraSightError as error:
                if isinstance(error, InvalidRequest | Late):
                    self.refused["message"] += 1
                if isinstance(error, AccessDenied):
                    self.refused["access"] += 1
                    complain("refused %s: %s", address_of(stream.peer), error)
                log.debug("%s: %s", route, error)
                raise to_grpc(error) from None
            except Exception:  # a bug of ours ends one call, not the server
                log.exception("%s failed", route)
                raise GRPCError(Status.INTERNAL, "the server made a mistake, its log says which") from None

        return call

    def _admitted(self, stream: grpclib.server.Stream[Any, Any]) -> Principal:
        """Who calls. AccessDenied when they may not."""
        principal = self.access.admit(stream.peer.cert(), str(stream.metadata.get("authorization", "") if stream.metadata else ""))
        if principal.role is not Role.ADMIN and principal.role not in self.roles:
            raise AccessDenied(f"{principal.shown} may not {self.purpose}")
        return principal


def address_of(peer: Peer) -> str:
    """Of the other side, for people."""
    address = peer.addr()
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?"


class CollectorService(Service):
    """Takes batches from nodes."""

    generated = CollectorBase
    roles = frozenset({Role.NODE})
    purpose = "ship events"

    @abc.abstractmethod
    async def ship(self, stream: ServerStream[Any, Any]) -> None:
        """Serve one node's stream: ShipRequest in, ShipResponse out."""


class EventsService(Service):
    """Answers people and programs."""

    generated = EventsBase
    roles = frozenset({Role.READER})
    purpose = "ask for events"

    @abc.abstractmethod
    async def subscribe(self, stream: ServerStream[Any, Any]) -> None:
        """SubscribeRequest in, SubscribeResponse out until the subscriber leaves."""

    @abc.abstractmethod
    async def query(self, stream: ServerStream[Any, Any]) -> None:
        """QueryRequest in, QueryResponse out."""

    @abc.abstractmethod
    async def status(self, stream: ServerStream[Any, Any]) -> None:
        """StatusRequest in, one StatusResponse out."""
