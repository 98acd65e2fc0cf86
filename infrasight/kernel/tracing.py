"""Start and stop tracing: what the rest of the node sees of the kernel."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from infrasight.errors import KernelError
from infrasight.kernel.percpu import PerCpuCounters
from infrasight.kernel.ring import Ring
from infrasight.schema.kinds import KINDS, LOSS_REASONS, PROBES
from infrasight.schema.layout import layouts

LOAD_WITHIN_S = 60.0
"""Compiling takes 0.3 s on an idle core and much longer on a loaded one."""


@dataclass
class Tracing:
    """Attached probes and their rings. `failed` says why a probe, or a part of one, could not be attached; the others run."""

    rings: list[Ring]
    counters: PerCpuCounters
    attached: list[str]
    failed: dict[str, str]
    _hooks: list[int] = field(default_factory=list)

    def losses(self) -> dict[tuple[str, str], int]:
        """Events lost in the kernel since the start, by probe and reason; KernelError when the counters cannot be read."""
        table = self.counters.read().reshape(len(PROBES), len(LOSS_REASONS))
        return {(PROBES[p], list(LOSS_REASONS)[r]): int(table[p, r]) for p, r in zip(*np.nonzero(table), strict=True)}

    def detach(self) -> None:
        """Stop tracing; what the rings hold can still be taken. Legal twice."""
        for fd in self._hooks:
            os.close(fd)
        self._hooks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and give everything back. Legal twice."""
        self.detach()
        for ring in self.rings:
            ring.close()
        self.counters.close()


async def trace(probes: tuple[str, ...], *, self_pid: int, family_pid: int = 0) -> Tracing:
    """Compile, load and attach `probes`; process life (`process`) is always among them. Takes about half a second.

    `self_pid` is never traced, nor, unless it is 0, `family_pid` and its direct children. KernelError when nothing at all can be traced.
    """
    names = [name for name in PROBES if name in probes or name == "process"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        constants = {"SELF_TGID": self_pid, "FAMILY_TGID": family_pid, "BPF_PAGE_SIZE": os.sysconf("SC_PAGESIZE")}
        request = {"probes": names, "constants": constants}
        command = sys.executable, "-m", "infrasight.kernel.loader", str(theirs.fileno())
        child = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
        theirs.close()
        ours.settimeout(LOAD_WITHIN_S)
        try:
            answer, fds = await asyncio.to_thread(_converse, ours, request)
        finally:
            if child.returncode is None and not await _ended(child):
                child.kill()
    if "error" in answer:
        raise KernelError(answer["error"])
    return _assemble(names, answer, fds)


async def _ended(child: asyncio.subprocess.Process) -> bool:
    try:
        async with asyncio.timeout(LOAD_WITHIN_S):
            await child.wait()
    except TimeoutError:
        return False
    return True


def _converse(channel: socket.socket, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    try:
        channel.sendall(json.dumps(request).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = channel.recv(1)
            if not part:
                raise KernelError("the process that loads the kernel side ended without an answer")
            answer += part
        fds: list[int] = []
        while True:
            part, more, _, _ = socket.recv_fds(channel, 1, 253)
            if not part:
                return json.loads(answer), fds
            fds += more
    except OSError as error:
        raise KernelError(f"the kernel side was not loaded: {error}") from error


def _assemble(names: list[str], answer: dict[str, Any], fds: list[int]) -> Tracing:
    attached, failed = answer["attached"], answer["failed"]
    if not attached or len(fds) != answer["descriptors"]:
        for fd in fds:
            os.close(fd)
        raise KernelError(next(iter(failed.values()), "the process that loads the kernel side ended too early"))
    records = [each for name in names for each in layouts(KINDS[name]) if each.name in answer["rings"]]
    rings = [Ring(each, fd) for each, fd in zip(records, fds, strict=False)]
    return Tracing(rings, PerCpuCounters(fds[len(rings)], len(PROBES) * len(LOSS_REASONS)), attached, failed, fds[len(rings) + 1 :])
