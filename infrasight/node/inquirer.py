"""The inquirer: has the container runtimes of this machine tell of their containers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from infrasight.actors import Actor
from infrasight.errors import WireError
from infrasight.node.containers import Containers
from infrasight.runtimes import CONTAINERD, Containerd

log = logging.getLogger("infrasight.node")

LOOK_EVERY_S = 2.0
"""How often it is looked for a socket that is not there; a runtime may be started at any time."""
LONGEST_S = 60.0
"""How long a runtime is left alone, at most, that has failed again and again."""
ANSWER_EVERY_S = 10.0
"""How often it is seen whether a runtime that has no news still answers."""
TOLD_OF = frozenset({b"containerd", b""})
"""What containerd tells of, as paths of cgroups name it: of Kubernetes' containers, the cgroupfs driver's do not say whose they are."""


class Inquirer(Actor):
    """A source that sends nothing: what it hears goes into a table. A runtime that is not there, hangs or talks rubbish is tried again, and never
    waited for."""

    name = "inquirer"

    def __init__(self, containers: Containers, sockets: Sequence[Path] = CONTAINERD, answer_within_s: float = 5.0) -> None:
        self._containers, self._sockets, self._answer_within_s = containers, sockets, answer_within_s
        self._stopping = asyncio.Event()
        self.connected: dict[str, bool] = dict.fromkeys(map(str, sockets), False)
        """Whether a runtime tells us, by its socket."""
        self.failures: dict[str, int] = dict.fromkeys(map(str, sockets), 0)
        """Times that a runtime was there and failed us."""

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`."""
        loop = asyncio.get_running_loop()
        asking = [loop.create_task(self._keep_asking(socket), name=f"inquirer {socket}") for socket in self._sockets]
        stopping = loop.create_task(self._stopping.wait(), name="inquirer stop")
        try:
            done, _ = await asyncio.wait([stopping, *asking], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (stopping, *asking):
                task.cancel()
            await asyncio.gather(stopping, *asking, return_exceptions=True)

    async def _keep_asking(self, socket: Path) -> None:
        pause_s = LOOK_EVERY_S
        while True:
            if await asyncio.to_thread(socket.is_socket):
                heard = await self._ask(socket)
                pause_s = LOOK_EVERY_S if heard else min(2 * pause_s, LONGEST_S)
            await asyncio.sleep(pause_s)

    async def _ask(self, socket: Path) -> bool:
        """Listen until it fails. Whether it told anything before."""
        name, runtime = str(socket), Containerd(socket, self._answer_within_s)
        parts = [asyncio.create_task(part, name=f"inquirer {name}") for part in (self._listen(name, runtime), self._see_that_it_answers(runtime))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        except WireError as error:
            self.failures[name] += 1
            if self.connected[name] or self.failures[name] == 1:
                log.warning("infrasight node: containers are not told of: %s", error)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            runtime.close()
            heard = self.connected[name]
            self._is_connected(name, False)
        return heard

    async def _listen(self, name: str, runtime: Containerd) -> None:
        async with aclosing(runtime.containers()) as told:
            async for news in told:
                if news is None:
                    log.warning("infrasight node: containers are told of by %s", name)
                    self._is_connected(name, True)
                elif news[1] is None:
                    self._containers.end(news[0])
                else:
                    self._containers.learn(news[0], news[1])

    @staticmethod
    async def _see_that_it_answers(runtime: Containerd) -> None:
        while True:
            await asyncio.sleep(ANSWER_EVERY_S)
            await runtime.answer()

    def _is_connected(self, name: str, connected: bool) -> None:
        self.connected[name] = connected
        self._containers.are_told_of(TOLD_OF if any(self.connected.values()) else frozenset())
