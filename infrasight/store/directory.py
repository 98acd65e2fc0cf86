"""The data directory of an embedded database, which one process has at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from infrasight.errors import StoreLocked, StoreUnavailable


class DataDirectory:
    """A directory with a lock file in it that names its holder. The lock goes with the process, however that ends."""

    def __init__(self, path: str) -> None:
        self.path = Path(os.path.normpath(path))
        self.data = self.path / "clickhouse"
        """What chDB owns."""
        self._lock: int | None = None

    def take(self) -> None:
        """Create the directory (0700) where it is missing and lock it. Raises StoreLocked, StoreUnavailable."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"store {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            self._check_writable()
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
            os.close(lock)
            raise StoreLocked(f"store {self.path}: in use by process {holder or 'unknown'}") from None
        except OSError as error:
            os.close(lock)
            raise StoreUnavailable(f"store {self.path}: {error.strerror}") from error
        self._lock = lock

    def write(self, name: str, text: str) -> Path:
        """Write a file of ours (0600) and say where it is. Raises StoreUnavailable."""
        file = self.path / name
        try:
            file.touch(mode=0o600)
            file.write_text(text)
        except OSError as error:
            raise StoreUnavailable(f"store {file}: {error.strerror}") from error
        return file

    def give_back(self) -> None:
        """Unlock. Legal twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_writable(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        probe = self.data / "probe"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
