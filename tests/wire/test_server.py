from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from grpclib.testing import ChannelFor

from infrasight.client import Client
from infrasight.errors import CannotListen, Disconnected, Unreachable
from infrasight.wire import QueryRequest, QueryResponse
from infrasight.wire.server import GrpcServer
from tests.waiting import LIMIT_S
from tests.wire.echo import QUERY, STATUS, Echo, call, frame, raw


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    serving = GrpcServer([Echo()])
    await serving.start()
    yield serving
    await serving.close()


async def still_well(server: GrpcServer) -> bool:
    async with Client(port=server.port) as client:
        return (await client.status()).version == "echo"


HOSTILE = {
    "http/1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 64,
    "preface and noise": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\1\1\4\0\0\0\0x" + b"noise",
    "preface, settings, huge frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(2**24 - 1),
    "preface, settings, frame of no known type": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\xee\0\0\0\0\1x" * 3,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_is_no_http2_is_hung_up_on(server: GrpcServer, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    await raw(server.port, data)
    assert server.refused == {"http2": 1}
    assert await still_well(server)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]


BODIES = {
    "not protobuf": (frame(b"\xff\xff\xff"), "not a QueryRequest"),
    "not utf-8": (frame(b"\x0a\x02\xff\xfe"), "not a QueryRequest"),
    "four gigabytes": (frame(b"abc", length=2**32 - 1), "4294967295 bytes: at most 262144"),
    "one byte too much": (frame(b"", length=(256 << 10) + 1), "262145 bytes"),
    "compressed": (frame(b"abc", compressed=True), "compressed"),
    "cut off": (frame(b"abc", length=10), "cut off"),
    "cut off in the length": (b"\0\0", "cut off"),
    "nothing": (b"", "missing"),
}


@pytest.mark.parametrize(("body", "why"), BODIES.values(), ids=BODIES.keys())
async def test_a_malformed_message_is_refused_with_its_reason(server: GrpcServer, body: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    said = await call(server.port, QUERY, body)
    assert said["grpc-status"] == "3"
    assert why in said["grpc-message"]
    assert server.refused == {"message": 1}
    assert await still_well(server)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]


POST = [(":method", "POST"), (":path", STATUS), ("te", "trailers"), ("content-type", "application/grpc")]
HEADERS = {
    "no method": POST[1:],
    "no path": [POST[0], *POST[2:]],
    "bad binary metadata": [*POST, ("x-bin", "a")],
    "get": [(":method", "GET"), *POST[1:]],
    "no content type": POST[:-1],
    "no such method": [POST[0], (":path", "/nothing"), *POST[2:]],
    "bad timeout": [*POST, ("grpc-timeout", "soon")],
    "not ascii": [*POST, ("x-name", "ž")],
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
async def test_bad_headers_end_the_call_and_nothing_else(
    server: GrpcServer, headers: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    said = await call(server.port, "", frame(b""), headers=headers)
    assert said.get("grpc-status") != "0"
    assert await still_well(server)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]


async def test_a_client_that_vanishes_in_the_middle_is_forgotten(server: GrpcServer, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.transport.abort()
    async with Client(port=server.port) as client, client.subscribe():
        pass
    assert await still_well(server)
    assert await server.drained(5)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]


async def test_a_bug_ends_one_call_and_is_logged(server: GrpcServer, caplog: pytest.LogCaptureFixture) -> None:
    said = await call(server.port, QUERY, frame(bytes(QueryRequest(sql="bug"))))
    assert said["grpc-status"] == "13"
    assert "deliberate" not in said["grpc-message"]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [LookupError]
    assert await still_well(server)


async def test_draining_lets_calls_end_and_takes_no_new_ones() -> None:
    server = GrpcServer([Echo()])
    port = await server.start()
    async with Client(port=port) as client, client.subscribe() as events:
        assert events.dropped == 1
        server.stop_accepting()
        server.stop_accepting()
        assert not await server.drained(0.01)
        with pytest.raises((Disconnected, Unreachable)):
            await client.status()
        with pytest.raises(Unreachable, match="refused"):
            await Client(port=port).__aenter__()
        await server.close()
        with pytest.raises(Disconnected):
            await anext(events)


async def test_closing_is_legal_before_the_start_and_twice_and_with_idle_clients() -> None:
    server = GrpcServer([Echo()])
    await server.close()
    await server.start()
    async with Client(port=server.port):
        async with asyncio.timeout(LIMIT_S):
            await server.close()
        await server.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_other_machines_are_shut_out_unless_asked_for(host: str) -> None:
    with pytest.raises(CannotListen, match="--insecure-listen"):
        GrpcServer([Echo()], host)
    GrpcServer([Echo()], host, insecure_listen=True)


async def test_a_taken_port_is_one_line(server: GrpcServer) -> None:
    with pytest.raises(CannotListen, match=f"^cannot listen on 127.0.0.1:{server.port}: .*in use"):
        await GrpcServer([Echo()], port=server.port).start()


async def test_a_service_works_in_memory() -> None:
    async with ChannelFor([Echo()]) as channel:
        route, handler = next((route, handler) for route, handler in Echo().__mapping__().items() if route.endswith("Query"))
        async with channel.request(route, handler.cardinality, handler.request_type, handler.reply_type) as stream:
            await stream.send_message(QueryRequest(sql="hello"), end=True)
            assert await stream.recv_message() == QueryResponse(chunk=b"hello")
