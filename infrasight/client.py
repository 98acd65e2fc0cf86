"""The door for Python users: ask a running InfraSight server.

    async with Client("127.0.0.1", 50051) as client:
        async for chunk in client.query("SELECT comm, count() AS n FROM open GROUP BY comm ORDER BY n DESC LIMIT 5"):
            print(chunk.decode(), end="")

        async with client.subscribe(kinds=["execve"], users=["root"]) as events:
            async for event in events:
                print(event.execve.comm, event.execve.argv)

    Client("events.example", credentials=Credentials(tls_ca=Path("ca.pem"), token_file=Path("token")))      # over TLS

Every failure is an `infrasight.errors.InfraSightError` with one line: `Unreachable`, `Disconnected`, `QueryRefused`, `QueryFailed`, ... A
client works on the event loop that it was entered on. Install uvloop in your program if you want it; the library does not.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from infrasight.errors import Disconnected
from infrasight.wire import (
    Event,
    EventsBase,
    Hello,
    QueryRequest,
    QueryResponse,
    StatusRequest,
    StatusResponse,
    SubscribeRequest,
    SubscribeResponse,
)
from infrasight.wire.channel import Call, Channel
from infrasight.wire.shipment import Shipment
from infrasight.wire.tls import Credentials

__all__ = ["Client", "Credentials", "Shipment", "Subscription"]


class Client:
    """One connection to a server; any number of calls at a time go over it."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 50051,
        *,
        insecure: bool = False,
        credentials: Credentials | None = None,
        answer_within_s: float = 10.0,
    ) -> None:
        """`credentials` say whom we trust, which makes it TLS, and who we are: docs/SECURITY.md. `insecure` allows a `host` that is another
        machine although nothing is encrypted. `answer_within_s` bounds how long a call waits for the server to begin to answer, not how long
        the answer takes."""
        self._address = host, port
        self._options: dict[str, Any] = {"insecure": insecure, "credentials": credentials, "answer_within_s": answer_within_s}
        self._open: Channel | None = None

    async def __aenter__(self) -> Self:
        """Connect. Unreachable when nobody listens there."""
        self._open = await Channel(*self._address, **self._options).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection; calls that still run end with Disconnected."""
        channel, self._open = self._open, None
        if channel is not None:
            channel.close()

    def query(self, sql: str, format: str = "JSONEachRow") -> AsyncIterator[bytes]:
        """The result of one read-only SQL statement, in chunks, in a ClickHouse output format: JSONEachRow, CSVWithNames, ArrowStream, ...

        Tables are in the database `infrasight`, one per event kind: docs/EVENTS.md. Raises QueryRefused (not read-only, no such format),
        QueryFailed (the database's own words).
        """
        return self._query(QueryRequest(sql=sql, format=format))

    async def _query(self, request: QueryRequest) -> AsyncIterator[bytes]:
        async with self._channel.call(EventsBase, QueryRequest, QueryResponse) as call:
            await call.send(request, end=True)
            while (answer := await call.receive()) is not None:
                yield answer.chunk

    def subscribe(self, filter: SubscribeRequest | None = None, **fields: Any) -> Subscription:
        """Events from now on that pass the filter, given as a message or as its fields: `kinds`, `nodes`, `comms`, `users`, `pids`, `uids`,
        `path_prefixes`, `containers`, `images`, `pods`, `ancestors` (lists), `max_rate_per_s`."""
        return Subscription(self._channel, filter if filter is not None else SubscribeRequest(**fields))

    async def status(self) -> StatusResponse:
        """How the server is: version, store, nodes, rows per kind, its edges' counts."""
        async with self._channel.call(EventsBase, StatusRequest, StatusResponse) as call:
            await call.send(StatusRequest(), end=True)
            answer = await call.receive()
            if answer is None:
                raise Disconnected(f"the server at {self._channel.target} said nothing")
            return answer

    def ship(self, hello: Hello, on_attention: Callable[[bool], None] = lambda watched: None) -> Shipment:
        """Ship batches, as a node does. `on_attention` hears whether somebody watches, each time the server says so."""
        return Shipment(self._channel, hello, on_attention)

    @property
    def _channel(self) -> Channel:
        if self._open is None:
            raise Disconnected("the client is not connected: use `async with Client(...)`")
        return self._open


class Subscription:
    """Events as they arrive: an async iterator, and a context manager that ends it. Iterating without entering works too; it then ends with
    the client's connection."""

    def __init__(self, channel: Channel, filter: SubscribeRequest) -> None:
        self._filter = filter
        self._call: Call[SubscribeRequest, SubscribeResponse] = channel.call(EventsBase, SubscribeRequest, SubscribeResponse)
        self._events: deque[Event] = deque()
        self._entered = False
        self.dropped = 0
        """Events that passed the filter so far, but that we were too slow for (or over `max_rate_per_s`)."""

    async def __aenter__(self) -> Self:
        """Subscribe: events that the server gets from now on count."""
        self._entered = True
        async with contextlib.AsyncExitStack() as unless_it_stands:
            await unless_it_stands.enter_async_context(self._call)
            await self._call.send(self._filter, end=True)
            await self._receive()  # the first response is empty: it says that the subscription stands
            unless_it_stands.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._call.__aexit__(kind, error, trace)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event; the iteration ends when the server stops."""
        if not self._entered:
            await self.__aenter__()
        while not self._events:
            if not await self._receive():
                raise StopAsyncIteration
        return self._events.popleft()

    async def _receive(self) -> bool:
        response = await self._call.receive()
        if response is None:
            return False
        self._events.extend(response.events)
        self.dropped += response.dropped
        return True
