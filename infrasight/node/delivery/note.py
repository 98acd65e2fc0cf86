"""A note: some figures in a file that change together. A kill in the middle of a change leaves those of before, and so does a crash."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

_AREA_BYTES = 64 << 10
"""Each of two, which are written by turns."""
_HEAD = struct.Struct("<IIQ")
"""CRC-32 of what follows it, bytes of the text, number of the change."""
_CHECKED = 4


class Note:
    """One mapping of names to what JSON can say."""

    def __init__(self, path: Path) -> None:
        """OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._fd, 0, 2 * _AREA_BYTES)  # so that no change will find the disk full
            self._number, self.content = max((self._read(area) for area in (0, 1)), key=lambda found: found[0])
        except BaseException:
            os.close(self._fd)
            raise
        self._changed = False
        self.failures = 0
        """Changes that the disk did not take."""

    def _read(self, area: int) -> tuple[int, dict[str, Any]]:
        """The number of the change that an area has, and what it says; 0 and nothing when it was not written whole."""
        data = os.pread(self._fd, _AREA_BYTES, area * _AREA_BYTES)
        check, length, number = _HEAD.unpack_from(data)
        end = _HEAD.size + length
        if end > len(data) or zlib.crc32(data[_CHECKED:end]) != check:
            return 0, {}
        return number, json.loads(data[_HEAD.size : end])

    def write(self, content: dict[str, Any]) -> None:
        """Change it."""
        number = self._number + 1
        text = json.dumps(content, separators=(",", ":")).encode()
        rest = _HEAD.pack(0, len(text), number)[_CHECKED:] + text
        try:
            if _CHECKED + len(rest) > _AREA_BYTES:
                raise OSError(None, "more than there is room for")
            os.pwrite(self._fd, zlib.crc32(rest).to_bytes(4, "little") + rest, number % 2 * _AREA_BYTES)
        except OSError:
            self.failures += 1
            return
        self._number, self.content, self._changed = number, content, True

    def sync(self) -> None:
        """Onto the disk, if it has changed. OSError."""
        if self._changed:
            self._changed = False
            os.fsync(self._fd)

    def close(self) -> None:
        """Legal twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
