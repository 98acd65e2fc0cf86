"""Prometheus metrics of a process, and the HTTP endpoint that tells them.

Belongs here: what a sample is, figures that every process has (its actors' mailboxes, its own memory), the endpoint. Does not belong here: figures of
one domain, which whoever has them yields as samples. Nothing is counted here: everything is asked for when somebody scrapes.
"""

from infrasight.metrics.endpoint import serve
from infrasight.metrics.samples import Histogram, Sample, counter, gauge, histogram, of_graph, of_process

__all__ = ["Histogram", "Sample", "counter", "gauge", "histogram", "of_graph", "of_process", "serve"]
