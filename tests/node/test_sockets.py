"""Columns of the kinds about sockets, from records made by hand."""

import ipaddress
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infrasight.kernel import Records
from infrasight.schema import KINDS
from tests.node.records import make
from tests.node.test_enricher import drain, enricher_of, one, rows

FOUR, SIX = ipaddress.ip_address("10.0.0.255").packed + b"\xaa" * 12, ipaddress.ip_address("2001:db8::1").packed
HEAD: dict[str, Any] = {"enter_ns": 5000, "latency_ns": 1, "ret": 0, "start_ns": 1, "uid": 0, "gid": 0, "comm": b"c"}
TCP: dict[str, Any] = {"family": 2, "socket_family": 2, "socket_type": 1, "socket_protocol": 6}
TCP |= {"daddr": FOUR, "dport": 443, "saddr": FOUR, "sport": 9}
UDP6: dict[str, Any] = {"family": 10, "socket_family": 10, "socket_type": 2, "socket_protocol": 17}
UDP6 |= {"daddr": SIX, "dport": 53, "saddr": bytes(16), "sport": 0}
UNIX: dict[str, Any] = {"family": 1, "socket_family": 1, "socket_type": 5, "socket_protocol": 0, "dport": 0, "sport": 0}
NO_PATH: dict[str, Any] = {"path": b"", "path_place": b"", "path_whole": 0, "path_place_cut": 0}
WITH_PATH: dict[str, Any] = {"path": b"s\xff\0", "path_place": b"s\xff\0run\0", "path_whole": 1, "path_place_cut": 0}
RELATIVE: dict[str, Any] = {"path": b"../s\0", "path_place": b"here\0run\0", "path_whole": 0, "path_place_cut": 0}
ABSTRACT: dict[str, Any] = {"path": b"\0s\0\x1b", "path_place": b"", "path_whole": 1, "path_place_cut": 0}
LONGEST: dict[str, Any] = {"path": b"/" + b"x" * 107, "path_place": b"x" * 50 + b"\0", "path_whole": 1, "path_place_cut": 1}
NOWHERE: dict[str, Any] = {"path": b"", "path_resolved": b""}
TCP_ROW: dict[str, Any] = {"family": b"inet", "protocol": b"tcp", "daddr": b"10.0.0.255", "dport": 443, "saddr": b"10.0.0.255", "sport": 9}
UDP6_ROW: dict[str, Any] = {"family": b"inet6", "protocol": b"udp", "daddr": b"2001:db8::1", "dport": 53, "saddr": b"::", "sport": 0}
UNIX_ROW: dict[str, Any] = {"family": b"unix", "protocol": b"seqpacket", "daddr": b"", "dport": 0, "saddr": b"", "sport": 0}
NETLINK: dict[str, Any] = UNIX | {"family": 16, "socket_family": 16, "socket_protocol": 9}
NETLINK_ROW: dict[str, Any] = UNIX_ROW | {"family": b"netlink", "protocol": b"9"}
CASES = [
    (TCP | NO_PATH, TCP_ROW | NOWHERE),
    (UDP6 | NO_PATH, UDP6_ROW | NOWHERE),
    (UNIX | WITH_PATH, UNIX_ROW | {"path": b"s\xff", "path_resolved": b"/run/s\xff"}),
    (UNIX | RELATIVE, UNIX_ROW | {"path": b"../s", "path_resolved": b"/run/s"}),
    (UNIX | ABSTRACT, UNIX_ROW | {"path": b"@s\0\x1b", "path_resolved": b""}),
    (NETLINK | NO_PATH, NETLINK_ROW | NOWHERE),
    (UNIX | LONGEST, UNIX_ROW | {"path": b"/" + b"x" * 107, "path_resolved": b".../" + b"x" * 50}),
]
OWN: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "connect": [({}, {"name": b"", "name_source": b""})] * 7,
    "accept": [
        ({"peer": peer, "flags": number}, {"peer_path": path, "flags": number})
        for number, (peer, path) in enumerate([(b"", b""), (b"p\0", b"p"), (b"\0a\0b", b"@a\0b"), (b"x" * 108, b"x" * 108), *[(b"", b"")] * 3])
    ],
    "bind": [({}, {})] * 7,
    "listen": [({"backlog": number}, {"backlog": number}) for number in (-1, 0, 1, 2, 3, 4, 2**31 - 1)],
    "dup": [({}, {})] * 7,
}
CALLED: dict[tuple[str, str], str] = {("bind", "daddr"): "addr", ("bind", "dport"): "port", ("dup", "fd"): "old_fd"}


@pytest.mark.parametrize("kind", list(OWN))
def test_every_column(kind: str, tmp_path: Path) -> None:
    given = [raw | more | {"fd": number} for number, ((raw, _), (more, _)) in enumerate(zip(CASES, OWN[kind], strict=True))]
    wanted = [row | more | {"fd": number} for number, ((_, row), (_, more)) in enumerate(zip(CASES, OWN[kind], strict=True))]
    members = {name: [each[name] for each in given] for name in given[0] if name not in ("daddr", "saddr")}
    for address in ("daddr", "saddr"):
        members[address] = [each.get(address, b"\xaa" * 16) for each in given]
    if kind == "accept":
        members["peer_used"] = [len(each["peer"]) for each in given]
    names = {column.name for column in KINDS[kind].columns}
    found = rows(one(enricher_of(tmp_path), drain((kind, make(kind, len(given), **HEAD, **members)))))
    for row, expected in zip(found, wanted, strict=True):
        told = {CALLED.get((kind, name), name): value for name, value in expected.items()}
        told = {name: value for name, value in told.items() if name in names}
        assert {name: row[name] for name in told} == told
    checked = {CALLED.get((kind, name), name) for name in wanted[0]}
    assert names - checked == {column.name for column in KINDS["ptrace"].columns} - {"request", "target_pid", "addr", "data"}, "no column is left out"


@pytest.mark.parametrize(
    ("domain", "kind", "protocol", "shown"),
    [
        (2, 1, 0, (b"inet", b"stream", b"tcp")),
        (10, 2, 0, (b"inet6", b"dgram", b"udp")),
        (2, 3, 1, (b"inet", b"raw", b"icmp")),
        (10, 3, 58, (b"inet6", b"raw", b"icmp6")),
        (2, 1, 262, (b"inet", b"stream", b"mptcp")),
        (2, 3, 0, (b"inet", b"raw", b"0")),
        (17, 3, 0x0300, (b"packet", b"raw", b"all")),
        (17, 2, 0x0608, (b"packet", b"dgram", b"arp")),
        (17, 2, 0x3412, (b"packet", b"dgram", b"4660")),
        (38, 5, 0, (b"alg", b"seqpacket", b"0")),
        (16, 3, 9, (b"netlink", b"raw", b"9")),
        (2**32 - 1, 15, 2**32 - 1, (b"4294967295", b"15", b"4294967295")),
    ],
)
def test_sockets(domain: int, kind: int, protocol: int, shown: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    records = make("socket", 2, **HEAD, domain=domain, type=kind, protocol=protocol, flags=0o2000000)
    for row in rows(one(enricher_of(tmp_path), drain(("socket", records)))):
        assert (row["domain"], row["type"], row["protocol"], row["flags"]) == (*shown, 0o2000000)


def test_an_ipv4_address_in_an_ipv6_one_is_read_as_such(tmp_path: Path) -> None:
    """So that a search for it finds it."""
    mapped = bytes(10) + b"\xff\xff" + bytes([169, 254, 169, 254])
    records = make("connect", 1, **HEAD, **UDP6 | NO_PATH | {"daddr": mapped, "saddr": bytes(16)}, fd=1)
    assert rows(one(enricher_of(tmp_path), drain(("connect", records))))[0]["daddr"] == b"::ffff:169.254.169.254"


@pytest.mark.parametrize("name", [*OWN, *(f"{name}_long" for name in OWN), "socket"])
def test_rubbish_does_no_harm(name: str, tmp_path: Path) -> None:
    assert len(rows(one(enricher_of(tmp_path), drain((name, make(name, 500)))))) == 500


def dns_message(number: int, flags: int, *more: bytes) -> bytes:
    return struct.pack(">6H", number, flags, 1, len(more), 0, 0) + b"\3Www\3org\0\0\1\0\1" + b"".join(more)


def a_record(address: str) -> bytes:
    return b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + ipaddress.ip_address(address).packed


def dns_records(**changed: Any) -> Records:
    answer = dns_message(7, 0x8180, a_record("10.0.0.255"), a_record("10.0.0.1"))
    messages = [dns_message(7, 0x100), answer, dns_message(8, 0x8183), b"", b"\xff" * 512]
    fields = HEAD | TCP | {"socket_type": 2, "socket_protocol": 17, "dport": 53, "fd": 4} | {"action": [1, 2, 2, 2, 1]} | changed
    return make("dns", 5, **fields, bytes=[len(each) for each in messages], message=messages)


def test_dns(tmp_path: Path) -> None:
    found = rows(one(enricher_of(tmp_path), drain(("dns", dns_records()))))
    told = [[row[name] for name in ("action", "name", "qtype", "id", "rcode", "addresses", "bytes")] for row in found]
    assert told == [
        [b"query", b"www.org", b"A", 7, b"", [], 25],
        [b"answer", b"www.org", b"A", 7, b"NOERROR", [b"10.0.0.255", b"10.0.0.1"], 57],
        [b"answer", b"www.org", b"A", 8, b"NXDOMAIN", [], 25],
        [b"answer", b"", b"", 0, b"", [], 0],
        [b"query", b"", b"", 65535, b"15", [], 512],
    ]
    assert {(row["daddr"], row["dport"], row["saddr"], row["sport"], row["fd"]) for row in found} == {(b"10.0.0.255", 53, b"10.0.0.255", 9, 4)}


def test_rubbish_from_a_name_server_does_no_harm(tmp_path: Path) -> None:
    assert len(rows(one(enricher_of(tmp_path), drain(("dns", make("dns", 500)))))) == 500


def test_a_connect_has_the_name_that_led_to_it(tmp_path: Path) -> None:
    """Both in one drain, the connects first, as the rings may have it; of a moment before the answer, and of another address, none."""
    enricher = enricher_of(tmp_path)
    head = {**HEAD, "enter_ns": [4000, 5001, 6000, 7000, 8000], "pid": [9, 9, 9, 10, 9]}
    fields = {name: [TCP[name]] * 5 for name in TCP} | {name: [NO_PATH[name]] * 5 for name in NO_PATH}
    fields["daddr"] = [FOUR, FOUR, ipaddress.ip_address("10.0.0.2").packed + bytes(12), FOUR, FOUR]
    fields["family"] = [2, 2, 2, 2, 1]
    connects = make("connect", 5, **(head | fields), fd=3)
    told = {batch.kind: rows(batch) for batch in enricher.batches(drain(("connect", connects), ("dns", dns_records(pid=9))))}
    # The process connected before and after within one drain: the two are not told apart, and the earlier one has no name.
    assert [row["name"] for row in told["connect"]] == [b"", b"", b"", b"www.org", b""]
    later = rows(one(enricher, drain(("connect", connects[np.array([False, True, False, True, True])]))))
    assert [row["name"] for row in later] == [b"www.org", b"www.org", b""]
