"""What is told: which probes run, what of what they see the kernel passes on, and what the node masks in it. `file` reads it from one.

Everything is resolved here: names are numbers, cgroups are ids, ranges are sets. Process life is outside of all this: it is always traced, whole,
because who did something is known from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from infrasight.errors import SettingsError
from infrasight.kernel.rules import LISTS as RULE_LISTS
from infrasight.kernel.rules import Rules
from infrasight.node.redaction.redactor import Redaction
from infrasight.schema import KINDS, PROBES, Kind, Type
from infrasight.schema.kinds import ALWAYS

MOST = {"uid": 1024, "comm": 1024, "cgroup": 1024, "path": 256, "address": 1024}
"""How many different values of a key there can be in all tables of all probes together: what the kernel's maps are made for."""

_COLUMNS: dict[str, frozenset[str]] = {
    "uid": frozenset({"uid"}),
    "comm": frozenset({"comm"}),
    "cgroup": frozenset({"cgroup_id"}),
    "path": frozenset({"path", "old_path", "new_path", "target"}),
    "address": frozenset({"daddr", "saddr"}),
    "outcome": frozenset({"ret"}),
}
"""A key makes sense for a kind that has one of these columns."""

LISTS: tuple[str, ...] = tuple(RULE_LISTS)
KEYS: tuple[str, ...] = tuple(_COLUMNS)


@dataclass(frozen=True)
class Policy:
    """The probes to run, `process` among them, in the order of `PROBES`, the rules of every probe there is, run or not, and what is masked."""

    probes: tuple[str, ...]
    rules: Mapping[str, Rules]
    redaction: Redaction = field(default_factory=Redaction)

    @classmethod
    def default(cls, probes: Collection[str] = ()) -> Policy:
        """Everything that `probes` see (all of them, when empty)."""
        return cls(in_order(probes), MappingProxyType({name: Rules() for name in PROBES}))

    def narrowed(self, probes: Collection[str]) -> Policy:
        """With other probes; as it is, when none are given."""
        return replace(self, probes=in_order(probes)) if probes else self


def in_order(probes: Collection[str]) -> tuple[str, ...]:
    """The probes named and `process`, each once; all when none is named."""
    return tuple(name for name in PROBES if not probes or name in probes or name == ALWAYS)


def keys_for(kind: Kind) -> tuple[str, ...]:
    """The keys that make sense for a kind: those that it has a column for. A path is a TEXT. Accounts are sums, and are not filtered."""
    if kind.name == ALWAYS or kind.account:
        return ()
    paths = _COLUMNS["path"]
    names = {column.name for column in kind.columns if column.name not in paths or column.type is Type.TEXT}
    return tuple(key for key, columns in _COLUMNS.items() if columns & names)


def keys_of(probe: str) -> tuple[str, ...]:
    """The same by a probe's name."""
    return keys_for(KINDS[probe])


def check_room(rules: Iterable[Rules]) -> None:
    """SettingsError when there are more values than the kernel's maps hold."""
    tables = [match for each in rules for match in (each.allow, each.deny)]
    for key, most in MOST.items():
        count = len({value for match in tables for value in match.values(key)})
        if count > most:
            raise SettingsError(f"{key}: {count} different values in all tables together, and there is room for {most}")
