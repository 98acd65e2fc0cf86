"""Rules as they are written for the kernel: pure functions, and what is left in the maps when rules change."""

import struct
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrasight.kernel.rules import LISTS, MAPS, Match, Outcome, Rate, Rules, listed, network_key, path_key, rule_value, write
from infrasight.schema import PROBES

OPEN, CONNECT = 1 << PROBES.index("open"), 1 << PROBES.index("connect")
NAME = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name)


def kinds(rules: Rules) -> int:
    return int(struct.unpack("<IIQQQ", rule_value(rules, True))[1])


def test_a_rule_is_what_the_kernel_reads() -> None:
    """struct rule of bpf/include/filter.h."""
    assert rule_value(Rules(), False) == bytes(32)
    assert rule_value(Rules(), True) == struct.pack("<IIQQQ", 1, 0, 0, 0, 0)
    rules = Rules(repeats_ns=7, rate=Rate(1000, 50))
    assert rule_value(rules, True) == struct.pack("<IIQQQ", 1, 4096 | 8192, 7, 1_000_000, 49_000_000)


@pytest.mark.parametrize(
    ("rules", "bits"),
    [
        (Rules(allow=Match(uids=frozenset({1}))), 1),
        (Rules(deny=Match(uids=frozenset({1}))), 2),
        (Rules(allow=Match(comms=frozenset({b"a"}))), 4),
        (Rules(deny=Match(comms=frozenset({b"a"}))), 8),
        (Rules(allow=Match(cgroups=frozenset({1}))), 16),
        (Rules(deny=Match(cgroups=frozenset({1}))), 32),
        (Rules(allow=Match(paths=frozenset({b"/"}))), 64),
        (Rules(deny=Match(paths=frozenset({b"/"}))), 128),
        (Rules(allow=Match(networks=(ip_network("::/0"),))), 256),
        (Rules(deny=Match(networks=(ip_network("::/0"),))), 512),
        (Rules(outcome=Outcome.FAILED), 1024),
        (Rules(outcome=Outcome.SUCCEEDED), 2048),
        (Rules(repeats_ns=1), 4096),
        (Rules(rate=Rate(1, 1)), 8192),
        (Rules(all=True), 16384),
        (Rules(allow=Match(uids=frozenset())), 1),
    ],
)
def test_each_kind_of_rule_has_its_bit(rules: Rules, bits: int) -> None:
    """An empty list is one: nothing is on it."""
    assert kinds(rules) == bits


def test_kinds_of_rules_add_up() -> None:
    everything = Match(frozenset({1}), frozenset({b"a"}), frozenset({2}), frozenset({b"/x"}), (ip_network("10.0.0.0/8"),))
    assert kinds(Rules(everything, everything, Outcome.FAILED, 1, Rate(5, 5), True)) == 0x7FFF - 2048


@pytest.mark.parametrize(("per_second", "burst"), [(1, 1), (3, 7), (1_000_000_000, 5), (10_000_000_000, 5)])
def test_rates_are_times(per_second: int, burst: int) -> None:
    _, _, _, every, ahead = struct.unpack("<IIQQQ", rule_value(Rules(rate=Rate(per_second, burst)), True))
    assert every == max(1, 10**9 // per_second)
    assert ahead == every * (burst - 1)


def test_a_path_is_the_sum_of_its_names() -> None:
    """By the known hashes of FNV-1a (its authors' test vectors)."""
    a, foobar, place = 0xAF63DC4C8601EC8C, 0x85944171F73967E8, 0x9E3779B97F4A7C15
    assert path_key(b"/") == struct.pack("<QQ", 0, 0)
    assert path_key(b"/a") == struct.pack("<QQ", a, 1)
    assert path_key(b"/foobar") == struct.pack("<QQ", foobar, 1)
    assert path_key(b"/a/foobar/a") == struct.pack("<QQ", (a + foobar * place + a * place**2) % 2**64, 3)


@given(st.sets(st.lists(NAME, max_size=6).map(lambda names: b"/" + b"/".join(names)), min_size=2, max_size=20))
def test_paths_are_told_apart(paths: set[bytes]) -> None:
    assert len({path_key(path) for path in paths}) == len(paths)


def test_order_and_ends_of_names_count() -> None:
    alike = [b"/a/b", b"/b/a", b"/ab", b"/a", b"/a/a", b"/a/b/", b"/", b"/ab/"]
    assert len({path_key(path) for path in alike}) == 6, "a slash at the end is no name"


@pytest.mark.parametrize(
    ("network", "bits", "family", "address"),
    [
        ("0.0.0.0/0", 32, 2, "0.0.0.0"),
        ("10.0.0.0/8", 40, 2, "10.0.0.0"),
        ("192.168.7.1/32", 64, 2, "192.168.7.1"),
        ("::/0", 32, 10, "::"),
        ("2001:db8::/33", 65, 10, "2001:db8::"),
        ("::1/128", 160, 10, "::1"),
    ],
)
def test_networks(network: str, bits: int, family: int, address: str) -> None:
    packed = ip_network(address).network_address.packed
    assert network_key(ip_network(network)) == struct.pack("<II", bits, family) + packed.ljust(16, b"\0")


def pair(bits: tuple[int, int]) -> bytes:
    return struct.pack("<QQ", *bits)


def test_lists_say_for_whom() -> None:
    rules = {
        "open": Rules(allow=Match(uids=frozenset({1, 2})), deny=Match(uids=frozenset({2, 3}))),
        "connect": Rules(deny=Match(uids=frozenset({1}), comms=frozenset({b"sh"}))),
    }
    assert listed(rules, "uid") == {
        struct.pack("<I", 1): pair((OPEN, CONNECT)),
        struct.pack("<I", 2): pair((OPEN, OPEN)),
        struct.pack("<I", 3): pair((0, OPEN)),
    }
    assert listed(rules, "comm") == {b"sh".ljust(16, b"\0"): pair((0, CONNECT))}
    assert listed(rules, "cgroup") == listed(rules, "path") == listed(rules, "address") == {}


def test_a_network_has_what_is_said_of_those_around_it() -> None:
    """Because the kernel finds only the narrowest."""
    wide, narrow, host, other = map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.2.0.0/16"))
    rules = {"connect": Rules(allow=Match(networks=(wide, host)), deny=Match(networks=(narrow,))), "open": Rules(deny=Match(networks=(other,)))}
    assert listed(rules, "address") == {
        network_key(wide): pair((CONNECT, 0)),
        network_key(narrow): pair((CONNECT, CONNECT)),
        network_key(host): pair((CONNECT, CONNECT)),
        network_key(other): pair((CONNECT, OPEN)),
    }


class Recorded:
    """A map that notes what is done to it."""

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        self.name, self.log, self.values = name, log, dict[bytes, bytes]()

    def update(self, key: bytes, value: bytes) -> None:
        self.values[key] = value
        self.log.append((self.name, "update"))

    def delete(self, key: bytes) -> None:
        del self.values[key]
        self.log.append((self.name, "delete"))

    def all_keys(self) -> list[bytes]:
        return list(self.values)

    def lookup(self, key: bytes) -> bytes | None:
        return self.values.get(key)


def test_the_order_in_which_rules_change() -> None:
    """What is new comes onto the lists before the rules say that they count, and what is old leaves after."""
    log: list[tuple[str, str]] = []
    maps: dict[str, Any] = {name: Recorded(name, log) for name in (*MAPS.values(), "rules")}
    write({"open": Rules(deny=Match(uids=frozenset({1, 2})))}, frozenset({"open"}), maps)
    assert log == [("listed_uids", "update")] * 2 + [("rules", "update")] * len(PROBES)
    log.clear()
    write({"open": Rules(allow=Match(comms=frozenset({b"sh"})))}, frozenset({"connect"}), maps)
    assert log == [("listed_comms", "update"), *[("rules", "update")] * len(PROBES), *[("listed_uids", "delete")] * 2]
    assert maps["listed_uids"].values == {}
    assert set(maps["listed_comms"].values) == {b"sh".ljust(16, b"\0")}
    enabled = {PROBES[int.from_bytes(key, "little")] for key, value in maps["rules"].values.items() if value[0]}
    assert enabled == {"connect"}


def test_rules_without_some_lists() -> None:
    everything = Match(frozenset({1}), frozenset({b"a"}), frozenset({2}), frozenset({b"/x"}), (ip_network("::/0"),))
    rules = Rules(everything, everything, Outcome.FAILED, 5, Rate(1, 1), True)
    assert rules.only((*LISTS, "outcome")) == rules
    bare = rules.only(("uid",))
    assert (bare.allow, bare.deny, bare.outcome) == (Match(uids=frozenset({1})), Match(uids=frozenset({1})), Outcome.BOTH)
    assert (bare.repeats_ns, bare.rate, bare.all) == (5, Rate(1, 1), True)
    assert list(bare.allow.values("uid")) == [1]
    assert list(bare.allow.values("path")) == []
    assert [bare.allow.has(name) for name in LISTS] == [True, False, False, False, False]
