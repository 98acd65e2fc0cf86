"""python -m tests.bench [--repeats N] [--only MEASURE]... [--tracer NAME]... [--json FILE]"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from tests.bench import added_cost, end_to_end, enrichment, event_cpu, fleet, idle, latency, loss, probe_time, redaction, slowdown, syscall_cost
from tests.bench.figures import Figures
from tests.bench.plan import make_plan
from tests.bench.tracers import TracerFailed

ORDER = (added_cost, syscall_cost, probe_time, event_cpu, enrichment, idle, latency, loss, redaction, slowdown, end_to_end, fleet)
MEASURES = {module.NAME: module.measure for module in ORDER}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What tracing costs, ours beside the peers.")
    parser.add_argument("--repeats", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="measure this alone; may be given several times")
    parser.add_argument("--tracer", action="append", default=[], help="take this tracer alone; may be given several times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there too")
    return parser.parse_args()


def main() -> int:
    """Print the table; 1 when something of ours could not be measured or a goal was missed."""
    arguments = _arguments()
    if os.geteuid() != 0:
        print("the benchmarks trace the kernel and need root", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every tracer is ended on the way out
    figures = Figures()
    plan = make_plan(max(arguments.repeats, 1), arguments.tracer, figures)
    failed = False
    for name in arguments.only or MEASURES:
        print(f"{name} ...", flush=True)
        try:
            MEASURES[name](plan, figures)
        except TracerFailed as e:
            failed = True
            figures.note(f"{name}: {e}")
    print(f"\n{figures.table()}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures.as_dict(), indent=2) + "\n")
    missed = [figure for figure in figures.all() if "MISSED" in figure.verdict()]
    return 1 if failed or missed or plan.ours.name in plan.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
