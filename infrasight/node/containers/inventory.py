"""Rows of the table `container`: what the node was told of containers, as it was told. No I/O."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from infrasight.node.columns import Distinct, constant, numbers
from infrasight.node.containers.columns import told, whose
from infrasight.node.containers.containment import NOWHERE, Container, container_of
from infrasight.node.flow import Batch
from infrasight.runtimes import Facts
from infrasight.schema import Type, arrow_schema
from infrasight.schema.arrow import TYPES
from infrasight.schema.events.container import CONTAINER


def owned(id: bytes, facts: Facts, runtime: bytes) -> Container:
    """What is known of a container but by its runtime's facts: the path of its cgroup, where that is told, says of which pod it is, and in part what
    runs it; else who told of it does."""
    found = container_of(facts.cgroup) if facts.cgroup else NOWHERE
    return Container(id, (found.id == id and found.runtime) or runtime, found.pod_uid)


def row(node: bytes, container: Container, facts: Facts, state: bytes, now_ns: int) -> Batch:
    """One row, as a batch. `state` is one of `infrasight.schema.events.container`; `now_ns` since the epoch."""
    one = Distinct(np.zeros(1, np.int32), [container])
    columns = {
        "ts": numbers(np.array([now_ns], np.int64), TYPES[Type.TIME]),
        "node": constant(node, 1),
        **whose(one, [container], [facts]),
        **told(one, [facts]),
        "state": constant(state, 1),
    }
    schema = arrow_schema(CONTAINER.name)
    return Batch(CONTAINER.name, pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema), now_ns)
