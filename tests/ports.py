"""Ports of the loopback for those who have to know theirs before they listen, or who stop and come back to it."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FIRST = 10_000
_held: list[socket.socket] = []


def free_port() -> int:
    """One that nobody listens on and that nobody else is given: no other process of tests for as long as this one lives, and nobody who takes what
    the kernel hands out, to listen on or to connect from, which are others."""
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(_FIRST, max(kernels, 2 * _FIRST))  # where the kernel hands out all, some of its
    for port in random.Random().sample(candidates, len(candidates)):  # not of the generator that tests may have seeded
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0infrasight-tests-port-{port}")  # gone with this process, however it ends
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError:
            claim.close()
            continue
        _held.append(claim)
        return port
    raise AssertionError("no port is free")
