"""Rows per second from the kernel until they can be queried, with the load on the same two cores; and the bytes that a stored row takes.

A rate is held when every open of the load is a row, by SQL, within a few seconds after the load's end: nothing lost, nothing left behind.
The time until all is queryable is that of asking with `infrasight query`, its own start included.
"""

import time
from dataclasses import dataclass
from functools import partial

from tests.bench import loads, processes
from tests.bench.figures import Figures, Goal
from tests.bench.infrasight import Installation, installed
from tests.bench.plan import Plan
from tests.bench.search import highest
from tests.bench.tracers import TracerFailed

NAME = "end-to-end"
SECONDS = 5.0
CATCH_UP_S = 5.0  # after the load's end
FIRST_RATE = 150_000
KEPT = 0.95  # a load that reaches less of the rate asked for proves nothing of that rate
GOAL = Goal(at_least=250_000)
BYTES = """
    SELECT table, sum(bytes_on_disk) AS bytes, sum(rows) AS rows FROM system.parts
    WHERE active AND database = 'infrasight' GROUP BY table ORDER BY table
"""


def measure(plan: Plan, figures: Figures) -> None:
    rate = FIRST_RATE
    for _ in plan.rounds():
        with installed() as installation:
            held = highest(partial(_trial, installation, figures), rate)
            if held is None:
                figures.note("end-to-end: no rate was held in a round")
                continue
            rate = int(held.rate)
            figures.add("rows per second until queryable", "infrasight", held.rate, "1/s", GOAL)
            figures.add("from the load's end until all is queryable", "infrasight", held.lag_s, "s")
            figures.add("node and server memory, highest", "infrasight", installation.memory().peak_mib, "MiB")
            _bytes_per_row(installation, figures)
    if figures.last("rows per second until queryable", "infrasight") is None:
        raise TracerFailed("no rate was held in any round")


@dataclass(frozen=True)
class Held:
    """A rate that was held, and how long after the load's end its last row was there."""

    rate: float
    lag_s: float


def _trial(installation: Installation, figures: Figures, rate: int) -> Held | None:
    load = loads.at_rate(rate, SECONDS)
    ended = time.monotonic()
    count = f"SELECT count() AS rows FROM infrasight.open WHERE pid = {load.pid}"
    rows = -1

    def all_there() -> bool:
        nonlocal rows
        rows = int(installation.query(count)[0]["rows"])
        return rows >= load.opens

    if not processes.wait_until(all_there, CATCH_UP_S) or rows != load.opens:
        print(f"  {rate:,}/s not held: {rows:,} rows of {load.opens:,} opens after {CATCH_UP_S:.0f} s", flush=True)
        _let_catch_up(installation, count)
        return None
    lag_s = time.monotonic() - ended
    if load.rate < KEPT * rate:
        figures.note(f"end-to-end: the load itself made only {load.rate:,.0f}/s of {rate:,}/s")
        return None
    return Held(load.rate, lag_s)


def _let_catch_up(installation: Installation, count: str, timeout_s: float = 30.0) -> None:
    """Until rows stop coming, so that one trial does not weigh on the next."""
    before, deadline = -1, time.monotonic() + timeout_s
    while (now := int(installation.query(count)[0]["rows"])) != before and time.monotonic() < deadline:
        before = now
        time.sleep(1)


def _bytes_per_row(installation: Installation, figures: Figures) -> None:
    try:
        tables = installation.query(BYTES)
    except TracerFailed as e:
        figures.note(f"bytes per stored row: {e}")
        return
    for table in tables:
        if int(table["rows"]):
            figures.add("bytes per stored row", table["table"], int(table["bytes"]) / int(table["rows"]), "B")
