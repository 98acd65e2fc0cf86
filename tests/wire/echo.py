"""A service to test the wire with, and bytes to hurt it with."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection

from infrasight.errors import QueryFailed
from infrasight.wire import QueryResponse, StatusResponse, SubscribeResponse
from infrasight.wire.service import EventsService
from tests.waiting import LIMIT_S

QUERY, STATUS = "/infrasight.v1.Events/Query", "/infrasight.v1.Events/Status"


class Echo(EventsService):
    """Query gives the SQL back, `fail` fails, `bug` is a bug; Subscribe never ends; Status says `echo`."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = asyncio.Event()

    async def query(self, stream: Any) -> None:
        request = await stream.request()
        if request.sql.startswith("fail"):
            raise QueryFailed(request.sql)
        if request.sql == "bug":
            raise LookupError("deliberate")
        await stream.send(QueryResponse(chunk=request.sql.encode()))

    async def subscribe(self, stream: Any) -> None:
        await stream.request()
        try:
            await stream.send(SubscribeResponse(dropped=1))
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def status(self, stream: Any) -> None:
        await stream.request()
        await stream.send(StatusResponse(version="echo"))


def frame(message: bytes, *, length: int | None = None, compressed: bool = False) -> bytes:
    """A gRPC message; `length` is what it claims."""
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


async def raw(port: int, data: bytes) -> bytes:
    """Send bytes, and return all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(LIMIT_S):
            return await reader.read()
    finally:
        writer.close()


async def call(port: int, path: str, body: bytes, *, headers: list[tuple[str, str]] | None = None, end: bool = True) -> dict[str, str]:
    """Make a gRPC call by hand. Everything that the server says in headers and trailers; `over` when it ended the call."""
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False))
    h2.initiate_connection()
    usual = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers"), ("content-type", "application/grpc")]
    h2.send_headers(1, usual if headers is None else headers)
    h2.send_data(1, body, end_stream=end)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said: dict[str, str] = {}
    try:
        writer.write(h2.data_to_send())
        async with asyncio.timeout(LIMIT_S):
            while "grpc-status" not in said and "over" not in said and (data := await reader.read(65536)):
                for event in h2.receive_data(data):
                    said.update(getattr(event, "headers", None) or [])
                    if type(event).__name__ in ("StreamReset", "StreamEnded", "ConnectionTerminated"):
                        said["over"] = "yes"
                writer.write(h2.data_to_send())
    finally:
        writer.close()
    return said
