"""The table of processes: who forked whom, and what each ancestor was called when it did.

A process's lineage is fixed when it is forked: its parent's name at that moment, then the parent's own lineage. So it stays right when ancestors end,
become other programs or are replaced by init as the parent.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infrasight.kernel import Records
from infrasight.node.identity import Identity
from infrasight.schema.events.process import EXEC, FORK

ANCESTORS_MAX = 32
"""Ancestors kept of a process, nearest first; a chain of forks can be of any length."""
ENDED_KEPT_NS = 60_000_000_000
"""How long an ended process is remembered: its last events may come after its end."""
PROCESSES_MAX = 262_144
"""Processes remembered at most, about 300 bytes each; the longest ended go first, then the oldest."""


@dataclass(slots=True)
class Process:
    """One process. `lineage` is the names of its ancestors, nearest first, joined by NUL."""

    pid: int
    parent_id: int
    comm: bytes
    lineage: bytes
    ended: bool = False


def _lineage(parent_comm: bytes, parent_lineage: bytes) -> bytes:
    if not parent_lineage:
        return parent_comm
    return b"\0".join([parent_comm, *parent_lineage.split(b"\0")[: ANCESTORS_MAX - 1]])


class Processes:
    """Keyed by process id (`Identity`). Learns from /proc once, then from `process` records in the order in which they happened."""

    def __init__(self, identity: Identity, proc: Path = Path("/proc")) -> None:
        self._identity = identity
        self._proc = proc
        self._table: dict[int, Process] = {}
        self._alive: dict[int, int] = {}
        self._ended: deque[tuple[int, int]] = deque()
        self.unknown = 0

    def __len__(self) -> int:
        return len(self._table)

    def prime(self) -> None:
        """Learn the processes that are alive now from /proc. What is known already is left as it is, so it may be called again to mend gaps."""
        found = dict(self._scan())
        numbers = np.array([each[0] for each in found.values()], np.uint64)
        ids = dict(zip(found, self._identity.of_ticks(numbers, np.array(list(found), np.uint32)).tolist(), strict=True))
        now = time.monotonic_ns()
        for pid, me in list(self._alive.items()):
            if ids.get(pid) != me:  # it has ended; that may still be told, so it is kept as long as any
                del self._alive[pid]
                self._ended.append((now, me))
        for pid in found:
            self._adopt(pid, found, ids)

    def _adopt(self, pid: int, found: dict[int, tuple[int, int, bytes]], ids: dict[int, int]) -> None:
        chain: list[int] = []
        while pid in found and ids[pid] not in self._table and len(chain) <= len(found):
            chain.append(pid)
            pid = found[pid][1]
        for child in reversed(chain):
            _, ppid, comm = found[child]
            parent = self._table.get(ids.get(ppid, 0))
            self._add(ids[child], child, ids.get(ppid, 0), comm, _lineage(parent.comm, parent.lineage) if parent else b"")

    def _scan(self) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
        """Pid -> start in ticks, parent's pid, name."""
        for entry in os.listdir(self._proc):
            if not entry.isdigit():
                continue
            try:
                stat = (self._proc / entry / "stat").read_bytes()
            except OSError:
                continue  # it has ended
            name, rest = stat[stat.index(b"(") + 1 : stat.rindex(b")")], stat[stat.rindex(b")") + 2 :].split()
            yield int(entry), (int(rest[19]), int(rest[1]), name)

    def apply(self, records: Records) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Learn from `process` records, shape (n,). Which of them (n,) told something new: on old kernels an exit can be told twice."""
        ids = self._identity.of(records["start_ns"], records["pid"]).tolist()
        parents = self._identity.of(records["parent_start_ns"], records["ppid"]).tolist()
        columns = (records[name].tolist() for name in ("action", "enter_ns", "pid", "comm", "parent_comm"))
        new = np.ones(len(records), bool)
        for row, (me, parent, action, now, pid, comm, parent_comm) in enumerate(zip(ids, parents, *columns, strict=True)):
            if action == FORK:
                self._fork(me, pid, comm, parent, parent_comm)
            elif action == EXEC:
                self._known(me, pid, comm, parent, parent_comm).comm = comm
            else:
                new[row] = not self._known(me, pid, comm, parent, parent_comm).ended
                self._end(me, now)
        if len(records):
            self._forget(int(records["enter_ns"][-1]))
        return new

    def _fork(self, me: int, pid: int, comm: bytes, parent: int, parent_comm: bytes) -> None:
        known = self._table.get(parent)
        self._add(me, pid, parent, comm, _lineage(parent_comm, known.lineage if known else b""))

    def _known(self, me: int, pid: int, comm: bytes, parent: int, parent_comm: bytes) -> Process:
        if me not in self._table:
            self._fork(me, pid, comm, parent, parent_comm)
        return self._table[me]

    def find(self, me: int, pid: int, ppid: int) -> Process:
        """The process with that id. One whose fork was lost is taken to be a child of the process that has `ppid` now, and counted in `unknown`."""
        process = self._table.get(me)
        if process is None:
            self.unknown += 1
            parent_id = self._alive.get(ppid, 0)
            parent = self._table.get(parent_id)
            self._add(me, pid, parent_id, b"", _lineage(parent.comm, parent.lineage) if parent else b"")
            process = self._table[me]
        return process

    def _add(self, me: int, pid: int, parent: int, comm: bytes, lineage: bytes) -> None:
        while len(self._table) >= PROCESSES_MAX:
            oldest = self._ended.popleft()[1] if self._ended else next(iter(self._table))
            self._drop(oldest)
        self._table[me] = Process(pid, parent, comm, lineage)
        self._alive[pid] = me

    def _drop(self, me: int) -> None:
        process = self._table.pop(me, None)
        if process and self._alive.get(process.pid) == me:
            del self._alive[process.pid]

    def _end(self, me: int, now: int) -> None:
        process = self._table[me]
        if process.ended:
            return
        process.ended = True
        self._ended.append((now, me))
        if self._alive.get(process.pid) == me:
            del self._alive[process.pid]

    def _forget(self, now: int) -> None:
        while self._ended and self._ended[0][0] + ENDED_KEPT_NS < now:
            self._drop(self._ended.popleft()[1])
