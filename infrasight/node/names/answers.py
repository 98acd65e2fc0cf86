"""Names by address, learned from what name servers answered: which name somebody had asked for who then connects."""

from __future__ import annotations

from infrasight.node.names.dns import Message

MOST = 8192
"""Entries that are kept; of each address that a process learns there are two."""
LONGER_NS, LEAST_NS = 60_000_000_000, 600_000_000_000
"""How long a name is remembered: this much longer than its server said, and this long at least, since programs keep addresses longer than that."""
ASKED_MOST, ASKED_NS = 8192, 60_000_000_000
"""Queries that are remembered, and how long."""
_ANYBODY = 0
_MAPPED = bytes(10) + b"\xff\xff"


def plain(address: bytes) -> bytes:
    """An IPv4 address that is written as an IPv6 one, as what it is."""
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address


class Answers:
    """Address to name, for each process that asked and for anybody, since somebody may have asked for another (a resolver does)."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._asked: dict[tuple[int, int, bytes], int] = {}
        self._names: dict[tuple[int, bytes], tuple[bytes, int, int]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def ask(self, process_id: int, when_ns: int, message: Message) -> None:
        """A query that a process sent then."""
        key = process_id, message.id, message.name
        self._asked.pop(key, None)
        self._asked[key] = when_ns
        while len(self._asked) > ASKED_MOST:
            del self._asked[next(iter(self._asked))]

    def learn(self, process_id: int, when_ns: int, message: Message) -> None:
        """An answer that a process received then. It has to be one to what it had asked: anybody can send something that looks like an answer to any
        socket."""
        asked_ns = self._asked.get((process_id, message.id, message.name))
        if asked_ns is None or not asked_ns <= when_ns < asked_ns + ASKED_NS:
            return
        until = when_ns + max(LEAST_NS, message.ttl * 1_000_000_000 + LONGER_NS)
        for address in message.addresses:
            for who in (process_id, _ANYBODY):
                key = who, plain(address)
                name, since, before = self._names.pop(key, (b"", 0, 0))
                same = name == message.name and when_ns < before
                self._names[key] = message.name, since if same else when_ns, until
        while len(self._names) > self._most:
            del self._names[next(iter(self._names))]

    def name(self, process_id: int, address: bytes, when_ns: int) -> bytes:
        """The name that a process had for an address then; if it had none, what anybody had; else nothing."""
        for who in (process_id, _ANYBODY):
            name, since, until = self._names.get((who, plain(address)), (b"", 0, 0))
            if since <= when_ns < until:
                return name
        return b""
