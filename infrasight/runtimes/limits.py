"""How much is taken from who listens at a socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one answer may be, and how fast events may come."""

    answer_bytes: int = 16 << 20
    """The most that containerd sends."""
    fields: int = 1_000_000
    """Of protobuf: a list of a thousand containers with all their labels has a twentieth of them."""
    pace_s: float = 0.0
    """Between two containers that are told of, and two events, whatever they are about."""

    async def pause(self) -> None:
        """After each."""
        if self.pace_s:
            await asyncio.sleep(self.pace_s)


SYSTEM, USERS = Limits(), Limits(answer_bytes=256 << 10, fields=2_000, pace_s=0.1)
"""For the system's runtimes, and for what a user has put there, who must not keep us busy."""
