"""Reverse names: what is asked, how often, and what a name server that lies, stalls or is not there can do."""

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infrasight.node.graph import build
from infrasight.node.names import reverse as module
from infrasight.node.names.dns import Message
from infrasight.node.names.reverse import AT_ONCE, LEAST_S, LONGEST_S, NOBODY_S, SILENCE_S, WAITING, Answer, Resolver, ReverseNames, asking
from infrasight.node.settings import Settings
from infrasight.settings import parse
from tests.actors.clock import VirtualClock, settle
from tests.node.records import make
from tests.node.test_enricher import drain, enricher_of, one, rows
from tests.node.test_sockets import HEAD, NO_PATH, TCP
from tests.ports import free_port
from tests.waiting import LIMIT_S


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


GLOBAL, OTHER = packed("9.9.9.9"), packed("2620:fe::fe")
NONE_OF_THEIR_BUSINESS = ["10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "169.254.1.1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"]
NOWHERE = ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:127.0.0.1"]


def asked(names: ReverseNames) -> list[bytes]:
    return list(iter(names.questions.get_nowait, None))


class TestWhatIsKnown:
    def test_an_address_is_asked_about_once(self) -> None:
        names = ReverseNames()
        for _ in range(3):
            assert (names.name(GLOBAL), names.name(OTHER)) == (b"", b"")
        assert asked(names) == [GLOBAL, OTHER]
        names.learn(GLOBAL, (b"dns9.quad9.net", 100))
        assert names.name(GLOBAL) == names.name(bytes(10) + b"\xff\xff" + GLOBAL) == b"dns9.quad9.net"
        assert asked(names) == []
        assert (names.known, names.unknown, names.remembered) == (2, 6, 1)

    def test_until_what_is_known_is_old(self) -> None:
        """Then it is asked about again, and serves until there is an answer."""
        clock = VirtualClock()
        names = ReverseNames(clock=clock.time)
        names.learn(GLOBAL, (b"a", 100))
        clock.now += 99
        assert (names.name(GLOBAL), asked(names)) == (b"a", [])
        clock.now += 1
        assert (names.name(GLOBAL), asked(names)) == (b"a", [GLOBAL])
        names.learn(GLOBAL, (b"", 100))
        assert (names.name(GLOBAL), asked(names)) == (b"", [])

    @pytest.mark.parametrize("address", NONE_OF_THEIR_BUSINESS)
    def test_private_addresses_only_when_that_is_wanted(self, address: str) -> None:
        names = ReverseNames()
        assert (names.name(packed(address)), asked(names)) == (b"", [])
        names = ReverseNames(private=True)
        names.name(packed(address))
        assert len(asked(names)) == 1

    @pytest.mark.parametrize("address", NOWHERE)
    def test_what_is_nobody_else_never(self, address: str) -> None:
        names = ReverseNames(private=True)
        assert (names.name(packed(address)), asked(names)) == (b"", [])

    def test_it_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST", 3)
        names = ReverseNames()
        for host in range(10):
            names.learn(bytes([9, 9, 9, host]), (b"%d" % host, 1000))
        assert (names.remembered, names.forgotten, names.name(bytes([9, 9, 9, 9])), names.name(bytes([9, 9, 9, 0]))) == (3, 7, b"9", b"")

    def test_what_had_to_wait_too_long_is_asked_about_when_met_again(self) -> None:
        names = ReverseNames()
        addresses = [struct.pack(">I", (9 << 24) + number) for number in range(WAITING + 1)]
        for address in addresses:
            names.name(address)
        names.name(addresses[0])
        assert asked(names) == [*addresses[2:], addresses[0]]
        assert names.questions.statistics().dropped == 2

    def test_when_the_node_ends_nothing_is_asked(self) -> None:
        names = ReverseNames()
        names.questions.close()
        assert names.name(GLOBAL) == b""


async def test_a_few_are_asked_at_a_time_and_the_end_waits_for_none() -> None:
    names, now, most = ReverseNames(), 0, 0
    release = asyncio.Event()

    async def ask(address: bytes) -> Answer:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await release.wait()
        now -= 1
        return b"n", 100

    task = asyncio.create_task(Resolver(names, ask).run())
    for host in range(3 * AT_ONCE):
        names.name(bytes([9, 9, 9, host]))
        await settle()
    assert (now, most) == (AT_ONCE, AT_ONCE)
    release.set()
    await settle()
    assert (names.remembered, most) == (3 * AT_ONCE, AT_ONCE)
    release.clear()
    names.name(OTHER)
    await settle()
    names.questions.close()
    async with asyncio.timeout(LIMIT_S):
        await task
    assert names.name(OTHER) == b""


class NameServer(asyncio.DatagramProtocol):
    """On the loopback: answers questions about addresses by `zone`; None is silence, an integer an error code."""

    def __init__(self, zone: dict[str, Any]) -> None:
        self.zone, self.seen = zone, list[str]()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, client: Any) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        self.seen.append(name := ".".join(labels))
        told = self.zone.get(name, 3)
        if told is None:
            return
        if isinstance(told, int):
            self.transport.sendto(data[:2] + struct.pack(">5H", 0x8180 | told, 1, 0, 0, 0) + data[12 : at + 5], client)
            return
        labels_of, ttl = told
        text = b"".join(bytes([len(label)]) + label for label in labels_of) + b"\0"
        record = b"\xc0\x0c" + struct.pack(">HHIH", 12, 1, ttl, len(text)) + text
        self.transport.sendto(data[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0) + data[12 : at + 5] + record, client)


ZONE = {
    "9.9.9.9.in-addr.arpa": ([b"Dns9", b"quad9", b"NET"], 3600),
    "1.9.9.9.in-addr.arpa": ([b"now"], 0),
    "2.9.9.9.in-addr.arpa": ([b"for-ever"], 2**31 - 1),
    "3.9.9.9.in-addr.arpa": ([b"\x1b[31m\xff\n", b"evil"], 3600),
    "4.9.9.9.in-addr.arpa": 2,
    "5.9.9.9.in-addr.arpa": None,
    ipaddress.ip_address("2620:fe::fe").reverse_pointer: ([b"six"], 3600),
}


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(lambda: NameServer(ZONE), ("127.0.0.1", 0))
    yield protocol
    transport.close()


@contextmanager
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "WITHIN_S", 0.2)
    monkeypatch.setattr(module, "TRIES", 1)
    yield


async def test_real_questions(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient(monkeypatch):
        ask = asking(["127.0.0.1"], server.transport.get_extra_info("sockname")[1])
        assert await ask(GLOBAL) == (b"dns9.quad9.net", 3600)
        assert await ask(OTHER) == (b"six", 3600)
        assert await ask(packed("9.9.9.1")) == (b"now", LEAST_S)
        assert await ask(packed("9.9.9.2")) == (b"for-ever", LONGEST_S)
        assert await ask(packed("9.9.9.7")) == (b"", NOBODY_S)
        assert await ask(packed("9.9.9.4")) == (b"", SILENCE_S)
        assert await ask(packed("9.9.9.5")) == (b"", SILENCE_S)
        evil, _ = await ask(packed("9.9.9.3"))
    assert evil.isascii()
    assert evil.decode().isprintable()
    assert server.seen[0] == "9.9.9.9.in-addr.arpa"


async def test_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient(monkeypatch):
        assert await asking(["127.0.0.1"], free_port())(GLOBAL) == (b"", SILENCE_S)


def test_a_connect_says_where_its_name_is_from(tmp_path: Path) -> None:
    """One that was asked for goes before what the address is called."""
    enricher = enricher_of(tmp_path)
    enricher._reverse = names = ReverseNames(private=True)
    two = [packed("10.0.0.255") + bytes(12), packed("9.9.9.9") + bytes(12)]
    members = HEAD | TCP | NO_PATH | {"daddr": two * 2, "fd": 3}
    connects = make("connect", 4, **members)
    assert {(row["name"], row["name_source"]) for row in rows(one(enricher, drain(("connect", connects))))} == {(b"", b"")}
    assert asked(names) == [packed("10.0.0.255"), packed("9.9.9.9")], "once for each address"
    for cell in two:
        names.learn(cell[:4], (b"rev.test", 100))
    enricher._answers.ask(1, 0, Message(name=b"asked.test"))
    enricher._answers.learn(1, 0, Message(name=b"asked.test", addresses=(packed("10.0.0.255"),), ttl=60))
    found = [(row["name"], row["name_source"]) for row in rows(one(enricher, drain(("connect", connects))))]
    assert found == [(b"asked.test", b"dns"), (b"rev.test", b"reverse")] * 2


@pytest.mark.parametrize(
    ("flags", "asks", "private"), [([], True, False), (["--no-reverse-dns"], False, False), (["--reverse-dns-private"], True, True)]
)
def test_it_can_be_switched_off_and_widened(flags: list[str], asks: bool, private: bool) -> None:
    node = build(None, parse(Settings, flags, prog="node", description=""))  # type: ignore[arg-type]  # wiring touches no tracing
    assert ("resolver" in {actor.name for actor in node.graph.actors}) == (node.reverse is not None) == asks
    if node.reverse:
        node.reverse.name(packed("10.0.0.1"))
        assert bool(asked(node.reverse)) == private
