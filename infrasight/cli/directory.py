"""The data directory of `infrasight up`: where it is, and that one `up` at a time uses it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from infrasight.errors import DataDirectoryError

WAIT_S = 30.0
"""How long the processes of an `up` that was killed may take to store what they have."""
_POLL_S = 0.1


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """/var/lib/infrasight for root, else `infrasight` in the user's data directory (XDG_DATA_HOME)."""
    if os.geteuid() == 0:
        return Path("/var/lib/infrasight")
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "infrasight"


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[int]:
    """Make `directory` if need be and claim it; yields a file descriptor to lend to the children, which keep the claim while they live.

    DataDirectoryError when it cannot be written, or another `up` has it. The children of one that was killed are waited for: it blocks, so
    it is for before an event loop runs.
    """
    with contextlib.ExitStack() as held:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            own, lent = (held.enter_context((directory / name).open("a")) for name in ("up.lock", "children.lock"))
        except OSError as error:
            raise DataDirectoryError(f"cannot use {directory} as the data directory: {error.strerror}") from error
        if not _lock_within(own, 0):
            raise DataDirectoryError(f"{directory} is in use by another `infrasight up`")
        if not _lock_within(lent, WAIT_S):
            raise DataDirectoryError(f"{directory} is still in use by the node or server of an earlier `infrasight up`")
        yield lent.fileno()


def _lock_within(file: TextIO, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_S)
