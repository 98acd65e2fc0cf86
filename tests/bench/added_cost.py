"""Nanoseconds that tracing adds to one open: the loop's time with a tracer, less its time without one in the same round."""

from tests.bench import loads
from tests.bench.figures import Figures, Goal
from tests.bench.plan import Plan

NAME = "added-cost"
SECONDS = 1.5
GOALS = {"opensnoop": Goal(at_least=15)}


def measure(plan: Plan, figures: Figures) -> None:
    for _ in plan.rounds():
        base = loads.at_full_speed(SECONDS, plan.load_cpu).ns_per_open
        figures.add("one open, untraced", "-", base, "ns")
        for tracer in plan.tracers:
            with tracer.attach(cpus=plan.tracer_cpus):
                traced = loads.at_full_speed(SECONDS, plan.load_cpu).ns_per_open
            figures.add("added to one open", tracer.name, traced - base, "ns")
        _compare(plan, figures)


def _compare(plan: Plan, figures: Figures) -> None:
    """Each peer's added time by ours, of this round."""
    ours = figures.last("added to one open", plan.ours.name)
    if ours is None or ours <= 0:
        figures.note("added-cost: no ratio without a figure of ours above the noise")
        return
    for tracer in plan.tracers:
        theirs = figures.last("added to one open", tracer.name)
        if tracer is not plan.ours and theirs is not None:
            figures.add("added, by ours", tracer.name, theirs / ours, "x", GOALS.get(tracer.name))
