"""The load that every measure puts on the machine: opens, from tests/workloads/opens.c.

Every open is of a path that is not there: one system call an open and nothing else, which is the highest rate at which one core can make
events. A thousand distinct paths take turns, so that whoever keeps a dictionary of paths has something to do.
"""

import tempfile
from dataclasses import dataclass

from tests import workloads

DISTINCT_PATHS = 1000
SLACK_S = 30.0  # for a slow tracer on a busy machine


@dataclass(frozen=True)
class Load:
    """What one load did, by its own count."""

    pid: int
    opens: int
    elapsed_s: float
    ns_per_open: float
    folder: str  # begins every path that was opened

    @property
    def rate(self) -> float:
        """Opens per second."""
        return self.opens / self.elapsed_s


def _run(*arguments: object, timeout_s: float) -> Load:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        said = workloads.run("opens", "--absent", "--distinct", DISTINCT_PATHS, "--dir", folder, *arguments, timeout_s=timeout_s)
    return Load(said["pid"], said["opens"], said["elapsed_ns"] / 1e9, said["ns_per_open"], folder)


def at_full_speed(seconds: float, cpu: int) -> Load:
    """As fast as `cpu` can, for a time."""
    return _run("--seconds", seconds, "--cpu", cpu, timeout_s=seconds + SLACK_S)


def at_rate(rate: int, seconds: float) -> Load:
    """`rate` opens a second for a time, on whichever core is free; Load.rate tells whether it was kept."""
    return _run("--count", int(rate * seconds), "--rate", rate, timeout_s=2 * seconds + SLACK_S)
