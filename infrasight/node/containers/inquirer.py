"""The inquirer: has the container runtimes of this machine tell of their containers, and Kubernetes of their pods where that is asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from infrasight.actors import Actor, Mailbox
from infrasight.errors import MailboxClosed, WireError
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.containment import Container, container_of
from infrasight.node.containers.inventory import owned, row
from infrasight.node.containers.table import Containers, Shelf
from infrasight.node.containers.watch import Watch
from infrasight.node.delivery.tally import Tally
from infrasight.node.flow import Batch
from infrasight.runtimes import USUAL, Facts, Key, Place, Runtime, Socket, Unknown
from infrasight.schema.events.container import CONTAINER, ENDED, LEARNED

if TYPE_CHECKING:
    from infrasight.runtimes.kubernetes import Kubernetes

log = logging.getLogger("infrasight.node")

LOOK_EVERY_S = 5.0
"""How often it is looked for a socket that is not there; a runtime may be started at any time."""
SOON_S, LONGEST_S = 0.25, 60.0
"""How long a runtime is left alone that has failed: as little as that the first time, twice that the next time and so on, to as much as that."""
ANSWER_EVERY_S = 10.0
"""How often it is seen whether a runtime that has no news still answers. One that lasted so long has not failed again and again."""


class Inquirer(Actor):
    """A source: what it hears goes into a table, for the enricher, and what is news is sent on as a row. A runtime that is not there, hangs or talks
    rubbish is tried again, and never waited for."""

    name = "inquirer"

    def __init__(
        self,
        containers: Containers,
        cgroups: Cgroups,
        outbox: Mailbox[Batch],
        places: Sequence[Place] = USUAL,
        *,
        users: Callable[[], list[Place]] | None = None,
        kubernetes: Kubernetes | None = None,
        node: str = "",
        tally: Tally | None = None,
        answer_within_s: float = 5.0,
    ) -> None:
        """`users` finds the places of users' own runtimes, which come and go; `kubernetes` is an API server to ask too, `node` what that calls this
        machine; rows are counted in `tally`."""
        self._outbox, self._tally = outbox, tally or Tally()
        self._containers, self._cgroups, self._node, self._answer_within_s = containers, cgroups, node, answer_within_s
        self._places, self._users = {str(place.socket): place for place in places}, users
        self._stopping = asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._telling: dict[str, tuple[Runtime, bytes]] = {}
        """By socket, who tells, and of whose containers."""
        self._heard: dict[str, tuple[Shelf, Runtime]] = {}
        """By socket, those of the system who tell, or begin to, and where that is put."""
        self.watch = Watch(kubernetes, containers.pods, self._hear_of_pod) if kubernetes else None
        self.failures: dict[str, int] = dict.fromkeys(self._places, 0)
        """Times that a runtime was there and failed us."""
        self._misunderstood: set[str] = set()
        containers.seek = self._seek

    @property
    def connected(self) -> dict[str, bool]:
        """Whether a runtime tells us, by its socket."""
        return {name: name in self._telling for name in self.failures}

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`."""
        always = [self._task(self._stopping.wait(), "stop")]
        always += [self._task(self._find_users(self._users), "users")] if self._users else []
        always += [self._task(self.watch.run(), "kubernetes")] if self.watch else []
        self._asking = {name: self._task(self._keep_asking(name, place), name) for name, place in self._places.items()}
        try:
            while not self._stopping.is_set():
                done, _ = await asyncio.wait([*always, *self._asking.values()], timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                self._asking = {name: task for name, task in self._asking.items() if not task.done()}
        finally:
            tasks = [*always, *self._asking.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def _task(what: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(what, name=f"inquirer {name}")

    async def _find_users(self, users: Callable[[], list[Place]]) -> None:
        """Ask those that are there; who is gone stops being asked by itself."""
        while True:
            for place in await asyncio.to_thread(users):
                name = str(place.socket)
                if name not in self._asking and name not in self._places:
                    self.failures[name] = 0
                    self._asking[name] = self._task(self._keep_asking(name, place), name)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _keep_asking(self, name: str, place: Place) -> None:
        pause_s = SOON_S
        while True:
            socket = await asyncio.to_thread(place.hold)
            if socket is not None:
                began_s = asyncio.get_running_loop().time()
                with socket:
                    await self._ask(name, place, socket)
                lasted_s = asyncio.get_running_loop().time() - began_s
                pause_s = SOON_S if lasted_s > ANSWER_EVERY_S else min(2 * pause_s, LONGEST_S)
            elif place.owner is not None:
                self._containers.clear(name)
                del self.failures[name]
                self._misunderstood.discard(name)
                return
            else:
                pause_s = min(2 * pause_s, LOOK_EVERY_S)
            await asyncio.sleep(pause_s)

    async def _ask(self, name: str, place: Place, socket: Socket) -> None:
        """Listen until it fails."""
        runtime = place.runtime(self._answer_within_s, self._node, socket)
        parts = [self._task(part, name) for part in (self._listen(name, runtime, socket.user), self._see_that_it_answers(runtime))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        except WireError as error:
            self.failures[name] += 1
            if self.failures[name] == 1 or (name in self._telling and not socket.user):
                log.warning("infrasight node: containers are not told of: %s", error)
        except MailboxClosed:
            raise
        except Exception:  # a mistake of ours, which nobody who says strange things must be able to make the end of the node
            self.failures[name] += 1
            if name not in self._misunderstood:
                self._misunderstood.add(name)
                log.exception("infrasight node: what %s says was not understood", name)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await runtime.close()
            self._telling.pop(name, None)
            self._heard.pop(name, None)
            self._tell_of()

    async def _listen(self, name: str, runtime: Runtime, realm: bytes) -> None:
        shelf = self._containers.shelf(name, realm)
        if not realm:
            self._heard[name] = shelf, runtime
        there: set[Key] | None = set()
        async with aclosing(runtime.containers()) as told:
            async for news in told:
                if news is None:
                    if not (realm and self.failures[name]):
                        log.warning("infrasight node: containers are told of by %s", name)
                    for gone, what in shelf.there_are(there or ()):
                        await self._tell(shelf, gone, what, ENDED, runtime)
                    there = None
                    self._telling[name] = runtime, realm
                    self._tell_of()
                    continue
                key, facts = news
                if facts is None:
                    if (was := shelf.end(key)) is not None:
                        await self._tell(shelf, key, was, ENDED, runtime)
                elif isinstance(facts, Unknown):
                    self._containers.excuse(key.id)
                else:
                    await self._learn(shelf, key, facts, runtime)
                if there is not None:
                    there.add(key)

    async def _learn(self, shelf: Shelf, key: Key, facts: Facts, runtime: Runtime) -> None:
        facts = facts if shelf.realm else self._containers.in_pod(facts)
        news = shelf.learn(key, facts)
        await self._place(shelf, key, facts, runtime)
        if news:
            await self._tell(shelf, key, facts, LEARNED, runtime)

    async def _hear_of_pod(self, pod: Facts) -> None:
        """The API server tells something else of a pod: so its containers are something else."""
        learned: list[tuple[Shelf, Key, Facts, Runtime]] = []
        for shelf, runtime in self._heard.values():
            those = [(key, facts.in_pod(pod)) for key, facts in shelf.of_pod(pod.pod_uid)]
            learned += [(shelf, key, facts, runtime) for key, facts in those if shelf.learn(key, facts)]
        for shelf, key, facts, runtime in learned:  # after that, since it may have to wait
            await self._tell(shelf, key, facts, LEARNED, runtime)

    async def _place(self, shelf: Shelf, key: Key, facts: Facts, runtime: Runtime) -> None:
        """A container whose cgroup has a name that does not tell: from now on it does."""
        named = container_of(facts.cgroup)
        if not facts.cgroup or (named.realm != shelf.realm and shelf.realm):
            return
        if (named.id, named.realm) == (key.id, shelf.realm) and named.space in (key.space, b""):
            return
        container = Container(key.id, _name(runtime), named.pod_uid, key.space, shelf.realm)
        self._cgroups.expect(facts.cgroup, container)
        for there in await asyncio.to_thread(self._cgroups.places, facts.cgroup):
            self._cgroups.belongs(there, container)

    async def _tell(self, shelf: Shelf, key: Key, facts: Facts, state: bytes, runtime: Runtime) -> None:
        """Have a row of it. Not of what a user's runtime says: rows that lack what a container is are completed by its id alone, and a user could
        say anything of another's."""
        if not shelf.realm:
            self._tally.take(CONTAINER.name, 1)
            await self._outbox.put(row(self._node.encode(), owned(key.id, facts, _name(runtime)), facts, state, time.time_ns()))

    def _seek(self, container: Container) -> None:
        for runtime, realm in self._telling.values():
            if realm == container.realm and container.runtime in runtime.tells:
                runtime.seek(container.id)

    @staticmethod
    async def _see_that_it_answers(runtime: Runtime) -> None:
        while True:
            await asyncio.sleep(ANSWER_EVERY_S)
            await runtime.answer()

    def _tell_of(self) -> None:
        told_of: defaultdict[bytes, set[bytes]] = defaultdict(set)
        for runtime, realm in self._telling.values():
            told_of[realm] |= runtime.tells
        self._containers.are_told_of(told_of)


def _name(runtime: Runtime) -> bytes:
    """What paths of cgroups call it where they say so."""
    return next(filter(None, sorted(runtime.tells)), b"")
