"""Waiting for what another process, thread or task does: for the thing itself. The limit only tells what hangs from a machine that is slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
LIMIT_S = 60.0
_LONGEST_PAUSE_S = 0.05


def _pauses(within_s: float, said: Callable[[], object]) -> Iterator[float]:
    """How long until it is looked again, until time is over: not at all at first, then ever longer, so that looking holds nobody up."""
    began_s = time.monotonic()
    while (waited_s := time.monotonic() - began_s) < within_s:
        yield min(waited_s / 20, _LONGEST_PAUSE_S)
    raise AssertionError(f"not within {within_s:.0f} s: {said()}")


def eventually(true: Callable[[], T], within_s: float = LIMIT_S, said: Callable[[], object] = lambda: "") -> T:
    """What `true` gives, once that is true; AssertionError with what `said` gives when it never is."""
    pauses = _pauses(within_s, said)
    while not (found := true()):
        time.sleep(next(pauses))
    return found


async def until(true: Callable[[], T], within_s: float = LIMIT_S, said: Callable[[], object] = lambda: "") -> T:
    """The same in an event loop, whose tasks go on meanwhile."""
    pauses = _pauses(within_s, said)
    while not (found := true()):  # noqa: ASYNC110 - conditions of any sort, none of which has an Event
        await asyncio.sleep(next(pauses))
    return found
