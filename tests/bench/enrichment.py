"""What it costs the node to say who did it: a second of opens at the rate of a busy machine, of processes in many containers and, by turns, of the
same processes in none. Nothing is traced, one core is enough.

Each container has a cgroup, a mount namespace with users of its own, and a runtime that has told of it. The events come in drains as large as the
reader's when it is woken up by a ring.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from infrasight.actors import Mailbox
from infrasight.kernel import Records
from infrasight.node.containers.containment import Container
from infrasight.node.enricher import Enricher
from infrasight.node.flow import Drain
from infrasight.node.names.inside import SAME, File, Inside
from infrasight.node.names.namespaces import Namespaces
from infrasight.runtimes import Facts
from infrasight.schema import KINDS
from infrasight.schema.events.process import EXEC
from infrasight.schema.kinds import BUFFERS, FILLED, records_of
from infrasight.schema.layout import layout, stride
from tests.bench.figures import Figures, Goal
from tests.bench.plan import Plan
from tests.node.records import TICK, life, make, together

NAME = "enrichment"
EVENTS_PER_S = 300_000
CONTAINERS, PROCESSES_EACH, PATHS = 200, 3, 500
DRAIN = int(BUFFERS["open"].bytes * FILLED) // stride(records_of("open"))
GOAL = Goal(at_most=0.15)
FIRST_CGROUP, FIRST_NAMESPACE, FIRST_PID = 1_000, 5_000, 10_000
PROCESSES = CONTAINERS * PROCESSES_EACH
WITHOUT, WITH = "in no container", f"in {CONTAINERS} containers"


@dataclass
class Subject:
    """An enricher that knows everybody, and what it is given."""

    enricher: Enricher
    drains: list[Drain]

    def who_us(self) -> float:
        """CPU for each event to find who did it."""
        return self._spent_us(lambda drain: [self.enricher._who(records, 0) for _, records in drain.data])

    def whole_us(self) -> float:
        """CPU for each event to make all its columns."""
        return self._spent_us(lambda drain: list(self.enricher.batches(drain)))

    def _spent_us(self, work: object) -> float:
        assert callable(work)
        began_s = time.process_time()
        for drain in self.drains:
            work(drain)
        return (time.process_time() - began_s) * 1e6 / sum(len(records) for drain in self.drains for _, records in drain.data)


def _opens(contained: bool, seed: int) -> Records:
    random = np.random.default_rng(seed)
    process = random.integers(0, PROCESSES, DRAIN)
    return make(
        "open",
        DRAIN,
        pid=FIRST_PID + process,
        start_ns=(FIRST_PID + process) * TICK,
        exec_id=1,
        cgroup_id=FIRST_CGROUP + process // PROCESSES_EACH if contained else 1,
        enter_ns=np.arange(DRAIN) + 1,
        uid=process // PROCESSES_EACH % 3,
        gid=process // PROCESSES_EACH % 3,
        comm=[b"worker-%d" % (each % 40) for each in process.tolist()],
        cwd_key=0,
        tty=0,
        path=[b"/srv/data/%d/index" % each for each in random.integers(0, PATHS, DRAIN).tolist()],
        path_place=[b""] * DRAIN,
        path_place_len=0,
        path_whole=0,
    )


def _births(contained: bool) -> Records:
    """Each process executes its program."""
    each = range(PROCESSES)
    namespaces = [FIRST_NAMESPACE + number // PROCESSES_EACH if contained else 0 for number in each]
    return together(
        *(life(EXEC, FIRST_PID + number, FIRST_PID + number, exec_id=1, file=b"/bin/worker", mount_ns=namespaces[number]) for number in each)
    )


def _inside(_pid: int, _namespace: int, _before: Inside | None) -> Inside:
    names = {number: b"user-%d" % number for number in range(20)}
    return Inside((1, 1), File((1, 1, 1, 1), names), File((1, 1, 1, 1), names), SAME, SAME)


async def subject(contained: bool) -> Subject:
    """That knows all processes, and all containers where there are any."""
    inbox: Mailbox[Drain] = Mailbox("drains", limit=1)
    enricher = Enricher(inbox, Mailbox("batches", limit=1), node="bench", boot="0" * 8)
    enricher.namespaces = Namespaces(look=_inside)
    births = _births(contained)
    enricher.namespaces.meet(births)
    await enricher.namespaces.wait(10)
    for number in range(CONTAINERS if contained else 0):
        id = b"%064x" % number
        enricher.cgroups.belongs(FIRST_CGROUP + number, Container(id, b"containerd", b""))
        labels = tuple(b"label-%d=%d" % (label, number) for label in range(10))
        enricher.containers.learn(id, Facts(b"name-%d" % number, b"registry/image:%d" % (number % 30), b"sha256:%064x" % (number % 30), labels, 1))
    for _ in enricher.batches(Drain([births], [], [], [], 0)):
        pass
    count = -(-EVENTS_PER_S // DRAIN)
    opens = layout(KINDS["open"])
    return Subject(enricher, [Drain([], [(opens, _opens(contained, seed))], [], [], 0) for seed in range(count)])


async def _measure(plan: Plan, figures: Figures) -> None:
    subjects = {WITHOUT: await subject(contained=False), WITH: await subject(contained=True)}
    for _ in plan.rounds():
        for name, each in subjects.items():
            figures.add("CPU for an event, to say who did it", name, each.who_us(), "us", GOAL if name == WITH else None)
            figures.add("CPU for an event, to make all its columns", name, each.whole_us(), "us")
        assert subjects[WITH].enricher.containers.misses == subjects[WITH].enricher.namespaces.misses == 0


def measure(plan: Plan, figures: Figures) -> None:
    asyncio.run(_measure(plan, figures))
