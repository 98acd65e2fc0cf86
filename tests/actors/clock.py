"""Virtual time: sleeps end only when a test advances the clock."""

import asyncio


async def settle() -> None:
    """Let every task run until it waits for something. 100 turns of the loop are far more than any chain of wake-ups in these tests."""
    for _ in range(100):
        await asyncio.sleep(0)


class VirtualClock:
    """Pass `time` as clock and `sleep` as sleep. `slept` is every duration asked for, in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, wake))
        await wake

    async def advance(self, seconds: float) -> None:
        await settle()
        self.now += seconds
        for due, wake in self._sleepers:
            if due <= self.now + 1e-9 and not wake.done():
                wake.set_result(None)
        self._sleepers = [(due, wake) for due, wake in self._sleepers if not wake.done()]
        await settle()
