"""Mailboxes by example; test_mailbox_properties.py has them at random."""

import asyncio

import pytest

from infrasight.actors import Mailbox, WhenFull
from infrasight.errors import MailboxClosed
from tests.waiting import LIMIT_S

from .clock import settle


async def test_items_come_out_in_the_order_they_went_in() -> None:
    box: Mailbox[int] = Mailbox("box", limit=10)
    for item in range(5):
        await box.put(item)
    assert [await box.get() for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_a_full_mailbox_blocks_its_senders_and_serves_them_in_order() -> None:
    box: Mailbox[int] = Mailbox("box", limit=2)
    puts = [asyncio.create_task(box.put(item)) for item in range(5)]
    await settle()
    assert [put.done() for put in puts] == [True, True, False, False, False]
    assert box.statistics().waiting_senders == 3
    assert await box.get() == 0
    await settle()
    assert [put.done() for put in puts] == [True, True, True, False, False]
    assert [await box.get() for _ in range(4)] == [1, 2, 3, 4]


async def test_one_heavy_item_out_lets_several_light_ones_in() -> None:
    box: Mailbox[int] = Mailbox("box", limit=10, weigh=int)
    await box.put(10)
    puts = [asyncio.create_task(box.put(3)) for _ in range(4)]
    await settle()
    assert box.get_nowait() == 10
    await settle()
    assert [put.done() for put in puts] == [True, True, True, False]
    assert box.get_nowait() == 3
    await settle()
    assert puts[3].done()


async def test_nobody_overtakes_a_blocked_sender() -> None:
    box: Mailbox[int] = Mailbox("box", limit=10, weigh=int)
    await box.put(6)
    heavy = asyncio.create_task(box.put(7))
    await settle()
    assert not box.put_nowait(1), "it would fit, but the heavy one was first"
    light = asyncio.create_task(box.put(2))
    await settle()
    assert not light.done()
    assert [await box.get() for _ in range(3)] == [6, 7, 2]
    assert heavy.done()


async def test_the_limit_is_in_units_of_weigh() -> None:
    box: Mailbox[bytes] = Mailbox("box", limit=100, weigh=len)
    assert box.put_nowait(b"x" * 60)
    assert not box.put_nowait(b"x" * 41)
    assert box.put_nowait(b"x" * 40)
    assert box.statistics().weight == 100
    box.get_nowait()
    assert box.statistics().weight == 40
    assert box.statistics().peak_weight == 100


async def test_an_item_heavier_than_the_limit_is_let_in_alone() -> None:
    box: Mailbox[bytes] = Mailbox("box", limit=10, weigh=len)
    await box.put(b"small")
    giant = asyncio.create_task(box.put(b"x" * 50))
    await settle()
    assert not giant.done()
    assert await box.get() == b"small"
    assert len(await box.get()) == 50
    assert giant.done()
    assert box.statistics().peak_weight == 50


async def test_weightless_items_still_count() -> None:
    box: Mailbox[bytes] = Mailbox("box", limit=2, weigh=len)
    assert [box.put_nowait(b"") for _ in range(3)] == [True, True, False]


async def test_drop_oldest_counts_exactly_and_never_waits() -> None:
    dropped: list[int] = []
    box: Mailbox[int] = Mailbox("box", limit=3, when_full=WhenFull.DROP_OLDEST, on_drop=dropped.append)
    for item in range(10):
        await box.put(item)
    assert dropped == [0, 1, 2, 3, 4, 5, 6]
    statistics = box.statistics()
    assert (statistics.accepted, statistics.dropped, statistics.depth, statistics.peak_weight) == (10, 7, 3, 3)
    assert [box.get_nowait() for _ in range(4)] == [7, 8, 9, None]


async def test_drop_oldest_makes_as_much_room_as_a_heavy_item_needs() -> None:
    dropped: list[int] = []
    box: Mailbox[int] = Mailbox("box", limit=10, when_full=WhenFull.DROP_OLDEST, weigh=int, on_drop=dropped.append)
    for weight in (3, 4, 2, 5):
        assert box.put_nowait(weight)
    assert dropped == [3, 4]
    assert box.put_nowait(99)
    assert dropped == [3, 4, 2, 5]
    assert box.statistics().depth == 1


async def test_a_ready_receiver_loses_nothing_to_a_burst() -> None:
    box: Mailbox[int] = Mailbox("box", limit=2, when_full=WhenFull.DROP_OLDEST)
    got: list[int] = []

    async def receive() -> None:
        while len(got) < 50:
            got.append(await box.get())

    receiver = asyncio.create_task(receive())
    await settle()
    for item in range(50):
        await box.put(item)
    await asyncio.wait_for(receiver, LIMIT_S)
    assert got == list(range(50))
    assert box.statistics().dropped == 0


async def test_competing_receivers_all_get_something() -> None:
    box: Mailbox[int] = Mailbox("box", limit=2)
    got: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    async def receive(name: str) -> None:
        async for item in box:
            got[name] += [item]

    receivers = [asyncio.create_task(receive(name)) for name in got]
    for item in range(90):
        await box.put(item)
    box.close()
    await asyncio.gather(*receivers)
    assert sorted(item for items in got.values() for item in items) == list(range(90))
    assert min(map(len, got.values())) >= 10, got


async def test_close_wakes_blocked_senders_and_lets_receivers_drain() -> None:
    box: Mailbox[int] = Mailbox("box", limit=1)
    await box.put(1)
    blocked = [asyncio.create_task(box.put(item)) for item in (2, 3)]
    await settle()
    box.close()
    box.close()
    for put in blocked:
        with pytest.raises(MailboxClosed, match="'box'"):
            await put
    with pytest.raises(MailboxClosed):
        await box.put(4)
    with pytest.raises(MailboxClosed):
        box.put_nowait(4)
    assert [item async for item in box] == [1]
    with pytest.raises(MailboxClosed):
        await box.get()
    assert box.get_nowait() is None
    statistics = box.statistics()
    assert (statistics.accepted, statistics.delivered, statistics.waiting_senders) == (1, 1, 0)


async def test_close_wakes_every_waiting_receiver() -> None:
    box: Mailbox[int] = Mailbox("box", limit=1)
    gets = [asyncio.create_task(box.get()) for _ in range(3)]
    await settle()
    box.close()
    results = await asyncio.gather(*gets, return_exceptions=True)
    assert [type(result) for result in results] == [MailboxClosed] * 3


async def test_a_sender_called_forward_just_before_close_has_put_nothing() -> None:
    box: Mailbox[int] = Mailbox("box", limit=1)
    await box.put(1)
    blocked = asyncio.create_task(box.put(2))
    await settle()
    assert box.get_nowait() == 1  # calls the sender, which has not run yet
    box.close()
    with pytest.raises(MailboxClosed):
        await blocked
    assert box.statistics().accepted == 1


async def test_a_receiver_cancelled_after_it_was_woken_passes_the_item_on() -> None:
    box: Mailbox[int] = Mailbox("box", limit=5)
    first, second = asyncio.create_task(box.get()), asyncio.create_task(box.get())
    await settle()
    assert box.put_nowait(1)  # wakes the first, which has not run yet
    first.cancel()
    assert await asyncio.wait_for(second, LIMIT_S) == 1
    assert first.cancelled()


async def test_a_sender_cancelled_after_it_was_called_passes_its_turn_on() -> None:
    box: Mailbox[int] = Mailbox("box", limit=1)
    await box.put(1)
    first, second = asyncio.create_task(box.put(2)), asyncio.create_task(box.put(3))
    await settle()
    assert box.get_nowait() == 1  # calls the first, which has not run yet
    first.cancel()
    await asyncio.wait_for(second, LIMIT_S)
    assert first.cancelled()
    assert [box.get_nowait(), box.get_nowait()] == [3, None]


async def test_when_a_heavy_sender_gives_up_the_lighter_one_behind_it_goes() -> None:
    box: Mailbox[int] = Mailbox("box", limit=10, weigh=int)
    await box.put(6)
    heavy, light = asyncio.create_task(box.put(7)), asyncio.create_task(box.put(2))
    await settle()
    heavy.cancel()
    await asyncio.wait_for(light, LIMIT_S)
    assert [box.get_nowait(), box.get_nowait()] == [6, 2]


async def test_a_weigh_that_raises_puts_nothing() -> None:
    box: Mailbox[bytes] = Mailbox("box", limit=5, weigh=lambda item: 1 // len(item))
    with pytest.raises(ZeroDivisionError):
        await box.put(b"")
    assert box.statistics().accepted == 0


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Mailbox("box", limit=0)
