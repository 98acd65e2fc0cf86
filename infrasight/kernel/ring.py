"""A BPF ring buffer, read as a table: everything it holds is viewed at once as a numpy structured array, and copied out once.

Memory of the ring as the kernel maps it (kernel/bpf/ringbuf.c): one page with our position, writable; one page with the producer's; then the data.
Positions are byte counters that only grow. The kernel maps the data twice in a row so that a record never wraps; since every mapped page counts as
resident, we map the data once and only as much more as one record needs.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from infrasight.kernel.records import Records
from infrasight.schema.layout import Layout

PAGE = mmap.PAGESIZE
BUSY, DISCARDED = np.uint32(1 << 31), np.uint32(1 << 30)
"""Flags in the length word of a record's header: reserved but not yet submitted; given up by the program."""


class Ring:
    """The reader's end of one ring buffer, which holds records of one layout. Owns `fd`. Not thread-safe; one reader for each ring."""

    def __init__(self, layout: Layout, fd: int) -> None:
        self.layout = layout
        self._fd = fd
        self._size = layout.ring_bytes
        self._dtype = layout.dtype()
        spare = -(-layout.stride // PAGE) * PAGE
        self._consumer_map = mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._data_map = mmap.mmap(fd, PAGE + self._size + spare, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE)
        self._consumer: npt.NDArray[np.uint64] = np.frombuffer(self._consumer_map, np.uint64, 1)
        self._producer: npt.NDArray[np.uint64] = np.frombuffer(self._data_map, np.uint64, 1)
        self._position = int(self._consumer[0])

    def fill(self) -> float:
        """How full the ring is, 0 to 1."""
        return (int(self._producer[0]) - self._position) / self._size

    def end(self) -> int:
        """The producer's position now, to be given to `take`."""
        return int(self._producer[0])

    def take(self, end: int, most_bytes: int) -> list[Records]:
        """Copies of the records submitted before `end`, `most_bytes` of them at most, oldest first; an empty list when there are none.

        Gives the room back to the kernel. Stops at a record that a program has reserved and not yet submitted.
        """
        taken: list[Records] = []
        most = max(1, most_bytes // self.layout.stride)
        while most > 0:
            view = self._view(end)[:most]
            submitted = self._submitted(view)
            if submitted == 0:
                break
            # The copy must be whole before the position moves: the kernel writes into what lies behind it.
            kept = view["_length"][:submitted] & DISCARDED == 0
            records = Records.gather(self.layout, view[:submitted])
            self._position += submitted * self.layout.stride
            self._consumer[0] = self._position
            most -= submitted
            taken.append(records if kept.all() else records[kept])
            if submitted < len(view):
                break
        return [records for records in taken if len(records)]

    def _view(self, end: int) -> npt.NDArray[np.void]:
        """The records from our position to `end`, or to the last one that begins before the ring's data does again."""
        stride, offset = self.layout.stride, self._position % self._size
        count = min((end - self._position) // stride, -(-(self._size - offset) // stride))
        view: npt.NDArray[np.void] = np.ndarray((max(count, 0),), self._dtype, self._data_map, PAGE + offset)
        return view

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
        self._data_map.close()
        os.close(self._fd)
        self._fd = -1
