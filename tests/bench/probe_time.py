"""Nanoseconds in the kernel: for a run of each BPF program of ours, under a mixture of small loads; and of all of them, for one call of each load.

The second is what one event costs in the kernel whatever calls what: programs that are reached by tail calls have no count of their own.
"""

import tempfile
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from tests import workloads
from tests.bench import bpf
from tests.bench.figures import Figures
from tests.bench.infrasight import Node
from tests.bench.plan import Plan

NAME = "probes"


@dataclass(frozen=True)
class Small:
    """A short load, what it makes many of, and where its answer says how many."""

    event: str
    workload: str
    arguments: tuple[object, ...]
    count: str
    needs_folder: bool = False

    def run(self, folder: Path) -> int:
        where = ("--dir", folder) if self.needs_folder else ()
        return int(workloads.run(self.workload, *self.arguments, *where)[self.count])


def _calls(name: str) -> Small:
    return Small(name, "calls", ("--call", name, "--count", 100_000), "calls")


LOADS = (
    Small("open of no file", "opens", ("--absent", "--distinct", 100, "--count", 200_000), "opens", needs_folder=True),
    Small("open and close", "opens", ("--distinct", 100, "--count", 200_000), "opens", needs_folder=True),
    Small("exec", "execs", ("--count", 2_000), "execs", needs_folder=True),
    Small("fork and exit", "forkstorm", ("--count", 5_000, "--batch", 2), "processes"),
    Small("connect", "connects", ("--count", 10_000), "connects", needs_folder=True),
    Small("pipe ping-pong round", "pingpong", ("--count", 20_000), "rounds"),
    Small("cached read", "preads", ("--mib", 8, "--count", 200_000), "reads", needs_folder=True),
    Small("web request", "http", ("--count", 10_000), "requests", needs_folder=True),
    *(_calls(name) for name in ("getppid", "kill", "chmod", "ptrace", "mount", "umount")),
)


def measure(plan: Plan, figures: Figures) -> None:
    for node in plan.able(Node(probes=None)):
        for load in LOADS:
            workloads.build(load.workload)  # now: a compiler is no part of the load
        for _ in plan.rounds():
            others = bpf.programs().keys()
            with bpf.counting(), node.attach() as running:
                running.wait_idle()
                first = before = _but(others)
                costs: dict[str, float] = {}
                for load in LOADS:
                    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                        count = load.run(Path(folder))
                    after = _but(others)
                    costs[load.event] = sum(times.ns for times in _between(before, after)) / count
                    before = after
            for event, ns in costs.items():  # now that we know that the node was there to the end
                figures.add("all programs, for one", event, ns, "ns")
            _each_program(figures, _between(first, before))


def _but(others: Set[int]) -> dict[int, bpf.Times]:
    """The programs that were not there before the node, by id."""
    return {program: times for program, times in bpf.programs().items() if program not in others}


def _between(before: Mapping[int, bpf.Times], after: Mapping[int, bpf.Times]) -> list[bpf.Times]:
    """What each of those that were there at both times did meanwhile."""
    return [times.since(before[program]) for program, times in after.items() if program in before]


def _each_program(figures: Figures, programs: list[bpf.Times]) -> None:
    together = bpf.merged(programs)
    for times in together:
        if times.runs:
            figures.add("one run of a program", times.name, times.ns_per_run, "ns")
    if still := sum(not times.runs for times in together):
        figures.note(f"probes: {still} of {len(together)} programs have no count: nothing called them, or a tail call did (its time is the caller's)")
