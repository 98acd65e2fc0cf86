"""A share of the processor, when there is more to run than processors: what is not read and stored in time is lost."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("infrasight")
AUTOGROUP = Path("/proc/self/autogroup")
"""The precedence of our session over others. Where the kernel groups by session (sched(7), autogroup), a nice value counts inside one only."""


def take_precedence(nice: int) -> None:
    """Run with this nice value from now on, and so do threads that are started from now on. Without the right to do so, as before, and said."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        log.warning("infrasight runs with no precedence over others: %s", error.strerror)
        return
    if os.getsid(0) == os.getpid():  # others in it would share what is for us
        with suppress(OSError):
            AUTOGROUP.write_text(str(nice))
