from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from infrasight.client import Client
from infrasight.errors import CallFailed, Disconnected, QueryFailed, Unreachable
from infrasight.wire.server import GrpcServer
from tests.waiting import LIMIT_S
from tests.wire.echo import Echo


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    serving = GrpcServer([Echo()])
    await serving.start()
    yield serving
    await serving.close()


async def pretender(answer: bytes | None) -> asyncio.Server:
    """Something that listens and is no gRPC server: it says `answer`, or nothing at all."""

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is not None:
            writer.write(answer)
        await reader.read()
        writer.close()

    return await asyncio.start_server(pretend, "127.0.0.1", 0)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}.*refused"):
            async with Client(port=port):
                pass


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", None], ids=["http/1", "ssh", "silence"])
async def test_what_answers_is_not_our_server(answer: bytes | None) -> None:
    async with await pretender(answer) as other:
        port = other.sockets[0].getsockname()[1]
        async with Client(port=port, answer_within_s=0.5) as client:
            with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
                await client.status()


async def test_another_grpc_server_is_not_ours() -> None:
    class Nothing(Echo):
        def __mapping__(self) -> dict[str, object]:  # type: ignore[override]
            return {"/other.Service/Do": next(iter(super().__mapping__().values()))}

    server = GrpcServer([Nothing()])
    async with Client(port=await server.start()) as client:
        with pytest.raises(Unreachable, match="no InfraSight server"):
            await client.status()
    await server.close()


async def test_the_servers_reason_arrives_in_one_line(server: GrpcServer) -> None:
    async with Client(port=server.port) as client:
        with pytest.raises(QueryFailed, match=r"^fail: žluť second line$"):
            [chunk async for chunk in client.query("fail: žluť\nsecond line")]
        with pytest.raises(CallFailed, match="made a mistake"):
            [chunk async for chunk in client.query("bug")]
        assert [chunk async for chunk in client.query("still here")] == [b"still here"]


async def test_leaving_early_cancels_the_call_at_the_server() -> None:
    echo = Echo()
    server = GrpcServer([echo])
    async with Client(port=await server.start()) as client:
        async with client.subscribe():
            pass
        async with asyncio.timeout(LIMIT_S):
            await echo.cancelled.wait()
        assert (await client.status()).version == "echo"
    await server.close()


async def test_a_lost_server_is_disconnected_and_the_task_is_not_left_cancelled(server: GrpcServer) -> None:
    async with Client(port=server.port) as client, client.subscribe() as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await server.close()
        with pytest.raises(Disconnected):
            await waiting
        with pytest.raises(Disconnected):
            await anext(events)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancelled_wait_is_a_cancellation(server: GrpcServer) -> None:
    async with Client(port=server.port) as client, client.subscribe() as events:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(events)


def test_other_machines_only_when_asked_for() -> None:
    client = Client("192.0.2.1")
    with pytest.raises(Unreachable, match="insecure"):
        asyncio.run(client.__aenter__())


async def test_a_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(Disconnected, match="async with"):
        await Client().status()
