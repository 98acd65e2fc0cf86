"""The watch: has the API server of Kubernetes tell of the pods of this node, and goes on with that whatever becomes of the server."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from infrasight.errors import WireError
from infrasight.node.containers.table import Shelf
from infrasight.runtimes import Facts, Key

if TYPE_CHECKING:
    from infrasight.runtimes.kubernetes import Change, Kubernetes, Pods

log = logging.getLogger("infrasight.node")

SOON_S, LONGEST_S = 1.0, 60.0
"""How long a server is left alone that has told enough for once, or failed: about as little as that after it was listened to for a while, else twice
as long as before, to as much as that. About: so that not all nodes of a cluster come back together."""
LASTING_S = 10.0
"""Who was listened to for so long has not failed again and again."""
PACE_S = 0.02
"""After each news: who may change a pod's labels must not keep us busy."""


class Watch:
    """What it hears goes onto a shelf by the uid of the pod, and what is news to `changed`."""

    def __init__(self, api: Kubernetes, pods: Shelf, changed: Callable[[Facts], Awaitable[None]]) -> None:
        self.api, self._pods, self._changed = api, pods, changed
        self.failures = 0
        """Times that the server failed us, or refused."""
        self._told = False

    async def run(self) -> None:
        """Without end."""
        pause_s = SOON_S
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                async with aclosing(self.api.pods()) as told:
                    async for news in told:
                        self._is_told()
                        await self._hear(news)
                self._is_told()
            except WireError as error:
                self._is_not_told(error)
            lasted_s = asyncio.get_running_loop().time() - began_s
            pause_s = SOON_S if lasted_s > LASTING_S else min(2 * pause_s, LONGEST_S)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))

    async def _hear(self, news: Pods | Change) -> None:
        if isinstance(news, dict):
            self._pods.there_are(news)
            for key, facts in news.items():
                await self._learn(key, facts)
        elif news[1] is None:
            self._pods.end(news[0])
        elif await self._learn(news[0], news[1]):
            await asyncio.sleep(PACE_S)

    async def _learn(self, key: Key, facts: Facts) -> bool:
        news = self._pods.learn(key, facts)
        if news:
            await self._changed(facts)
        return news

    def _is_told(self) -> None:
        if not self._told:
            log.warning("infrasight node: pods are told of by %s", self.api.url)
        self._told = True

    def _is_not_told(self, error: WireError) -> None:
        """Logged when it begins to fail, not each attempt."""
        self.failures += 1
        if self._told or self.failures == 1:
            log.warning("infrasight node: pods are not told of: %s", error)
        self._told = False
