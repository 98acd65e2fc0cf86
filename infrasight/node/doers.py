"""Who did it: what is known of those who did something, found once for each and kept for the batches that follow.

Work for each row is a sum, a look for the distinct ones among the sums, and one take for each column that is not the same everywhere.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infrasight.kernel import Records
from infrasight.node.columns import Distinct, numbers, numbers_of, strings
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.columns import WIDTHS, Contained
from infrasight.node.containers.containment import Container
from infrasight.node.containers.table import Containers
from infrasight.node.identity import Identity
from infrasight.node.names.inside import Inside
from infrasight.node.names.namespaces import Namespaces
from infrasight.node.names.users import Names
from infrasight.node.paths import terminal
from infrasight.node.processes import Process, Processes

STATE = ("start_ns", "pid", "exec_id", "cgroup_id", "uid", "gid", "cwd_key", "tty")
"""Members of a record that tell one doer from another: a process that has become another program, or moved, is told apart from what it was, whose
events may still come."""
_MIX = tuple(np.uint64(secrets.randbits(64) | 1) for _ in STATE)
"""Odd, and nobody's to know: whoever could reckon how states meet in a sum could have one told as another."""
_NONE = np.zeros(0, np.int32)
"""The codes of a column of one value."""


def held(values: array[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """What there is by now, as a copy."""
    return np.frombuffer(values.tobytes(), dtype)


class _Names:
    """The values that a dictionary column has for places, of which there come to be more."""

    def __init__(self) -> None:
        self._codes, self._of = array("i"), dict[bytes, int]()
        self._values: pa.BinaryArray | None = None

    def add(self, value: bytes) -> None:
        self._codes.append(self._of.setdefault(value, len(self._of)))

    def column(self, places: npt.NDArray[np.int32] | None = None) -> pa.DictionaryArray:
        """As it is now (k,), or for rows that are at `places` (n,) in it."""
        if self._values is None or len(self._values) != len(self._of):
            self._values = strings(list(self._of))
        codes = held(self._codes, np.int32)
        return pa.DictionaryArray.from_arrays(numbers(codes if places is None else codes.take(places), pa.int32()), self._values, safe=False)


@dataclass(frozen=True)
class Sources:
    """Where it is asked who somebody is."""

    identity: Identity
    processes: Processes
    cgroups: Cgroups
    containers: Containers
    contained: Contained
    namespaces: Namespaces
    users: Names
    groups: Names


def states(records: Records) -> Distinct:
    """The distinct doers of records, as numbers that stand for each while the node runs."""
    total = records[STATE[0]] * _MIX[0]
    for name, odd in zip(STATE[1:], _MIX[1:], strict=True):
        total += records[name].astype(np.uint64, copy=False) * odd
    return Distinct.of(total)


@dataclass(frozen=True)
class _Taken:
    """Columns (k,) to be taken from: those that have the same codes together, and those of one value not at all. Names by codes, which are empty
    where there is one value; numbers with their type, a single one where all are the same."""

    alike: list[tuple[npt.NDArray[np.int32], list[tuple[str, pa.BinaryArray]]]]
    numbers: dict[str, tuple[npt.NDArray[Any], pa.DataType]]

    @classmethod
    def of(cls, columns: dict[str, pa.Array]) -> _Taken:
        """Of at least one row."""
        alike: dict[bytes, tuple[npt.NDArray[np.int32], list[tuple[str, pa.BinaryArray]]]] = {}
        others: dict[str, tuple[npt.NDArray[Any], pa.DataType]] = {}
        for name, column in columns.items():
            if isinstance(column, pa.DictionaryArray):
                codes = numbers_of(column.indices, np.int32) if len(column.dictionary) > 1 else _NONE
                alike.setdefault(codes.tobytes(), (codes, []))[1].append((name, column.dictionary))
            else:
                values = numbers_of(column, WIDTHS[column.type])
                others[name] = (values[:1] if (values == values[0]).all() else values), column.type
        return cls(list(alike.values()), others)

    def at(self, places: npt.NDArray[np.int32]) -> _Taken:
        """The same for other rows, which are at `places` in these."""
        return _Taken(
            [(codes.take(places) if len(codes) else codes, names) for codes, names in self.alike],
            {name: (each.take(places) if len(each) > 1 else each, kind) for name, (each, kind) in self.numbers.items()},
        )

    def columns(self, places: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """The columns (n,) of rows that are at `places` (n,) in these."""
        rows, columns = len(places), dict[str, pa.Array]()
        for codes, names in self.alike:
            indices = numbers(codes.take(places) if len(codes) else np.zeros(rows, np.int32), pa.int32())
            columns |= {name: pa.DictionaryArray.from_arrays(indices, values, safe=False) for name, values in names}
        for name, (each, kind) in self.numbers.items():
            columns[name] = numbers(each.take(places) if len(each) > 1 else np.repeat(each, rows), kind)
        return columns


class Doers:
    """Doers, each at a place, with all columns that say who it is. What was found is not asked for again: the owner has those forgotten who are no
    more what they were, and begins anew when that does not do."""

    def __init__(self, sources: Sources, since_ns: int = 0) -> None:
        """The first of them did something at `since_ns`, by the monotonic clock."""
        self._sources, self.since_ns = sources, since_ns
        self.widest = 0
        """Most of them that one batch had."""
        self._places: dict[int, int] = {}
        self._states: dict[int, list[int]] = {}
        self._ids, self._parents, self._in = array("Q"), array("Q"), array("i")
        self._names = {name: _Names() for name in ("user", "group", "ancestors", "exe", "cwd", "tty")}
        self._directories: dict[int, bytes] = {}
        self._inside: dict[int, tuple[int, Inside | None]] = {}
        self._cgroup_places: dict[int, int] = {}
        self._containers: list[Container] = []
        self._contained: _Taken | None = None
        self._names_as_of, self._facts_as_of = sources.namespaces.changes, -1
        self._finished: list[_Taken] = []

    def __len__(self) -> int:
        """Places; of some what is there is no more asked for."""
        return len(self._ids)

    def find(self, states: Sequence[int]) -> list[int | None]:
        """The place of each; None of those that are not there."""
        self.widest = max(self.widest, len(states))
        return list(map(self._places.get, states))

    def add(self, states: Sequence[int], heads: Records) -> None:
        """Find out who these are, that are not there; one record each says their `STATE`."""
        ids = self._sources.identity.of(heads["start_ns"], heads["pid"]).tolist()
        names = list(self._names.values())
        columns = (heads[name].tolist() for name in STATE[1:])
        for state, me, pid, exec_id, cgroup_id, uid, gid, cwd_key, tty in zip(states, ids, *columns, strict=True):
            process = self._sources.processes.find(me, pid)
            called = *self._called(process, uid, gid), process.lineage, process.exe_at(exec_id), self._directory(cwd_key), terminal(tty)
            for each, name in zip(names, called, strict=True):
                each.add(name)
            self._places[state] = len(self._ids)
            self._states.setdefault(me, []).append(state)
            self._ids.append(me)
            self._parents.append(process.parent_id)
            self._in.append(self._cgroup(cgroup_id))
        self._finished = []

    def _called(self, process: Process, uid: int, gid: int) -> tuple[bytes, bytes]:
        """What user and group are called where the process is."""
        sources, namespace = self._sources, process.mount_ns
        if not namespace:
            return sources.users.name(uid), sources.groups.name(gid)
        if namespace not in self._inside:
            self._inside[namespace] = process.pid, sources.namespaces.find(namespace, process.pid)
        inside = self._inside[namespace][1]
        return (inside.user(uid), inside.group(gid)) if inside else (b"%d" % uid, b"%d" % gid)

    def _directory(self, key: int) -> bytes:
        path = self._directories.get(key)
        if path is None:
            path = self._directories[key] = self._sources.processes.directory(key)
        return path

    def _cgroup(self, id: int) -> int:
        """The place of a cgroup among those met."""
        place = self._cgroup_places.get(id)
        if place is None:
            place = self._cgroup_places[id] = len(self._cgroup_places)
            self._containers.append(self._sources.cgroups.find(id))
            self._contained = None
        return place

    def forget(self, processes: Collection[int]) -> None:
        """These, by their ids, are not what they were: when they are met again they are asked for again."""
        for me in self._states.keys() & processes:
            for state in self._states.pop(me):
                del self._places[state]

    def holds(self, directories: Collection[int], cgroups: Collection[int]) -> bool:
        """Whether all is as it was found, processes aside, when only these directories and cgroups, by number, have changed."""
        if not (self._directories.keys().isdisjoint(directories) and self._cgroup_places.keys().isdisjoint(cgroups)):
            return False
        namespaces = self._sources.namespaces
        if self._names_as_of == namespaces.changes:
            return True
        self._names_as_of = namespaces.changes
        return all(namespaces.find(namespace, pid) is inside for namespace, (pid, inside) in self._inside.items())

    def columns(self, places: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """The columns (n,) of those at `places` (n,)."""
        if self._facts_as_of != self._sources.containers.changes:
            self._contained, self._finished = None, []
        if not self._finished:
            self._finish()
        columns: dict[str, pa.Array] = {}
        for taken in self._finished:
            columns |= taken.columns(places)
        return columns

    def columns_once(self, places: npt.NDArray[np.int32]) -> dict[str, pa.Array]:
        """The same, with nothing got ready for the next time."""
        columns: dict[str, pa.Array] = {name: names.column(places) for name, names in self._names.items()}
        for name, numbered in (("process_id", self._ids), ("parent_id", self._parents)):
            columns[name] = numbers(held(numbered, np.uint64).take(places), pa.uint64())
        inside = held(self._in, np.int32).take(places)
        return columns | self._sources.contained.columns(Distinct(inside, []), self._containers)

    def _finish(self) -> None:
        """Have all columns ready to be taken from."""
        if self._contained is None:
            self._facts_as_of = self._sources.containers.changes
            each = Distinct(np.arange(len(self._containers), dtype=np.int32), [])
            self._contained = _Taken.of(self._sources.contained.columns(each, self._containers))
        columns: dict[str, pa.Array] = {name: names.column() for name, names in self._names.items()}
        for name, numbered in (("process_id", self._ids), ("parent_id", self._parents)):
            columns[name] = numbers(held(numbered, np.uint64), pa.uint64())
        self._finished = [_Taken.of(columns), self._contained.at(held(self._in, np.int32))]
