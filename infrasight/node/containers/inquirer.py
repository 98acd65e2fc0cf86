"""The inquirer: has the container runtimes of this machine tell of their containers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing

from infrasight.actors import Actor, Mailbox
from infrasight.errors import WireError
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.containment import Container, container_of
from infrasight.node.containers.inventory import owned, row
from infrasight.node.containers.table import Containers
from infrasight.node.flow import Batch
from infrasight.runtimes import USUAL, Facts, Place, Runtime
from infrasight.schema.events.container import ENDED, LEARNED

log = logging.getLogger("infrasight.node")

LOOK_EVERY_S = 5.0
"""How often it is looked for a socket that is not there; a runtime may be started at any time."""
LONGEST_S = 60.0
"""How long a runtime is left alone, at most, that has failed again and again."""
ANSWER_EVERY_S = 10.0
"""How often it is seen whether a runtime that has no news still answers."""


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
        node: str,
        answer_within_s: float = 5.0,
    ) -> None:
        self._containers, self._cgroups, self._outbox, self._answer_within_s = containers, cgroups, outbox, answer_within_s
        self._node = node.encode()
        self._places = {str(place.socket): place for place in places}
        self._stopping = asyncio.Event()
        self._telling: dict[str, Runtime] = {}
        self._alive: dict[str, set[bytes]] = {name: set() for name in self._places}
        """Containers that each runtime has told of and not said to have ended, by its socket."""
        self.failures: dict[str, int] = dict.fromkeys(self._places, 0)
        """Times that a runtime was there and failed us."""

    @property
    def connected(self) -> dict[str, bool]:
        """Whether a runtime tells us, by its socket."""
        return {name: name in self._telling for name in self._places}

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`."""
        loop = asyncio.get_running_loop()
        asking = [loop.create_task(self._keep_asking(name), name=f"inquirer {name}") for name in self._places]
        stopping = loop.create_task(self._stopping.wait(), name="inquirer stop")
        try:
            done, _ = await asyncio.wait([stopping, *asking], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (stopping, *asking):
                task.cancel()
            await asyncio.gather(stopping, *asking, return_exceptions=True)

    async def _keep_asking(self, name: str) -> None:
        pause_s = LOOK_EVERY_S
        while True:
            if await asyncio.to_thread(self._places[name].socket.is_socket):
                heard = await self._ask(name)
                pause_s = LOOK_EVERY_S if heard else min(2 * pause_s, LONGEST_S)
            await asyncio.sleep(pause_s)

    async def _ask(self, name: str) -> bool:
        """Listen until it fails. Whether it told anything before."""
        runtime = self._places[name].runtime(self._answer_within_s)
        parts = [asyncio.create_task(part, name=f"inquirer {name}") for part in (self._listen(name, runtime), self._see_that_it_answers(runtime))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        except WireError as error:
            self.failures[name] += 1
            if name in self._telling or self.failures[name] == 1:
                log.warning("infrasight node: containers are not told of: %s", error)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await runtime.close()
            heard = self._telling.pop(name, None) is not None
            self._tell_of()
        return heard

    async def _listen(self, name: str, runtime: Runtime) -> None:
        unheard_of = self._alive[name].copy()
        async with aclosing(runtime.containers()) as told:
            async for news in told:
                if news is None:
                    log.warning("infrasight node: containers are told of by %s", name)
                    self._telling[name] = runtime
                    self._tell_of()
                    for id in unheard_of:  # they ended while nobody listened
                        await self._end(name, id, runtime)
                elif news[1] is None:
                    await self._end(name, news[0], runtime)
                else:
                    unheard_of.discard(news[0])
                    self._alive[name].add(news[0])
                    is_news = self._containers.learn(news[0], news[1])
                    await self._place(news[0], news[1].cgroup, runtime)
                    if is_news:
                        await self._tell(news[0], news[1], LEARNED, runtime)

    async def _end(self, name: str, id: bytes, runtime: Runtime) -> None:
        self._alive[name].discard(id)
        if (facts := self._containers.end(id)) is not None:
            await self._tell(id, facts, ENDED, runtime)

    async def _tell(self, id: bytes, facts: Facts, state: bytes, runtime: Runtime) -> None:
        await self._outbox.put(row(self._node, owned(id, facts, _name(runtime)), facts, state, time.time_ns()))

    async def _place(self, id: bytes, path: bytes, runtime: Runtime) -> None:
        """A container whose cgroup has a name that does not tell: from now on it does."""
        if not path or container_of(path).id == id:
            return
        container = Container(id, _name(runtime), container_of(path).pod_uid)
        self._cgroups.expect(path, container)
        for there in await asyncio.to_thread(self._cgroups.places, path):
            self._cgroups.belongs(there, container)

    @staticmethod
    async def _see_that_it_answers(runtime: Runtime) -> None:
        while True:
            await asyncio.sleep(ANSWER_EVERY_S)
            await runtime.answer()

    def _tell_of(self) -> None:
        self._containers.are_told_of(frozenset[bytes]().union(*(runtime.tells for runtime in self._telling.values())))


def _name(runtime: Runtime) -> bytes:
    """What paths of cgroups call it where they say so."""
    return next(filter(None, sorted(runtime.tells)), b"")
