"""The roller has minutes summed up again and again, whatever the store says, and ends while that is under way."""

from __future__ import annotations

import asyncio

import pytest

from infrasight.errors import StoreUnavailable
from infrasight.server.roller import Roller
from tests.server.running import MemoryStore


class Summing(MemoryStore):
    """Fails the first time; from the third on it takes for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.busy = asyncio.Event()

    async def roll_up(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("deliberate")
        if self.asked == 3:
            self.busy.set()
            await asyncio.Event().wait()


async def test_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    store = Summing()
    roller = Roller(store, every_s=0)
    task = asyncio.create_task(roller.run(), name="roller")
    async with asyncio.timeout(10):
        await store.busy.wait()
        assert not task.done()
        roller.stop()
        await task
    assert store.asked == 3
    assert [record.message for record in caplog.records] == ["minutes are not summed up for now: deliberate", "minutes are summed up again"]


async def test_a_defect_is_its_own() -> None:
    store = Summing()
    store.roll_up = lambda: 1 / 0  # type: ignore[assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        await Roller(store, every_s=0).run()
