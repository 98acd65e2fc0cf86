"""Which tracers take part, how often, and on which cores."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from tests.bench.figures import Figures
from tests.bench.infrasight import Node
from tests.bench.tracers import PEERS, Tracer, TracerFailed

CORES = 2  # whatever the machine has: figures of two cores can be compared with each other


class Attachable(Protocol):
    name: str

    def attach(self) -> AbstractContextManager[Any]: ...


T = TypeVar("T", bound=Attachable)


@dataclass(frozen=True)
class Plan:
    """What every measure is given."""

    repeats: int
    names: Sequence[str]  # of the tracers that were asked for; of all, when empty
    figures: Figures
    load_cpu: int
    tracer_cpus: frozenset[int]
    ours: Node = field(default_factory=Node)
    left_out: set[str] = field(default_factory=set)  # names of those that cannot attach

    def rounds(self) -> Iterator[int]:
        """One number a repeat, told to whoever watches."""
        for number in range(1, self.repeats + 1):
            print(f"  round {number} of {self.repeats}", flush=True)
            yield number

    def able(self, *tracers: T) -> list[T]:
        """Those that were asked for and can be attached, which is tried once; the others leave a note."""
        return [tracer for tracer in tracers if (not self.names or tracer.name in self.names) and self._can_attach(tracer)]

    @cached_property
    def tracers(self) -> list[Tracer]:
        """Tracers of open()."""
        return self.able(self.ours, *PEERS)

    def counting(self) -> list[Tracer]:
        """The tracers that say what they lost."""
        return [tracer for tracer in self.tracers if tracer.counts_loss]

    def _can_attach(self, tracer: Attachable) -> bool:
        try:
            with tracer.attach():
                return True
        except TracerFailed as e:
            self.left_out.add(tracer.name)
            self.figures.note(f"left out: {e}")
            return False


def make_plan(repeats: int, names: Sequence[str], figures: Figures) -> Plan:
    """Confine ourselves, and so all we start, to two cores.

    Where there are two cores the load has one and, in the measures of cost, the tracer the other.
    """
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    return Plan(repeats, names, figures, cores[-1], frozenset(cores[:-1] or cores))
