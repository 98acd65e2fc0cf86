"""The server as people run it: a process, its options, its signals, and the real store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infrasight.actors import Supervisor
from infrasight.actors.signals import SAME_ASK_S
from infrasight.client import Client, Shipment
from infrasight.errors import ActorFailed, WireError
from infrasight.server.program import serve
from infrasight.server.settings import Settings
from infrasight.wire import Hello
from infrasight.wire._generated.others import pb
from tests.server.original_agent import Agent, ack, event
from tests.server.running import OK, MemoryStore, message, ship
from tests.waiting import LIMIT_S, until

HELLO_AGAIN = Hello(node="n1", version="1", boot_id="b00-7", epoch=8)


class Process:
    """`python -m infrasight.server` on a data directory."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port_file = directory / "port"
        self.options = ["--server-port=0", f"--port-file={self.port_file}", f"--store=chdb://{directory}/data", "--prometheus-port=0", *options]
        self.options.append("--keep-days=0")  # the events of the tests are of years ago
        self.port = 0

    async def start(self) -> None:
        """Start, without waiting for it to be ready."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("INFRASIGHT_", "SERVER_", "PROMETHEUS_"))}
        self.port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "infrasight.server", *self.options]
        self.child = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environ)

    async def ready(self) -> None:
        """Wait until it says that it is ready."""
        assert self.child.stderr is not None
        self.said = []
        while line := (await self.child.stderr.readline()).decode():
            self.said.append(line)
            if "infrasight server ready on 127.0.0.1:" in line:
                self.port = int(self.port_file.read_text())
                return
        raise AssertionError("".join(self.said))

    async def end(self, *signals: int) -> tuple[int, str]:
        """Send signals, and return the exit status and what it said since."""
        for number in signals:
            self.child.send_signal(number)
        assert self.child.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            said = (await self.child.stderr.read()).decode()
            return await self.child.wait(), said


@contextlib.asynccontextmanager
async def server(directory: Path, *options: str) -> AsyncIterator[Process]:
    process = Process(directory, *options)
    await process.start()
    try:
        await process.ready()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.child.kill()
        await process.child.wait()


async def rows(process: Process) -> dict[str, int]:
    async with Client(port=process.port) as client:
        text = b"".join([chunk async for chunk in client.query("SELECT count() AS n, uniqExact(ts) AS times FROM open")])
    return {name: int(value) for name, value in json.loads(text).items()}


async def test_an_agent_of_the_original_is_answered_by_a_server_that_stops_and_its_events_survive(tmp_path: Path) -> None:
    async with server(tmp_path) as process, Agent(process.port) as agent:
        answer = await agent.send_batch(pb.Batch(type="resource", batch=[event("resource"), event("syscall_freq_agg")]))
        assert (answer.status, answer.message) == ("OK", "4 rows stored")
        stream = agent.stream()
        await stream.__aenter__()
        for name in ("execve", "open", "connect"):
            await stream.send_message(event(name))
        async with Client(port=process.port) as client, asyncio.timeout(LIMIT_S):
            while (await client.status()).nodes[0].rows < 4 + 3:  # noqa: ASYNC110 - the server's, in another process
                await asyncio.sleep(0.05)
        ended = asyncio.create_task(process.end(signal.SIGTERM))
        assert (await ack(stream)).message == "3 rows stored"
        assert (await ended)[0] == 0
    async with server(tmp_path) as process, Client(port=process.port) as client:
        sql = "SELECT filename FROM audit.tracing_events WHERE node_name = 'old1' ORDER BY filename"
        text = b"".join([chunk async for chunk in client.query(sql, format="TSV")])
    assert text == b"/bin/ls\n/etc/passwd\n"


async def test_events_survive_a_clean_stop(tmp_path: Path) -> None:
    async with server(tmp_path) as process:
        async with Client(port=process.port) as client:
            assert [ack.verdict for ack in await ship(client, *(message(seq, rows=101) for seq in range(10)))] == [OK] * 10
        assert await rows(process) == {"n": 1010, "times": 1010}
        status, said = await process.end(signal.SIGTERM)
        assert status == 0, said
        assert "infrasight server stopped" in said
        assert "Traceback" not in said
    async with server(tmp_path) as process:
        assert await rows(process) == {"n": 1010, "times": 1010}


async def test_killed_in_the_middle_every_row_is_there_once_after_sending_again(tmp_path: Path) -> None:
    batches = [message(seq, rows=2_003) for seq in range(40)]
    acknowledged = []
    room = asyncio.Semaphore(20)  # at the tenth Ack no more than thirty have been sent

    async def send(shipment: Shipment) -> None:
        with contextlib.suppress(WireError):
            for each in batches:
                await room.acquire()
                await shipment.send(each)

    async with server(tmp_path) as process:
        with contextlib.suppress(WireError):
            async with Client(port=process.port) as client, client.ship(HELLO_AGAIN) as shipment:
                sending = asyncio.ensure_future(send(shipment))
                async for ack in shipment:
                    acknowledged.append(ack.seq)
                    if len(acknowledged) == 10:
                        process.child.kill()
                    if len(acknowledged) < 10:
                        room.release()
        sending.cancel()
        await process.child.wait()
    assert 10 <= len(acknowledged) <= 30
    async with server(tmp_path) as process:
        found = await rows(process)
        assert found["n"] == found["times"] >= len(acknowledged) * 2_003
        async with Client(port=process.port) as client:
            assert len(await ship(client, *batches, hello=HELLO_AGAIN)) == 40
        assert await rows(process) == {"n": 40 * 2_003, "times": 40 * 2_003}


@pytest.mark.serial  # the query is to outlast the second signal
async def test_a_second_signal_aborts(tmp_path: Path) -> None:
    async with server(tmp_path, "--drain-timeout-s=60") as process, Client(port=process.port) as client, client.ship(HELLO_AGAIN):
        async with client.subscribe() as events:
            waiting = asyncio.ensure_future(_query_for_long(client))
            while not await _is_asked(client):
                pass
            process.child.send_signal(signal.SIGINT)
            process.child.send_signal(signal.SIGTERM)  # so soon after the first it is the same ask
            assert [event async for event in events] == []  # they have been heard
            await asyncio.sleep(SAME_ASK_S)
            assert process.child.returncode is None
            status, said = await process.end(signal.SIGINT)
        assert status == 128 + signal.SIGINT, said
        assert "a second signal: aborting" in said
        waiting.cancel()


async def _is_asked(client: Client) -> bool:
    """Whether the long query has begun."""
    sql = "SELECT count() AS n FROM system.processes WHERE query LIKE concat('%1000', '000000000%')"
    return json.loads(b"".join([chunk async for chunk in client.query(sql)]))["n"] not in (0, "0")


async def _query_for_long(client: Client) -> None:
    with contextlib.suppress(WireError):
        async for _ in client.query("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 0"):
            pass


async def test_a_graph_that_cannot_go_on_ends_the_server_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = MemoryStore()

    async def broken(*_: object) -> None:
        raise LookupError("deliberate")

    async def at_once(_: float) -> None: ...

    monkeypatch.setattr(store, "insert", broken)
    monkeypatch.setattr("infrasight.server.program.open_store", lambda *_: store)
    monkeypatch.setattr("infrasight.server.program.Supervisor", functools.partial(Supervisor, sleep=at_once))
    settings = Settings(server_port=0, port_file=tmp_path / "port", prometheus_port=0)
    serving = asyncio.ensure_future(serve(settings, asyncio.Event()))
    await until(lambda: settings.port_file.exists() or serving.done())
    with contextlib.suppress(WireError):
        async with Client(port=int(settings.port_file.read_text())) as client:
            await ship(client, message(1))
    with pytest.raises(ActorFailed, match=r"writer.*deliberate"):
        await serving


async def refused(process: Process) -> tuple[int, list[str]]:
    """Exit status, and what it said but that the store was opened."""
    await process.start()
    status, said = await process.end()
    return status, [line for line in said.splitlines() if " INFO " not in line]


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = await refused(Process(tmp_path, f"--server-port={port}"))
    assert status == 1
    assert len(said) == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in said[0].lower()


async def test_a_locked_data_directory_is_one_line(tmp_path: Path) -> None:
    async with server(tmp_path) as process:
        status, said = await refused(Process(tmp_path, f"--port-file={tmp_path}/other"))
        assert status == 1
        assert len(said) == 1, said
        assert str(tmp_path / "data") in said[0]
        assert await rows(process) == {"n": 0, "times": 0}


@pytest.mark.parametrize(
    ("option", "status", "why"),
    [
        ("--server-addr=0.0.0.0", 1, "--insecure-listen"),
        ("--server-addr=198.51.100.7", 1, "--insecure-listen"),
        ("--store=mysql://x", 1, "chdb:///"),
        ("--store=chdb:///proc/no/such", 1, "/proc/no/such"),
        ("--store=clickhouse://u@127.0.0.1:1/", 1, "127.0.0.1:1: "),
        ("--store=clickhouse://u:hunter2@127.0.0.1/", 1, "'clickhouse://u:***@127.0.0.1/': no password in a URL"),
        ("--port-file=/proc/no/such", 1, "cannot write the port"),
        ("--server-port=http", 2, "'http' is not a whole number"),
        ("--server-port=65536", 2, "between 0 and 65535"),
        ("--log-level=loud", 2, "none of debug"),
    ],
)
async def test_bad_settings_are_one_line(tmp_path: Path, option: str, status: int, why: str) -> None:
    found, said = await refused(Process(tmp_path, option))
    assert found == status, said
    assert len(said) == 1, said
    assert why in said[0]


async def test_no_pandas(tmp_path: Path) -> None:
    """pyarrow imports it where it is installed, as it is beside chDB, and it takes more memory than all that the server keeps."""
    async with server(tmp_path) as process:
        async with Client(port=process.port) as client:
            await ship(client, message(1, rows=3), message(2, kind="loss"))
            assert [chunk async for chunk in client.query("SELECT count() FROM open", format="TSV")] == [b"3\n"]
        maps = await asyncio.to_thread(Path(f"/proc/{process.child.pid}/maps").read_text)
    assert "pyarrow" in maps
    assert "pandas" not in maps
