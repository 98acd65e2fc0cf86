"""Which tracers take part, how often, and on which cores."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.figures import Figures
from tests.bench.infrasight import Node
from tests.bench.tracers import PEERS, Tracer, TracerFailed

CORES = 2  # whatever the machine has: figures of two cores can be compared with each other


@dataclass(frozen=True)
class Plan:
    """What every measure is given."""

    repeats: int
    ours: Tracer
    tracers: Sequence[Tracer]
    load_cpu: int
    tracer_cpus: frozenset[int]

    def rounds(self) -> Iterator[int]:
        """One number a repeat, told to whoever watches."""
        for number in range(1, self.repeats + 1):
            print(f"  round {number} of {self.repeats}", flush=True)
            yield number

    def counting(self) -> list[Tracer]:
        """The tracers that say what they lost."""
        return [tracer for tracer in self.tracers if tracer.counts_loss]


def make_plan(repeats: int, names: Sequence[str], figures: Figures) -> Plan:
    """Confine ourselves, and so all we start, to two cores; attach every tracer once and leave out, with a note, those that cannot.

    Where there are two cores the load has one and, in the measures of cost, the tracer the other.
    """
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    ours = Node()
    able = [tracer for tracer in (ours, *PEERS) if (not names or tracer.name in names) and _can_attach(tracer, figures)]
    return Plan(repeats, ours, able, cores[-1], frozenset(cores[:-1] or cores))


def _can_attach(tracer: Tracer, figures: Figures) -> bool:
    try:
        with tracer.attach():
            return True
    except TracerFailed as e:
        figures.note(f"left out: {e}")
        return False
