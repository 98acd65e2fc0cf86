"""Messages to and from name servers (RFC 1035), which may hold anything at all: pure functions."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    13: "HINFO",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    29: "LOC",
    33: "SRV",
    35: "NAPTR",
    39: "DNAME",
    41: "OPT",
    43: "DS",
    44: "SSHFP",
    46: "RRSIG",
    47: "NSEC",
    48: "DNSKEY",
    50: "NSEC3",
    52: "TLSA",
    61: "OPENPGPKEY",
    64: "SVCB",
    65: "HTTPS",
    99: "SPF",
    250: "TSIG",
    251: "IXFR",
    252: "AXFR",
    255: "ANY",
    256: "URI",
    257: "CAA",
}
"""Types of records and questions (iana.org/assignments/dns-parameters)."""
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    6: "YXDOMAIN",
    7: "YXRRSET",
    8: "NXRRSET",
    9: "NOTAUTH",
    10: "NOTZONE",
}
_A, _CNAME, _AAAA, _INTERNET = 1, 5, 28, 1
_ADDRESS_BYTES = {_A: 4, _AAAA: 16}
_HEADER_BYTES, _LABEL_MAX, _NAME_MAX, _POINTER = 12, 63, 255, 0xC0
_SPECIAL = re.compile(rb"[^!-~]|[.\\]")


@dataclass(frozen=True)
class Message:
    """What a message says. `addresses` (packed) are those that it gives `name`; `ttl` is the shortest time that one of them holds, in seconds."""

    id: int = 0
    answer: bool = False
    rcode: int = 0
    name: bytes = b""
    qtype: int = 0
    addresses: tuple[bytes, ...] = ()
    ttl: int = 0


class _Damaged(Exception):
    """It ends too early, or a name in it makes no sense."""


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise _Damaged
    return int.from_bytes(data[at : at + size], "big")


def _label(label: bytes) -> bytes:
    """As in zone files: unmistakable, and safe to show."""
    return _SPECIAL.sub(lambda match: b"\\" + match[0] if match[0] in (b".", b"\\") else b"\\%03d" % match[0][0], label.lower())


def _name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name, and where what follows it begins. Pointers lead backwards only, so that there is an end to them."""
    labels: list[bytes] = []
    end, lowest, length = 0, at, 1
    while size := _number(data, at, 1):
        if size >= _POINTER:
            target = _number(data, at, 2) & 0x3FFF
            end = end or at + 2
            if target >= lowest:
                raise _Damaged
            at = lowest = target
            continue
        length += 1 + size
        if size > _LABEL_MAX or length > _NAME_MAX or at + 1 + size > len(data):
            raise _Damaged
        labels.append(_label(data[at + 1 : at + 1 + size]))
        at += 1 + size
    return b".".join(labels) or b".", end or at + 1


def _addresses(data: bytes, at: int, count: int, name: bytes) -> tuple[tuple[bytes, ...], int]:
    """The addresses in `count` records from `at` on that are of `name` or of an alias of it, and the shortest time that they hold. What comes after
    damage, or is cut off, is not there."""
    names, found, ttl = {name}, [], 2**32 - 1
    try:
        for _ in range(count):
            owner, at = _name(data, at)
            kind, domain, holds, size = (_number(data, at + place, width) for place, width in ((0, 2), (2, 2), (4, 4), (8, 2)))
            at += 10
            if owner in names and domain == _INTERNET and kind == _CNAME:
                names.add(_name(data, at)[0])
            if owner in names and domain == _INTERNET and _ADDRESS_BYTES.get(kind) == size and at + size <= len(data):
                found.append(data[at : at + size])
                ttl = min(ttl, holds)
            at += size
    except _Damaged:
        pass
    return tuple(found), ttl if found else 0


def decode(data: bytes) -> Message:
    """What there is to be made out of a message, whatever it is; of rubbish, nothing."""
    if len(data) < _HEADER_BYTES:
        return Message()
    number, flags, _, answers = (_number(data, place, 2) for place in (0, 2, 4, 6))
    answer, rcode = bool(flags >> 15), flags & 0xF
    try:
        name, at = _name(data, _HEADER_BYTES)
        qtype = _number(data, at, 2)
        _number(data, at + 2, 2)
    except _Damaged:
        return Message(number, answer, rcode)
    addresses, ttl = _addresses(data, at + 4, answers, name) if answer else ((), 0)
    return Message(number, answer, rcode, name, qtype, addresses, ttl)


def address_text(packed: bytes) -> bytes:
    """4 or 16 bytes as people write them, an IPv4 address as such also where it is written as an IPv6 one: `::ffff:10.0.0.1`."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed).encode()
