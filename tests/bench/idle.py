"""What a tracer takes of a core while next to nothing happens: what it costs to be ready. Whatever else the machine does in that time counts too."""

import time

from tests.bench.figures import Figures, Goal
from tests.bench.plan import Plan

NAME = "idle"
SECONDS = 10.0
GOAL = Goal(at_most=1)


def measure(plan: Plan, figures: Figures) -> None:
    for _ in plan.rounds():
        for tracer in plan.counting():
            with tracer.attach() as running:
                running.wait_idle()
                before = running.cpu_s()
                time.sleep(SECONDS)
                used = running.cpu_s() - before
            figures.add("idle", tracer.name, 100 * used / SECONDS, "% core", GOAL if tracer is plan.ours else None)
