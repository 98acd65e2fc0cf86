"""Waiting for rings to fill up, or for anything at all: what the kernel wakes us up for."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Iterable
from types import TracebackType
from typing import Self


class Alarm:
    """Rings by their descriptors. The kernel side says when one has filled up, and of the first record that is awaited
    (infrasight/schema/c.py), once each time, whence the edge trigger: as long as there are records, a ring is readable. For one task, in one
    event loop."""

    def __init__(self, rings: Iterable[int]) -> None:
        self._rung = asyncio.Event()
        self._epoll = select.epoll()
        for ring in rings:
            self._epoll.register(ring, select.EPOLLIN | select.EPOLLET)

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _hear(self) -> None:
        self._epoll.poll(0)
        self.ring()

    def ring(self) -> None:
        """End the wait, or the next."""
        self._rung.set()

    async def wait(self, most_s: float) -> bool:
        """Until it has rung since the last wait, but no longer than `most_s`; whether it has. Others have their turn in any case."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._rung.wait()
        rung = self._rung.is_set()
        self._rung.clear()
        return rung
