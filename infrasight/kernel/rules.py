"""What the kernel passes on of each probe, and how it is written into the maps that bpf/include/filter.h reads."""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network

from infrasight.errors import KernelError
from infrasight.kernel.bpf import Map
from infrasight.schema.kinds import PROBES

Network = IPv4Network | IPv6Network
LISTS = {"uid": "uids", "comm": "comms", "cgroup": "cgroups", "path": "paths", "address": "networks"}
"""Names of the lists, and the field of `Match` that each is."""
_MASK = (1 << 64) - 1
_FNV_START, _FNV, _PLACE = 0xCBF29CE484222325, 0x100000001B3, 0x9E3779B97F4A7C15
"""As in bpf/include/filter.h: HASH_START, HASH_BYTE (FNV-1a), HASH_PLACE."""
_ONLY_FAILED, _ONLY_SUCCEEDED, _REPEATS, _RATE, _ALL = 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14
_RULE, _LISTED = struct.Struct("<IIQQQ"), struct.Struct("<QQ")
"""struct rule and struct listed."""


class Outcome(enum.Enum):
    """Which calls are told, by how they ended."""

    BOTH = "both"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True)
class Rate:
    """A token bucket for each probe and cgroup: `per_second` events on average, `burst` at once."""

    per_second: int
    burst: int


@dataclass(frozen=True)
class Match:
    """Lists to look an event up in. None: no such list. Paths are absolute and normalized, without a slash at the end (but for `/` itself)."""

    uids: frozenset[int] | None = None
    comms: frozenset[bytes] | None = None
    cgroups: frozenset[int] | None = None
    paths: frozenset[bytes] | None = None
    networks: tuple[Network, ...] | None = None

    def has(self, name: str) -> bool:
        """Whether there is a list of that name."""
        return getattr(self, LISTS[name]) is not None

    def values(self, name: str) -> Iterable[object]:
        """What is on a list; nothing when there is none."""
        return getattr(self, LISTS[name]) or ()

    def only(self, names: Collection[str]) -> Match:
        """Without the other lists."""
        return replace(self, **{field: None for name, field in LISTS.items() if name not in names})


@dataclass(frozen=True)
class Rules:
    """What is told of one probe.

    `repeats_ns`: how long a repetition only counts, 0 for not at all. `all`: also what a probe leaves out by itself (`Kind.selective`).
    """

    allow: Match = field(default_factory=Match)
    deny: Match = field(default_factory=Match)
    outcome: Outcome = Outcome.BOTH
    repeats_ns: int = 0
    rate: Rate | None = None
    all: bool = False

    def only(self, keys: Collection[str]) -> Rules:
        """Without the lists, and the outcome, that are not named."""
        outcome = self.outcome if "outcome" in keys else Outcome.BOTH
        return replace(self, allow=self.allow.only(keys), deny=self.deny.only(keys), outcome=outcome)


def path_key(path: bytes) -> bytes:
    """struct prefix of a normalized path."""
    names = [name for name in path.split(b"/") if name]
    total, power = 0, 1
    for name in names:
        hashed = _FNV_START
        for byte in name:
            hashed = (hashed ^ byte) * _FNV & _MASK
        total, power = (total + hashed * power) & _MASK, power * _PLACE & _MASK
    return struct.pack("<QQ", total, len(names))


def network_key(network: Network) -> bytes:
    """struct network: the family, then the address, of which so many bits are meant."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return struct.pack("<II16s", 32 + network.prefixlen, family, network.network_address.packed)


_KEYS: dict[str, Callable[[object], bytes]] = {
    "uid": lambda value: struct.pack("<I", value),
    "comm": lambda value: bytes(value).ljust(16, b"\0"),  # type: ignore[call-overload]
    "cgroup": lambda value: struct.pack("<Q", value),
    "path": path_key,  # type: ignore[dict-item]
    "address": network_key,  # type: ignore[dict-item]
}
"""How a value of a list is written as a key of its map."""
MAPS = {"uid": "listed_uids", "comm": "listed_comms", "cgroup": "listed_cgroups", "path": "listed_paths", "address": "listed_networks"}
"""Names of the lists, and of their maps."""


def rule_value(rules: Rules, enabled: bool) -> bytes:
    """struct rule."""
    kinds = 0
    for place, name in enumerate(LISTS):
        kinds |= rules.allow.has(name) << 2 * place | rules.deny.has(name) << 2 * place + 1
    kinds |= {Outcome.BOTH: 0, Outcome.FAILED: _ONLY_FAILED, Outcome.SUCCEEDED: _ONLY_SUCCEEDED}[rules.outcome]
    kinds |= (_REPEATS if rules.repeats_ns else 0) | (_RATE if rules.rate else 0) | (_ALL if rules.all else 0)
    every_ns = max(1, 1_000_000_000 // rules.rate.per_second) if rules.rate else 0
    burst_ns = every_ns * (rules.rate.burst - 1) if rules.rate else 0
    return _RULE.pack(enabled, kinds, rules.repeats_ns, every_ns, burst_ns)


def listed(rules: Mapping[str, Rules], name: str) -> dict[bytes, bytes]:
    """What the map of one list is to hold: a key for each value, and for which probes it is allowed or denied.

    A look-up among networks finds the narrowest only, so each has what is said of those around it too.
    """
    found: dict[object, tuple[int, int]] = {}
    for probe, each in rules.items():
        bit = 1 << PROBES.index(probe)
        for match, (allow, deny) in ((each.allow, (bit, 0)), (each.deny, (0, bit))):
            for value in match.values(name):
                before = found.get(value, (0, 0))
                found[value] = before[0] | allow, before[1] | deny
    return {_KEYS[name](value): _LISTED.pack(*(_with_those_around(value, found) if name == "address" else bits)) for value, bits in found.items()}


def _with_those_around(network: object, found: Mapping[object, tuple[int, int]]) -> tuple[int, int]:
    allow = deny = 0
    for other, bits in found.items():
        if network.version == other.version and network.subnet_of(other):  # type: ignore[attr-defined]
            allow, deny = allow | bits[0], deny | bits[1]
    return allow, deny


def write(rules: Mapping[str, Rules], enabled: frozenset[str], maps: Mapping[str, Map]) -> None:
    """Have the kernel follow these rules: first what is new on the lists, then the rules, then what is gone from the lists.

    `maps` are those of `MAPS` and `rules`. KernelError when there is no room; then all is as it was.
    """
    wanted = {MAPS[name]: listed(rules, name) for name in MAPS}
    before = {name: {key: value for key in maps[name].all_keys() if (value := maps[name].lookup(key))} for name in wanted}
    try:
        for name, entries in wanted.items():
            _put(maps[name], entries)
    except KernelError:
        for name, entries in before.items():
            _leave_only(maps[name], entries)
            _put(maps[name], entries)
        raise
    for number, probe in enumerate(PROBES):
        maps["rules"].update(number.to_bytes(4, "little"), rule_value(rules.get(probe, Rules()), probe in enabled))
    for name, entries in wanted.items():
        _leave_only(maps[name], entries)


def _put(target: Map, entries: Mapping[bytes, bytes]) -> None:
    for key, value in entries.items():
        target.update(key, value)


def _leave_only(target: Map, entries: Mapping[bytes, bytes]) -> None:
    for key in target.all_keys():
        if key not in entries:
            target.delete(key)
