"""Ids of processes that are unique over all nodes and all time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

TICK_NS = 10_000_000
"""A process's start is taken to 10 ms, which is what /proc tells (USER_HZ is 100): a pid cannot come round again in that time."""
_MIX_START, _MIX_PID, _MIX_1, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""Odd constants of splitmix64 (Steele, Lea, Flood 2014) and xxHash."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The id of this boot of the machine."""
    return BOOT_ID.read_text().strip()


class Identity:
    """Makes process ids: hashes of node, boot, start time and pid. 64 bits: two of a billion processes collide with a chance of 1 in 40."""

    def __init__(self, node: str, boot: str) -> None:
        digest = hashlib.blake2b(f"{node}\0{boot}".encode(), digest_size=8).digest()
        self._seed = np.frombuffer(digest, np.uint64)[0]

    def of(self, start_ns: npt.NDArray[np.uint64], pid: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
        """Ids (n,) of processes by start since boot (ns) and pid as the host sees it; never 0, which means unknown."""
        return self.of_ticks(start_ns // np.uint64(TICK_NS), pid)

    def of_ticks(self, start: npt.NDArray[np.uint64], pid: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
        """The same by start in ticks, as /proc/PID/stat has it."""
        z = self._seed ^ (start * _MIX_START + pid.astype(np.uint64) * _MIX_PID)
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        ids: npt.NDArray[np.uint64] = np.maximum(z ^ (z >> np.uint64(31)), np.uint64(1))
        return ids
