"""By how much whole workloads take longer with everything traced: (traced - untraced) / untraced; untraced is the mean of the runs before and after.

Ours has all its probes on; `tracers.py` says what each peer does. Tracers run on the same two cores as the workload. Ours with a server, a store and
a display beside it takes part in the build alone; so does strace, which would take minutes for the others.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests import workloads
from tests.bench import processes, project
from tests.bench.figures import Figures, Goal
from tests.bench.infrasight import Node, Up
from tests.bench.plan import Attachable, Plan
from tests.bench.tracers import EXECS_AND_OPENS, STRACE, SYSCALL_COUNTS

NAME = "workloads"
BUILD = "gcc build"
GOALS = {BUILD: Goal(at_most=3)}


def measure(plan: Plan, figures: Figures) -> None:
    ours = Node(probes=None)
    everywhere = plan.able(ours, SYSCALL_COUNTS, EXECS_AND_OPENS)
    of_build = plan.able(Up(), STRACE)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        project.write(folder)
        whole = _workloads(folder, plan.load_cpu)
        for run in whole.values():  # for nothing, so that what is read from a disk has been read
            run()
        for _ in plan.rounds():
            for workload, run in whole.items():
                for tracer in [*everywhere, *(of_build if workload == BUILD else [])]:
                    untraced, percent = _slowdown(run, tracer)
                    figures.add("workload, untraced", workload, untraced, "s")
                    figures.add(f"slowdown, {workload}", tracer.name, percent, "%", GOALS.get(workload) if tracer is ours else None)
                    if tracer is ours:
                        figures.add("lost of ours, meanwhile", workload, ours.counted().lost, "events")


def _slowdown(run: Callable[[], float], tracer: Attachable) -> tuple[float, float]:
    """The seconds without the tracer, and the percent more with it. The machine itself becomes slower and faster; between two runs that evens out."""
    before = run()
    with tracer.attach():
        processes.wait_idle(os.getpid())  # the tracer is of our family: until its start is over
        traced = run()
    untraced = (before + run()) / 2
    return untraced, 100 * (traced - untraced) / untraced


def _workloads(folder: Path, cpu: int) -> dict[str, Callable[[], float]]:
    """What is run, each a function that gives the seconds it took."""
    return {
        BUILD: partial(project.build, folder),
        "pipe ping-pong": partial(_seconds, "pingpong", "--count", 1_000_000, "--cpu", cpu),  # on one core: each turn is a switch
        "cached reads": partial(_seconds, "preads", "--count", 4_000_000, "--dir", folder),
        "fork storm": partial(_seconds, "forkstorm", "--count", 25_000, "--batch", 2),
        "web server": partial(_seconds, "http", "--count", 120_000, "--dir", folder),
    }


def _seconds(name: str, *arguments: object) -> float:
    return float(workloads.run(name, *arguments)["elapsed_ns"]) / 1e9
