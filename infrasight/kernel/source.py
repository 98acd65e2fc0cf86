"""The C text of the kernel side, assembled for the probes asked for, and what its functions hang on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infrasight.errors import KernelError
from infrasight.kernel.syscalls import number
from infrasight.schema.c import declarations, functions
from infrasight.schema.parts import ARGV_MAX, UNIX_PATH_MAX

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
INCLUDES = ("kernel.h", "hooks.h", "emit.h", "calls.h")
LIMITS = {
    # Places for calls in flight, a power of two; 56 bytes of kernel memory each.
    "CALL_PLACES": 65536,
    # Calls in flight whose place is taken; beyond that they are counted as lost.
    "DISPLACED_CALLS": 16384,
    # Threads inside connect at one time; 180 bytes each.
    "CONNECTS_IN_FLIGHT": 8192,
    # Arguments of a failed exec that are looked at: as many as can be in what is kept of them.
    "ARGV_COUNT_MAX": ARGV_MAX // 2,
    "UNIX_ADDRESS_MAX": UNIX_PATH_MAX,
}
_FUNCTION = re.compile(r"^(ENTER|EXIT|RAW)\((\w+), (\w+)\)[ \n]\{(?:.*\}\n|\n(?:.*\n)*?\}\n)", re.MULTILINE)


@dataclass(frozen=True)
class Hook:
    """One function of a probe and what it hangs on: `how` is "enter" or "exit" of a system call, or "raw" for a tracepoint of its own."""

    probe: str
    how: str
    name: str

    @property
    def function(self) -> str:
        """The C function."""
        return f"{self.how}__{self.probe}__{self.name}"

    @property
    def place(self) -> str:
        """What it hangs on, for people: `enter:openat`, `raw:sched_process_exit`."""
        return f"{self.how}:{self.name}"


@dataclass(frozen=True)
class Program:
    """One program to load: its C function, the raw tracepoint it is attached to, and the hooks that it serves."""

    function: str
    event: str
    hooks: tuple[Hook, ...]


def bpf_directory() -> Path:
    """Where the C files are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package.parent / "bpf", package / "_bpf"):
        if (candidate / "include" / "emit.h").is_file():
            return candidate
    raise KernelError("InfraSight's bpf/ directory is missing: install it again")


def tracefs() -> Path:
    """Where tracefs is mounted. KernelError when it is not, or not for us."""
    for path in TRACEFS:
        if (path / "events" / "syscalls").is_dir():
            return path
    raise KernelError("tracefs is not mounted, or not readable: mount -t tracefs none /sys/kernel/tracing")


def _hook(match: re.Match[str]) -> Hook:
    return Hook(match[2], match[1].lower(), match[3])


def hooks(probe: str) -> list[Hook]:
    """What the C file of `probe` hangs on, whether or not this machine has it."""
    return [_hook(match) for match in _FUNCTION.finditer(_read(f"{probe}.c"))]


def _read(name: str) -> str:
    return (bpf_directory() / name).read_text()


def exists(hook: Hook) -> bool:
    """Whether this machine has the system call. A raw tracepoint is tried when it is attached."""
    return hook.how == "raw" or number(hook.name) is not None


def _dispatcher(how: str, of_call: str, guard: str, argument: str, hooks: list[Hook]) -> str:
    """The program on entry or exit of every system call, which calls the function for this one."""
    cases = "".join(f"    case {number(hook.name)}:\n        return {guard}{hook.function}({argument});\n" for hook in hooks)
    head = f"int calls__sys_{how}(struct bpf_raw_tracepoint_args *ctx)"
    return f"\n{head}\n{{\n    switch ({of_call}) {{\n{cases}    }}\n    return 0;\n}}\n"


def program(probes: Iterable[str]) -> tuple[str, list[Program]]:
    """The whole C text and what is to be loaded of it; functions for calls that this machine lacks are left out (arm64 has no `open`)."""
    names = tuple(probes)
    kept: list[Hook] = []

    def keep(match: re.Match[str]) -> str:
        hook = _hook(match)
        if not exists(hook):
            return ""
        kept.append(hook)
        return match[0]

    limits = "".join(f"#define {name} {value}\n" for name, value in LIMITS.items())
    texts = [limits, declarations(names), *(_read(f"include/{name}") for name in INCLUDES), functions(names)]
    texts += [_FUNCTION.sub(keep, _read(f"{name}.c")) for name in names]
    programs = [Program(hook.function, hook.name, (hook,)) for hook in kept if hook.how == "raw"]
    # On exit nobody need ask whether it was a 32-bit call: such a one was not entered.
    for how, of_call, guard, argument in (
        ("exit", "FIELD(s32, REGS(ctx), REGS_NUMBER)", "", "ctx->args[1]"),
        ("enter", "ctx->args[1]", "is_compat() ? 0 : ", "REGS(ctx)"),
    ):
        if served := [hook for hook in kept if hook.how == how]:
            texts.append(_dispatcher(how, of_call, guard, argument, served))
            programs.append(Program(f"calls__sys_{how}", f"sys_{how}", tuple(served)))
    return "\n".join(texts), programs
