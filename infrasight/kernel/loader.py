"""The child process that compiles, loads and attaches, hands over the file descriptors, and ends.

BCC keeps LLVM in memory (140 MB) once used, and gives none back. A child of its own takes that with it; the programs stay attached as long as the
parent holds the descriptors. Run as `python -m infrasight.kernel.loader SOCKET_FD`, with a request on the socket; see `infrasight.kernel.tracing`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

from infrasight.errors import KernelError
from infrasight.kernel.btf import Btf
from infrasight.kernel.offsets import constants
from infrasight.kernel.source import Program, bpf_directory, program
from infrasight.schema.kinds import KINDS
from infrasight.schema.layout import layouts

FDS_PER_MESSAGE = 250
"""SCM_MAX_FD is 253 (include/net/scm.h)."""


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """What libbpf and clang write to file descriptor 2, as lines, once the block has ended."""
    lines: list[str] = []
    kept, memory = os.dup(2), os.memfd_create("stderr")
    os.dup2(memory, 2)
    try:
        yield lines
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.lseek(memory, 0, os.SEEK_SET)
        with os.fdopen(memory, "r", errors="replace") as file:
            lines.extend(line.rstrip() for line in file)


def _compile(text: str, flags: list[str]) -> Any:  # bcc has no types
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "stub")
    try:
        from bcc import BPF
    except ImportError as error:
        raise KernelError("BCC for Python is missing: apt-get install python3-bpfcc (not the pip package called bcc)") from error
    messages: list[str] = []
    try:
        with captured_stderr() as messages:
            return BPF(text=text, cflags=flags)
    except Exception as error:  # BCC raises nothing narrower
        detail = next((line for line in messages if "error" in line.lower()), str(error))
        raise KernelError(f"the kernel side does not compile: {detail}") from error


def _loaded(bpf: Any, program: Program) -> int:
    """Load one program; its descriptor. KernelError with the kernel's last word when it is refused."""
    from bcc import BPF

    messages: list[str] = []
    try:
        with captured_stderr() as messages:
            return int(bpf.load_func(program.function.encode(), BPF.RAW_TRACEPOINT).fd)
    except Exception as error:  # BCC raises nothing narrower
        if os.environ.get("INFRASIGHT_VERIFIER_LOG"):
            sys.stderr.write("\n".join(messages) + "\n")
        raise KernelError(f"{program.event}: {_last_word(messages) or error}") from error


def _attached(fd: int, program: Program) -> int:
    """Attach a loaded program; the descriptor that keeps it attached."""
    from bcc import lib

    with captured_stderr() as messages:
        attached = int(lib.bpf_attach_raw_tracepoint(fd, program.event.encode()))
    if attached < 0:
        raise KernelError(f"{program.event}: not attached: {_last_word(messages) or 'no reason given'}")
    return attached


def _last_word(messages: list[str]) -> str:
    lines = [line for line in messages if line.strip() and not line.startswith(("processed ", "verification time", "stack depth"))]
    return lines[-1].strip() if lines else ""


def _refused(probe: str, flags: list[str]) -> str:
    """Why the kernel refuses a probe on its own; empty when it does not."""
    try:
        text, programs = program([probe])
        bpf = _compile(text, flags)
        for each in programs:
            _loaded(bpf, each)
    except KernelError as error:
        return str(error)
    return ""


def _built(probes: list[str], flags: list[str]) -> tuple[Any, list[tuple[Program, int]]]:
    text, programs = program(probes)
    bpf = _compile(text, flags)
    return bpf, [(each, _loaded(bpf, each)) for each in programs]


def load(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Do it. Descriptors are the rings named, the loss counters, then the attached programs; `failed` maps a probe to the reason.

    System call probes share two programs, so one that this kernel refuses takes the others with it; then each is tried alone, and those at fault are
    left out.
    """
    numbers = constants(Btf.of_kernel()) | request["constants"]
    flags = ["-Wno-macro-redefined", *(f"-D{name}={value}" for name, value in numbers.items())]
    probes: list[str] = request["probes"]
    failed: dict[str, str] = {}
    try:
        bpf, programs = _built(probes, flags)
    except KernelError:
        failed = {probe: reason for probe in probes if (reason := _refused(probe, flags))}
        probes = [probe for probe in probes if probe not in failed]
        if not failed or not probes:
            raise
        bpf, programs = _built(probes, flags)
    rings = [each.name for probe in probes for each in layouts(KINDS[probe])]
    fds = [bpf[f"{ring}_ring".encode()].map_fd for ring in rings] + [bpf[b"losses"].map_fd]
    attached: list[str] = []
    for each, loaded in programs:
        try:
            fds.append(_attached(loaded, each))
            attached += [f"{hook.probe} {hook.place}" for hook in each.hooks]
        except KernelError as error:
            failed |= {hook.probe: str(error) for hook in each.hooks}
    return {"rings": rings, "descriptors": len(fds), "attached": attached, "failed": failed}, fds


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
