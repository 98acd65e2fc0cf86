from __future__ import annotations

import asyncio

import numpy as np
import pytest

from infrasight.errors import InvalidRequest
from infrasight.schema import KINDS
from infrasight.server.filters import Filter
from infrasight.server.live import Subscription
from infrasight.wire import SubscribeRequest, SubscribeResponse
from tests.server.running import HELLO, Running, message, ship
from tests.waiting import until
from tests.wire.batches import HOSTILE, batch, with_column

SAMPLE = with_column(batch("open", 600), "path", [b"/etc/passwd", b"/etc/shadow", b"/home/\xff"] * 200)
TEXT = {number: raw.decode("utf-8", "backslashreplace") for number, raw in enumerate(HOSTILE)}


@pytest.mark.parametrize(
    ("request_", "passes"),
    [
        (SubscribeRequest(), lambda row: True),
        (SubscribeRequest(kinds=["open", "execve"]), lambda row: True),
        (SubscribeRequest(kinds=["execve"]), lambda row: False),
        (SubscribeRequest(comms=["bash", "new\nline"]), lambda row: row["comm"] in (b"bash", b"new\nline")),
        (SubscribeRequest(users=["žluťoučký"], nodes=["žluťoučký", "x"]), lambda row: row["user"] == "žluťoučký".encode()),
        (SubscribeRequest(comms=["nobody"]), lambda row: False),
        (SubscribeRequest(pids=[5, 7, 2**32 - 1]), lambda row: row["pid"] in (5, 7)),
        (SubscribeRequest(uids=[0]), lambda row: row["uid"] == 0),
        (SubscribeRequest(path_prefixes=["/etc/", "/nowhere"]), lambda row: row["path"].startswith(b"/etc/")),
        (SubscribeRequest(containers=["ba", "žlu"]), lambda row: row["container_id"] in (b"bash", "žluťoučký".encode())),
        (SubscribeRequest(containers=["nobody", "new\nline"]), lambda row: b"new\nline" in (row["container_id"], row["container_name"])),
        (SubscribeRequest(images=["as", "not"]), lambda row: row["image"] in (b"bash", b"\xff\xfe not utf-8")),
        (SubscribeRequest(pods=["new", "x"]), lambda row: row["pod_name"] == b"new\nline"),
        (SubscribeRequest(ancestors=["systemd", "shd"]), lambda row: row["ancestors"] == b"bash\0sshd\0systemd"),
        (SubscribeRequest(ancestors=["sshd"]), lambda row: row["ancestors"] in (b"sshd", b"bash\0sshd\0systemd")),
        (SubscribeRequest(path_prefixes=["/etc/sh"], comms=["bash"]), lambda row: row["path"] == b"/etc/shadow" and row["comm"] == b"bash"),
    ],
)
def test_the_rows_that_pass_are_those_that_a_loop_would_choose(request_: SubscribeRequest, passes: object) -> None:
    rows = SAMPLE.drop_columns(["ts"]).to_pylist()
    assert Filter(request_).rows("open", SAMPLE).tolist() == [number for number, row in enumerate(rows) if passes(row)]  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_without_the_column_does_not_pass(kind: str) -> None:
    has, contained = bool(KINDS[kind].paths), "container_id" in {column.name for column in KINDS[kind].columns}
    assert len(Filter(SubscribeRequest(path_prefixes=[""])).rows(kind, batch(kind, 12))) == (12 if has else 0)
    assert Filter(SubscribeRequest(comms=["bash"])).rows(kind, batch(kind, 0)).tolist() == []
    assert len(Filter(SubscribeRequest(containers=[""])).rows(kind, batch(kind, 12))) == (12 if contained else 0)


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no event kind 'opne': there are execve, open"):
        Filter(SubscribeRequest(kinds=["opne"]))


async def drained(subscription: Subscription) -> list[SubscribeResponse]:
    subscription.close()
    return [SubscribeResponse.parse(each) async for each in subscription.responses()]


async def test_a_rate_is_kept_and_the_rest_counted() -> None:
    now = 100.0
    subscription = Subscription(SubscribeRequest(kinds=["open"], max_rate_per_s=7), clock=lambda: now)
    subscription.offer("open", batch("open", 5))
    subscription.offer("open", batch("open", 5))
    now = 101.0
    subscription.offer("open", batch("open", 5))
    responses = await drained(subscription)
    assert [len(each.events) for each in responses] == [0, 5, 2, 5]
    assert sum(each.dropped for each in responses) == 3


async def test_a_flood_of_one_kind_leaves_room_for_others() -> None:
    """And yet the rate is used: what was not taken may come later."""
    now, shown = 0.0, {"open": 0, "execve": 0}
    subscription = Subscription(SubscribeRequest(max_rate_per_s=100), clock=lambda: now)
    for turn in range(50):
        now = turn / 5
        subscription.offer("open", batch("open", 1000))
        subscription.offer("execve", batch("execve", 2))
    for response in await drained(subscription):
        for event in response.events:
            shown["open" if event.open else "execve"] += 1
    assert shown["execve"] == 100
    assert 900 <= shown["open"] + shown["execve"] <= 1100


async def test_a_backlog_is_bounded_and_what_was_dropped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    one = batch("open", 1000)
    monkeypatch.setattr("infrasight.server.live.BACKLOG_BYTES", one.nbytes * 3)
    subscription = Subscription(SubscribeRequest(pids=list(range(1000))))
    for first in range(0, 10_000, 1000):
        subscription.offer("open", batch("open", 1000, first=first).set_column(2, "pid", one.column("pid")))
    responses = await drained(subscription)
    events = [event for each in responses for event in each.events]
    assert sum(each.dropped for each in responses) + len(events) == 10_000
    assert 2_000 <= len(events) <= 3_000
    assert np.diff([event.open.ts for event in events]).min() == 1  # the newest, without a gap


async def test_subscribers_get_what_passes_their_own_filter(running: Running) -> None:
    async with running.client() as client, client.subscribe(kinds=["open"]) as all_opens, client.subscribe(comms=["bash"]) as bash:
        await ship(client, message(0, rows=600), message(1, rows=6, kind="execve"))
        opens = [await anext(all_opens) for _ in range(600)]
        assert [event.open.ts for event in opens] == [batch("open", 1).column("ts")[0].value + number for number in range(600)]
        assert {event.open.comm for event in opens} == set(TEXT.values())
        bashes = [await anext(bash) for _ in range(101)]
        assert len([event for event in bashes if event.open]) == 100
        assert bashes[-1].execve.comm == "bash"  # type: ignore[union-attr]  # execve came last
        assert all_opens.dropped == bash.dropped == 0


async def test_without_subscribers_nothing_goes_there(running: Running) -> None:
    async with running.client() as client:
        await ship(client, message(0))
        assert running.server.graph.statistics()["router to live"].accepted == 0
        async with client.subscribe():
            assert running.server.live.wanted()
        await until(lambda: not running.server.live.wanted())


async def test_a_subscriber_that_does_not_read_holds_nobody_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.server.live.BACKLOG_BYTES", 200_000)
    monkeypatch.setattr("infrasight.wire.channel.STREAM_WINDOW", (1 << 16) - 1)
    batches = [message(seq, rows=500) for seq in range(40)]
    async with running.client() as slow, slow.subscribe() as events, running.client() as client:
        assert len(await ship(client, *batches)) == 40
        await until(lambda: running.server.graph.statistics()["router to live"].depth == 0)
        stopping = asyncio.ensure_future(running.stop())
        got = [event async for event in events]
        assert await stopping
        assert len(got) + events.dropped == 20_000
        assert events.dropped > 0


async def test_subscriptions_end_when_the_server_stops(running: Running) -> None:
    async with running.client() as client, client.subscribe() as events:
        stopping = asyncio.ensure_future(running.stop())
        assert [event async for event in events] == []
        assert await stopping


async def test_a_bad_filter_is_refused(running: Running) -> None:
    async with running.client() as client:
        with pytest.raises(InvalidRequest, match="no event kind"):
            await client.subscribe(kinds=["x"]).__aenter__()
        assert [ack.seq for ack in await ship(client, message(3), hello=HELLO)] == [3]
