"""Columns about sockets, for all kinds that have them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infrasight.kernel import Records
from infrasight.node.columns import Distinct, constant, encode_bytes, encode_pairs, named, numbers, pack, renamed, strings, words
from infrasight.node.names.answers import Answers
from infrasight.node.names.dns import RCODES, Message, address_text, decode
from infrasight.node.names.dns import TYPES as TYPES_ASKED
from infrasight.node.names.reverse import ReverseNames
from infrasight.node.paths import CUT, WHOLE, resolved
from infrasight.schema.events.sockets import TYPES

Make = Callable[[Records], pa.Array]
PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmp6", 132: "sctp", 136: "udplite", 255: "raw", 262: "mptcp"}
"""IPPROTO_*, include/uapi/linux/in.h."""
_UNIX, _INET, _INET6 = 1, 2, 10
_ADDRESS_BYTES = 16
_PACKET = 17
_USUAL = {1: 6, 2: 17}
"""The protocol of a type of socket, unless another is asked for."""
ETHERNET = {0: "0", 1: "802.3", 3: "all", 0x0800: "ip", 0x0806: "arp", 0x8100: "802.1q", 0x86DD: "ipv6", 0x888E: "pae", 0x88CC: "lldp"}
"""ETH_P_*, include/uapi/linux/if_ether.h."""


def _address(cell: bytes) -> bytes:
    family = int.from_bytes(cell[:2], "little")
    if family not in (_INET, _INET6):
        return b""
    return address_text(cell[2:6] if family == _INET else cell[2:18])


def address_cells(records: Records, family: str, address: str) -> np.ndarray:
    """Family and address of each row, (n, 18)."""
    return np.hstack([np.ascontiguousarray(records[family]).view(np.uint8).reshape(-1, 2), records[address]])


def addresses(records: Records, family: str, address: str) -> pa.DictionaryArray:
    """Internet addresses as text; others are empty."""
    cells = address_cells(records, family, address)
    encoded = pa.Array.from_buffers(pa.binary(2 + _ADDRESS_BYTES), len(cells), [None, pa.py_buffer(cells)]).dictionary_encode()
    return renamed(encoded, _address)


def protocols(records: Records) -> pa.DictionaryArray:
    """Protocol number and socket type as one number; for unix sockets there is only the type."""
    key = records["socket_protocol"].astype(np.uint32) | records["socket_type"].astype(np.uint32) << 16
    key |= (records["socket_family"] == _UNIX).astype(np.uint32) << 31

    def name(value: int) -> bytes:
        protocol, kind, unix = value & 0xFFFF, value >> 16 & 0x7FFF, value >> 31
        known = TYPES.get(kind, str(kind)) if unix else PROTOCOLS.get(protocol, str(protocol))
        return known.encode() if kind else b""

    return named(key, name)


def unix_path(path: bytes) -> bytes:
    """A path ends at its NUL; an abstract address begins with one, and is shown with an @ there, as ss and netstat do."""
    return b"@" + path[1:] if path[:1] == b"\0" else path.split(b"\0", 1)[0]


def _unix_resolved(path: bytes, names: bytes, flags: int) -> bytes:
    """Of an abstract address, or one of another family, nothing."""
    return b"" if path[:1] == b"\0" else resolved(path.split(b"\0", 1)[0], names, flags)


def _path(records: Records) -> pa.DictionaryArray:
    return renamed(encode_bytes(records, "path"), unix_path)


def _path_resolved(records: Records) -> pa.DictionaryArray:
    flags = records["path_whole"] & WHOLE | (records["path_place_cut"] != 0) * np.uint32(CUT)
    pairs = encode_pairs(Records(records.columns | {"flags": flags}, len(records)), "path", "path_place", "flags")
    return pairs.name([_unix_resolved(*pair) for pair in pairs.values])


def _peer_path(records: Records) -> pa.DictionaryArray:
    cells = records["peer"]
    return renamed(pack(cells, np.minimum(records["peer_used"], cells.shape[1])).dictionary_encode(), unix_path)


def _peer(records: Records) -> pa.DictionaryArray:
    return addresses(records, "family", "daddr")


def _local(records: Records) -> pa.DictionaryArray:
    return addresses(records, "socket_family", "saddr")


def _socket_protocol(key: int) -> bytes:
    """Domain, type and protocol (the low 32 bits) as one number."""
    domain, kind, protocol = key >> 48, key >> 32 & 0xFFFF, key & 0xFFFFFFFF
    if domain in (_INET, _INET6):
        protocol = protocol or _USUAL.get(kind, 0)
        return PROTOCOLS.get(protocol, str(protocol)).encode()
    if domain == _PACKET:  # in network byte order
        number = (protocol & 0xFF) << 8 | protocol >> 8 & 0xFF
        return ETHERNET.get(number, str(number)).encode()
    return str(protocol).encode()


def _socket_protocols(records: Records) -> pa.DictionaryArray:
    parts = (records["domain"] & 0xFFFF, 48), (records["type"] & 0xFFFF, 32), (records["protocol"], 0)
    key = np.bitwise_or.reduce([values.astype(np.uint64) << np.uint64(places) for values, places in parts])
    return named(key, _socket_protocol)


def _old_fd(records: Records) -> pa.Array:
    return numbers(records["fd"], pa.int32())


def _port(records: Records) -> pa.Array:
    return numbers(records["dport"], pa.uint16())


def dns_messages(records: Records) -> list[Message]:
    """What each record's message says."""
    lengths = records["message_len"].tolist()
    return [decode(cells[:length].tobytes()) for cells, length in zip(records["message"], lengths, strict=True)]


def dns_columns(messages: list[Message]) -> dict[str, pa.Array]:
    """The columns that come from messages."""
    return {
        "name": strings([each.name for each in messages]).dictionary_encode(),
        "qtype": strings([TYPES_ASKED.get(each.qtype, str(each.qtype)).encode() if each.name else b"" for each in messages]).dictionary_encode(),
        "id": numbers(np.array([each.id for each in messages], np.uint16), pa.uint16()),
        "rcode": strings([RCODES.get(each.rcode, str(each.rcode)).encode() if each.answer else b"" for each in messages]).dictionary_encode(),
        "addresses": words([[address_text(address) for address in each.addresses] for each in messages]),
    }


def connect_names(records: Records, ids: npt.NDArray[np.uint64], answers: Answers, reverse: ReverseNames | None) -> dict[str, pa.DictionaryArray]:
    """The name that led to each connect, or else the one that the address has, looked up once for each process and address."""
    if not len(answers) and reverse is None:
        return dict.fromkeys(("name", "name_source"), constant(b"", len(records)))
    cells = np.hstack([np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 8), address_cells(records, "family", "daddr")])
    width = cells.shape[1]
    encoded = pa.Array.from_buffers(pa.binary(width), len(cells), [None, pa.py_buffer(cells)]).dictionary_encode()
    distinct = Distinct(Distinct.of(encoded).codes, range(len(encoded.dictionary)))
    rows = distinct.first().tolist()
    times = records["enter_ns"]
    found = [_connect_name(cells[row].tobytes(), int(times[row]), answers, reverse) for row in rows]
    return {"name": distinct.name([name for name, _ in found]), "name_source": distinct.name([source for _, source in found])}


def _connect_name(cell: bytes, when_ns: int, answers: Answers, reverse: ReverseNames | None) -> tuple[bytes, bytes]:
    """A name and where it is from."""
    process_id, family = int.from_bytes(cell[:8], "little"), int.from_bytes(cell[8:10], "little")
    if family not in (_INET, _INET6):
        return b"", b""
    address = cell[10 : 14 if family == _INET else 26]
    if name := answers.name(process_id, address, when_ns):
        return name, b"dns"
    name = reverse.name(address) if reverse else b""
    return name, b"reverse" if name else b""


_BOTH: dict[str, Make] = {"protocol": protocols, "daddr": _peer, "saddr": _local}
_UNIX_TOO: dict[str, Make] = _BOTH | {"path": _path, "path_resolved": _path_resolved}
_OF_KIND: dict[str, dict[str, Make]] = {
    "connect": _UNIX_TOO,
    "accept": _UNIX_TOO | {"peer_path": _peer_path},
    "bind": _UNIX_TOO | {"addr": _peer, "port": _port},
    "listen": _UNIX_TOO,
    "dup": _UNIX_TOO | {"old_fd": _old_fd},
    "dns": _BOTH,
    "socket": {"protocol": _socket_protocols},
}
MAKERS: dict[tuple[str, str], Make] = {(kind, column): make for kind, makers in _OF_KIND.items() for column, make in makers.items()}
"""How a column of a kind about sockets is made, where it is more than a field of the same name."""
