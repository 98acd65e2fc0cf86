"""Real attacks over loopback on a real server, while a node goes on being served by it (victim.py says what has to hold after each)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pyarrow as pa
import pytest

from infrasight.client import Client
from infrasight.errors import Disconnected, InvalidRequest, QueryFailed
from infrasight.schema import arrow_schema
from infrasight.wire import AckVerdict, Batch, Hello, QueryRequest, ShipRequest
from infrasight.wire.codec import encode
from tests.server.attacks.attacker import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    QUERY,
    SETTINGS,
    SHIP,
    WINDOW,
    Attacker,
    attacker,
    http2,
)
from tests.server.attacks.victim import Victim, victims
from tests.server.running import ship
from tests.waiting import LIMIT_S
from tests.wire.batches import batch
from tests.wire.echo import frame


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    yield from victims(tmp_path_factory.mktemp("victim"))


NOISE = {
    "http/1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "random": np.random.default_rng(1).bytes(200_000),
    "frames of nothing": PREFACE + http2(SETTINGS) + np.random.default_rng(2).bytes(200_000),
}


@pytest.mark.parametrize("noise", NOISE)
async def test_what_is_no_http2(victim: Victim, noise: str) -> None:
    reason = "flood" if noise == "frames of nothing" else "http2"  # a frame too long for what it is
    async with victim.under_attack(f"live-{noise.replace(' ', '-')}", reason):
        for _ in range(20):
            async with attacker(victim.port) as evil:
                evil.writer.write(NOISE[noise])
                await evil.until_closed()


def frames(count: int, *, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return http2(kind, flags, stream, payload) * count


def resets(evil: Attacker) -> bytes:
    for stream in range(1, 4001, 2):
        evil.request(SHIP, stream)
        evil.h2.reset_stream(stream)
    return evil.h2.data_to_send()


FLOODS = {
    "pings": frames(100_000, kind=PING, payload=bytes(8)),
    "settings": frames(100_000, kind=SETTINGS, payload=struct.pack(">HI", 4, 65_535)),
    "settings of many": http2(SETTINGS, payload=struct.pack(">HI", 4, 65_535) * 10_000),
    "priorities": frames(100_000, kind=PRIORITY, stream=1, payload=bytes(5)),
    "window updates": frames(100_000, kind=WINDOW, payload=struct.pack(">I", 1)),
    "unknown frames": frames(100_000, kind=0xEE, payload=b"x"),
    "unknown frames, long": frames(100, kind=0xEE, payload=bytes(200_000)),
    "continuations": http2(HEADERS, 0, 1, b"\x00\x01a\x01b") + frames(100_000, kind=CONTINUATION, stream=1, payload=b"\x00\x01a\x01b"),
    "continuations, long": http2(HEADERS, 0, 1) + frames(60, kind=CONTINUATION, stream=1, payload=bytes(16_000)),
    "continuations, empty": http2(HEADERS, 0, 1) + frames(100_000, kind=CONTINUATION, stream=1),
    "long headers": http2(HEADERS, 4, 1, b"\x00\x01a\x7f" + bytes(100_000)),
}


@pytest.mark.parametrize("flood", [*FLOODS, "resets", "empty data"])
async def test_floods(victim: Victim, flood: str) -> None:
    async with victim.under_attack(f"live-{flood.replace(' ', '-')}", "flood"):
        for _ in range(5):
            async with attacker(victim.port) as evil:
                if flood == "resets":  # CVE-2023-44487
                    data = resets(evil)
                elif flood == "empty data":
                    evil.request(SHIP)
                    data = frames(100_000, kind=DATA, stream=1)
                else:
                    data = FLOODS[flood]
                await evil.send(data)
                await evil.until_closed()


async def test_a_header_list_that_unpacks_to_more_than_it_was(victim: Victim) -> None:
    big = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000  # goes into the table; each further mention is a byte
    async with victim.under_attack("live-hpack", "http2"):
        for _ in range(5):
            async with attacker(victim.port) as evil:
                await evil.send(http2(HEADERS, 4, 1, big + b"\xbe" * 10_000))
                await evil.until_closed()


async def test_headers_and_requests_at_a_byte_a_second(victim: Victim) -> None:
    """Or rather five, since the deadlines are short here."""
    async with victim.under_attack("live-slow", "slow"), asyncio.TaskGroup() as tasks:
        for _ in range(50):
            tasks.create_task(drip(victim.port), name="drip")


async def drip(port: int) -> None:
    async with attacker(port) as evil:
        evil.request(SHIP)
        for byte in evil.h2.data_to_send():
            evil.writer.write(bytes([byte]))
            await asyncio.sleep(0.2)
            if evil.reader.at_eof() or evil.writer.transport.is_closing():
                return
        raise AssertionError("it was let go on")


HALVES = {
    "no message": b"",
    "a length and no more": struct.pack(">BI", 0, 1000),
    "half a length": b"\0\0",
    "half a message": frame(b"abc", length=1000),
    "four gigabytes": frame(b"abc", length=2**32 - 1),
    "compressed": frame(b"abc", compressed=True),
    "random": np.random.default_rng(3).bytes(4000),
}


@pytest.mark.parametrize("half", HALVES)
async def test_requests_that_never_become_one(victim: Victim, half: str) -> None:
    async with victim.under_attack(f"live-half-{half.replace(' ', '-')}", "message"), asyncio.TaskGroup() as tasks:
        for _ in range(40):
            tasks.create_task(half_a_request(victim.port, HALVES[half]), name="half")


async def half_a_request(port: int, half: bytes) -> None:
    async with attacker(port) as evil:
        evil.request(SHIP, 1, half)
        evil.request(QUERY, 3, half)
        await evil.send()
        said = await evil.until_closed()  # the calls have failed, then it is idle
        assert b"grpc-status" in said or len(said) > 100


async def test_who_never_reads_gives_its_place_back(victim: Victim) -> None:
    """All the queries that there may be, none of which is read."""
    query = frame(bytes(QueryRequest(sql="SELECT repeat('x', 1000) FROM numbers(3000)", format="TSV")))
    async with victim.under_attack("live-unread"):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(16):
                tasks.create_task(unread(victim.port, query), name="unread")
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    assert await victim.ask("SELECT 1") == "1"
                    break
                except QueryFailed:
                    await asyncio.sleep(0.1)


async def unread(port: int, query: bytes) -> None:
    async with attacker(port) as evil:
        evil.h2.update_settings({4: 0})  # INITIAL_WINDOW_SIZE
        evil.request(QUERY, 1, query, end=True)
        await evil.send()
        async with asyncio.timeout(LIMIT_S):
            while await evil.reader.read(4096):
                pass


async def test_more_calls_than_a_connection_may_have(victim: Victim) -> None:
    async with victim.under_attack("live-calls", "streams"), attacker(victim.port) as evil:
        for stream in range(1, 120, 2):
            evil.request(SHIP, stream)
        await evil.send()
        await evil.until_closed()


async def test_more_streams_than_a_node_may_have(victim: Victim) -> None:
    async with victim.under_attack("live-streams", "streams"), Client(port=victim.port) as client:
        hello = Hello(node="many", version="1", boot_id="b", epoch=1)
        shipments = [client.ship(hello) for _ in range(8)]
        for each in shipments:
            await each.__aenter__()
        with pytest.raises(Disconnected, match="8 streams already"):
            await client.ship(hello).__aenter__()
        for each in shipments:
            await each.__aexit__(None, None, None)


async def test_idle_connections(victim: Victim) -> None:
    """More than one address may have, which leaves room for others; those that say nothing are closed in time."""
    async with victim.under_attack("live-idle", "connections", "slow"):
        await idle(victim.port, 300)


async def idle(port: int, count: int) -> None:
    made = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(count)))
    try:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(reader.read() for reader, _ in made), return_exceptions=True)
    finally:
        for _, writer in made:
            writer.transport.abort()


async def test_data_that_nobody_can_use_yet(victim: Victim) -> None:
    """A message that is never whole, of as much as the windows let in, on many connections."""
    async with victim.under_attack("live-memory", "memory|message"), asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(heavy(victim.port, f"heavy{number}"), name="heavy")


async def heavy(port: int, name: str) -> None:
    async with attacker(port) as evil:
        evil.request(SHIP, body=frame(bytes(ShipRequest(hello=Hello(node=name, version="1", boot_id="b", epoch=1)))))
        evil.h2.send_data(1, struct.pack(">BI", 0, 16 << 20))
        await evil.pour(4 << 20)
        await evil.until_closed()


def bomb(megabytes: int) -> bytes:
    """Rows that are small on the wire, and so much in memory."""
    made = batch("open", 3)
    place = made.schema.get_field_index("path")
    entries = pa.array([b"\0" * (1 << 20)] * megabytes, pa.binary())
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), entries)
    columns = [*made.columns[:place], column, *made.columns[place + 1 :]]
    return encode(pa.RecordBatch.from_arrays(columns, schema=arrow_schema("open")))


async def test_compression_bombs(victim: Victim) -> None:
    honest, liar = bomb(40), bytearray(bomb(40))
    claimed = struct.pack("<q", 40 << 20)
    assert claimed in liar
    liar[liar.index(claimed) : liar.index(claimed) + 8] = struct.pack("<q", 1 << 50)
    assert len(honest) < 1 << 20
    async with victim.under_attack("live-bombs", "batch", memory=640 << 20) as node:
        del node
        async with asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(explode(victim.port, f"bomber{number}", honest, bytes(liar), bomb(80)), name="bomb")


async def explode(port: int, name: str, *payloads: bytes) -> None:
    hello = Hello(node=name, version="1", boot_id="b", epoch=1)
    async with Client(port=port) as client:
        acks = await ship(client, *(Batch(seq=seq, kind="open", rows=3, arrow=payload) for seq, payload in enumerate(payloads)), hello=hello)
    assert [ack.verdict for ack in sorted(acks, key=lambda ack: ack.seq)][1:] == [AckVerdict.REJECTED] * (len(payloads) - 1)


async def test_pieces_without_end(victim: Victim) -> None:
    async with victim.under_attack("live-pieces", "message", memory=400 << 20), asyncio.TaskGroup() as tasks:
        for number in range(6):
            tasks.create_task(grow(victim.port, f"grower{number}"), name="grow")


async def grow(port: int, name: str) -> None:
    piece = encode(batch("loss", 20_000))
    async with Client(port=port) as client, client.ship(Hello(node=name, version="1", boot_id="b", epoch=1)) as shipment:
        try:
            for seq in range(1000):
                await shipment.send(Batch(seq=seq % 200, kind="loss", rows=20_000, arrow=piece, more=True))
            await anext(shipment)
        except (InvalidRequest, Disconnected):
            return
    raise AssertionError("it was let go on")


async def test_replays_and_times_that_were_or_never_will_be(victim: Victim) -> None:
    day = 86_400 * 10**9
    async with victim.under_attack("live-replay", "batch") as node:
        hello = Hello(node="replayer", version="1", boot_id="b", epoch=1)
        one = Batch(seq=7, kind="process", rows=10, arrow=encode(batch("process", 10)), fresh=True)
        for _ in range(3):  # over connections, too
            async with Client(port=victim.port) as client:
                assert {ack.verdict for ack in await ship(client, one, one, one, hello=hello)} == {AckVerdict.OK}
        assert await victim.ask("SELECT count(), uniqExact(batch) FROM process") == "10\t1"
        times = [[1, 200 * day], [-1, -1], [2**63 - 1, 2**63 - 1], [0, 0], [4_000 * day, 4_001 * day]]
        made = [
            batch("loss", 2).set_column(0, arrow_schema("loss").field("ts"), pa.array(each, pa.int64()).cast(pa.timestamp("ns", "UTC")))
            for each in times
        ]
        async with Client(port=victim.port) as client:
            acks = await ship(client, *(Batch(seq=100 + i, kind="loss", rows=2, arrow=encode(each)) for i, each in enumerate(made)), hello=hello)
            acks += await ship(client, *(Batch(seq=200 + i, kind=f"kind{i}" * 1000, rows=1, arrow=b"x") for i in range(50)), hello=hello)
        assert len(acks) == 55
        assert node.told.connections == 1


@pytest.fixture
async def big(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Victim]:
    """As it is set by default, but for addresses: all attackers here have two."""
    victim = Victim(tmp_path_factory.mktemp("big"))
    yield victim
    victim.end()


@pytest.mark.soak
async def test_five_thousand_idle_connections(big: Victim) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        async with big.under_attack("live-5000", "connections", "slow"):
            await idle(big.port, 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.soak
@pytest.mark.parametrize("flood", ["pings", "resets", "continuations"])
async def test_a_minute_of_floods(big: Victim, flood: str) -> None:
    async with big.under_attack(f"live-{flood}", "flood"):
        deadline = asyncio.get_running_loop().time() + 60
        while asyncio.get_running_loop().time() < deadline:
            async with attacker(big.port) as evil:
                await evil.send(resets(evil) if flood == "resets" else FLOODS[flood])
                await evil.until_closed()
