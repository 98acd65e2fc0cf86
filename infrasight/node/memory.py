"""Keeping the agent small: it runs on every machine, beside what the machine is for."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3), glibc's malloc.h."""
LARGE_BYTES = 2 << 20
"""Allocations of this size and more are mapped, and given back at once when freed; of smaller ones, so much is kept at the end of the heap.
64 KiB would save 4 MiB of memory, and cost 0.4 us of page faults an event."""


def frugal_allocation() -> None:
    """Make freed memory go back to the system at once; to be called before much is allocated. Does nothing on a libc without mallopt."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES)


def _code_not_written_to(smaps: str) -> Iterator[tuple[int, int]]:
    """Start and length of the mappings of files that may not be written and of which no page has been: each can be read from its file again."""
    start = length = 0
    for line in smaps.splitlines():
        fields = line.split()
        if "-" in fields[0]:
            begin, _, end = fields[0].partition("-")
            plain = len(fields) > 5 and fields[5].startswith("/") and fields[1][1] == "-" and fields[1][3] == "p"
            start, length = int(begin, 16), int(end, 16) - int(begin, 16) if plain else 0
        elif fields[0] == "Anonymous:" and fields[1] == "0" and length:
            yield start, length


def forget_start_up() -> None:
    """Unmap what only the start needed of the libraries' code, which is most of it; what is used comes back from the page cache on first touch."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for start, length in list(_code_not_written_to(Path("/proc/self/smaps").read_text())):
        madvise(start, length, mmap.MADV_DONTNEED)
