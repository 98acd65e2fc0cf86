"""The child process that compiles and loads, hands over the file descriptors, and ends.

BCC keeps LLVM in memory (140 MB) once used, and gives none back. A child of its own takes that with it; the programs live as long as the parent holds
the descriptors. Run as `python -m infrasight.kernel.loader SOCKET_FD`, with a request on the socket; see `infrasight.kernel.tracing`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

from infrasight.errors import KernelError
from infrasight.kernel.bpf import PERF_EVENT, TRACEPOINT, Map, ProgramRefused, create_map, load_program
from infrasight.kernel.btf import Btf
from infrasight.kernel.compiler import Module, compile_module, compiled, with_descriptors
from infrasight.kernel.offsets import constants
from infrasight.kernel.source import ON_ENTRY, ON_ENTRY_ALONE, Program, hooks, program
from infrasight.kernel.syscalls import compat_numbers, number, x32_numbers
from infrasight.schema.kinds import ALWAYS

DISPATCHERS: dict[str, tuple[str, ...]] = {"sys_exit": ("on_sys_exit",), "sys_enter": (ON_ENTRY, ON_ENTRY_ALONE)}
"""Tracepoints, and the programs of bpf/include/dispatch.h for them: the second is for when the kernel refuses the first."""
FDS_PER_MESSAGE = 250
"""SCM_MAX_FD is 253 (include/net/scm.h)."""


def _does_not_compile(probes: list[str], flags: list[str]) -> str:
    """Why these do not compile without the others; empty when they do."""
    try:
        text, programs = program(dict.fromkeys([*probes, ALWAYS]))
        compile_module(text, flags, [each.function for each in programs])
    except KernelError as error:
        return str(error)
    return ""


def _failing(probes: list[str], flags: list[str], reason: str) -> dict[str, str]:
    """Which of these, that together do not compile, do not on their own, and why: most do, so halves are tried, and halves of those that do not."""
    half = len(probes) // 2
    if not half:
        return dict.fromkeys(probes, reason)
    failed: dict[str, str] = {}
    for part in (probes[:half], probes[half:]):
        if why := _does_not_compile(part, flags):
            failed |= _failing(part, flags, why)
    return failed


def _module_of(probes: list[str], flags: list[str]) -> tuple[Module, list[Program]]:
    text, programs = program(probes)
    return compiled(text, flags, [*(each.function for each in programs), *chain(*DISPATCHERS.values())]), programs


def _compiled(probes: list[str], flags: list[str]) -> tuple[Module, list[Program], dict[str, str]]:
    """All probes as one module; those that do not compile are left out, with the reason."""
    try:
        return *_module_of(probes, flags), {}
    except KernelError as error:
        if _does_not_compile([], flags):  # what all of them need
            raise
        failed = _failing(probes, flags, str(error))
        if not failed or len(failed) == len(probes):
            raise
    return *_module_of([probe for probe in probes if probe not in failed], flags), failed


class _Loading:
    """A module being loaded, and what becomes of its programs."""

    def __init__(self, module: Module, failed: dict[str, str], probes: list[str]) -> None:
        self._module, self.failed, self._probes = module, failed, probes
        self.maps = {name: Map(create_map(info, name), info.key_bytes, info.value_bytes) for name, info in module.maps.items()}
        self._map_fds = [each.fd for each in self.maps.values()]
        self.events: list[dict[str, Any]] = []
        """Programs that the node is to attach: `how`, `name`, `probes`, `calls`."""
        self.calls: dict[int, dict[str, Any]] = {}
        """By number of the system call: `probes`, and whether there is a program for its `enter`."""
        self.attached: list[str] = []
        self.fds: list[int] = []

    def load(self, function: str, label: str, how: str = "raw") -> int:
        """The descriptor of a program. KernelError with the kernel's last word when it is refused."""
        kind = PERF_EVENT if how == "tick" else TRACEPOINT
        try:
            return load_program(kind, with_descriptors(self._module.programs[function], self._map_fds), function)
        except ProgramRefused as error:
            if os.environ.get("INFRASIGHT_VERIFIER_LOG"):
                sys.stderr.write(error.log)
            raise KernelError(f"{label}: {error}") from error

    def load_all(self, programs: list[Program]) -> None:
        """Those that serve probes, several at a time. What a probe has besides goes on without one that is refused."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for each, loaded in [(each, pool.submit(self.load, each.function, each.name, each.how)) for each in programs]:
                try:
                    self._put(each, loaded.result())
                except KernelError as error:
                    self.failed |= {probe: str(error) for probe in each.probes}

    def _put(self, each: Program, fd: int) -> None:
        """Where others find a program."""
        if each.how == "program":
            self._go_on("programs", each.index, fd)
            return
        self.attached += [f"{hook.probe} {hook.place}" for hook in each.hooks]
        if each.how in ("raw", "tick"):
            self.event(each.how, each.name, list(each.probes), fd)
            return
        call = number(each.name)
        assert call is not None, "hooks for calls that this machine lacks are left out"
        self._go_on(f"{each.how}_programs", call, fd)
        told = self.calls.setdefault(call, {"probes": [], "enter": False})
        told["probes"] = sorted({*told["probes"], *each.probes})
        told["enter"] |= each.how == "enter"

    def _go_on(self, table: str, index: int, fd: int) -> None:
        self.maps[table].update(index.to_bytes(4, "little"), fd.to_bytes(4, "little"))
        os.close(fd)  # the table has it now

    def event(self, how: str, name: str, probes: list[str], fd: int, calls: bool = False) -> None:
        """A program that the node is to attach for these probes; `calls`: and as long as any call is wanted."""
        self.events.append({"how": how, "name": name, "probes": probes, "calls": calls})
        self.fds.append(fd)

    def dispatchers(self) -> None:
        """The programs that see all calls. Nothing is to begin that would not be seen to end, so the exit is attached first. KernelError when one is
        refused that all probes need; the one on entry goes on without what is told of every call."""
        every = [hook for probe in self._probes for hook in hooks(probe) if hook.how == "every"]
        for name, (function, *alone) in DISPATCHERS.items():
            told = every if alone else []
            try:
                fd = self.load(function, name)
            except KernelError as error:
                if not told:
                    raise
                fd = self.load(alone[0], name)
                self.failed |= {hook.probe: str(error) for hook in told}
                told = []
            self.event("raw", name, [hook.probe for hook in told], fd, calls=True)
            self.attached += [f"{hook.probe} {hook.place}" for hook in told]


def load(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Do it. Descriptors are the maps named in `maps`, then the programs in `events`; `failed` maps a probe to the reason why it, or a part of it,
    could not be loaded."""
    values = constants(Btf.of_kernel()) | {"BPF_PAGE_SIZE": os.sysconf("SC_PAGESIZE")}
    flags = ["-Wno-macro-redefined", *(f"-D{name}={value}" for name, value in values.items())]
    module, programs, failed = _compiled(request["probes"], flags)
    loading = _Loading(module, failed, [probe for probe in request["probes"] if probe not in failed])
    loading.load_all(programs)
    loading.dispatchers()
    for table, numbers in (("compat_numbers", compat_numbers()), ("x32_numbers", x32_numbers())):
        for other, native in numbers.items():
            loading.maps[table].update(other.to_bytes(4, "little"), (native + 1).to_bytes(4, "little"))
    loading.maps["selves"].update(bytes(4), b"".join(request[name].to_bytes(4, "little") for name in ("self_pid", "family_pid")))
    maps = {name: loading.maps[name] for name in request["maps"] if name in loading.maps}
    answer = {
        "maps": {name: (each.key_bytes, each.value_bytes) for name, each in maps.items()},
        "events": loading.events,
        "calls": loading.calls,
        "attached": loading.attached,
        "failed": loading.failed,
    }
    return answer, [each.fd for each in maps.values()] + loading.fds


def main() -> None:
    """Answer the one request on the socket, then end without giving Python or BCC a chance to detach anything."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    request = json.loads(channel.makefile("rb").readline())
    fds: list[int] = []
    try:
        answer, fds = load(request)
    except KernelError as error:
        answer = {"error": str(error)}
    with contextlib.suppress(BrokenPipeError):  # the node was stopped before we were done
        channel.sendall(json.dumps(answer).encode() + b"\n")
        for start in range(0, len(fds), FDS_PER_MESSAGE):
            socket.send_fds(channel, [b"."], fds[start : start + FDS_PER_MESSAGE])
        channel.close()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
