"""The epoch: a number for each life of the node's process, larger than those of all lives before, whatever the clock says."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path


def next_epoch(file: Path, wall_ns: Callable[[], int] = time.time_ns) -> int:
    """That of a life that begins now, written down in `file` before it is used: the time, or one more than the last. OSError."""
    last = 0
    with contextlib.suppress(FileNotFoundError, ValueError):  # of a file that is damaged the clock makes up for
        last = int(file.read_bytes())
    epoch = max(last + 1, wall_ns())
    fresh = file.with_name(f".{file.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, b"%d\n" % epoch)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.replace(file)
    sync_directory(file.parent)
    return epoch


def sync_directory(path: Path) -> None:
    """Onto the disk: what is in it under which name. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
