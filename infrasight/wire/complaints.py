"""Log lines about strangers: so many that they help, so few that strangers cannot fill the log."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)
PER_S = 5
"""Lines in a second at most; the first of the next second tells how many were left out."""


class _Complaints:
    def __init__(self) -> None:
        self._second = 0
        self._lines = 0

    def add(self, text: str, *more: object) -> None:
        """A line, or none. What strangers chose is in `more`."""
        second = int(time.monotonic())
        if second != self._second:
            if self._lines > PER_S:
                log.warning("%d more were refused in that second", self._lines - PER_S)
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= PER_S:
            log.warning(text, *more)


complain = _Complaints().add
