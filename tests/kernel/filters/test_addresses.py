"""Which addresses are on a list."""

import socket
from ipaddress import ip_network
from pathlib import Path

import pytest

from infrasight.kernel.rules import Match, Rules
from tests.kernel.filters.children import child, connects, follow
from tests.kernel.tap import Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


def connected(tap: Tap, pid: int) -> list[str]:
    """The addresses told of."""
    found = []
    for record in tap.records("connect", pid=pid):
        family = record["family"]
        found.append(socket.inet_ntop(family, record["daddr"][: 4 if family == socket.AF_INET else 16]) if family != socket.AF_UNIX else "unix")
    return found


def networks(*names: str) -> Match:
    return Match(networks=tuple(map(ip_network, names)))


HOSTS = ("127.0.0.1", "127.1.0.1", "127.1.2.3", "127.255.0.1")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(allow=networks("127.0.0.0/8")), HOSTS),
        (Rules(allow=networks("127.1.0.0/16")), HOSTS[1:3]),
        (Rules(allow=networks("127.1.2.3/32", "127.0.0.1/32")), (HOSTS[0], HOSTS[2])),
        (Rules(deny=networks("127.1.0.0/16")), (HOSTS[0], HOSTS[3])),
        (Rules(allow=networks("127.0.0.0/8"), deny=networks("127.1.0.0/16")), (HOSTS[0], HOSTS[3])),
        (Rules(allow=networks("127.0.0.0/8", "127.1.2.0/24"), deny=networks("127.1.0.0/16")), (HOSTS[0], HOSTS[3])),
        (Rules(allow=networks("127.1.2.3/32"), deny=networks("127.0.0.0/8")), ()),
        (Rules(deny=networks("0.0.0.0/0")), ()),
        (Rules(allow=networks("0.0.0.0/0")), HOSTS),
        (Rules(allow=networks("128.0.0.0/1")), ()),
        (Rules(allow=networks("127.255.0.0/31")), HOSTS[3:]),
    ],
)
def test_ipv4(tap: Tap, rules: Rules, expected: tuple[str, ...]) -> None:
    follow(tap, connect=rules)
    assert connected(tap, child(connects(*HOSTS))) == list(expected)


@pytest.mark.needs("ipv6")
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(allow=networks("::1/128")), ["::1"]),
        (Rules(deny=networks("::1/128")), ["127.0.0.1"]),
        (Rules(allow=networks("::/64")), ["::1"]),
        (Rules(allow=networks("127.0.0.0/8")), ["127.0.0.1"]),
        (Rules(deny=networks("::/0")), ["127.0.0.1"]),
        (Rules(allow=networks("::/0")), ["::1"]),
        (Rules(allow=networks("::/0", "0.0.0.0/0")), ["::1", "127.0.0.1"]),
        (Rules(allow=networks("::2/128")), []),
    ],
    ids=lambda each: "" if isinstance(each, list) else None,
)
def test_ipv6(tap: Tap, rules: Rules, expected: list[str]) -> None:
    """Each version by its own networks."""
    follow(tap, connect=rules)
    assert connected(tap, child(connects("::1", "127.0.0.1"))) == expected


@pytest.mark.needs("ipv6")
def test_ipv4_by_way_of_an_ipv6_socket(tap: Tap) -> None:
    """It is IPv4 that is spoken."""
    follow(tap, connect=Rules(deny=networks("127.0.0.0/8")))
    assert connected(tap, child(connects("::ffff:127.0.0.1", "::1"))) == ["::1"]


def test_what_has_no_address(tap: Tap, tmp_path: Path) -> None:
    """A unix socket is on no list of addresses."""

    def body() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect_ex(str(tmp_path / "absent"))

    for rules, expected in ((Rules(allow=networks("0.0.0.0/0", "::/0")), []), (Rules(deny=networks("0.0.0.0/0", "::/0")), ["unix"])):
        follow(tap, connect=rules)
        assert connected(tap, child(body)) == expected
