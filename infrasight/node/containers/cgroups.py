"""The table of cgroups: which container each belongs to, known before anything is in it."""

from __future__ import annotations

import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from infrasight.kernel import Records
from infrasight.node.containers.containment import NOWHERE, Container, container_of
from infrasight.node.containers.hierarchy import Hierarchy, hierarchies
from infrasight.schema.events.process import CGROUP_GONE

CGROUPS_MAX = 65_536
"""Cgroups remembered at most, some 100 bytes each and 400 more for a container's; those removed go first, then the oldest."""
EXPECTED_MAX = 4096
"""Paths that are remembered as those of containers."""
REMOVED_KEPT_NS = 60_000_000_000
"""How much longer a cgroup that was removed is remembered than until all events of before that have come."""


class Cgroups:
    """Keyed by cgroup id. Learns from the mounted hierarchy once, then from `process` records, in which the kernel tells of each as it is made."""

    def __init__(self, seen: Callable[[], list[Hierarchy]] = hierarchies, most: int = CGROUPS_MAX) -> None:
        """`seen` tells where the hierarchies are mounted."""
        self._seen, self._most = seen, most
        self._table: dict[int, Container] = {}
        self._removed: deque[tuple[int, int]] = deque()
        self._expected: OrderedDict[bytes, Container] = OrderedDict()
        self.changed: set[int] = set()
        """Cgroups of which something else is known than before, for who keeps what was found; who has seen to them takes them out."""
        self.hits = self.misses = self.evictions = 0
        """Times that a cgroup was asked for and known, and not known; cgroups forgotten for want of room."""

    def __len__(self) -> int:
        return len(self._table)

    def prime(self) -> None:
        """Learn the cgroups that there are now. What is known is left as it is, so it may be called again to mend gaps."""
        self.learn(self.scan())

    def scan(self) -> Mapping[int, Container]:
        """The cgroups that are there and not known, to be learned afterwards; none where they cannot be seen. Changes nothing, so it may run beside
        anything."""
        known, found = self._table.copy(), dict[int, Container]()
        with contextlib.suppress(OSError):
            for hierarchy in self._seen():
                found |= {id: container_of(path) for id, path in hierarchy.cgroups() if id not in known}
        return found

    def learn(self, found: Mapping[int, Container]) -> None:
        """What a scan found, unless it has been told of meanwhile."""
        for id, container in found.items():
            if id not in self._table:
                self._add(id, container)

    def apply(self, records: Records, wall_offset_ns: int = 0) -> list[Container]:
        """Learn from `process` records (n,) that tell of cgroups; with `wall_offset_ns` added, times of theirs are since the epoch. The containers
        that have come to be."""
        made: list[Container] = []
        names = "action", "enter_ns", "cgroup_id", "parent_start_ns", "cut", "file_len"
        columns = (records[name].tolist() for name in names)
        for row, (action, now, id, parent, cut, length) in enumerate(zip(*columns, strict=True)):
            if action == CGROUP_GONE:
                if id in self._table:
                    self._removed.append((now, id))
                continue
            path = records["file"][row, :length].tobytes()
            # Of a long path what is there may begin in the middle of a name.
            around = self._table.get(parent, NOWHERE)
            container = self._expected.get(path) or container_of(path[path.find(b"/") :] if cut else path, around, whole=not cut)
            above = around if cut else container_of(path.rpartition(b"/")[0])
            if container.id and container.id != above.id:
                container = replace(container, started_ns=now + wall_offset_ns)
            self._add(id, container)
            made += [container] if container.id else []
        return made

    def _add(self, id: int, container: Container) -> None:
        while len(self._table) >= self._most and id not in self._table:
            oldest = self._removed.popleft()[1] if self._removed else next(iter(self._table))
            self.evictions += self._table.pop(oldest, None) is not None
        if self._table.get(id) != container:
            self.changed.add(id)
        self._table[id] = container if container != NOWHERE else NOWHERE

    def expect(self, path: bytes, container: Container) -> None:
        """A cgroup at this path, when it is made, is this container's, as its runtime says: its name alone does not tell."""
        self._expected[path] = container
        while len(self._expected) > EXPECTED_MAX:
            self._expected.popitem(last=False)

    def places(self, path: bytes) -> list[int]:
        """Ids of the cgroups that there are at a path, in all hierarchies. Changes nothing, so it may run beside anything."""
        with contextlib.suppress(OSError):
            return [id for hierarchy in self._seen() if (id := hierarchy.find(path))]
        return []

    def belongs(self, id: int, container: Container) -> None:
        """A cgroup that was made before its container was told of; what is in it by then stays as it was."""
        self._add(id, container)

    def find(self, id: int) -> Container:
        """The container that a cgroup belongs to; NOWHERE when it is not known, or in none."""
        container = self._table.get(id)
        if container is None:
            self.misses += 1
            return NOWHERE
        self.hits += 1
        return container

    def forget(self, whole_until_ns: int) -> None:
        """Those that were removed, some time after all events of before that have come."""
        while self._removed and self._removed[0][0] + REMOVED_KEPT_NS < whole_until_ns:
            self._table.pop(self._removed.popleft()[1], None)
