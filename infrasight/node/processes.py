"""The table of processes: who forked whom, and what each ancestor was called when it did.

A process's lineage is fixed when it is forked: its parent's name at that moment, then the parent's own lineage. So it stays right when ancestors end,
become other programs or are replaced by init as the parent. Of a process whose fork was lost, the parent is the one it has when process life or
/proc next tells of it; until then it has none.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infrasight.kernel import Records
from infrasight.node.identity import Identity
from infrasight.node.paths import in_order
from infrasight.schema.events.process import CWD, EXEC, EXIT, FORK, MOUNT_NS_INODE

ANCESTORS_MAX = 32
"""Ancestors kept of a process, nearest first; a chain of forks can be of any length."""
ENDED_KEPT_NS = 1_000_000_000
"""How much longer an ended process is remembered than until all events of before its end have come: what it did is told a moment later too."""
PROGRAMS_KEPT = 8
"""Programs that a process ran before the one it runs, as far as events of it can still come."""
DIRECTORIES_MAX = 65_536
"""Working directories remembered."""
PROCESSES_MAX = 65_536
"""Processes remembered at most, about 400 bytes each; the longest ended go first, then the oldest."""


@dataclass(slots=True)
class Process:
    """One process. `lineage` is the names of its ancestors, nearest first, joined by NUL.

    `exe` is the file of the program it runs, since the exec that `exec_id` numbers (None: the one that ran when it was first met); `before` are those
    it ran earlier.
    """

    pid: int
    parent_id: int
    comm: bytes
    lineage: bytes
    exe: bytes = b""
    exec_id: int | None = None
    before: tuple[tuple[int | None, bytes], ...] = ()
    ended: bool = False
    known: bool = True
    """Whether its parent is. False: its fork was lost, and it has not been found in /proc."""
    mount_ns: int = 0
    """Its mount namespace (`mount_ns` of `infrasight.schema.events.process`), as it was when it began, executed a program or came to another
    directory; 0 for the node's own, and where that is not known."""
    line: tuple[bytes, bytes] = (b"", b"")
    """A name it had, and the lineage of those that it forked then: one for all of them."""

    def lineage_of_child(self, comm: bytes) -> bytes:
        """The lineage of a process that it forked, when this was its name."""
        if self.line[0] != comm or not self.line[1]:
            self.line = comm, _lineage(comm, self.lineage)
        return self.line[1]

    def exe_at(self, exec_id: int) -> bytes:
        """The file of the program it ran when it had become so many."""
        if self.exec_id in (None, exec_id):
            return self.exe
        return next((exe for number, exe in reversed(self.before) if number in (None, exec_id)), self.exe)

    def became(self, exec_id: int, exe: bytes, comm: bytes) -> None:
        """It has executed another program."""
        if exec_id != self.exec_id:
            self.before = (*self.before, (self.exec_id, self.exe))[-PROGRAMS_KEPT:]
        self.exe, self.exec_id, self.comm = exe, exec_id, comm


@dataclass(frozen=True)
class Scan:
    """What /proc told: by pid its id, parent's pid, name, program and mount namespace; and the ids by pid that were known when the look began."""

    found: dict[int, tuple[int, int, bytes, bytes, int]]
    known: dict[int, int]


def _lineage(parent_comm: bytes, parent_lineage: bytes) -> bytes:
    if not parent_lineage:
        return parent_comm
    return b"\0".join([parent_comm, *parent_lineage.split(b"\0")[: ANCESTORS_MAX - 1]])


def _place(records: Records, row: int, area: str, cut: int) -> bytes:
    """The path that one record has in an area of names; one that was cut begins with `...`."""
    path = in_order(records[area][row, : records[f"{area}_len"][row]].tobytes())
    return b"..." + path if records["cut"][row] & cut else path


def mount_namespace(pid: int | str, proc: Path = Path("/proc")) -> int:
    """Inode number of the mount namespace of a process; 0 when that cannot be seen."""
    try:
        return (proc / str(pid) / "ns/mnt").stat().st_ino
    except OSError:
        return 0


class Processes:
    """Keyed by process id (`Identity`). Learns from /proc once, then from `process` records in the order in which they happened."""

    def __init__(self, identity: Identity, proc: Path = Path("/proc")) -> None:
        self._identity = identity
        self._proc = proc
        self._table: dict[int, Process] = {}
        self._alive: dict[int, int] = {}
        self._ended: deque[tuple[int, int]] = deque()
        self._directories: dict[int, bytes] = {}
        self._own_mount_ns = mount_namespace("self", proc)
        self._now_ns = 0
        self.changed: set[int] = set()
        self.changed_directories: set[int] = set()
        """Processes, by id, and directories, by key, of which something else is known than before, for who keeps what was found; who has seen to them
        takes them out."""
        self.unknown = 0
        """Processes met of which no fork had been seen."""

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, me: int) -> Process:
        return self._table[me]

    def prime(self) -> None:
        """Learn the processes that are alive now from /proc. What is known already is left as it is, so it may be called again to mend gaps."""
        self.learn(self.scan())

    def scan(self) -> Scan:
        """What /proc tells, to be learned afterwards. Changes nothing, so it may run beside anything."""
        known = self._alive.copy()
        found = dict(self._look())
        numbers = np.array([each[0] for each in found.values()], np.uint64)
        ids = self._identity.of_ticks(numbers, np.array(list(found), np.uint32)).tolist()
        table, told = self._table, {}
        for me, (pid, (_, ppid, comm)) in zip(ids, found.items(), strict=True):
            told[pid] = (me, ppid, comm, b"", 0) if me in table else (me, ppid, comm, self._exe(pid), mount_namespace(pid, self._proc))
        return Scan(told, known)

    def learn(self, scan: Scan) -> None:
        """Of processes that were alive then, what is not known; of the others that were thought to be, that they have ended."""
        for pid, me in scan.known.items():
            if (pid not in scan.found or scan.found[pid][0] != me) and self._alive.get(pid) == me:
                # That may still be told, so it is kept as long as any.
                self._over(pid, me)
        for pid in scan.found:
            self._adopt(pid, scan.found)

    def _adopt(self, pid: int, found: dict[int, tuple[int, int, bytes, bytes, int]]) -> None:
        chain: list[int] = []
        while pid in found and not self._is_known(found[pid][0]) and len(chain) <= len(found):
            chain.append(pid)
            pid = found[pid][1]
        for child in reversed(chain):
            me, ppid, comm, exe, mount_ns = found[child]
            parent_id, _, parent_comm, *_ = found.get(ppid, (0, 0, b"", b"", 0))
            parent = self._table.get(parent_id)
            process = self._table.get(me) or self._add(me, child, parent_id, comm, b"")
            process.parent_id, process.lineage, process.known = parent_id, parent.lineage_of_child(parent_comm) if parent else b"", True
            process.comm, process.exe = comm, process.exe or exe
            self.changed.add(me)
            self._moved(process, process.mount_ns or mount_ns, parent)

    def _is_known(self, me: int) -> bool:
        process = self._table.get(me)
        return process is not None and process.known

    def _look(self) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
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

    def _exe(self, pid: int) -> bytes:
        """The program that a process runs, from /proc; empty for kernel threads, and for what has ended."""
        try:
            return os.readlink(os.fsencode(self._proc / str(pid) / "exe")).removesuffix(b" (deleted)")
        except OSError:
            return b""

    def apply(self, records: Records) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Learn from `process` records, shape (n,). Which of them (n,) are news: an exit can be told twice on old kernels, and
        what a directory is called is nothing that a process did."""
        ids = self._identity.of(records["start_ns"], records["pid"]).tolist()
        parents = self._identity.of(records["parent_start_ns"], records["ppid"]).tolist()
        names = "action", "enter_ns", "pid", "comm", "parent_comm", "exec_id", "cwd_key", "mount_ns"
        columns = (records[name].tolist() for name in names)
        new = np.ones(len(records), bool)
        for row, (me, parent, action, now, pid, comm, parent_comm, exec_id, cwd_key, mount_ns) in enumerate(zip(ids, parents, *columns, strict=True)):
            process = (self._fork if action == FORK else self._known)(me, pid, comm, parent, parent_comm, exec_id)
            before = process.mount_ns
            if mount_ns:
                self._moved(process, mount_ns, self._table.get(parent))
            if action == EXEC or process.mount_ns != before:
                self.changed.add(me)
            if action == EXEC:
                process.became(exec_id, _place(records, row, "file", 1), comm)
                self._learn_directory(cwd_key, _place(records, row, "cwd", 2))
            elif action == CWD:
                self._learn_directory(cwd_key, _place(records, row, "cwd", 2))
                new[row] = False
            elif action == EXIT:
                new[row] = not process.ended
                self._end(me, now)
        if len(records):
            self._now_ns = max(self._now_ns, int(records["enter_ns"].max()))
        return new

    def _moved(self, process: Process, mount_ns: int, parent: Process | None) -> None:
        """It is in this mount namespace. The number is its parent's, where that is the same: there are many of few."""
        if mount_ns & MOUNT_NS_INODE == self._own_mount_ns:
            mount_ns = 0
        process.mount_ns = parent.mount_ns if parent and parent.mount_ns == mount_ns else mount_ns

    def inside(self) -> dict[int, int]:
        """The mount namespaces that there are processes in but the node's own, and a process in each that is not known to have ended."""
        return {process.mount_ns: process.pid for process in self._table.values() if process.mount_ns and not process.ended}

    def _learn_directory(self, key: int, path: bytes) -> None:
        if self._directories.pop(key, b"") != path:
            self.changed_directories.add(key)
        self._directories[key] = path
        while len(self._directories) > DIRECTORIES_MAX:
            del self._directories[next(iter(self._directories))]

    def directory(self, key: int) -> bytes:
        """The working directory that the kernel knows by `key`; empty when it is not known."""
        return self._directories.get(key, b"")

    def _fork(self, me: int, pid: int, comm: bytes, parent: int, parent_comm: bytes, exec_id: int) -> Process:
        known = self._table.get(parent)
        process = self._add(me, pid, parent, comm, known.lineage_of_child(parent_comm) if known else parent_comm)
        if known:
            process.exe, process.exec_id = known.exe_at(exec_id), exec_id
        return process

    def _known(self, me: int, pid: int, comm: bytes, parent: int, parent_comm: bytes, exec_id: int) -> Process:
        return self._table.get(me) or self._fork(me, pid, comm, parent, parent_comm, exec_id)

    def find(self, me: int, pid: int) -> Process:
        """The process with that id. Of one whose fork was lost nothing more is known; it is counted in `unknown`."""
        process = self._table.get(me)
        if process is None:
            self.unknown += 1
            process = self._add(me, pid, 0, b"", b"")
            process.known = False
        return process

    def _add(self, me: int, pid: int, parent: int, comm: bytes, lineage: bytes) -> Process:
        while len(self._table) >= PROCESSES_MAX:
            oldest = self._ended.popleft()[1] if self._ended else next(iter(self._table))
            self._drop(oldest)
        self._table[me] = process = Process(pid, parent, comm, lineage)
        self.changed.add(me)
        if self._alive.get(pid, me) != me:  # the end of the one before was lost
            self._over(pid, self._alive[pid])
        self._alive[pid] = me
        return process

    def _over(self, pid: int, me: int) -> None:
        """It has ended at some time before now, and may yet be told to have."""
        del self._alive[pid]
        self._ended.append((self._now_ns, me))

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

    def forget(self, whole_until_ns: int) -> None:
        """Those that have ended, once all events of before that time have come."""
        while self._ended and self._ended[0][0] + ENDED_KEPT_NS < whole_until_ns:
            self._drop(self._ended.popleft()[1])
