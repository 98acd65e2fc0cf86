"""What it costs the node to say who did it: a second of opens at the rate of a busy machine, of processes in many containers and, by turns, of the
same processes in none. Nothing is traced, one core is enough.

Each container has a cgroup, a mount namespace with users of its own, a working directory, and a runtime that has told of it. The events come in
drains as large as the reader's when it is woken up by a ring, and with each drain one process is replaced by another. The records are made, and
garbage is collected, before the clock starts; it counts the processor time of this thread alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Sequence

import numpy as np

from infrasight.actors import Mailbox
from infrasight.kernel import Records
from infrasight.node.containers.containment import Container
from infrasight.node.enricher import Enricher
from infrasight.node.flow import Drain
from infrasight.node.memory import frugal_allocation
from infrasight.node.names.inside import SAME, File, Inside
from infrasight.node.names.namespaces import Namespaces
from infrasight.runtimes import Facts, Key
from infrasight.schema import KINDS
from infrasight.schema.events.process import EXEC
from infrasight.schema.kinds import BUFFERS, filled_bytes, records_of
from infrasight.schema.layout import layout, stride
from tests.bench.figures import Figures, Goal
from tests.bench.plan import Plan
from tests.node.records import TICK, life, make, together

NAME = "enrichment"
EVENTS_PER_S = 300_000
CONTAINERS, PROCESSES_EACH, PATHS = 200, 3, 500
DRAIN = filled_bytes(BUFFERS["open"].bytes) // stride(records_of("open"))
GOAL = Goal(at_most=0.15)
DRAINS = -(-EVENTS_PER_S // DRAIN)
FIRST_CGROUP, FIRST_NAMESPACE, FIRST_DIRECTORY, FIRST_PID = 1_000, 5_000, 9_000, 10_000
PROCESSES = CONTAINERS * PROCESSES_EACH
WITHOUT, WITH = "in no container", f"in {CONTAINERS} containers"


class Subject:
    """An enricher that knows all containers, where there are any, and the load that it is given. Of the processes one is replaced with each drain."""

    def __init__(self, contained: bool) -> None:
        self._contained = contained
        self._random = np.random.default_rng(1)
        self._began = np.arange(PROCESSES)
        """Which process each is: all that there have been are numbered."""
        self._now_ns = 0
        self.enricher = Enricher(Mailbox("drains", limit=1), Mailbox("batches", limit=1), node="bench", boot="0" * 8)
        self.enricher.namespaces = Namespaces(look=_inside)
        for number in range(CONTAINERS if contained else 0):
            id = b"%064x" % number
            self.enricher.cgroups.belongs(FIRST_CGROUP + number, Container(id, b"containerd", b""))
            labels = tuple(b"label-%d=%d" % (label, number) for label in range(10))
            facts = Facts(b"name-%d" % number, b"registry/image:%d" % (number % 30), b"sha256:%064x" % (number % 30), labels, 1)
            self.enricher.containers.shelf("containerd").learn(Key(id), facts)

    async def meet_all(self) -> None:
        """Every process executes its program."""
        births = self._births(range(PROCESSES))
        self.enricher.namespaces.meet(births)
        await self.enricher.namespaces.wait(10)
        for _ in self.enricher.batches(Drain([births], [], [], [], 0)):
            pass

    def second(self) -> list[Drain]:
        """A second of the load."""
        return [self._next() for _ in range(DRAINS)]

    def who_us(self, drains: list[Drain]) -> float:
        """CPU for each event to find who did it, what the drain tells of processes being known."""
        return self._spent_us(lambda drain: [self.enricher._who(records, 0) for _, records in drain.data], drains, self._learn)

    def _learn(self, drain: Drain) -> None:
        for records in drain.life:
            self.enricher.processes.apply(records)

    def whole_us(self, drains: list[Drain]) -> float:
        """CPU for each event to make all columns, and to learn of processes."""
        return self._spent_us(lambda drain: list(self.enricher.batches(drain)), drains)

    def _next(self) -> Drain:
        self._now_ns += DRAIN * 1_000_000_000 // EVENTS_PER_S
        replaced = int(self._random.integers(PROCESSES))
        self._began[replaced] += PROCESSES
        return Drain([self._births([replaced])], [(layout(KINDS["open"]), self._opens())], [], [], 0)

    def _births(self, places: Sequence[int]) -> Records:
        """Each of these executes its program."""
        return together(*(self._birth(place, FIRST_PID + int(self._began[place])) for place in places))

    def _birth(self, place: int, pid: int) -> Records:
        container = place // PROCESSES_EACH
        return life(
            EXEC,
            pid,
            pid,
            comm=b"worker",
            parent=b"init",
            exec_id=1,
            file=b"/bin/worker",
            cwd=b"/srv/%d" % container,
            cwd_key=FIRST_DIRECTORY + container,
            mount_ns=FIRST_NAMESPACE + container if self._contained else 0,
        )

    def _opens(self) -> Records:
        place = self._random.integers(0, PROCESSES, DRAIN)
        pid, container = FIRST_PID + self._began[place], place // PROCESSES_EACH
        return make(
            "open",
            DRAIN,
            pid=pid,
            start_ns=pid * TICK,
            exec_id=1,
            cgroup_id=FIRST_CGROUP + container if self._contained else 1,
            enter_ns=self._now_ns + np.arange(DRAIN),
            uid=container % 3,
            gid=container % 3,
            comm=[b"worker-%d" % (each % 40) for each in place.tolist()],
            cwd_key=FIRST_DIRECTORY + container,
            tty=0,
            path=[b"/srv/data/%d/index" % each for each in self._random.integers(0, PATHS, DRAIN).tolist()],
            path_place=[b""] * DRAIN,
            path_place_len=0,
            path_whole=0,
        )

    def _spent_us(self, work: Callable[[Drain], object], drains: list[Drain], before: Callable[[Drain], None] = lambda drain: None) -> float:
        gc.collect()
        spent_s, events = 0.0, 0
        for drain in drains:
            before(drain)
            began_s = time.thread_time()
            work(drain)
            spent_s += time.thread_time() - began_s
            events += sum(len(records) for _, records in drain.data)
        return spent_s * 1e6 / max(events, 1)


def _inside(_pid: int, _namespace: int, _before: Inside | None) -> Inside:
    names = {number: b"user-%d" % number for number in range(20)}
    return Inside((1, 1), File((1, 1, 1, 1), names), File((1, 1, 1, 1), names), SAME, SAME)


async def _measure(plan: Plan, figures: Figures) -> None:
    subjects = {WITHOUT: Subject(contained=False), WITH: Subject(contained=True)}
    for each in subjects.values():
        await each.meet_all()
    for _ in plan.rounds():
        for name, each in subjects.items():
            figures.add("CPU for an event, to make all its columns", name, each.whole_us(each.second()), "us")
            figures.add("CPU for an event, to say who did it", name, each.who_us(each.second()), "us", GOAL if name == WITH else None)
        figures.add("tasks that wanted one of the machine's cores meanwhile", "the last minute", os.getloadavg()[0], "")
    assert subjects[WITH].enricher.containers.misses == subjects[WITH].enricher.namespaces.misses == 0


def measure(plan: Plan, figures: Figures) -> None:
    frugal_allocation()  # as the node does
    asyncio.run(_measure(plan, figures))
