"""The router: each delivery to everyone who needs it."""

from __future__ import annotations

from collections.abc import Callable

from infrasight.actors import Actor, Mailbox
from infrasight.server.session import Delivery


class Router(Actor):
    """To the live views when anybody looks, which never waits; then to the store, which makes nodes wait when it is full."""

    name = "router"

    def __init__(self, inbox: Mailbox[Delivery], store: Mailbox[Delivery], live: Mailbox[Delivery], *, wanted: Callable[[], bool]) -> None:
        """`wanted` says whether there are live views now."""
        self._inbox = inbox
        self._store = store
        self._live = live
        self._wanted = wanted

    async def run(self) -> None:
        """Route until the inbox is closed and empty."""
        async for delivery in self._inbox:
            if self._wanted():
                await self._live.put(delivery)
            await self._store.put(delivery)
