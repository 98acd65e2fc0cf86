"""Mailboxes at random: many senders and receivers, cancelled at any moment. What must hold, holds after every step."""

import asyncio
import random

import pytest

from infrasight.actors import Mailbox, WhenFull
from infrasight.errors import MailboxClosed
from tests.waiting import LIMIT_S

Item = tuple[int, int]
"""(ticket, weight). Tickets are drawn when a put begins, so they are the order in which senders came."""


class Play:
    """A mailbox and everyone who uses it, with books kept apart from the mailbox's own."""

    def __init__(self, seed: int, when_full: WhenFull) -> None:
        self.random = random.Random(seed)
        self.left: list[Item] = []
        self.dropped: list[Item] = []
        self.entered: list[Item] = []
        self.limit = self.random.randint(1, 12)
        self.box: Mailbox[Item] = Mailbox("box", limit=self.limit, when_full=when_full, weigh=lambda item: item[1], on_drop=self.drop)
        self.tickets = 0
        self.delivered = 0
        self.tasks: list[asyncio.Task[None]] = []

    def drop(self, item: Item) -> None:
        self.dropped.append(item)
        self.left.append(item)

    def new_item(self) -> Item:
        self.tickets += 1
        return self.tickets, self.random.choice([1, 1, 1, 2, 3, 5, 15])

    async def put(self) -> None:
        item = self.new_item()
        await self.box.put(item)
        self.entered.append(item)

    async def get(self) -> None:
        self.take(await self.box.get())

    def take(self, item: Item) -> None:
        self.left.append(item)
        self.delivered += 1

    async def step(self) -> None:
        match self.random.choice(["put", "put", "put", "get", "get", "put_nowait", "get_nowait", "cancel", "turn", "turn"]):
            case "put":
                self.tasks.append(asyncio.create_task(self.put()))
            case "get":
                self.tasks.append(asyncio.create_task(self.get()))
            case "put_nowait":
                item = self.new_item()
                if self.box.put_nowait(item):
                    self.entered.append(item)
            case "get_nowait":
                got = self.box.get_nowait()
                if got is not None:
                    self.take(got)
            case "cancel" if self.tasks:
                self.random.choice(self.tasks).cancel()
            case _:
                await asyncio.sleep(0)
        self.check()

    def check(self) -> None:
        statistics = self.box.statistics()
        assert statistics.accepted == statistics.delivered + statistics.dropped + statistics.depth
        assert statistics.accepted == len(self.entered)
        assert statistics.delivered == self.delivered
        assert statistics.dropped == len(self.dropped)
        inside = self.entered[len(self.left):]
        assert self.left == self.entered[:len(self.left)], "out in the order they went in"
        assert statistics.depth == len(inside)
        assert statistics.weight == sum(weight for _, weight in inside)
        assert statistics.weight <= self.limit or len(inside) == 1
        assert statistics.weight <= statistics.peak_weight


@pytest.mark.parametrize("when_full", WhenFull)
@pytest.mark.parametrize("seed", range(150))
async def test_whatever_happens(seed: int, when_full: WhenFull) -> None:
    play = Play(seed, when_full)
    for _ in range(300):
        await play.step()
    play.box.close()
    results = await asyncio.wait_for(asyncio.gather(*play.tasks, return_exceptions=True), LIMIT_S)
    play.check()
    assert {type(result) for result in results} <= {type(None), MailboxClosed, asyncio.CancelledError}
    if when_full is WhenFull.BLOCK:
        tickets = [ticket for ticket, _ in play.entered]
        assert tickets == sorted(tickets), "senders are served in the order they came"
        assert not play.dropped
    while (item := play.box.get_nowait()) is not None:
        play.take(item)
    play.check()
    assert play.left == play.entered


@pytest.mark.parametrize("seed", range(30))
async def test_nobody_is_forgotten(seed: int) -> None:
    """As many gets as puts, a third of all of them cancelled and tried again: all end, so no wake-up was lost."""
    rng = random.Random(seed)
    box: Mailbox[int] = Mailbox("box", limit=rng.randint(1, 4))
    got: list[int] = []

    async def put(item: int) -> None:
        await box.put(item)

    async def get() -> None:
        got.append(await box.get())

    async def insist(*item: int) -> None:
        """Try until one try ends without having been cancelled, so each put and get happens exactly once."""
        while True:
            task = asyncio.create_task(put(*item) if item else get())
            for _ in range(rng.randint(0, 4)):
                await asyncio.sleep(0)
            if rng.random() < 1 / 3:
                task.cancel()
            if not isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError):
                return

    work = [insist(item) for item in range(40)] + [insist() for _ in range(40)]
    rng.shuffle(work)
    await asyncio.wait_for(asyncio.gather(*work), LIMIT_S)
    assert sorted(got) == list(range(40))
    assert box.statistics().accepted == box.statistics().delivered == 40
