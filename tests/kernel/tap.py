"""What one test process and everything it starts did, as the records tell it.

Other things run on the machine meanwhile and are traced as well: they are left out by following forks from this process.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from infrasight.kernel import Records, Ring, Tracing, trace
from infrasight.kernel.rules import Match, Rules
from infrasight.node.paths import placed, resolved
from infrasight.schema import PROBES
from infrasight.schema.events.process import FORK
from infrasight.schema.kinds import ALWAYS
from infrasight.schema.layout import Layout
from tests.conftest import worker_cgroups

LOOK_EVERY_S = 0.01


class Record(dict[str, Any]):
    """One record by member. Slots are cut to their length, `argv` is a list, `<path>_resolved` is where a path leads,
    `<file>_placed` where an open file is."""

    @property
    def probe(self) -> str:
        return str(self["probe"])


class Tap:
    """Reads the rings in a thread, so that they never fill; `records` tells what is in by now."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing
        self._family = {os.getpid()}
        self._records: list[Record] = []
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tap")
        self._thread.start()

    def follow(self, pid: int) -> None:
        """Keep what this process and its children do: it was started before us."""
        with self._lock:
            self._family.add(pid)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            with self._lock:
                self._look()

    def _look(self) -> None:
        ends = [(ring, ring.end()) for ring in self.tracing.rings if ring.name != "process"]
        (life,) = [ring for ring in self.tracing.rings if ring.name == "process"]
        for _, records in taken(life, life.end()):
            for action, pid, ppid in zip(records["action"].tolist(), records["pid"].tolist(), records["ppid"].tolist(), strict=True):
                if action == FORK and ppid in self._family:
                    self._family.add(pid)
            self._keep("process", records)
        for ring, end in ends:
            for layout, records in taken(ring, end):
                self._keep(layout.name, records)

    def _keep(self, name: str, records: Records) -> None:
        ours = np.flatnonzero(np.isin(records["pid"], np.fromiter(self._family, np.uint32)))
        self._records += [_record(name, records, row) for row in ours.tolist()]

    def records(self, probe: str, **wanted: Any) -> list[Record]:
        """All there are until now of one probe, by enter time, whose members are as wanted (a set: one of these)."""
        with self._lock:
            self._look()
            found = [each for each in self._records if each.probe == probe and all(_matches(each[name], value) for name, value in wanted.items())]
        return sorted(found, key=lambda each: each["enter_ns"])

    def one(self, probe: str, **wanted: Any) -> Record:
        """The only one."""
        found = self.records(probe, **wanted)
        assert len(found) == 1, f"{len(found)} of {probe} with {wanted}; lost: {self.tracing.losses()}; {found[:3]}"
        return found[0]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.tracing.close()


def taken(ring: Ring, end: int) -> Iterator[tuple[Layout, Records]]:
    """All of a ring before `end`. What a program on another processor has reserved and not yet submitted is waited for, or it would hide the rest."""
    while True:
        yield from ring.take(end, 1 << 30)
        if ring.read_up_to(end):
            return
        time.sleep(0)


def _matches(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, (set, frozenset)) else bool(value == wanted)


def _record(name: str, records: Records, row: int) -> Record:
    probe = name.removesuffix("_long").removesuffix("_medium")
    values = {member: column[row].tobytes() if column.ndim > 1 else column[row].item() for member, column in records.columns.items()}
    for length in [name for name in values if name.endswith("_len")]:
        slot = length.removesuffix("_len")
        values[slot] = values[slot][: values[length]]
    for flags in [name for name in values if name.endswith("_whole")]:
        path = flags.removesuffix("_whole")
        values[f"{path}_resolved"] = resolved(values[path], values[f"{path}_place"], values[flags])
    for cut in [name for name in values if name.endswith("_cut")]:
        slot = cut.removesuffix("_cut")
        values[f"{slot}_placed"] = placed(values[slot], values[cut])
    if "argv" in values:
        values["argv"] = values["argv"].split(b"\0")[: values["argv"].count(b"\0") + (values["argv"][-1:] != b"\0" and bool(values["argv"]))]
    return Record(values, probe=probe, layout=name)


def not_of_others() -> dict[str, Rules]:
    """Rules that leave out what the other processes do that run tests at the same time."""
    own = os.environ.get("PYTEST_XDIST_WORKER")
    theirs = frozenset(path.stat().st_ino for name, path in worker_cgroups().items() if name != own and path.exists())
    return {probe: Rules(deny=Match(cgroups=theirs)) for probe in PROBES if probe != ALWAYS} if theirs else {}


@contextmanager
def tapping(probes: Iterable[str] = PROBES, *, self_pid: int = 0, family_pid: int = 0) -> Iterator[Tap]:
    """Trace, this very process included unless it is `self_pid`."""
    tap = Tap(asyncio.run(trace(tuple(probes), self_pid=self_pid, family_pid=family_pid, rules=not_of_others())))
    try:
        yield tap
    finally:
        tap.close()


class Interval:
    """When something was done, by the clock that records have."""

    def __enter__(self) -> "Interval":
        self.start = time.monotonic_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.end = time.monotonic_ns()

    def holds(self, record: Record) -> bool:
        """Whether the call was entered and left within."""
        return bool(self.start <= record["enter_ns"] and 0 < record["latency_ns"] <= self.end - record["enter_ns"])
