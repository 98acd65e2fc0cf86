"""The BPF ring buffer, read without a system call and without a callback: all that is in it at once, as structured arrays, copied once.

Layout (kernel/bpf/ringbuf.c): one page with the consumer's position, which the reader writes; one page with the producer's; then the data.
Positions are byte counters that only grow. The kernel has the data twice in a row so that a record never wraps. Every page counts as resident as soon
as it is mapped: so of the data a window is mapped, where the records are, and as much behind it as one record needs.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from infrasight.kernel.records import Records
from infrasight.schema.kinds import PROBES, filled_bytes
from infrasight.schema.layout import RECORD_HEADER_BYTES, Layout, stride

PAGE = mmap.PAGESIZE
BUSY, DISCARDED = np.uint32(1 << 31), np.uint32(1 << 30)
"""Flags in the length word of a record's header: reserved but not yet submitted; given up by the program."""

WINDOW_BYTES = 2 << 20
"""Of the data that is mapped at a time. To move it costs some 90 us, for thousands of records."""

Taken = list[tuple[Layout, Records]]


class Ring:
    """The reader's end of one ring buffer, through which records of `layouts` go, all as far apart as the largest needs.

    Owns `fd`. Not thread-safe; one reader for each ring.
    """

    def __init__(self, name: str, size_bytes: int, layouts: tuple[Layout, ...], fd: int, window_bytes: int = WINDOW_BYTES) -> None:
        self.name, self.layouts = name, layouts
        self.stride = stride(layouts)
        self._fd = fd
        self.size = size_bytes
        self._filled = filled_bytes(size_bytes)
        self._mapped_bytes = min(max(window_bytes, -(-self.stride // PAGE) * PAGE), self.size) + PAGE
        probe = layouts[0].member("probe")
        self._heads = np.dtype(
            {
                "names": ["_length", "probe"],
                "formats": ["<u4", "<u4"],
                "offsets": [0, RECORD_HEADER_BYTES + probe.offset],
                "itemsize": self.stride,
            }
        )
        self._kinds = {PROBES.index(layout.kind.name): (layout, layout.dtype(self.stride)) for layout in layouts}
        self._consumer_map = mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer_map = mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE)
        self._data: mmap.mmap | None = None
        self._data_at = 0
        """Where in the data it begins."""
        self._used = False
        self._consumer: npt.NDArray[np.uint64] = np.frombuffer(self._consumer_map, np.uint64, 1)
        self._producer: npt.NDArray[np.uint64] = np.frombuffer(self._producer_map, np.uint64, 1)
        self._position = int(self._consumer[0])

    def fileno(self) -> int:
        """What to wait on: readable when a record woke us up, and as long as there are records."""
        return self._fd

    def fill(self) -> float:
        """How full the ring is, 0 to 1."""
        return (int(self._producer[0]) - self._position) / self.size

    def is_filled(self) -> bool:
        """Whether there is so much in the ring that its reader is woken up."""
        return int(self._producer[0]) - self._position >= self._filled

    def end(self) -> int:
        """The producer's position now, to be given to `take`."""
        return int(self._producer[0])

    def read_up_to(self, end: int) -> bool:
        """Whether everything before `end` has been taken."""
        return self._position >= end

    def rest(self) -> None:
        """Unmap the data if there was none since the last time. What a mapping costs is worth it once in some seconds."""
        if not self._used:
            self._unmap()
        self._used = False

    def take(self, end: int, most_bytes: int) -> Taken:
        """Copies of the records submitted before `end`, `most_bytes` of them at most, oldest first within a layout.

        Gives the room back to the kernel. Stops at a record that a program has reserved and not yet submitted.
        """
        taken: Taken = []
        most = max(1, most_bytes // self.stride)
        while most > 0 and self._position < end:
            submitted, stopped = self._take(taken, end, most)
            most -= submitted
            if stopped:
                break
        return taken

    def _take(self, taken: Taken, end: int, most: int) -> tuple[int, bool]:
        """Records to `end`, or as many as fit into the window: how many, and whether one stopped us. Nothing refers to the window then."""
        count = max(0, min((end - self._position) // self.stride, (self._mapped_bytes - PAGE) // self.stride, most))
        data, offset = self._mapped(count * self.stride)
        heads = np.ndarray((count,), self._heads, data, offset)
        submitted = self._submitted(heads)
        if submitted:
            # The copies must be whole before the position moves: the kernel writes into what lies behind it.
            taken.extend(self._copied(data, offset, heads[:submitted]))
            self._position += submitted * self.stride
            self._consumer[0] = self._position
        return submitted, submitted < len(heads) or not submitted

    def _mapped(self, size: int) -> tuple[mmap.mmap, int]:
        """A window that has the next `size` bytes, and where in it they begin."""
        self._used = True
        place = self._position % self.size
        if self._data is None or not self._data_at <= place <= self._data_at + self._mapped_bytes - size:
            self._unmap()
            self._data_at = place // PAGE * PAGE
            self._data = mmap.mmap(self._fd, self._mapped_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=2 * PAGE + self._data_at)
        return self._data, place - self._data_at

    def _unmap(self) -> None:
        if self._data:
            self._data.close()
            self._data = None

    def _copied(self, data: mmap.mmap, offset: int, heads: npt.NDArray[np.void]) -> Iterator[tuple[Layout, Records]]:
        kept = heads["_length"] & DISCARDED == 0
        probes = heads["probe"]
        for number in np.flatnonzero(np.bincount(probes[kept])).tolist() if len(self._kinds) > 1 else self._kinds:
            layout, dtype = self._kinds[number]
            view: npt.NDArray[np.void] = np.ndarray((len(heads),), dtype, data, offset)
            if len(self._kinds) > 1 or not kept.all():
                view = view[kept & (probes == number)]
            if len(view):
                yield layout, Records.gather(layout, view)

    @staticmethod
    def _submitted(view: npt.NDArray[np.void]) -> int:
        busy = view["_length"] & BUSY
        return int(np.argmax(busy != 0)) if busy.any() else len(view)

    def close(self) -> None:
        """Unmap and close. Legal twice."""
        if self._fd < 0:
            return
        nothing: Any = np.zeros(1, np.uint64)
        self._consumer = self._producer = nothing
        self._consumer_map.close()
        self._producer_map.close()
        self._unmap()
        os.close(self._fd)
        self._fd = -1
