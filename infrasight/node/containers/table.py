"""The table of containers: what their runtimes say of them, before it is asked for."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from infrasight.node.containers.containment import Container
from infrasight.runtimes import Facts, Key


@dataclass(frozen=True)
class Room:
    """How many containers of one runtime are remembered, and how many bytes of text."""

    containers: int
    bytes: int


SYSTEM, USERS, PODS = Room(16_384, 64 << 20), Room(256, 256 << 10), Room(4096, 16 << 20)
"""For a runtime of the system's, one of a user's own, and the API server's pods. Those that ended go first, then those not asked for the longest."""
ENDED_KEPT_S = 60.0
"""How much longer a container is remembered than its runtime does: what happened in it is told a moment later."""
WAIT_S = 0.1
"""How long events of a new container wait, at most, for its runtime to tell of it."""
PATIENCE_S, _SHARE = 0.2, 0.1
"""How much may be spent in vain on such waits at once, and of all time; users' containers have a share of their own."""


class Shelf:
    """What one runtime told of its containers; or the API server of Kubernetes of pods, by uid."""

    def __init__(self, realm: bytes, told: Callable[[], None], room: Room | None = None) -> None:
        """`realm` is whose runtime it is, as containers have it; `told` is called when there is something new."""
        self.realm, self._told, self._room = realm, told, room or (USERS if realm else SYSTEM)
        self._table: OrderedDict[bytes, dict[bytes, Facts]] = OrderedDict()
        self._ended: OrderedDict[Key, float] = OrderedDict()
        self._count = self._bytes = self.evictions = 0
        self.changes = 0
        """Times that something was learned or forgotten."""

    def __len__(self) -> int:
        return self._count

    def learn(self, key: Key, facts: Facts) -> bool:
        """What a container is, now. Whether that is news."""
        news = self._ended.pop(key, None) is not None or self._table.get(key.id, {}).get(key.space) != facts
        self._forget(key)
        self._table.setdefault(key.id, {})[key.space] = facts
        self._count, self._bytes = self._count + 1, self._bytes + facts.weight()
        self.changes += 1
        while self._count > self._room.containers or (self._bytes > self._room.bytes and self._count > 1):
            self._forget(next(iter(self._ended), None) or self._longest_not_asked_for())
            self.evictions += 1
        self._told()
        return news

    def end(self, key: Key) -> Facts | None:
        """It is no more. What it was, if that was known and it had not ended before. Those that ended long ago are forgotten."""
        facts = self._table.get(key.id, {}).get(key.space) if key not in self._ended else None
        if facts is not None:
            self._ended[key] = time.monotonic()
        while self._ended and next(iter(self._ended.values())) + ENDED_KEPT_S < time.monotonic():
            self._forget(next(iter(self._ended)))
        return facts

    def there_are(self, keys: Collection[Key]) -> list[tuple[Key, Facts]]:
        """These and no others: what ended while the runtime was not listened to is no more, and what each of those was."""
        gone = [Key(id, space) for id, spaces in self._table.items() for space in spaces if Key(id, space) not in keys]
        return [(key, facts) for key in gone if (facts := self.end(key)) is not None]

    def find(self, id: bytes, space: bytes) -> Facts | None:
        """What is told of a container; where its namespace is not known, of the only one of this id."""
        spaces = self._table.get(id)
        if spaces is None:
            return None
        self._table.move_to_end(id)
        if space in spaces or space:
            return spaces.get(space) or spaces.get(b"")
        return next(iter(spaces.values())) if len(spaces) == 1 else None

    def of_pod(self, uid: bytes) -> list[tuple[Key, Facts]]:
        """Containers of a pod, but those that ended. It looks at all that there are: pods change seldom."""
        those = [(Key(id, space), facts) for id, spaces in self._table.items() for space, facts in spaces.items() if facts.pod_uid == uid]
        return [each for each in those if each[0] not in self._ended]

    def _longest_not_asked_for(self) -> Key:
        id, spaces = next(iter(self._table.items()))
        return Key(id, next(iter(spaces)))

    def _forget(self, key: Key) -> None:
        self._ended.pop(key, None)
        spaces = self._table.get(key.id, {})
        facts = spaces.pop(key.space, None)
        if facts is None:
            return
        self._count, self._bytes = self._count - 1, self._bytes - facts.weight()
        self.changes += 1
        if not spaces:
            del self._table[key.id]


class Containers:
    """What is told of containers. Told by the inquirer, asked by the enricher, on one event loop.

    A runtime of the system's may tell of any container outside of what users have as their own, a user's only of those inside: a user can have
    anything listen and say.

    Where the API server of Kubernetes tells of pods, it knows better than runtimes whose a pod is and which labels it has by now; what a container
    is, runtimes alone tell.
    """

    def __init__(self) -> None:
        self._shelves: dict[str, Shelf] = {}
        self.pods = Shelf(b"", lambda: None, PODS)
        """What the API server tells of them, by uid."""
        self._of: dict[bytes, list[Shelf]] = {}
        self._news = asyncio.Event()
        self._patience_s, self._patience_of_s = {False: PATIENCE_S, True: PATIENCE_S}, time.monotonic()
        self._told_of: Mapping[bytes, Collection[bytes]] = {}
        self._excused: set[bytes] = set()
        self.seek: Callable[[Container], None] = lambda container: None
        """Called with each that is met before it was told of."""
        self._changes = 0
        self.hits = self.misses = self._evictions = 0
        """Times that a container was asked for and known, and not known."""

    def __len__(self) -> int:
        return sum(map(len, self._shelves.values()))

    @property
    def changes(self) -> int:
        """Another number whenever another answer may be given than before."""
        return self._changes + self.pods.changes + sum(shelf.changes for shelf in self._shelves.values())

    @property
    def evictions(self) -> int:
        """Containers forgotten for want of room."""
        return self._evictions + sum(shelf.evictions for shelf in self._shelves.values())

    def shelf(self, runtime: str, realm: bytes = b"", room: Room | None = None) -> Shelf:
        """That of a runtime, by its socket: what it told before is still there, unless it is another's now."""
        if runtime in self._shelves and self._shelves[runtime].realm != realm:
            self.clear(runtime)
        if runtime not in self._shelves:
            self._shelves[runtime] = Shelf(realm, self._news.set, room)
            self._of.setdefault(realm, []).append(self._shelves[runtime])
        return self._shelves[runtime]

    def clear(self, runtime: str) -> None:
        """Forget all that it told."""
        shelf = self._shelves.pop(runtime, None)
        if shelf is None:
            return
        self._evictions += shelf.evictions
        self._changes += shelf.changes + 1
        self._of[shelf.realm].remove(shelf)
        if not self._of[shelf.realm]:
            del self._of[shelf.realm]

    def are_told_of(self, runtimes: Mapping[bytes, Collection[bytes]]) -> None:
        """By realm, the runtimes, as paths of cgroups name them, whose containers somebody tells us of from now on."""
        self._told_of = runtimes
        self._changes += 1
        self._news.set()

    def find(self, container: Container) -> Facts | None:
        """What its runtime says of a container; None when it says nothing, or nothing yet."""
        facts = self._find(container)
        if facts is None:
            self.misses += 1
        else:
            self.hits += 1
        return facts

    def in_pod(self, facts: Facts) -> Facts:
        """What a runtime of the system's says of a container, with what is known of its pod."""
        pod = self.pods.find(facts.pod_uid, b"") if facts.pod_uid else None
        return facts if pod is None else facts.in_pod(pod)

    def of_pod(self, container: Container) -> Facts | None:
        """What is known of the pod of a container of which no runtime told."""
        return self.pods.find(container.pod_uid, b"") if container.pod_uid and not container.realm else None

    def _find(self, container: Container) -> Facts | None:
        for shelf in self._of.get(container.realm, ()):
            if (facts := shelf.find(container.id, container.space)) is not None:
                return facts
        return None

    def awaited(self, container: Container) -> bool:
        """Whether nothing is known of it yet, and somebody is there who could tell."""
        return bool(container.id) and container.runtime in self._told_of.get(container.realm, ()) and self._find(container) is None

    def excuse(self, id: bytes) -> None:
        """Nobody needs to wait for this one now: its runtime says that it knows nothing of it yet."""
        self._excused.add(id)
        self._news.set()

    async def wait_for(self, containers: Collection[Container], within_s: float = WAIT_S) -> None:
        """Until all of these are known, or nobody is there any more who could tell, or time is over. Who has waited in vain goes without for some
        time: a runtime may never tell."""
        waiting = [each for each in containers if self.awaited(each)]
        self._excused.clear()
        for each in waiting:
            self.seek(each)
        began_s = time.monotonic()
        for users, left_s in self._patience_s.items():
            self._patience_s[users] = min(PATIENCE_S, left_s + _SHARE * (began_s - self._patience_of_s))
        self._patience_of_s = began_s
        waiting = [each for each in waiting if self._patience_s[bool(each.realm)] > 0]
        try:
            async with asyncio.timeout(within_s):
                while waiting := [each for each in waiting if self.awaited(each) and each.id not in self._excused]:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            for users in {bool(each.realm) for each in waiting}:
                self._patience_s[users] -= time.monotonic() - began_s
