"""Start, change and stop tracing: what the rest of the node sees of the kernel."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from infrasight.errors import KernelError
from infrasight.kernel.accounts import Accounts, account_maps
from infrasight.kernel.alarm import Alarm
from infrasight.kernel.bpf import Map, attach_raw_tracepoint, attach_tick
from infrasight.kernel.percpu import PerCpuCounters
from infrasight.kernel.ring import Ring
from infrasight.kernel.rules import MAPS, Rules, write
from infrasight.kernel.source import NEWER
from infrasight.schema.kinds import ALWAYS, BUFFERS, KINDS, LOSS_REASONS, PROBES, records_of

LOAD_WITHIN_S = 120.0
"""Compiling and loading takes two seconds on an idle core and much longer on a loaded one."""
_WANTED, _HAS_ENTER, _PROBE_SHIFT = 1, 2, 8
"""As in bpf/include/dispatch.h."""
_TABLES = ("enter_programs", "exit_programs", "programs")
"""Maps of programs that others go on to. The kernel empties one when no process holds it any more."""


@dataclass(frozen=True)
class Event:
    """A loaded program for a tracepoint, or (`how` is "tick") for once a second, and the probes that need it. `calls`: it is needed as long as any
    system call is wanted, too."""

    how: str
    name: str
    probes: frozenset[str]
    calls: bool
    fd: int


@dataclass(frozen=True)
class Call:
    """The probes that a system call is told to, and whether there is a program for its entry."""

    probes: tuple[str, ...]
    enter: bool


@dataclass
class Tracing:
    """Loaded probes, those of them that run, and their rings. `failed` says why a probe, or a part of one, does not; the others run.

    `attached` is what the probes hang on, each as `<probe> <how>:<name>`.
    """

    rings: list[Ring]
    counters: PerCpuCounters
    attached: list[str]
    failed: dict[str, str]
    maps: dict[str, Map] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    calls: dict[int, Call] = field(default_factory=dict)
    accounts: dict[str, Accounts] = field(default_factory=dict)
    """By kind: what is summed up of each process."""
    _hooks: dict[Event, list[int]] = field(default_factory=dict)

    def losses(self) -> dict[tuple[str, str], int]:
        """Events lost in the kernel since the start, by probe and reason; KernelError when the counters cannot be read."""
        table = self.counters.read().reshape(len(PROBES), len(LOSS_REASONS))
        return {(PROBES[p], list(LOSS_REASONS)[r]): int(table[p, r]) for p, r in zip(*np.nonzero(table), strict=True)}

    def apply(self, probes: Collection[str], rules: Mapping[str, Rules] = MappingProxyType({})) -> None:
        """Have these probes run, by these rules, from now on. What is the same as before goes on undisturbed; legal at any time.

        KernelError when the rules have no room; then the old ones may be in force in part.
        """
        running = frozenset(probes) | {ALWAYS}
        for kind in self.accounts.keys() - running:
            self.accounts[kind].run(False)
        write(rules, running, self.maps)
        wanted = {number: bits for number, call in self.calls.items() if (bits := _interest(call, running))}
        if not all(event in self._hooks for event in self.events if event.calls):
            self.maps["followed_since"].update(bytes(4), time.monotonic_ns().to_bytes(8, "little"))
        needed = [event for event in self.events if event.probes & running or (event.calls and wanted)]
        for event in needed:
            if event not in self._hooks:
                self._attach(event)
        for number in self.calls:
            self.maps["interests"].update(number.to_bytes(4, "little"), wanted.get(number, 0).to_bytes(4, "little"))
        for event in [event for event in self._hooks if event not in needed]:
            self._detach(event)
        for kind in self.accounts.keys() & running:
            self.accounts[kind].run(True)

    def _detach(self, event: Event) -> None:
        for fd in self._hooks.pop(event):
            os.close(fd)

    def _attach(self, event: Event) -> None:
        try:
            self._hooks[event] = attach_tick(event.fd) if event.how == "tick" else [attach_raw_tracepoint(event.fd, event.name)]
        except KernelError as error:
            if event.calls:
                raise
            if event.name not in NEWER:
                self.failed |= {probe: str(error) for probe in event.probes}
            self.attached = [each for each in self.attached if each not in {f"{probe} {event.how}:{event.name}" for probe in event.probes}]

    def await_first(self) -> None:
        """Have the kernel side tell, through the alarm, of the first record that comes from now on, once."""
        self.maps["awaited"].update(bytes(4), (1).to_bytes(8, "little"))

    def alarm(self) -> Alarm:
        """What tells when a ring has filled up, and of a first record; to be entered in the event loop that waits."""
        return Alarm(ring.fileno() for ring in self.rings)

    def detach(self) -> None:
        """Stop tracing; what the rings hold can still be taken. Legal twice."""
        for event in list(self._hooks):
            self._detach(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and give everything back. Legal twice."""
        self.detach()
        for event in self.events:
            os.close(event.fd)
        self.events.clear()
        for ring in self.rings:
            ring.close()
        for each in self.maps.values():
            each.close()
        self.counters.close()


def _interest(call: Call, running: frozenset[str]) -> int:
    """What `interests` has for a call: nothing unless a probe that runs is told of it."""
    told = [probe for probe in call.probes if probe in running]
    return _WANTED | (_HAS_ENTER if call.enter else 0) | PROBES.index(told[0]) << _PROBE_SHIFT if told else 0


async def trace(
    probes: Collection[str], *, self_pid: int, family_pid: int = 0, rules: Mapping[str, Rules] = MappingProxyType({})
) -> Tracing:
    """Compile and load all probes, and have `probes` run; process life (`process`) always does. Takes about two seconds.

    `self_pid` is never traced, nor, unless it is 0, `family_pid` and its direct children. KernelError when nothing at all can be traced.
    """
    own = ("losses", "interests", "followed_since", "rules", "awaited")
    maps = [*(f"{name}_ring" for name in BUFFERS), *own, *MAPS.values(), *_TABLES, *account_maps()]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = {"probes": PROBES, "self_pid": self_pid, "family_pid": family_pid, "maps": maps}
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
    tracing = _assemble(answer, fds)
    try:
        tracing.apply(probes, rules)
    except BaseException:
        tracing.close()
        raise
    return tracing


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
        with channel.makefile("rb", buffering=0) as answers:
            answer = answers.readline()
        if not answer.endswith(b"\n"):
            raise KernelError("the process that loads the kernel side ended without an answer")
        fds: list[int] = []
        while True:
            part, more, _, _ = socket.recv_fds(channel, 1, 253)
            if not part:
                return json.loads(answer), fds
            fds += more
    except OSError as error:
        raise KernelError(f"the kernel side was not loaded: {error}") from error


def _assemble(answer: dict[str, Any], fds: list[int]) -> Tracing:
    attached, failed, sizes, events = answer["attached"], answer["failed"], answer["maps"], answer["events"]
    if not attached or len(fds) != len(sizes) + len(events):
        for fd in fds:
            os.close(fd)
        raise KernelError(next(iter(failed.values()), "the process that loads the kernel side ended too early"))
    by_name = dict(zip(sizes, fds, strict=False))
    rings = [Ring(name, buffer.bytes, records_of(name), by_name.pop(f"{name}_ring")) for name, buffer in BUFFERS.items() if records_of(name)]
    losses = PerCpuCounters(by_name.pop("losses"), len(PROBES) * len(LOSS_REASONS))
    hooks = [(each["how"], each["name"], frozenset(each["probes"]), each["calls"]) for each in events]
    programs = [Event(*hook, fd) for hook, fd in zip(hooks, fds[len(sizes) :], strict=True)]
    maps = {name: Map(fd, *sizes[name]) for name, fd in by_name.items()}
    accounts = {name: Accounts(kind, maps) for name, kind in KINDS.items() if kind.account and f"{name}_places" in maps}
    calls = {int(number): Call(tuple(call["probes"]), call["enter"]) for number, call in answer["calls"].items()}
    return Tracing(rings, losses, attached, failed, maps, programs, calls, accounts)
