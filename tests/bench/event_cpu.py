"""CPU time that a tracer spends on one event: user and system time of its processes, by the events that reached it.

Ours reads, enriches, batches and encodes; the peers format a line and write it to nowhere.
"""

from tests.bench import loads
from tests.bench.figures import Figures, Goal
from tests.bench.plan import Plan

NAME = "event-cpu"
SECONDS = 3.0
OURS = Goal(at_most=0.6)


def measure(plan: Plan, figures: Figures) -> None:
    for _ in plan.rounds():
        for tracer in plan.counting():
            with tracer.attach(cpus=plan.tracer_cpus) as running:
                before = running.cpu_s()
                load = loads.at_full_speed(SECONDS, plan.load_cpu)
                running.wait_idle()
                spent_s = running.cpu_s() - before
            events = load.opens - tracer.counts(running, load).lost
            if events > 0:
                figures.add("CPU per event", tracer.name, spent_s * 1e6 / events, "us", OURS if tracer is plan.ours else None)
            else:
                figures.note(f"event-cpu: {tracer.name} lost every event of a round")
