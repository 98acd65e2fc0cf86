"""What people and programs get: Subscribe, Query, Status."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

from infrasight.errors import InvalidRequest
from infrasight.server.live import MAX_SUBSCRIPTIONS, Live, Subscription
from infrasight.store import Store
from infrasight.wire import (
    QueryRequest,
    QueryResponse,
    StatusRequest,
    StatusResponse,
    SubscribeRequest,
    SubscribeResponse,
)
from infrasight.wire.service import EventsService, ServerStream

CHUNK_BYTES = 1 << 20
"""Of one QueryResponse."""


class Answers(EventsService):
    """The Events service of one server."""

    def __init__(self, store: Store, live: Live, status: Callable[[], StatusResponse]) -> None:
        super().__init__()
        self._store = store
        self._live = live
        self._status = status

    async def subscribe(self, stream: ServerStream[SubscribeRequest, SubscribeResponse]) -> None:
        """Events from now on, until the subscriber leaves or the server stops."""
        subscription = Subscription(await stream.request())
        if len(self._live.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise InvalidRequest(f"there are {MAX_SUBSCRIPTIONS} subscribers already")
        self._live.add(subscription)
        try:
            async with aclosing(subscription.responses()) as responses:
                async for response in responses:
                    await stream.send(response)
        finally:
            self._live.remove(subscription)

    async def query(self, stream: ServerStream[QueryRequest, QueryResponse]) -> None:
        """The result, in chunks."""
        request = await stream.request()
        if not request.sql.strip():
            raise InvalidRequest("the SQL is missing")
        result = cast("AsyncGenerator[bytes]", self._store.query(request.sql, format=request.format or "JSONEachRow"))
        async with aclosing(result) as chunks:  # ends the query when the client leaves
            async for chunk in chunks:
                for start in range(0, len(chunk), CHUNK_BYTES):
                    await stream.send(QueryResponse(chunk=chunk[start : start + CHUNK_BYTES]))

    async def status(self, stream: ServerStream[StatusRequest, StatusResponse]) -> None:
        """How the server is now."""
        await stream.request()
        await stream.send(self._status())
