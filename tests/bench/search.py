"""The highest rate that is held, found in few tries."""

from collections.abc import Callable
from typing import Protocol, TypeVar


class HasRate(Protocol):
    @property
    def rate(self) -> float: ...


T = TypeVar("T", bound=HasRate)


def highest(try_rate: Callable[[int], T | None], start: int, factor: float = 1.5, refinements: int = 2, tries: int = 8) -> T | None:
    """Climb from `start` by `factor` until a rate is not held (or come down until one is), then halve the gap `refinements` times.

    `try_rate` gives what was held at a rate, or None. Returns the best that was held within `tries`, or None.
    """
    best: T | None = None
    held, broken, rate = 0.0, float("inf"), float(start)
    while tries and refinements >= 0:
        tries -= 1
        if outcome := try_rate(int(rate)):
            best, held = outcome, rate
        else:
            broken = rate
        if held and broken < float("inf"):
            rate, refinements = (held + broken) / 2, refinements - 1
        else:
            rate = held * factor if held else broken / factor
    return best
