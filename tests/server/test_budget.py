from __future__ import annotations

import asyncio

import pytest

from infrasight.server.budget import Budget


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_does_not_fit_waits_in_order_and_what_is_too_big_comes_alone() -> None:
    budget, order, ends = Budget(10), [], {}

    async def use(name: str, size: int) -> None:
        async with budget.hold(size):
            order.append(name)
            assert budget.used <= 10 or budget.used == size
            ends[name] = asyncio.Event()
            await ends[name].wait()

    tasks = [asyncio.create_task(use(name, size), name=name) for name, size in (("a", 6), ("b", 4), ("c", 50), ("d", 1))]
    await turns()
    assert order == ["a", "b"]  # d would fit, and does not overtake c
    ends["a"].set()
    await turns()
    assert order == ["a", "b"]
    ends["b"].set()
    await turns()
    assert order == ["a", "b", "c"]
    ends["c"].set()
    await turns()
    assert order == ["a", "b", "c", "d"]
    ends["d"].set()
    await asyncio.gather(*tasks)
    assert budget.used == 0


@pytest.mark.parametrize("granted", [False, True])
async def test_who_gives_up_waiting_leaves_nothing_behind(granted: bool) -> None:
    budget = Budget(10)
    held = budget.hold(10)
    await held.__aenter__()
    holds = [budget.hold(7) for _ in range(2)]
    waiting = [asyncio.create_task(hold.__aenter__(), name="waiting") for hold in holds]
    await turns()
    if granted:
        await held.__aexit__(None, None, None)  # the first has its turn, and does not know yet
    waiting[0].cancel()
    await turns()
    if not granted:
        await held.__aexit__(None, None, None)
        await turns()
    assert waiting[0].cancelled()
    assert waiting[1].done()
    assert budget.used == 7
