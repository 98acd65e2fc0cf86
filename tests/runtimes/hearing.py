"""What a runtime, or Kubernetes, tells, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Generic, TypeVar

from infrasight.runtimes import Runtime, Told
from tests.waiting import LIMIT_S

T = TypeVar("T")


class Heard(Generic[T]):
    """What was told and not yet asked for."""

    def __init__(self, tells: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue()
        self._task = asyncio.create_task(self._listen(tells))

    async def _listen(self, tells: Callable[[], AsyncGenerator[T, None]]) -> None:
        async with aclosing(tells()) as told:
            async for each in told:
                self._queue.put_nowait(each)

    async def next(self) -> T:
        """The next; or what it failed with."""
        getting = asyncio.create_task(self._queue.get())
        await asyncio.wait([getting, self._task], timeout=LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        getting.cancel()
        assert self._task.done(), "nothing came"
        self._task.result()
        raise AssertionError("it ended")

    async def many(self, count: int) -> list[T]:
        return [await self.next() for _ in range(count)]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def hearing(runtime: Runtime) -> AsyncIterator[Heard[Told | None]]:
    """Listen to a runtime, which is closed afterwards, twice."""
    heard = Heard(runtime.containers)
    try:
        yield heard
    finally:
        await heard.stop()
        await runtime.close()
        await runtime.close()
