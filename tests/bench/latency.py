"""How long after an event it is seen, while others come in a steady flow: as a printed line, by who watches through a server, and by who asks in SQL.

Marked opens are made at odd times; each is waited for. With a server all probes are on, and enough kinds of events come for batches to be worth
putting off.
"""

import asyncio
import itertools
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from infrasight.client import Client
from tests.bench import processes
from tests.bench.figures import Figures, Goal
from tests.bench.infrasight import Installation, Node, installed
from tests.bench.plan import Plan
from tests.bench.tracers import OPENSNOOP, Tracer, TracerFailed
from tests.workloads import build

NAME = "latency"
MARKS, EVERY_S = 60, 0.083
PATIENCE_S = 10.0  # for the last of them
FLOW_PER_S = 500
FLOW = 'while [ -e "$0" ]; do rm -f "$0.x" "$0.z"; /bin/true; touch "$0.x"; chmod 600 "$0.x"; ln "$0.x" "$0.y"; mv "$0.y" "$0.z"; sleep 0.02; done'
GOAL = Goal(at_most=50)  # for the reader to have found it; a printed line comes as soon
QUERY = "SELECT path FROM infrasight.open WHERE startsWith(path, '{folder}/mark-')"


class Printing(Node):
    """The node that prints a line for each event."""

    def command(self, sink: Path) -> list[str]:
        return ["json" if word == "none" else word for word in super().command(sink)]


class Marks:
    """Opens that can be told apart, and when each was made and first seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, float] = {}
        self.seen: dict[str, float] = {}

    def make(self) -> None:
        for number in range(MARKS):
            path = str(self.folder / f"mark-{number}.")
            self._made[path] = time.monotonic()
            with suppress(FileNotFoundError):
                os.open(path, os.O_RDONLY)
            time.sleep(EVERY_S)

    def see(self, path: str) -> None:
        self.seen.setdefault(path, time.monotonic())

    def all_seen(self) -> bool:
        return len(self.seen) == MARKS

    def add_to(self, figures: Figures, subject: str, goal: Goal | None = None) -> None:
        """Raises TracerFailed when one was not seen."""
        if not self.all_seen():
            raise TracerFailed(f"{subject}: {MARKS - len(self.seen)} of {MARKS} opens were not seen in {PATIENCE_S:.0f} s")
        took_ms = [1000 * (self.seen[path] - made) for path, made in self._made.items()]
        figures.add("from an event until it is seen, median", subject, median(took_ms), "ms", goal)
        figures.add("from an event until it is seen, longest", subject, max(took_ms), "ms")


def measure(plan: Plan, figures: Figures) -> None:
    printing: list[Tracer] = plan.able(Printing(), OPENSNOOP)
    for _ in plan.rounds():
        for tracer in printing:
            with _folder() as folder:
                marks = _printed(tracer, folder)
            marks.add_to(figures, f"{tracer.name}, a line", GOAL if isinstance(tracer, Printing) else None)
        with _folder() as folder, installed() as installation:
            watched, stored = asyncio.run(_served(installation, folder))
        watched.add_to(figures, "infrasight up, a subscription")
        stored.add_to(figures, "infrasight up, a query")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


@contextmanager
def _flow(folder: Path) -> Iterator[None]:
    """Other events, for as long as this lasts."""
    (goes_on := folder / "goes-on").touch()
    opens = [build("opens"), "--absent", "--dir", folder, "--rate", str(FLOW_PER_S), "--seconds", "600"]
    flows = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in (opens, ["/bin/sh", "-c", FLOW, goes_on])]
    try:
        time.sleep(1)
        yield
    finally:
        goes_on.unlink()
        for flow in flows:
            processes.stop(flow)


def _printed(tracer: Tracer, folder: Path) -> Marks:
    """Marks seen as lines."""
    marks, lines = Marks(folder), folder / "lines"
    os.mkfifo(lines)

    def read() -> None:
        prefix = str(folder / "mark-")
        with lines.open() as stream:
            for line in stream:
                if (at := line.find(prefix)) >= 0:
                    marks.see(line[at : line.index(".", at + len(prefix)) + 1])

    reader = threading.Thread(target=read)
    reader.start()
    with tracer.attach(lines), _flow(folder):
        marks.make()
        processes.wait_until(marks.all_seen, PATIENCE_S)
    reader.join(PATIENCE_S)
    return marks


async def _served(installation: Installation, folder: Path) -> tuple[Marks, Marks]:
    """Marks seen by a subscription, and such as were stored while nobody but `infrasight up` watched."""
    watched, stored = Marks(folder), Marks(folder / "later")
    async with Client("127.0.0.1", installation.port) as client:

        async def watch() -> None:
            async with client.subscribe(path_prefixes=[str(folder / "mark-")]) as events:
                async for event in events:
                    watched.see(event.open.path if event.open else "")

        async def ask() -> None:
            for _ in itertools.count():
                async for chunk in client.query(QUERY.format(folder=stored.folder)):
                    for line in chunk.splitlines():
                        stored.see(json.loads(line)["path"])
                await asyncio.sleep(0.05)

        for marks, see in ((watched, watch), (stored, ask)):
            with _flow(folder):
                seeing = asyncio.create_task(see())
                await asyncio.to_thread(marks.make)
                await asyncio.to_thread(processes.wait_until, marks.all_seen, PATIENCE_S)
                seeing.cancel()
                await asyncio.gather(seeing, return_exceptions=True)
    return watched, stored
