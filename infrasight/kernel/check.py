"""Whether each probe can attach on this machine, found by attaching it."""

from __future__ import annotations

import os

from infrasight.errors import KernelError
from infrasight.kernel.tracing import trace
from infrasight.schema import PROBES


async def check() -> list[tuple[str, bool, str]]:
    """Probe, whether all of it attached, and what it hangs on or why it does not. Takes about a second, and root."""
    try:
        tracing = await trace(PROBES, self_pid=os.getpid())
    except KernelError as error:
        return [(probe, False, str(error)) for probe in PROBES]
    with tracing:
        return [_verdict(probe, tracing.attached, tracing.failed) for probe in PROBES]


def _verdict(probe: str, attached: list[str], failed: dict[str, str]) -> tuple[str, bool, str]:
    if probe in failed:
        return probe, False, failed[probe]
    tracepoints = [name for owner, name in (each.split() for each in attached) if owner == probe]
    return probe, bool(tracepoints), ", ".join(tracepoints)
