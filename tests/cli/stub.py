"""A server that says what a test tells it to, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from infrasight.errors import InfraSightError
from infrasight.wire import Event, KindStatus, QueryResponse, StatusResponse, SubscribeRequest, SubscribeResponse
from infrasight.wire.server import GrpcServer
from infrasight.wire.service import EventsService, ServerStream
from tests.waiting import LIMIT_S

Answer = Callable[[str, str], list[bytes]]


class Stub(EventsService):
    """Answers each query with `answer(sql, format)`, each subscription with `events`, and then ends it."""

    def __init__(self, answer: Answer | None = None, events: list[Event] | None = None, store_problem: str = "", dropped: int = 0) -> None:
        super().__init__()
        self.answer = answer or (lambda _sql, _format: [])
        self.events = events or []
        self.dropped = dropped
        self.store_problem = store_problem
        self.filters: list[SubscribeRequest] = []
        self.asked: list[str] = []

    async def subscribe(self, stream: ServerStream[Any, Any]) -> None:
        self.filters.append(await stream.request())
        await stream.send(SubscribeResponse())
        await stream.send(SubscribeResponse(events=self.events, dropped=self.dropped))

    async def query(self, stream: ServerStream[Any, Any]) -> None:
        request = await stream.request()
        self.asked.append(request.sql)
        for chunk in self.answer(request.sql, request.format):
            await stream.send(QueryResponse(chunk=chunk))

    async def status(self, stream: ServerStream[Any, Any]) -> None:
        await stream.request()
        kinds = [KindStatus(name="open", rows=7)]
        problem = self.store_problem
        await stream.send(StatusResponse(version="1.2.3", uptime_s=5, store_reachable=not problem, store_problem=problem, kinds=kinds))


def refuse(error: InfraSightError) -> Answer:
    """An answer that is a refusal."""

    def answer(_sql: str, _format: str) -> list[bytes]:
        raise error

    return answer


@contextmanager
def served(stub: Stub) -> Iterator[str]:
    """Serve `stub` in a thread of its own; the port, as a flag's value."""
    loop = asyncio.new_event_loop()
    server = GrpcServer([stub])
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield str(asyncio.run_coroutine_threadsafe(server.start(), loop).result(LIMIT_S))
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(LIMIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT_S)
        loop.close()
