"""The columns that say in which container something happened. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infrasight.node.columns import Distinct, constant, numbers, numbers_of
from infrasight.node.containers.containment import Container
from infrasight.node.containers.table import Containers
from infrasight.runtimes import Facts
from infrasight.schema import Type
from infrasight.schema.arrow import TYPES

_NOTHING = Facts()
WIDTHS: dict[pa.DataType, type[np.generic]] = {TYPES[Type.TIME]: np.int64, TYPES[Type.BOOL]: np.uint8, TYPES[Type.U64]: np.uint64}
"""What numpy calls them."""
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


class Contained:
    """Makes the columns, and remembers what it made them of: from one batch to the next the same containers do something, mostly."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._inside: Sequence[Container] = ()
        self._found: Sequence[Facts | None] = ()
        self._known: list[bytes] = []
        self._made: dict[str, pa.Array] = {}

    def columns(self, distinct: Distinct, inside: Sequence[Container]) -> dict[str, pa.Array]:
        """The columns (n,), where `inside` (k,) is where each distinct value of the rows was."""
        if not any(container.id or container.pod_uid for container in inside):
            none = [_NOTHING] * len(inside)
            return dict.fromkeys(_NAMES, constant(b"", len(distinct.codes))) | _numbers(distinct, none) | _started(distinct, inside, none)
        containers = self._containers
        found = [containers.find(container) if container.id else None for container in inside]
        known = [_known(containers, *each) for each in zip(inside, found, strict=True)]
        found = [facts or containers.of_pod(container) for container, facts in zip(inside, found, strict=True)]
        if (inside, found, known) != (self._inside, self._found, self._known):
            self._inside, self._found, self._known, self._made = inside, found, known, _columns(inside, found, known)
        return {name: repeated(column, distinct.codes) for name, column in self._made.items()}


def _columns(inside: Sequence[Container], found: Sequence[Facts | None], known: Sequence[bytes]) -> dict[str, pa.Array]:
    """The columns (k,)."""
    each, facts = Distinct(np.arange(len(inside), dtype=np.int32), inside), [facts or _NOTHING for facts in found]
    return {**whose(each, inside, facts), **told(each, facts), "identity": each.name(known)}


def repeated(column: pa.Array, codes: npt.NDArray[np.int32]) -> pa.Array:
    """The value of the column (k,) that each code (n,) stands for."""
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(numbers(numbers_of(column.indices, np.int32).take(codes), pa.int32()), column.dictionary, safe=False)
    return numbers(numbers_of(column, WIDTHS[column.type])[codes], column.type)


def whose(distinct: Distinct, inside: Sequence[Container], facts: Sequence[Facts]) -> dict[str, pa.Array]:
    """The columns (n,) of what the kernel tells, and its runtime where the kernel does not; `inside` and `facts` (k,) are of each distinct value of
    the rows."""
    columns: dict[str, pa.Array] = {name: distinct.name([getattr(each, told) for each in inside]) for name, told in _BY_PATH.items()}
    columns["pod_uid"] = distinct.name([container.pod_uid or each.pod_uid for container, each in zip(inside, facts, strict=True)])
    return columns | _started(distinct, inside, facts)


def told(distinct: Distinct, facts: Sequence[Facts]) -> dict[str, pa.Array]:
    """The columns (n,) of what runtimes tell (`infrasight.schema.parts.TOLD`), where `facts` (k,) are those of each distinct value of the rows."""
    columns: dict[str, pa.Array] = {name: distinct.name([getattr(each, told) for each in facts]) for name, told in _BY_RUNTIME.items()}
    columns["container_labels"] = distinct.name([b"\0".join(each.all_labels) for each in facts])
    return columns | _numbers(distinct, facts)


def _started(distinct: Distinct, inside: Sequence[Container], facts: Sequence[Facts]) -> dict[str, pa.Array]:
    started = np.array([container.started_ns or each.started_ns for container, each in zip(inside, facts, strict=True)], np.int64)
    return {"container_started": numbers(started[distinct.codes], TYPES[Type.TIME])}


def _numbers(distinct: Distinct, facts: Sequence[Facts]) -> dict[str, pa.Array]:
    created = np.array([each.created_ns for each in facts], np.int64)
    privileged = np.array([each.privileged for each in facts], np.uint8)
    return {
        "container_created": numbers(created[distinct.codes], TYPES[Type.TIME]),
        "privileged": numbers(privileged[distinct.codes], TYPES[Type.BOOL]),
    }


def _known(containers: Containers, container: Container, facts: Facts | None) -> bytes:
    """How much is."""
    if not container.id:
        return b""
    return b"complete" if facts is not None else b"pending" if containers.awaited(container) else b"path"
