"""The router: what comes to everyone who needs it."""

from __future__ import annotations

from collections.abc import Callable

from infrasight.actors import Actor, Mailbox
from infrasight.server.session import Delivery, News


class Router(Actor):
    """Rows to the live views when anybody watches, which never waits; then whole batches to the store, which makes nodes wait when it is full."""

    name = "router"

    def __init__(self, inbox: Mailbox[News], store: Mailbox[Delivery], live: Mailbox[News], *, wanted: Callable[[], bool]) -> None:
        """`wanted` says whether there are live views now."""
        self._inbox = inbox
        self._store = store
        self._live = live
        self._wanted = wanted

    async def run(self) -> None:
        """Route until the inbox is closed and empty."""
        async for news in self._inbox:
            if news.rows is not None and self._wanted():
                await self._live.put(news)
            if news.delivery is not None:
                await self._store.put(news.delivery)
