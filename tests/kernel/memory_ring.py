"""A BPF ring buffer in a memory file, and its producer, as kernel/bpf/ringbuf.c has them.

One page with the consumer's position, one with the producer's, the data, and the data's beginning once more: the kernel maps its pages twice,
here each byte is written twice.
"""

import mmap
import os

import numpy as np

from infrasight.kernel import Ring
from infrasight.schema.kinds import PROBES
from infrasight.schema.layout import RECORD_HEADER_BYTES, Layout, stride

PAGE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class MemoryRing:
    """`ring` is the reader's end; the methods are what eBPF programs do."""

    def __init__(self, *layouts: Layout, pages: int = 1, start: int = 0, name: str = "", window: int = 1) -> None:
        """`start`: the position that both ends begin at, as after a long life. `window`: in pages."""
        self.layout, self.stride, self.size = layouts[0], stride(layouts), pages * PAGE
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * self.size)
        self._map = mmap.mmap(self.fd, 2 * PAGE + 2 * self.size)
        self._consumer = np.frombuffer(self._map, np.uint64, 1)
        self._producer = np.frombuffer(self._map, np.uint64, 1, offset=PAGE)
        self._consumer[0] = self._producer[0] = start
        self.lost = 0
        self.ring = Ring(name or self.layout.ring, self.size, layouts, os.dup(self.fd), window * PAGE)

    @property
    def consumed(self) -> int:
        """The position that the reader has given back to."""
        return int(self._consumer[0])

    def _write(self, position: int, data: bytes) -> None:
        for shift, byte in enumerate(data):
            self._map[2 * PAGE + (position + shift) % self.size] = byte
            self._map[2 * PAGE + self.size + (position + shift) % self.size] = byte

    def reserve(self) -> int | None:
        """The position of a new record, still busy; None, and counted as lost, when there is no room."""
        position = int(self._producer[0])
        if position + self.stride - self.consumed > self.size - 1:
            self.lost += 1
            return None
        self._write(position, (BUSY | self._length).to_bytes(8, "little"))
        self._producer[0] = position + self.stride
        return position

    @property
    def _length(self) -> int:
        """What programs reserve: whatever the record, as much as the largest needs."""
        return self.stride - RECORD_HEADER_BYTES

    def submit(self, position: int, record: bytes) -> None:
        assert len(record) <= self._length
        self._write(position + RECORD_HEADER_BYTES, record)
        self._write(position, self._length.to_bytes(4, "little"))

    def discard(self, position: int) -> None:
        self._write(position, (DISCARDED | self._length).to_bytes(4, "little"))

    def produce(self, record: bytes) -> bool:
        """Reserve and submit; False when it was lost."""
        position = self.reserve()
        if position is None:
            return False
        self.submit(position, record)
        return True

    def close(self) -> None:
        self.ring.close()
        os.close(self.fd)


def record_of(layout: Layout, **values: object) -> bytes:
    """One record as an eBPF program writes it: `values` by member, bytes for arrays, everything else zero; it says of which kind it is."""
    records = np.zeros(1, layout.dtype(stride([layout])))
    for name, value in {"probe": PROBES.index(layout.kind.name), **values}.items():
        member = layout.member(name)
        if isinstance(value, bytes) and records.dtype[name].shape:
            records[name][0, : len(value)] = np.frombuffer(value, np.uint8)
        else:
            records[name] = value
        assert not isinstance(value, bytes) or len(value) <= member.size
    return records.tobytes()[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + layout.size]
