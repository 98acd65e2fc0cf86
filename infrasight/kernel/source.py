"""The C text of the kernel side, assembled for the probes asked for, and what its functions hang on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infrasight.errors import KernelError
from infrasight.kernel.syscalls import CALL_NUMBERS, X32_OWN_NUMBERS, compat_numbers, number
from infrasight.schema.c import declarations, functions, shapes
from infrasight.schema.kinds import KINDS
from infrasight.schema.parts import ARGV_MAX, UNIX_PATH_MAX

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
INCLUDES = ("kernel.h", "hooks.h", "emit.h", "filter.h", "calls.h", "paths.h", "draft.h", "prefixes.h", "sockets.h", "dispatch.h", "counting.h")
NEWER = ("sock_send_length", "sock_recv_length")
"""Tracepoints that a kernel may be too old for (Linux 6.3): a probe goes without what it would see there."""
NUMBERED = ("read", "write", "readv", "writev")
"""System calls that the kernel side knows by number though it is not told of them: `CALL_READ` and so on."""
FILTERS = ("pass_who", "pass_paths", "pass_rate")
"""Programs of bpf/include that rules are followed in, for all probes."""
ON_ENTRY, ON_ENTRY_ALONE = "on_sys_enter", "on_sys_enter_alone"
"""The program on entry to all system calls, and the same without what probes do there, should the kernel refuse that."""
LIMITS = {
    "CALL_NUMBERS": CALL_NUMBERS,
    "X32_OWN_NUMBERS": X32_OWN_NUMBERS,
    # Places for calls in flight, a power of two; 72 bytes of kernel memory each.
    "CALL_PLACES": 65536,
    # Calls in flight whose place is taken; beyond that they are counted as lost.
    "DISPLACED_CALLS": 16384,
    # Threads inside connect at one time; 180 bytes each.
    "CONNECTS_IN_FLIGHT": 8192,
    # Working directories that the node has been told of; one that is forgotten is told again.
    "CWDS_REMEMBERED": 16384,
    "MOUNT_NAMESPACES_REMEMBERED": 1024,
    # Arguments of a failed exec that are looked at: as many as can be in what is kept of them.
    "ARGV_COUNT_MAX": ARGV_MAX // 2,
    "UNIX_ADDRESS_MAX": UNIX_PATH_MAX,
    # Accounts of processes, and meters of threads: places for them, a power of two, and beyond that those whose place is taken.
    "SYSCALL_FREQ_PLACES": 4096,
    "SYSCALL_FREQ_DISPLACED": 65536,
    "RESOURCE_PLACES": 8192,
    "RESOURCE_DISPLACED": 65536,
    "METER_PLACES": 16384,
    "METER_DISPLACED": 131072,
    # Accounts of processes that have ended, when there are more at once than their ring holds; memory is taken for those that there are.
    "SYSCALL_FREQ_ENDED": 32768,
    "RESOURCE_ENDED": 32768,
    # Users, names, cgroups, paths, networks: so many of each on all lists together, twice, since new ones are put in before old ones are taken out.
    "LISTED_MAX": 2048,
    # Events that are remembered so that their repeats are known, and cgroups times probes whose rate is watched; the longest unused are forgotten.
    "REPEATS_REMEMBERED": 32768,
    "BUCKETS_REMEMBERED": 8192,
}
_FUNCTION = re.compile(r"^(ENTER|EXIT|EVERY|RAW|TICK|PROGRAM)\((\w+), (\w+)\)[ \n]\{(?:.*\}\n|\n(?:.*\n)*?\}\n)", re.MULTILINE)


_TEMPLATE = re.compile(r"^TEMPLATE\((\S+), (\w+)\)$", re.MULTILINE)


@dataclass(frozen=True)
class Hook:
    """One function of a probe and what it hangs on: `how` is "enter" or "exit" of a system call, "every" for the entry of all of them, "raw" for a
    tracepoint of its own, "tick" for once a second, "program" for what others go on to."""

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
    """One program to load: its C function, and the hooks that it serves, which hang on the same thing. `index`: its place in the map `programs`."""

    function: str
    hooks: tuple[Hook, ...]
    index: int = -1

    @property
    def how(self) -> str:
        """As of its hooks."""
        return self.hooks[0].how

    @property
    def name(self) -> str:
        """The call or the tracepoint."""
        return self.hooks[0].name

    @property
    def probes(self) -> tuple[str, ...]:
        """Whose hooks they are."""
        return tuple(hook.probe for hook in self.hooks)


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
    return hook.how not in ("enter", "exit") or number(hook.name) is not None


def _call_program(how: str, call: str, hooks: list[Hook]) -> tuple[str, Program]:
    """The program on entry to or exit from one system call, which calls the functions of all probes for it."""
    program = Program(f"{how}_{call}", tuple(hooks))
    # What is told as an event comes last: nothing is run after it.
    calls = "".join(f"    {hook.function}(ctx, call{', ctx->args[1]' if how == 'exit' else ''});\n" for hook in hooks)
    done = "    call_done(call);\n" if how == "exit" else ""
    head = f"int {program.function}(struct bpf_raw_tracepoint_args *ctx)"
    return f"\n{head}\n{{\n    struct call *call = call_current();\n    if (!call)\n        return 0;\n{done}{calls}    return 0;\n}}\n", program


def _entry_program(function: str, hooks: list[Hook]) -> str:
    """A program on entry to all system calls: what is told of every one, then what only those wanted are for."""
    calls = "".join(f"    {hook.function}(task, number);\n" for hook in hooks)
    head = f"int {function}(struct bpf_raw_tracepoint_args *ctx)\n{{\n"
    head += "    u64 task = current_task();\n    u32 number = call_number(ctx, ctx->args[1], task);\n"
    return f"\n{head}{calls}    begin_call(ctx, task, number);\n    return 0;\n}}\n"


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

    files = [_TEMPLATE.sub(_instance, _accounts(name) + _FUNCTION.sub(keep, _read(f"{name}.c"))) for name in names]
    # What only counts comes before what becomes an event, since nothing comes after that.
    kept.sort(key=lambda hook: not KINDS[hook.probe].account)
    programs = [Program(hook.function, (hook,)) for hook in kept if hook.how in ("raw", "tick")]
    programs += _shared(names, [hook for hook in kept if hook.how == "program"])
    numbers = LIMITS | {f"PROGRAM_{each.hooks[0].probe}_{each.name}".upper(): each.index for each in programs if each.how == "program"}
    numbers |= {f"PROGRAM_{each.function}".upper(): each.index for each in programs if each.function in FILTERS}
    numbers |= {f"CALL_{name}".upper(): known for name in NUMBERED if (known := number(name)) is not None}
    numbers["PROGRAMS"] = 1 + max([0, *(each.index for each in programs)])
    texts = ["".join(f"#define {name} {value}\n" for name, value in numbers.items()), "#define COMPAT_CALLS\n" if compat_numbers() else ""]
    texts += [declarations(names), *(_read(f"include/{name}") for name in INCLUDES), functions(names), *files]
    for how in ("enter", "exit"):
        for call in dict.fromkeys(hook.name for hook in kept if hook.how == how):
            text, each = _call_program(how, call, [hook for hook in kept if (hook.how, hook.name) == (how, call)])
            texts.append(text)
            programs.append(each)
    texts.append(_entry_program(ON_ENTRY, [hook for hook in kept if hook.how == "every"]))
    texts.append(_entry_program(ON_ENTRY_ALONE, []))
    return "\n".join(texts), programs


def _accounts(probe: str) -> str:
    """The templates that an account of processes is made of."""
    return f"TEMPLATE(places.h, {probe})\nTEMPLATE(accounts.h, {probe})\n" if KINDS[probe].account else ""


def places(probe: str) -> list[str]:
    """What a probe of accounts keeps for processes and threads: each is two maps, `<name>_places` and `<name>_displaced`."""
    return [name for template, name in _TEMPLATE.findall(_accounts(probe) + _read(f"{probe}.c")) if template == "places.h"]


def _instance(match: re.Match[str]) -> str:
    """A template of bpf/include with a name put in."""
    return _read(f"include/{match[1]}").replace("@", match[2]).replace("$", match[2].upper())


def _shared(names: tuple[str, ...], hooks: list[Hook]) -> list[Program]:
    """What other programs go on to: those of the shapes, then the probes' own."""
    found = []
    for shape in shapes(names):
        for function, index in shape.programs.items():
            found.append(Program(function, tuple(Hook(kind.name, "program", function) for kind in shape.kinds), index))
    for function in FILTERS:
        index = 1 + max([0, *(each.index for each in found)])
        found.append(Program(function, tuple(Hook(name, "program", function) for name in names), index))
    first = 1 + found[-1].index
    return found + [Program(hook.function, (hook,), first + place) for place, hook in enumerate(hooks)]
