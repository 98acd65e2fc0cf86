"""Nanoseconds that tracing adds to one open: the loop's time with a tracer, less its time without one in the same round."""

from collections.abc import Callable, Mapping, Sequence

from tests.bench import loads
from tests.bench.figures import Figures, Goal
from tests.bench.plan import Plan
from tests.bench.tracers import Tracer

NAME = "added-cost"
SECONDS = 1.5
GOALS = {"opensnoop": Goal(at_least=15)}


def measure(plan: Plan, figures: Figures) -> None:
    def ns_per_open() -> float:
        return loads.at_full_speed(SECONDS, plan.load_cpu).ns_per_open

    for _ in plan.rounds():
        add_round(plan, figures, "one open", ns_per_open, plan.tracers)
        _compare(plan, figures)


def add_round(
    plan: Plan, figures: Figures, call: str, ns: Callable[[], float], tracers: Sequence[Tracer], goals: Mapping[str, Goal] | None = None
) -> None:
    """What a call takes by `ns`, untraced, and what each tracer on a core of its own adds to it; `goals` are by tracer."""
    base = ns()
    figures.add(f"{call}, untraced", "-", base, "ns")
    for tracer in tracers:
        with tracer.attach(cpus=plan.tracer_cpus):
            traced = ns()
        figures.add(f"added to {call}", tracer.name, traced - base, "ns", (goals or {}).get(tracer.name))


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
