"""What a metric says at the moment of a scrape."""

from __future__ import annotations

import bisect
import itertools
import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infrasight.actors import Graph


@dataclass(frozen=True)
class Sample:
    """One value of one metric. `kind` is "counter", "gauge" or "histogram"; a counter's name ends in `_total`. Samples of one name have the same help
    and kind. Of a histogram, `value` is the sum of what was observed, and `buckets` how often up to which limit."""

    name: str
    kind: str
    help: str
    labels: Mapping[str, str]
    value: float
    buckets: tuple[tuple[str, float], ...] = ()


class Histogram:
    """How often values up to each limit were observed. The limits are those that Prometheus's clients have by default, for seconds."""

    LIMITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(self.LIMITS) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.sum += value
        self._counts[bisect.bisect_left(self.LIMITS, value)] += 1

    def buckets(self) -> tuple[tuple[str, float], ...]:
        """Limit and how many were not above it."""
        return tuple(zip((*map(str, self.LIMITS), "+Inf"), itertools.accumulate(self._counts), strict=True))


def counter(name: str, help: str, value: float, **labels: str) -> Sample:
    """A count that only grows."""
    return Sample(name, "counter", help, labels, value)


def gauge(name: str, help: str, value: float, **labels: str) -> Sample:
    """A value that goes up and down."""
    return Sample(name, "gauge", help, labels, value)


def histogram(name: str, help: str, observed: Histogram, **labels: str) -> Sample:
    """What was observed so far."""
    return Sample(name, "histogram", help, labels, observed.sum, observed.buckets())


def of_graph(graph: Graph, crashes: Mapping[str, int]) -> Iterator[Sample]:
    """What goes over each edge, labelled with the edge and with the actors at its ends, and how often each actor crashed."""
    statistics = graph.statistics()
    for edge in graph.edges:
        name, figures = edge.mailbox.name, statistics[edge.mailbox.name]
        labels = {"edge": name, "source": edge.source, "target": edge.target}
        yield counter("infrasight_edge_accepted_total", "Items put into the mailbox: the source's out.", figures.accepted, **labels)
        yield counter("infrasight_edge_delivered_total", "Items taken out of the mailbox: the target's in.", figures.delivered, **labels)
        yield counter("infrasight_edge_dropped_total", "Items that the mailbox dropped when it was full.", figures.dropped, **labels)
        yield gauge("infrasight_edge_depth", "Items in the mailbox.", figures.depth, **labels)
        yield gauge("infrasight_edge_weight", "Weight of what is in the mailbox, in the unit of its limit.", figures.weight, **labels)
        yield gauge("infrasight_edge_weight_peak", "Highest weight so far.", figures.peak_weight, **labels)
        yield gauge("infrasight_edge_limit", "Weight that the mailbox holds at most.", figures.limit, **labels)
    for actor in graph.actors:
        yield counter("infrasight_actor_crashes_total", "Crashes of the actor.", crashes.get(actor.name, 0), actor=actor.name)


def of_process() -> Iterator[Sample]:
    """Memory and processor time of this process, under the names that Prometheus's own clients use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield gauge("process_resident_memory_bytes", "Resident memory size in bytes.", pages * os.sysconf("SC_PAGESIZE"))
    yield counter("process_cpu_seconds_total", "User and system processor time spent in seconds.", used.ru_utime + used.ru_stime)
