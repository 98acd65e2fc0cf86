"""Numbers that survive a kill: each change is written into a file at once, where the kernel has it, whatever becomes of this process."""

from __future__ import annotations

import os
from array import array
from pathlib import Path


class Slots:
    """So many numbers of 64 bits, kept in a file. Not a mapped one: a disk that fails would end the process (SIGBUS) in place of raising OSError."""

    def __init__(self, path: Path, count: int) -> None:
        """As the file has them, zeros where it has none. OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._fd, 0, 8 * count)  # so that no change will find the disk full
            self.values = array("Q", os.pread(self._fd, 8 * count, 0))
        except BaseException:
            os.close(self._fd)
            raise
        self.failures = 0
        """Changes that the disk did not take."""

    def write(self, first: int, count: int = 1) -> None:
        """Keep so many of `values`, from the first on."""
        try:
            os.pwrite(self._fd, memoryview(self.values)[first : first + count], 8 * first)
        except OSError:
            self.failures += 1

    def sync(self) -> None:
        """Onto the disk. OSError."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Legal twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
