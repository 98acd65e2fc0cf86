"""Nanoseconds that counting system calls adds to the cheapest of them, getppid, made over and over on one core."""

from tests import workloads
from tests.bench.added_cost import add_round
from tests.bench.figures import Figures, Goal
from tests.bench.infrasight import Node
from tests.bench.plan import Plan
from tests.bench.tracers import SYSCALL_COUNTS

NAME = "syscall-cost"
SECONDS = 1.5
GOAL = Goal(at_most=50)


def measure(plan: Plan, figures: Figures) -> None:
    ours = Node(probes="syscall_freq")
    tracers = plan.able(ours, SYSCALL_COUNTS)

    def ns_per_call() -> float:
        return float(workloads.run("calls", "--call", "getppid", "--seconds", SECONDS, "--cpu", plan.load_cpu)["ns_per_call"])

    for _ in plan.rounds():
        add_round(plan, figures, "one getppid", ns_per_call, tracers, {ours.name: GOAL})
