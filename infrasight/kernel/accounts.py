"""Accounts of processes, summed up in the kernel (bpf/include/accounts.h): read while they grow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from infrasight.kernel.bpf import Map
from infrasight.kernel.records import Records
from infrasight.kernel.source import places
from infrasight.schema.columns import Kind
from infrasight.schema.kinds import KINDS, PROBES
from infrasight.schema.layout import RECORD_HEADER_BYTES, Layout, layout

READ_AT_ONCE = 512
_TAKEN_BYTES = 16
"""Behind what is kept in a place: whose it is, and how many reach for it (bpf/include/places.h). All zero when it is free."""

_ENDED = np.dtype([("owner", "<u8"), ("enter_ns", "<u8")])
"""struct ended of bpf/include/counting.h."""


def account_maps() -> list[str]:
    """Names of the maps that the node reads and writes."""
    kept = [name for kind in KINDS.values() if kind.account for name in places(kind.name)]
    ended = [f"{kind.name}_ended" for kind in KINDS.values() if kind.account]
    return ["intervals", "counting_since", "put_aside", *ended, *(f"{name}_{part}" for name in kept for part in ("places", "displaced"))]


def _as(values: npt.NDArray[np.uint8], dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """Values of a map (n, bytes) as records (n,)."""
    return np.ndarray((len(values),), dtype, values) if len(values) else np.zeros(0, dtype)


class Accounts:
    """Those of one kind, in the maps `<kind>_places` and `<kind>_displaced`, and `<kind>_ended` for those whose processes have ended while the ring
    was full. Owns no descriptor."""

    def __init__(self, kind: Kind, maps: Mapping[str, Map]) -> None:
        self.layout: Layout = layout(kind)
        self._places, self._displaced = maps[f"{kind.name}_places"], maps[f"{kind.name}_displaced"]
        self._kept = [(maps[f"{name}_places"], maps[f"{name}_displaced"]) for name in places(kind.name)]
        self._ended, self._put_aside, self._taken = maps[f"{kind.name}_ended"], maps["put_aside"], 0
        self._intervals, self._since = maps["intervals"], maps["counting_since"]
        self._probe = PROBES.index(kind.name).to_bytes(4, "little")
        stride = self._places.value_bytes
        members: Mapping[str, Any] = self.layout.dtype(stride).fields or {}
        names = [name for name in members if name != "_length"]
        offsets = [members[name][1] - RECORD_HEADER_BYTES for name in names]
        self._dtype = np.dtype({"names": names, "formats": [members[name][0] for name in names], "offsets": offsets, "itemsize": stride})
        self.running = False

    def run(self, running: bool) -> None:
        """Whether they are kept from now on; if they were not, they begin with nothing. Not while the programs of the kernel side come and go."""
        if running and not self.running:
            self._empty()
            self.next_interval()
        if running != self.running:
            self._since.update(self._probe, (time.clock_gettime_ns(time.CLOCK_BOOTTIME) if running else 0).to_bytes(8, "little"))
        self.running = running

    def _empty(self) -> None:
        for placed, displaced in self._kept:
            nothing = bytes(placed.value_bytes)
            for keys, values in placed.batches(READ_AT_ONCE):
                for index in keys[values[:, -_TAKEN_BYTES:].any(axis=1)]:
                    placed.update(index.tobytes(), nothing)
            for owner in displaced.all_keys():
                displaced.delete(owner)

    def next_interval(self) -> None:
        """From now on each account says anew who the process is, when it is next written to."""
        self._intervals.update(self._probe, (time.monotonic_ns() // 1_000_000 & 0xFFFFFFFF).to_bytes(4, "little"))

    def read(self) -> Iterator[Records]:
        """All there are, each as it is when it is read, fewer than twice `READ_AT_ONCE` at a time."""
        held: list[npt.NDArray[np.void]] = []
        for source in (self._places, self._displaced):
            for _, values in source.batches(READ_AT_ONCE):
                accounts = _as(values, self._dtype)
                held.append(accounts[accounts["enter_ns"] != 0])
                if sum(map(len, held)) >= READ_AT_ONCE:
                    yield Records.gather(self.layout, np.concatenate(held))
                    held.clear()
        if any(map(len, held)):
            yield Records.gather(self.layout, np.concatenate(held))

    def take_ended(self) -> tuple[Records | None, bool]:
        """Records of ends that found no room in the ring, `READ_AT_ONCE` at most, and whether there may be more. They are told so, and only once."""
        put_aside = int.from_bytes(self._put_aside.lookup(self._probe) or b"", "little")
        if put_aside == self._taken:
            return None, False
        keys, values, more = self._ended.take(READ_AT_ONCE)
        self._taken += len(keys)
        accounts = _as(values, self._dtype)
        accounts["enter_ns"] = keys.view(_ENDED)["enter_ns"].ravel()
        return (Records.gather(self.layout, accounts) if len(keys) else None), more
