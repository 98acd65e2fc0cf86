"""The table of mount namespaces: what users and groups are called in each but the node's own.

It is asked on the event loop and answers from memory. Files are looked at in threads: when somebody in a new namespace has come to a root of its own,
when a program is first executed there, when a process in one that is not known does something, and again from time to time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from infrasight.kernel import Records
from infrasight.node.names.inside import UNKNOWN, Inside, look
from infrasight.schema.events.process import CWD, EXEC, MOUNT_NS_INODE

NAMESPACES_MAX = 1024
"""Namespaces remembered at most; those not asked for the longest go first."""
NAMES_MAX = 65_536
"""Names remembered of all of them together, some 120 bytes each."""
CHECK_EVERY_S = 10.0
"""How often it is looked, of a namespace in which something happens, whether files have changed."""
SETTLED_S = 2.0
"""How long it is waited for a program to be executed in a new namespace: a container comes to its own root after it has come to its namespace, and
before that. What is done there meanwhile has numbers for names."""
WAIT_S = 0.05
"""How long events of a new namespace wait, at most, for its files to be read."""
AT_ONCE = 8
"""Threads that look, those that hang included."""
WAITING_MAX = 256
"""Namespaces that wait to be looked at; those that have waited longest are looked at when they are met again."""
PIDS_MAX = 4
"""Processes that are tried, the latest first: some have ended. In the end the first of all, which in a container stays: the others may all be short
commands of its."""
_SHARE = 0.1
"""Of the time, that may be spent in vain on waits."""

Look = Callable[[int, int, Inside | None], Inside]



@dataclass(slots=True)
class _Known:
    met_s: float
    inside: Inside | None = None
    """None: nothing could be read yet."""
    looked_s: float = -CHECK_EVERY_S
    """When it was last asked to be looked into."""
    looking: bool = False
    executed: bool = False
    """Whether a program has been."""
    pids: list[int] = field(default_factory=list)
    """To be tried, the latest last."""
    first: int = 0
    """The process that was met first."""


class Namespaces:
    """Keyed by `mount_ns` (`infrasight.schema.events.process`). Of one that was found in /proc the inode number alone is known, which is given again
    and again: it is taken to be the next of that number that the kernel tells of. On one event loop."""

    def __init__(self, *, look: Look = look, clock: Callable[[], float] = time.monotonic, most: int = NAMESPACES_MAX, names: int = NAMES_MAX) -> None:
        self._look, self._clock, self._most, self._names_most = look, clock, most, names
        self._own, self._root = 0, (0, 0)
        self._table: OrderedDict[int, _Known] = OrderedDict()
        self._told: dict[int, int] = {}
        """By inode number, the last that was told of."""
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._awaited: set[int] = set()
        self._news = asyncio.Event()
        self._wait_from_s = 0.0
        self.looking = 0
        """Threads that look now."""
        self.names = 0
        """Names remembered."""
        self.changes = 0
        """Times that something else was found in a namespace than before."""
        self.hits = self.misses = self.evictions = self.failures = 0
        """Times that a namespace was asked for and known, and not known; namespaces forgotten for want of room; times that one could not be looked
        into."""

    def __len__(self) -> int:
        return len(self._table)

    def is_own(self, namespace: int, root: tuple[int, int]) -> None:
        """The inode number of the node's own, which is not looked into, and its root: device, inode."""
        self._own, self._root = namespace, root

    def meet(self, life: Records) -> None:
        """`process` records (n,): programs that are executed in namespaces, and who comes to other directories before that. One whose root is the
        node's may have come to another since it was looked into."""
        for namespace, pid in dict(self._in_others(life, CWD)).items():
            known = self._known(namespace)
            if known.inside is None and not known.executed:
                self._ask(namespace, known, pid)
        for namespace, pid in self._in_others(life, EXEC):
            known = self._known(namespace)
            known.executed = True
            is_new = known.inside is None or known.inside.root == self._root
            if is_new or self._is_due(known):
                self._ask(namespace, known, pid)
                if is_new:
                    self._awaited.add(namespace)

    def _in_others(self, life: Records, action: int) -> list[tuple[int, int]]:
        rows = (life["action"] == action) & (life["mount_ns"] != 0) & (life["mount_ns"] & MOUNT_NS_INODE != self._own)
        return list(zip(life["mount_ns"][rows].tolist(), life["pid"][rows].tolist(), strict=True)) if rows.any() else []

    def find(self, namespace: int, pid: int) -> Inside | None:
        """What is known of the namespace that this process is in; None when nothing is, and then it will be looked into."""
        known = self._known(namespace)
        if self._is_due(known) and (known.inside is not None or self._clock() - known.met_s >= SETTLED_S):
            self._ask(namespace, known, pid)
        if known.inside is None:
            self.misses += 1
        else:
            self.hits += 1
        return known.inside

    async def wait(self, within_s: float = WAIT_S) -> None:
        """Until the namespaces in which programs were executed have been looked into, or time is over. Who has waited in vain goes without for some
        time."""
        began_s = self._clock()
        if not self._awaited or began_s < self._wait_from_s:
            self._awaited.clear()
            return
        try:
            async with asyncio.timeout(within_s):
                while self._awaited:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self._wait_from_s = self._clock() + (self._clock() - began_s) / _SHARE
            self._awaited.clear()

    async def prime(self, inside: Mapping[int, int], within_s: float = 1.0) -> None:
        """Look into those that there are: by namespace, a process in it."""
        for namespace, pid in inside.items():
            known = self._known(namespace)
            known.executed = True
            self._ask(namespace, known, pid)
            self._awaited.add(namespace)
        await self.wait(within_s)

    def _get(self, namespace: int) -> _Known | None:
        return self._table.get(self._told.get(namespace, namespace))

    def _known(self, namespace: int) -> _Known:
        namespace, inode = self._told.get(namespace, namespace), namespace & MOUNT_NS_INODE
        if namespace != inode and namespace not in self._table:
            self._told[inode] = namespace
            if inode in self._table:
                self._table[namespace] = self._table.pop(inode)
        known = self._table.get(namespace)
        if known is None:
            known = self._table[namespace] = _Known(self._clock())
            self._make_room()
        else:
            self._table.move_to_end(namespace)
        return known

    def _is_due(self, known: _Known) -> bool:
        return not known.looking and self._clock() - known.looked_s >= CHECK_EVERY_S

    def _ask(self, namespace: int, known: _Known, pid: int) -> None:
        known.pids = [*(each for each in known.pids if each != pid), pid][-PIDS_MAX:]
        known.first = known.first or pid
        known.looked_s = self._clock()
        self._waiting[namespace] = None
        while len(self._waiting) > WAITING_MAX:
            self._awaited.discard(self._waiting.popitem(last=False)[0])
        if self.looking < AT_ONCE:
            self._go_on()

    def _go_on(self) -> None:
        """Have as many looked into as may be at once; never one twice at the same time."""
        loop = asyncio.get_running_loop()
        for namespace in list(self._waiting):
            known = self._get(namespace)
            if self.looking >= AT_ONCE:
                return
            if known is not None and known.looking:
                continue
            del self._waiting[namespace]
            if known is None:
                continue
            known.looking, pids, known.pids = True, known.pids, []
            if known.first not in pids:
                pids.insert(0, known.first)
            self.looking += 1
            settled = known.executed or self._clock() - known.met_s >= SETTLED_S
            # Not a pool's: a thread that hangs in somebody's file system must not keep the node from ending.
            threading.Thread(target=self._work, args=(loop, namespace, pids, known.inside, settled), name="names", daemon=True).start()

    def _work(self, loop: asyncio.AbstractEventLoop, namespace: int, pids: list[int], before: Inside | None, settled: bool) -> None:
        """Of one that is not settled only what is below a root of its own: who makes it is still at that of who has it made, at first."""
        found = None
        for pid in reversed(pids):
            try:
                seen = self._look(pid, namespace, before)
                if settled or (seen.above != UNKNOWN and seen.root not in (self._root, seen.above)):
                    found = seen
                    break
            except (OSError, ValueError):
                continue  # it is gone
        try:
            loop.call_soon_threadsafe(self._looked, namespace, found, settled)
        except RuntimeError:
            return  # the node has ended

    def _looked(self, namespace: int, found: Inside | None, settled: bool) -> None:
        self.looking -= 1
        self.failures += settled and found is None
        known = self._get(namespace)
        if known is not None:
            known.looking = False
            if not settled and found is None:
                known.looked_s = -CHECK_EVERY_S
            if found is not None:
                self.changes += found != known.inside
                self.names += found.weight - (known.inside.weight if known.inside else 0)
                known.inside = found
                self._make_room()
        if namespace not in self._waiting:
            self._awaited.discard(namespace)
        self._go_on()
        self._news.set()

    def _make_room(self) -> None:
        while len(self._table) > self._most or (self.names > self._names_most and len(self._table) > 1):
            namespace, gone = self._table.popitem(last=False)
            if self._told.get(namespace & MOUNT_NS_INODE) == namespace:
                del self._told[namespace & MOUNT_NS_INODE]
            self.names -= gone.inside.weight if gone.inside else 0
            self.evictions += 1
