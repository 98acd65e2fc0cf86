from __future__ import annotations

import asyncio
import dataclasses

import pytest

from infrasight.errors import InvalidRequest, WireError
from infrasight.server.live import Subscription
from infrasight.server.session import MAX_GROWING, MAX_UNACKED
from infrasight.wire import Ack, AckVerdict, Batch, CollectorBase, Hello, ShipRequest, ShipResponse, SubscribeRequest
from infrasight.wire.channel import Channel
from infrasight.wire.codec import MAX_BATCH_BYTES, decode, encode
from tests.server.running import HELLO, OK, REJECTED, MemoryStore, Running, message, ship
from tests.waiting import until
from tests.wire.batches import batch


async def test_batches_are_stored_in_order_and_acknowledged(running: Running) -> None:
    async with running.client() as client:
        acks = await ship(client, *(message(seq, kind=kind) for seq, kind in enumerate(["open", "execve", "loss", "process", "connect"])))
    assert [(ack.seq, ack.verdict, ack.reason) for ack in acks] == [(seq, OK, "") for seq in range(5)]
    assert running.store.tokens == [f"n1:7:{seq}" for seq in range(5)]
    assert running.store.kept["n1:7:1"][1].equals(batch("execve", 10, first=10))


async def test_no_ack_before_the_insert_returned(running: Running) -> None:
    running.store.gate.clear()
    async with running.client() as client, client.ship(HELLO) as shipment:
        await shipment.send(message(1))
        await until(lambda: running.server.graph.statistics()["router to writer"].delivered == 1)
        ack = asyncio.ensure_future(anext(shipment))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not ack.done()
        running.store.gate.set()
        assert (await ack).verdict is OK


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Batch(seq=3, kind="nothing", rows=1, arrow=b"x"), "no event kind 'nothing'"),
        (Batch(seq=3, kind="open", rows=1, arrow=b"x"), "not an Arrow stream"),
        (Batch(seq=3, kind="open", rows=0), "not an Arrow stream"),
        (Batch(seq=3, kind="open", rows=11, arrow=message(3).arrow), "10 rows, where the message says 11"),
        (Batch(seq=3, kind="execve", rows=10, arrow=message(3).arrow), "columns are not those of execve"),
        (Batch(seq=3, kind="open", rows=1, arrow=bytes(MAX_BATCH_BYTES + 1)), f"at most {MAX_BATCH_BYTES}"),
    ],
    ids=["kind", "noise", "empty", "rows", "columns", "size"],
)
async def test_an_invalid_batch_is_rejected_and_the_stream_goes_on(running: Running, bad: Batch, why: str) -> None:
    async with running.client() as client:
        acks = {ack.seq: ack for ack in await ship(client, message(2), bad, message(4))}
    assert [acks[seq].verdict for seq in (2, 3, 4)] == [OK, REJECTED, OK]
    assert why in acks[3].reason
    assert "\n" not in acks[3].reason
    assert sorted(kind for kind, _ in running.store.kept.values()) == ["dead_letter", "open", "open"]
    (letter,) = running.store.kept["n1:7:3"][1].to_pylist()
    assert {name: letter[name] for name in ("node", "epoch", "seq", "event_kind", "rows", "reason", "length")} == {
        "node": b"n1",
        "epoch": 7,
        "seq": 3,
        "event_kind": bad.kind.encode(),
        "rows": bad.rows,
        "reason": acks[3].reason.encode(),
        "length": len(bad.arrow),
    }
    assert letter["payload"] == bad.arrow[: 1 << 20]
    assert running.grpc.refused == {"batch": 1}


@pytest.mark.parametrize(
    "hello",
    [
        Hello(),
        Hello(node="a b", boot_id="1"),
        Hello(node="a:b", boot_id="1"),
        Hello(node="a\n", boot_id="1"),
        Hello(node="a"),
        Hello(node="a" * 300, boot_id="1"),
    ],
)
async def test_a_hello_that_could_forge_a_token_is_refused(running: Running, hello: Hello) -> None:
    async with running.client() as client:
        with pytest.raises(InvalidRequest):
            await client.ship(hello).__aenter__()
        assert [ack.verdict for ack in await ship(client, message(1))] == [OK]


async def test_the_first_message_has_to_be_a_hello_and_later_ones_batches(running: Running) -> None:
    channel = Channel("127.0.0.1", running.port)
    async with channel.call(CollectorBase, ShipRequest, ShipResponse) as call:
        await call.send(ShipRequest(batch=message(1)))
        with pytest.raises(InvalidRequest, match="has to be a Hello"):
            await call.receive()
    async with channel.call(CollectorBase, ShipRequest, ShipResponse) as call:
        await call.send(ShipRequest(hello=HELLO))
        await call.receive()
        await call.send(ShipRequest(batch=message(1)))
        assert (await call.receive()).ack.verdict is OK  # type: ignore[union-attr]
        await call.send(ShipRequest(hello=HELLO))
        with pytest.raises(InvalidRequest, match="batches only"):
            await call.receive()
    channel.close()


async def test_a_full_server_makes_the_node_wait_and_loses_nothing() -> None:
    store = MemoryStore()
    store.gate.clear()
    batches = [message(seq, rows=2_000) for seq in range(200)]
    async with Running(store, ingest_bytes=2 << 20) as running, running.client() as client, client.ship(HELLO) as shipment:

        async def send() -> None:
            for each in batches:
                await shipment.send(each)
            await shipment.end()

        sending = asyncio.ensure_future(send())
        await until(lambda: running.server.graph.statistics()["ingest to router"].waiting_senders == 1)
        assert not sending.done()
        for now in running.server.graph.statistics().values():
            assert now.peak_weight <= now.limit
        store.gate.set()
        assert [ack.seq async for ack in shipment] == list(range(200))
        await sending
    assert store.rows() == 200 * 2_000


async def test_unacknowledged_batches_are_bounded_however_small(running: Running) -> None:
    running.store.gate.clear()
    async with running.client() as client, client.ship(HELLO) as shipment:
        for seq in range(MAX_UNACKED + 20):
            await shipment.send(message(seq, rows=1, kind="loss"))
        await until(lambda: running.server.graph.statistics()["ingest to router"].accepted == MAX_UNACKED)
        for _ in range(50):
            await asyncio.sleep(0)
        assert running.server.graph.statistics()["ingest to router"].accepted == MAX_UNACKED
        running.store.gate.set()
        await shipment.end()
        assert len([ack async for ack in shipment]) == MAX_UNACKED + 20


async def test_what_a_vanished_node_sent_is_stored_and_sent_again_it_is_there_once(running: Running) -> None:
    running.store.gate.clear()
    async with running.client() as client, client.ship(HELLO) as shipment:
        for seq in range(3):
            await shipment.send(message(seq))
        await until(lambda: running.server.graph.statistics()["ingest to router"].accepted == 3)
    await until(lambda: not next(iter(running.server.nodes)).live)
    running.store.gate.set()
    async with running.client() as client:
        assert [ack.verdict for ack in await ship(client, *(message(seq) for seq in range(5)))] == [OK] * 5
    assert list(running.store.kept) == [f"n1:7:{seq}" for seq in range(5)]
    assert running.store.rows() == 50


async def test_of_two_epochs_each_batch_is_one_of_its_own(running: Running) -> None:
    """What a node left in its spool goes out under the epoch that it was numbered in, and is acknowledged under that."""
    old = [dataclasses.replace(message(seq), epoch=5) for seq in (1, 2)]
    async with running.client() as client:
        acks = await ship(client, old[0], message(1), old[1], message(2))
        assert [(ack.epoch, ack.seq, ack.verdict) for ack in acks] == [(5, 1, OK), (7, 1, OK), (5, 2, OK), (7, 2, OK)]
        with pytest.raises(InvalidRequest, match="of epoch 8, after 7"):
            await ship(client, dataclasses.replace(message(3), epoch=8))
    assert running.store.tokens == ["n1:5:1", "n1:7:1", "n1:5:2", "n1:7:2"]


async def test_one_ack_speaks_for_all_before_it(running: Running) -> None:
    running.store.gate.clear()
    channel = Channel("127.0.0.1", running.port)
    async with channel.call(CollectorBase, ShipRequest, ShipResponse) as call:
        await call.send(ShipRequest(hello=HELLO))
        await call.receive()
        bad = Batch(seq=20, kind="nothing", rows=1, arrow=b"x")
        for each in (*map(message, range(1, 20)), bad, *map(message, range(21, 40))):
            await call.send(ShipRequest(batch=each))
        await until(lambda: running.server.graph.statistics()["router to writer"].accepted == 39)
        running.store.gate.set()
        await call.end()
        acks: list[Ack] = []
        while answer := await call.receive():
            assert answer.ack is not None
            acks.append(answer.ack)
    channel.close()
    assert len(acks) < 39
    said = [(ack.seq, ack.verdict) for ack in acks]
    assert said == sorted(said, key=lambda each: each[0])
    assert [seq for seq, verdict in said if verdict is REJECTED] == [20]
    assert said[said.index((20, REJECTED)) - 1] == (19, OK), "what was before it is told before"
    assert said[-1] == (39, OK)


async def test_two_nodes_of_one_name_are_told_of_and_store_everything(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    other = dataclasses.replace(HELLO, epoch=9)
    async with running.client() as one, running.client() as two, one.ship(HELLO) as first, two.ship(other) as second:
        for shipment in (first, second):
            await shipment.send(message(1))
            assert (await anext(shipment)).verdict is OK
        assert "streams of node n1 are open of epochs 7 and 9: two nodes have one name" in caplog.text
        (status,) = (await one.status()).nodes
        assert status.live_epochs == [7, 9]
    assert running.store.tokens == ["n1:7:1", "n1:9:1"]
    await until(lambda: not next(iter(running.server.nodes)).live)


async def test_what_only_the_server_makes_is_taken_from_nobody(running: Running) -> None:
    forged = message(1, kind="dead_letter")
    async with running.client() as client:
        (ack,) = await ship(client, forged)
    assert (ack.verdict, ack.reason) == (REJECTED, "dead_letter: the server's own, not for nodes to ship")
    (letter,) = running.store.kept["n1:7:1"][1].to_pylist()
    assert (letter["event_kind"], letter["payload"]) == (b"dead_letter", forged.arrow)


async def test_a_store_that_is_away_for_long_puts_nodes_off() -> None:
    """And the stream stands: what is sent again once it is back is stored, once."""
    store = MemoryStore()
    store.failures = 1
    async with Running(store, patience_s=0.0) as running, running.client() as client, client.ship(HELLO) as shipment:
        await shipment.send(message(1))
        put_off = await anext(shipment)
        assert (put_off.seq, put_off.verdict, put_off.reason) == (1, AckVerdict.RETRY, "disk full")
        assert 0 < put_off.retry_after_ms <= 5000
        running.server.writer._again_at_s = 0.0
        await shipment.send(message(1))
        assert (await anext(shipment)).verdict is OK
    assert [token for token in store.tokens if not token.startswith("ledger")] == ["n1:7:1"]


def pieces(seq: int, *parts: int, kind: str = "open") -> list[Batch]:
    """A batch in pieces of so many rows, the last of them empty."""
    starts = [sum(parts[:number]) for number in range(len(parts))]
    messages = [Batch(seq, kind, rows, encode(batch(kind, rows, first=first)), 1, more=True) for rows, first in zip(parts, starts, strict=True)]
    return [*messages, Batch(seq=seq, kind=kind)]


async def test_pieces_are_seen_as_they_come_and_stored_as_one(running: Running) -> None:
    async with running.client() as client, client.subscribe() as events, client.ship(HELLO) as shipment:
        for piece in pieces(4, 3, 2)[:2]:
            await shipment.send(piece)
        seen = [await anext(events) for _ in range(5)]
        assert running.store.tokens == []
        await shipment.send(message(5))
        await shipment.send(pieces(4, 3, 2)[2])
        await shipment.end()
        assert [(ack.seq, ack.verdict) async for ack in shipment] == [(5, OK), (4, OK)]
        seen += [await anext(events) for _ in range(10)]
    assert running.store.tokens == ["n1:7:5", "n1:7:4"]
    assert running.store.kept["n1:7:4"][1].equals(batch("open", 5))
    assert [event.open.pid for event in seen] == [event["pid"] for rows in (5, 10) for event in batch("open", rows).to_pylist()][:5] + [
        event["pid"] for event in columns_of(message(5))
    ]


def columns_of(message: Batch) -> list[dict[str, object]]:
    return decode(message.kind, message.arrow).to_pylist()


async def test_a_batch_whose_end_never_came_is_as_if_it_had_not_begun(running: Running) -> None:
    """A node that comes back sends all of it again."""
    async with running.client() as client, client.ship(HELLO) as shipment:
        await shipment.send(pieces(1, 3, 2)[0])
        await shipment.send(message(2))
        assert (await anext(shipment)).seq == 2
    async with running.client() as client:
        assert [ack.seq for ack in await ship(client, *pieces(1, 3, 2))] == [1]
    assert running.store.kept["n1:7:1"][1].equals(batch("open", 5))
    assert running.store.tokens == ["n1:7:2", "n1:7:1"]


async def test_a_bad_piece_spoils_its_batch_only(running: Running) -> None:
    first, second, end = pieces(1, 3, 2)
    bad = Batch(seq=1, kind="open", rows=1, arrow=b"x", more=True)
    async with running.client() as client:
        acks = await ship(client, first, bad, second, message(2), end)
    assert {ack.seq: ack.verdict for ack in acks} == {1: REJECTED, 2: OK}
    assert [running.store.kept[f"n1:7:{seq}"][0] for seq in (1, 2)] == ["dead_letter", "open"]
    dead = running.store.kept["n1:7:1"][1].to_pylist()
    assert [letter["payload"] for letter in dead] == [first.arrow, b"x", second.arrow, end.arrow], "all of it, in order"
    assert sum(letter["rows"] for letter in dead) == 1 + sum(each.rows for each in (first, second, end))
    assert running.grpc.refused == {"batch": 1}


async def test_a_piece_of_another_kind_ends_the_stream(running: Running) -> None:
    async with running.client() as client, client.ship(HELLO) as shipment:
        await shipment.send(pieces(1, 3)[0])
        await shipment.send(pieces(1, 3, kind="execve")[0])
        with pytest.raises(InvalidRequest, match="is of 'open', and now of 'execve'"):
            await anext(shipment)


async def test_batches_that_begin_and_never_end_are_bounded(running: Running) -> None:
    async with running.client() as client, client.ship(HELLO) as shipment:
        for seq in range(MAX_GROWING + 1):
            await shipment.send(pieces(seq, 1, kind="loss")[0])
        with pytest.raises(InvalidRequest, match=f"more than {MAX_GROWING} batches"):
            await anext(shipment)
    assert running.store.tokens == []


async def test_a_node_is_told_when_somebody_watches(running: Running) -> None:
    """Who comes later too; and however often that changes, an answer is never too many."""
    told: list[bool] = []
    async with running.client() as client, client.ship(HELLO, told.append) as shipment:
        acks = asyncio.ensure_future(anext(shipment))
        async with client.subscribe():
            await until(lambda: told == [True])
            later: list[bool] = []
            async with running.client() as other, other.ship(HELLO, later.append) as second:
                another = asyncio.ensure_future(anext(second))
                await until(lambda: later == [True])
                another.cancel()
            async with client.subscribe():
                pass
        await until(lambda: told == [True, False])
        for _ in range(3 * MAX_UNACKED):
            running.server.live.add(subscription := Subscription(SubscribeRequest()))
            running.server.live.remove(subscription)
        running.server.live.add(subscription)
        await until(lambda: told[-1])
        await shipment.send(message(1))
        assert (await acks).verdict is OK
        running.server.live.remove(subscription)


async def test_two_nodes_at_a_time_do_not_mix(running: Running) -> None:
    other = Hello(node="n2", version="1", boot_id="b", epoch=1)
    async with running.client() as one, running.client() as two:
        acks = await asyncio.gather(ship(one, *map(message, range(30))), ship(two, *map(message, range(30)), hello=other))
    assert [[ack.seq for ack in each] for each in acks] == [list(range(30))] * 2
    assert len(running.store.kept) == 60


async def test_stopping_stores_and_acknowledges_what_came_and_refuses_the_rest(running: Running) -> None:
    running.store.gate.clear()
    async with running.client() as client, client.ship(HELLO) as shipment:
        for seq in range(5):
            await shipment.send(message(seq))
        await until(lambda: running.server.graph.statistics()["ingest to router"].accepted == 5)
        stopping = asyncio.ensure_future(running.stop())
        await asyncio.sleep(0)
        running.store.gate.set()
        assert [ack.seq async for ack in shipment] == list(range(5))
        assert await stopping
    assert running.store.rows() == 50


async def test_stopping_with_a_dead_store_ends_in_time_and_acknowledges_nothing() -> None:
    store = MemoryStore()
    store.gate.clear()
    async with Running(store) as running, running.client() as client, client.ship(HELLO) as shipment:
        await shipment.send(message(1))
        await until(lambda: running.server.graph.statistics()["router to writer"].delivered == 1)
        assert not await running.stop(0.1)
        await running.grpc.close()
        with pytest.raises(WireError):
            await anext(shipment)
    assert not store.kept
