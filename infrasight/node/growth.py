"""Accounts of processes: what has come to be since each was last looked at. No I/O."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from infrasight.kernel import Records
from infrasight.node.identity import Identity
from infrasight.schema import Kind

Seen = tuple[int, int, bytes]
"""In which sweep, and when (monotonic, ns), a process was last looked at, and of its counters those that are not zero, packed: there can be tens of
thousands."""
_COUNTER = np.dtype([("place", "<u2"), ("count", "<u8")])
_MIX = 0x9E3779B97F4A7C15
"""An odd constant (splitmix64)."""


def counters(kind: Kind) -> tuple[str, ...]:
    """The members that grow, of the account of a kind."""
    return tuple(field.name for field in kind.fields if field.name != "interval")


class Grown:
    """Accounts that have grown: by how much (n, counters), and over how long (n,), ns."""

    def __init__(self, names: tuple[str, ...], accounts: Records, grown: npt.NDArray[np.uint64], spans_ns: npt.NDArray[np.uint64]) -> None:
        self._names, self.accounts, self.grown, self.spans_ns = names, accounts, grown, spans_ns

    def columns(self, final: bool) -> Records:
        """One row for each account, a member for each counter."""
        values = {name: np.ascontiguousarray(self.grown[:, place]) for place, name in enumerate(self._names)}
        return with_columns(self.accounts, interval_ns=self.spans_ns, final=np.full(len(self.accounts), final), **values)

    def rows(self, final: bool) -> Records:
        """One row for each counter that has grown: its `number`, and by how much (`count`)."""
        row, number = np.nonzero(self.grown)
        members = {name: column[row] for name, column in self.accounts.columns.items() if name not in self._names}
        members |= {"number": number.astype(np.uint32), "count": self.grown[row, number], "interval_ns": self.spans_ns[row]}
        return Records(members | {"final": np.full(len(row), final)}, len(row))


class Growth:
    """Of the accounts of one kind. `counters` are the members that grow: several numbers, or one that is an array of them.

    The sum of what is told of a process is what its account holds at its end; a counter of 32 bits may go round between two looks, once.
    """

    def __init__(self, counters: tuple[str, ...], identity: Identity) -> None:
        self._counters, self._identity = counters, identity
        # By process and by when its account was opened: in a race of its threads a process can come to have two.
        self._seen: dict[int, Seen] = {}
        self._sweep = 0

    def __len__(self) -> int:
        return len(self._seen)

    def of(self, accounts: Records, now_ns: npt.NDArray[np.uint64], final: bool) -> Grown | None:
        """The accounts that have grown; None when none has.

        `now_ns` (n,): when each was as it is. `final`: the processes have ended, and are told also when nothing is new. Else an account may have been
        read while the kernel was clearing it, and seem to have shrunk: what it has grown by is told at its end.
        """
        totals = np.stack([accounts[name] for name in self._counters], axis=1) if len(self._counters) > 1 else accounts[self._counters[0]]
        grown = totals.copy()
        spans = np.zeros(len(accounts), np.uint64)
        keys = self._identity.of(accounts["start_ns"], accounts["pid"]) ^ accounts["enter_ns"] * np.uint64(_MIX)
        first, now, most = accounts["enter_ns"].tolist(), now_ns.tolist(), np.iinfo(grown.dtype).max // 2
        kept = np.ones(len(accounts), bool)
        for row, key in enumerate(keys.tolist()):
            _, since_ns, packed = self._seen.pop(key, (0, first[row], b""))
            before = np.frombuffer(packed, _COUNTER)
            grown[row, before["place"]] -= before["count"].astype(grown.dtype)
            spans[row] = max(now[row] - since_ns, 0)
            if final:
                continue
            sound = bool(grown[row].any() and not (grown[row] > most).any())
            kept[row] = sound
            self._seen[key] = self._sweep, now[row], _packed(totals[row]) if sound else packed
        told = with_columns(accounts, enter_ns=now_ns)[kept]
        return Grown(self._counters, told, grown[kept].astype(np.uint64), spans[kept]) if kept.any() else None

    def looked(self) -> None:
        """All accounts have been looked at. Those of which nothing was seen in this sweep and the one before have ended, and their end was lost."""
        for key in [key for key, (sweep, *_) in self._seen.items() if sweep < self._sweep - 1]:
            del self._seen[key]
        self._sweep += 1


def _packed(counters: npt.NDArray[Any]) -> bytes:
    places = np.flatnonzero(counters)
    packed = np.empty(len(places), _COUNTER)
    packed["place"], packed["count"] = places, counters[places]
    return packed.tobytes()


def with_columns(records: Records, **columns: npt.NDArray[Any]) -> Records:
    """The records with these members put in, or in the place of what they had."""
    return Records(records.columns | columns, len(records))
