"""A segment: one file of the spool, with the records of one lane after each other. It is appended to, read, and removed as a whole."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from infrasight.node.delivery.record import HEADER_MAX, MAGIC, Header, head_of, header_in
from infrasight.node.flow import Encoded
from infrasight.schema import Lane

_NAME = re.compile(r"([a-z]+)-(\d{10})\.seg")
_CHUNK_BYTES = 1 << 20
"""Read at a time while the next sound record is looked for."""


@dataclass(eq=False)
class Segment:
    """One file. What is counted here are the records that are not done with."""

    path: Path
    lane: Lane
    number: int
    size: int = 0
    """Bytes of it that are records."""
    old: bool = False
    """Whether it is from an earlier life of the node."""
    written_s: float = field(default_factory=time.time)
    """When it was last written to, since the epoch."""
    rows: Counter[str] = field(default_factory=Counter)
    """By kind."""
    held: int = 0
    """Records of it that are on their way."""
    oldest_ns: int = 0
    newest_ns: int = 0
    """Of the oldest events of its records, the first and the last."""
    twice: set[int] = field(default_factory=set)
    """Where records begin that are elsewhere too."""

    @classmethod
    def at(cls, directory: Path, lane: Lane, number: int) -> Segment:
        """A new one."""
        return cls(directory / f"{lane.value}-{number:010d}.seg", lane, number)

    @classmethod
    def found(cls, path: Path) -> Segment | None:
        """One that an earlier life left; None for a file that is none."""
        match = _NAME.fullmatch(path.name)
        if match is None or match[1] not in {lane.value for lane in Lane}:
            return None
        status = path.stat()
        return cls(path, Lane(match[1]), int(match[2]), status.st_size, old=True, written_s=status.st_mtime)

    def count(self, kind: str, rows: int, oldest_ns: int) -> None:
        """A record is in it that is to be delivered."""
        self.rows[kind] += rows
        self.oldest_ns = min(self.oldest_ns or oldest_ns, oldest_ns)
        self.newest_ns = max(self.newest_ns, oldest_ns)

    def append(self, fd: int, piece: Encoded) -> int:
        """Write a record at the end, by `fd`; where it begins. OSError when that fails, and then nothing was appended."""
        head = head_of(piece)
        want, start = len(head) + len(piece.payload), self.size
        wrote = os.pwritev(fd, [head, piece.payload], start)
        while wrote < want:  # a disk that fills up takes a part first, and then refuses
            wrote += os.pwrite(fd, (head + piece.payload)[wrote:], start + wrote)
        self.size += want
        self.written_s = time.time()
        self.count(piece.kind, piece.rows, piece.oldest_ns)
        return start

    def wipe(self, offset: int | None = None) -> None:
        """Have a record that begins there be none any more, or nothing be in it at all. The file stays: it would be missing. OSError."""
        if offset is None:
            os.truncate(self.path, 0)
            self.size = 0
            return
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes(len(MAGIC)), offset)
        finally:
            os.close(fd)

    def header_at(self, offset: int) -> Header | None:
        """The header of the record that begins there, None when there is no sound one. OSError when it cannot be read."""
        return header_in(self._read(offset, HEADER_MAX))

    def payload_of(self, offset: int, header: Header) -> bytes | None:
        """The payload of that record, None when it is damaged. OSError when it cannot be read."""
        payload = self._read(offset + header.size, header.length)
        return payload if header.sound(payload) else None

    def next_record(self, offset: int) -> tuple[int, Header] | None:
        """The first record at `offset` or after, and where it begins; None when there is none any more. OSError when it cannot be read."""
        if offset < self.size and (header := self.header_at(offset)):
            return offset, header
        for found in self._magic_after(offset):
            if header := self.header_at(found):
                return found, header
        return None

    def records(self, offset: int = 0) -> Iterator[tuple[int, Header]]:
        """All records from `offset` on whose headers are sound and whose payloads are there."""
        while found := self.next_record(offset):
            start, header = found
            offset = start + header.size + header.length
            if offset <= self.size:
                yield start, header
            else:  # cut off, or the length is wrong although the sum is right: whatever follows may be sound
                offset = start + 1

    def _magic_after(self, offset: int) -> Iterator[int]:
        while offset < self.size:
            chunk = self._read(offset, _CHUNK_BYTES)
            place = chunk.find(MAGIC)
            while place >= 0:
                yield offset + place
                place = chunk.find(MAGIC, place + 1)
            if len(chunk) < _CHUNK_BYTES:
                return
            offset += len(chunk) - len(MAGIC) + 1

    def _read(self, offset: int, size: int) -> bytes:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, min(size, max(self.size - offset, 0)), offset)
        finally:
            os.close(fd)
