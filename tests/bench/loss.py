"""What is lost while one core opens files as fast as it can for ten seconds, and the memory that it takes.

The load knows how much it made. Lost is what the tracer says it lost, or what of the load it never showed, whichever is more.
"""

import tempfile
from pathlib import Path

from tests.bench import loads
from tests.bench.figures import Figures, Goal
from tests.bench.plan import Plan

NAME = "loss"
SECONDS = 10.0
NOTHING = Goal(at_most=0)
MEMORY = Goal(at_most=120)
IN_MEMORY = Path("/dev/shm")  # so that a peer's output does not wait for a disk; it is removed with its folder


def measure(plan: Plan, figures: Figures) -> None:
    for _ in plan.rounds():
        for tracer in plan.counting():
            with tempfile.TemporaryDirectory(prefix="bench-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
                with tracer.attach(sink=Path(folder) / "output") as running:
                    load = loads.at_full_speed(SECONDS, plan.load_cpu)
                    running.wait_idle()
                    memory = running.memory()
                counts = tracer.counts(running, load)
            lost, ours = max(counts.lost, load.opens - counts.seen, 0), tracer is plan.ours
            figures.add("opens made in a second", tracer.name, load.rate, "1/s")
            figures.add("seen in a second", tracer.name, min(counts.seen, load.opens) / load.elapsed_s, "1/s")
            figures.add("lost", tracer.name, lost, "events", NOTHING if ours else None)
            figures.add("lost, of what was made", tracer.name, 100 * lost / load.opens, "%")
            figures.add("memory, after it", tracer.name, memory.rss_mib, "MiB", MEMORY if ours else None)
            figures.add("memory, highest", tracer.name, memory.peak_mib, "MiB", MEMORY if ours else None)
