"""Names by address, asked of name servers (PTR): where nobody was seen to be told of the address by one.

Whoever has an address says what it is called, so such a name proves nothing; it is kept apart from names that were asked for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, Sequence

import aiodns
import pycares

from infrasight.actors import Actor, Mailbox, WhenFull
from infrasight.node.names.answers import plain

MOST = 8192
"""Addresses that are remembered; the ones that were learned first go."""
WAITING = 256
"""Addresses that wait to be asked about; the ones that have waited longest go, and are asked about when they are met again."""
AT_ONCE = 8
LEAST_S, LONGEST_S = 60.0, 86_400.0
"""How long a name is kept, whatever its server says."""
NOBODY_S, SILENCE_S = 600.0, 60.0
"""How long it is remembered that there is no name, and that nobody answered."""
WITHIN_S, TRIES = 2.0, 2
_STRANGE = re.compile(r"[^!-~]")

Answer = tuple[bytes, float]
"""The name of an address, or nothing, and for how many seconds that holds."""


class ReverseNames:
    """What is known by now; packed addresses that are to be asked about go to `questions`."""

    def __init__(self, *, private: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """`private`: ask about addresses that are not of the public Internet, too."""
        self._private, self._clock = private, clock
        self.questions: Mailbox[bytes] = Mailbox("questions", limit=WAITING, when_full=WhenFull.DROP_OLDEST, on_drop=self.drop)
        self._names: dict[bytes, tuple[bytes, float]] = {}
        self._asked: set[bytes] = set()
        self.known = self.unknown = self.forgotten = 0
        """Times that an address was looked up and known, or not, and addresses that went to make room."""

    @property
    def remembered(self) -> int:
        """Addresses of which the name, or that they have none, is kept."""
        return len(self._names)

    def name(self, address: bytes) -> bytes:
        """The name of an address (4 or 16 bytes); nothing when it has none, and as long as it is not known."""
        address = plain(address)
        name, until = self._names.get(address, (b"", 0.0))
        if self._clock() < until:
            self.known += 1
        elif self._may_be_asked(address):
            self.unknown += 1
            if address not in self._asked and not self.questions.closed:
                self._asked.add(address)
                self.questions.put_nowait(address)
        return name

    def _may_be_asked(self, address: bytes) -> bool:
        number = ipaddress.ip_address(address)
        return (number.is_global or self._private) and not (number.is_multicast or number.is_unspecified or number.is_loopback)

    def learn(self, address: bytes, answer: Answer) -> None:
        """What an address is called."""
        name, holds_s = answer
        self._names.pop(address, None)
        self._names[address] = name, self._clock() + holds_s
        while len(self._names) > MOST:
            del self._names[next(iter(self._names))]
            self.forgotten += 1

    def drop(self, address: bytes) -> None:
        """It is not being asked about any more."""
        self._asked.discard(address)


class Resolver(Actor):
    """Asks, a few at a time. What fails is an answer too, for a while; it never ends the node."""

    name = "resolver"

    def __init__(self, names: ReverseNames, ask: Callable[[bytes], Awaitable[Answer]]) -> None:
        self._names, self._ask = names, ask
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Until the inbox is closed; what is not known by then does not matter any more."""
        questions = self._names.questions
        asked: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            async for address in questions:
                if questions.closed:
                    break
                await self._room.acquire()
                task = tasks.create_task(self._learn(address), name="resolver.ask")
                asked.add(task)
                task.add_done_callback(asked.discard)
            for task in asked:
                task.cancel()

    async def _learn(self, address: bytes) -> None:
        try:
            self._names.learn(address, await self._ask(address))
        finally:
            self._room.release()
            self._names.drop(address)


def asking(servers: Sequence[str] | None = None, port: int | None = None) -> Callable[[bytes], Awaitable[Answer]]:
    """A way to ask the name servers of /etc/resolv.conf, or `servers`. To be used on one event loop."""
    resolver: list[aiodns.DNSResolver] = []

    async def ask(address: bytes) -> Answer:
        if not resolver:
            resolver.append(aiodns.DNSResolver(nameservers=servers, udp_port=port, tcp_port=port, timeout=WITHIN_S, tries=TRIES))
        try:
            result = await resolver[0].query_dns(ipaddress.ip_address(address).reverse_pointer, "PTR")
        except aiodns.error.DNSError as error:
            nobody = error.args[:1] in ((pycares.errno.ARES_ENOTFOUND,), (pycares.errno.ARES_ENODATA,))
            return b"", NOBODY_S if nobody else SILENCE_S
        for record in result.answer:
            if isinstance(record.data, pycares.PTRRecordData):
                return _name(record.data.dname), min(max(float(record.ttl), LEAST_S), LONGEST_S)
        return b"", NOBODY_S

    return ask


def _name(told: str) -> bytes:
    """Safe to keep and to show, whatever it is."""
    return _STRANGE.sub("?", told).lower().rstrip(".").encode()[:255]
