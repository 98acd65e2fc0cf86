"""The node's configuration file, in TOML: which probes run, and what of what they see is told. docs/FILTERS.md and docs/REDACTION.md say what can
be in it.

    [allow] [deny] [repeats] [rate]     for all probes, each key where it makes sense
    [probe.open]                        the same tables for one probe; one that is given replaces the general one
    [redaction]                         what is masked

Whatever is wrong with it is a SettingsError of one line: file, table and key, reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from infrasight.errors import SettingsError
from infrasight.kernel.rules import Match, Network, Outcome, Rate, Rules
from infrasight.node.policy import toml, values
from infrasight.node.policy.policy import KEYS, LISTS, Policy, check_room, in_order, keys_of
from infrasight.node.policy.toml import Table
from infrasight.node.redaction import redactor
from infrasight.node.redaction.redactor import Redaction
from infrasight.schema import KINDS, PROBES, Kind
from infrasight.schema.kinds import ALWAYS

PASSWD = Path("/etc/passwd")
MOUNTS = Path("/proc/self/mounts")
RATE_MOST = 10_000_000
"""Events per second, and of a burst."""

_TABLES = ("allow", "deny", "repeats", "rate")
_OUTCOMES = (Outcome.FAILED.value, Outcome.SUCCEEDED.value)


def policy_for(config: Path | None, probes: Collection[str] = ()) -> Policy:
    """The policy that the settings ask for: of the file if one is given; `probes` given by a flag win over those of the file."""
    return load(config).narrowed(probes) if config else Policy.default(probes)


def load(path: Path, *, passwd: Path = PASSWD, mounts: Path = MOUNTS) -> Policy:
    """The policy that is in a file; every name in it is resolved now. SettingsError when anything is wrong with it."""
    try:
        policy = _policy(toml.read(path), values.Host(passwd, mounts))
        check_room(policy.rules.values())
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return policy


def _policy(document: Table, host: values.Host) -> Policy:
    document.check_keys(("probes", "probe", "redaction", *_TABLES))
    probes = document.items("probes", _probe)
    general = _rules(document, KEYS, Rules(), host)
    rules = {name: _general(general, KINDS[name]) for name in PROBES}
    each = document.table("probe")
    each.check_keys(PROBES, "probe")
    for name in each.content:
        if name == ALWAYS:
            raise SettingsError(f"{each.at(name)}: process life is always traced, whole")
        if KINDS[name].account:
            raise SettingsError(f"{each.at(name)}: it is a sum of all that a process does, of which nothing can be left out")
        own = each.table(name)
        own.check_keys((*_TABLES, "all"))
        rules[name] = replace(_rules(own, keys_of(name), rules[name], host), all=_all(own, KINDS[name]))
    return Policy(in_order(probes or ()), MappingProxyType(rules), _redaction(document.table("redaction")))


def _redaction(table: Table) -> Redaction:
    table.check_keys(("enabled", "patterns", "keep"))
    enabled = table.value("enabled", values.truth) if "enabled" in table else True
    patterns = table.strings("patterns", lambda item: _expression(item, redactor.check))
    keep = table.strings("keep", lambda item: _expression(item, redactor.check_kept))
    if not enabled and (patterns or keep):
        raise SettingsError(f"{table.at('enabled')}: false leaves nothing to the patterns that are given beside it")
    return Redaction(enabled, patterns, keep)


def _expression(value: object, check: Callable[[str], str]) -> str:
    pattern = values.text(value, "a regular expression")
    try:
        return check(pattern)
    except ValueError as error:
        raise ValueError(f"{values.shown(pattern)}: {error}") from None


def _probe(value: object) -> list[str]:
    name = values.text(value, "a probe's name")
    if name not in PROBES:
        wrong = toml.unknown(name, PROBES, "probe")
        raise ValueError(f"{values.shown(name)}: {wrong}")
    return [name]


def _general(rules: Rules, kind: Kind) -> Rules:
    """What of the general rules applies to a kind."""
    return Rules() if kind.name == ALWAYS or kind.account else rules.only(keys_of(kind.name))


def _all(table: Table, kind: Kind) -> bool:
    """Whether everything is wanted that the probe sees."""
    if "all" not in table:
        return False
    if not kind.selective:
        raise SettingsError(f"{table.at('all')}: everything that this probe sees is told anyway")
    return table.value("all", values.truth)


def _rules(tables: Table, keys: Collection[str], base: Rules, host: values.Host) -> Rules:
    """`base` with each of the tables that is given in place of its own."""
    rules = base
    if "allow" in tables:
        allow = tables.table("allow")
        rules = replace(rules, allow=_match(allow, keys, host), outcome=_outcome(allow))
    if "deny" in tables:
        deny = tables.table("deny")
        if "outcome" in deny:
            raise SettingsError(f"{deny.at('outcome')}: belongs in an allow table")
        rules = replace(rules, deny=_match(deny, [key for key in keys if key in LISTS], host))
    if "repeats" in tables:
        rules = replace(rules, repeats_ns=_repeats(tables.table("repeats")))
    if "rate" in tables:
        rules = replace(rules, rate=_rate(tables.table("rate")))
    return rules


def _match(table: Table, keys: Collection[str], host: values.Host) -> Match:
    for key in KEYS:
        if key in table and key not in keys:
            raise SettingsError(f"{table.at(key)}: nothing that this probe sees has one")
    table.check_keys(keys)
    networks = table.items("address", lambda item: [values.network(item)])
    return Match(
        uids=table.items("uid", host.uids),
        comms=table.items("comm", lambda item: [values.comm(item)]),
        cgroups=table.items("cgroup", lambda item: [host.cgroup(item)]),
        paths=table.items("path", lambda item: [values.path(item)]),
        networks=None if networks is None else tuple(sorted(networks, key=_sorting)),
    )


def _sorting(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def _outcome(table: Table) -> Outcome:
    def read(value: object) -> Outcome:
        if value not in _OUTCOMES:
            raise ValueError(f"{' or '.join(map(repr, _OUTCOMES))} is wanted, not {values.shown(value)}")
        return Outcome(value)

    return table.value("outcome", read) if "outcome" in table else Outcome.BOTH


def _repeats(table: Table) -> int:
    table.check_keys(("window",))
    return table.value("window", values.window) if "window" in table else 0


def _rate(table: Table) -> Rate | None:
    table.check_keys(("per_second", "burst"))
    if "per_second" not in table:
        if "burst" in table:
            raise SettingsError(f"{table.at('burst')}: makes no sense without per_second")
        return None
    per_second = table.value("per_second", _events)
    return Rate(per_second, table.value("burst", _events) if "burst" in table else per_second)


def _events(value: object) -> int:
    return values.whole(value, 1, RATE_MOST)
