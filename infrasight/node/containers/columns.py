"""The columns that say in which container something happened. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from infrasight.node.columns import Distinct, constant, numbers
from infrasight.node.containers.containment import Container
from infrasight.node.containers.table import Containers
from infrasight.runtimes import Facts
from infrasight.schema import Type
from infrasight.schema.arrow import TYPES

_NOTHING = Facts()
_BY_PATH = {"container_id": "id", "container_runtime": "runtime"}
"""Columns, and what the path of a cgroup tells."""
_BY_RUNTIME = {
    "container_name": "name",
    "image": "image",
    "image_digest": "image_digest",
    "pod_name": "pod_name",
    "pod_namespace": "pod_namespace",
    "workload": "workload",
}
"""Columns, and what runtimes tell."""
_NAMES = (*_BY_PATH, *_BY_RUNTIME, "pod_uid", "container_labels", "identity")


def contained(distinct: Distinct, inside: Sequence[Container], containers: Containers) -> dict[str, pa.Array]:
    """The columns (n,), where `inside` (k,) is where each distinct value of the rows was."""
    if not any(container.id or container.pod_uid for container in inside):
        nothing = constant(b"", len(distinct.codes))
        return dict.fromkeys(_NAMES, nothing) | _numbers(distinct, inside, [_NOTHING] * len(inside))
    found = [containers.find(container) if container.id else None for container in inside]
    facts = [each or _NOTHING for each in found]
    columns: dict[str, pa.Array] = {name: distinct.name([getattr(each, told) for each in inside]) for name, told in _BY_PATH.items()}
    columns |= {name: distinct.name([getattr(each, told) for each in facts]) for name, told in _BY_RUNTIME.items()}
    columns["pod_uid"] = distinct.name([container.pod_uid or each.pod_uid for container, each in zip(inside, facts, strict=True)])
    columns["container_labels"] = distinct.name([b"\0".join(each.labels) for each in facts])
    columns["identity"] = distinct.name([_known(containers, *each) for each in zip(inside, found, strict=True)])
    return columns | _numbers(distinct, inside, facts)


def _numbers(distinct: Distinct, inside: Sequence[Container], facts: Sequence[Facts]) -> dict[str, pa.Array]:
    created = np.array([each.created_ns for each in facts], np.int64)
    started = np.array([container.started_ns or each.started_ns for container, each in zip(inside, facts, strict=True)], np.int64)
    privileged = np.array([each.privileged for each in facts], np.uint8)
    return {
        "container_created": numbers(created[distinct.codes], TYPES[Type.TIME]),
        "container_started": numbers(started[distinct.codes], TYPES[Type.TIME]),
        "privileged": numbers(privileged[distinct.codes], TYPES[Type.BOOL]),
    }


def _known(containers: Containers, container: Container, facts: Facts | None) -> bytes:
    """How much is."""
    if not container.id:
        return b""
    return b"complete" if facts is not None else b"pending" if containers.awaited(container) else b"path"
