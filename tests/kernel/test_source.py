"""The C text: hooks are found, what the kernel lacks is left out, what is missing is said."""

import platform
import re
import subprocess
from pathlib import Path

import pytest

from infrasight.errors import KernelError
from infrasight.kernel import source, syscalls
from infrasight.kernel.source import Hook, Program, bpf_directory, exists, hooks, program, tracefs
from infrasight.schema import KINDS, PROBES

MACHINES = ("x86_64", "aarch64")
HOOKS = {
    "execve": "raw:sched_process_exec exit:execve exit:execveat program:send program:paths",
    "open": "exit:open exit:openat exit:openat2 exit:creat exit:open_by_handle_at",
    "connect": "enter:connect exit:connect",
    "process": "raw:sched_process_fork raw:sched_process_exec raw:sched_process_exit program:cwd raw:cgroup_mkdir raw:cgroup_rmdir",
    "chmod": "exit:chmod exit:fchmod exit:fchmodat exit:fchmodat2",
    "ptrace": "exit:ptrace",
    "umount": "exit:umount2",
}


@pytest.mark.parametrize("probe", PROBES)
def test_every_hook_is_found(probe: str) -> None:
    """What looks like one in the file is one, and hangs on something that there is."""
    found = hooks(probe)
    assert len(found) == len(re.findall(r"^(?:ENTER|EXIT|EVERY|RAW|TICK|PROGRAM)\(", (bpf_directory() / f"{probe}.c").read_text(), re.MULTILINE)) > 0
    assert len({hook.function for hook in found}) == len(found)
    calls = {hook.name for hook in found if hook.how in ("enter", "exit")}
    assert calls <= {name for machine in MACHINES for name in syscalls.names(machine).values()}
    if probe in HOOKS:
        assert {hook.place for hook in found} == set(HOOKS[probe].split())


def test_hooks_are_written_as_people_do() -> None:
    hook = Hook("open", "enter", "openat2")
    assert (hook.function, hook.place) == ("enter__open__openat2", "enter:openat2")


def test_a_call_is_told_to_one_probe() -> None:
    """What is told ends the program, so nothing after it would run. Those that only count listen in."""
    tellers = [(hook.name, probe) for probe in PROBES for hook in hooks(probe) if hook.how == "exit" and not KINDS[probe].account]
    assert len({call for call, _ in tellers}) == len(tellers)


def called(text: str, function: str) -> list[str]:
    """The functions of probes that a C function calls."""
    body = text[text.index(f"int {function}(") :].partition("\n}\n")[0]
    return re.findall(r"^    (\w+__\w+__\w+)\(", body, re.MULTILINE)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_a_machine_lacks_are_left_out(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    text, programs = program(PROBES)
    wanted = [hook for probe in PROBES for hook in hooks(probe) if exists(hook) and hook.how != "every"]
    served = [hook for each in programs for hook in each.hooks if each.function.startswith(("enter_", "exit_", "raw__", "tick__", "program__"))]
    assert sorted(served, key=repr) == sorted(wanted, key=repr)
    assert len({each.function for each in programs}) == len(programs)
    for each in programs:
        assert text.count(f"int {each.function}(struct bpf_raw_tracepoint_args *ctx)") + text.count(hook_text(each)) == 1
        if each.how in ("enter", "exit"):
            assert each.name in syscalls.names(machine).values()
            assert called(text, each.function) == [hook.function for hook in each.hooks]
    assert called(text, "on_sys_enter") == [hook.function for probe in PROBES for hook in hooks(probe) if hook.how == "every"]
    assert called(text, "on_sys_enter_alone") == []
    assert ("EXIT(open, open)" in text) == (machine == "x86_64")
    assert ("#define COMPAT_CALLS" in text) == (machine == "x86_64")
    assert "open_exit(void *ctx" in text
    assert text.count("{") == text.count("}")


def hook_text(each: Program) -> str:
    """How the program is written in the file of its probe, if it is."""
    hook = each.hooks[0]
    return f"{hook.how.upper()}({hook.probe}, {hook.name})\n" if each.function == hook.function else "no such text"


def test_everything_is_kept_on_this_machine() -> None:
    text, _ = program(PROBES)
    if platform.machine() == "x86_64":
        for probe in (name for name in PROBES if not KINDS[name].account):
            assert (bpf_directory() / f"{probe}.c").read_text() in text


def test_programs_that_others_go_on_to_have_places_of_their_own() -> None:
    """And the C text knows them by these, and has room for the last."""
    text, programs = program(PROBES)
    places = {each.index: each for each in programs if each.how == "program"}
    assert len(places) == sum(each.how == "program" for each in programs)
    assert min(places) >= 0
    assert all(each.index == -1 for each in programs if each.how != "program")
    defined = {name: int(value) for name, value in re.findall(r"^#define (PROGRAMS?(?:_\w+)?) (\d+)$", text, re.MULTILINE)}
    assert defined["PROGRAMS"] == 1 + max(places)
    for place in (number for name, number in defined.items() if name != "PROGRAMS"):
        assert place in places
    assert places[defined["PROGRAM_EXECVE_SEND"]].function == "program__execve__send"
    assert {int(index) for index in re.findall(r"programs\.call\(ctx, (\d+)\)", text)} <= places.keys()


def test_a_part_of_the_probes() -> None:
    """When one does not compile, the others are compiled without it."""
    text, programs = program(("open", "process"))
    assert {hook.probe for each in programs for hook in each.hooks} == {"open", "process"}
    assert "connect_ring" not in text
    assert "EXIT(connect" not in text


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_fit_and_are_given_once(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    names = syscalls.names(machine)
    assert len(set(names.values())) == len(names) > 300
    assert all(0 <= each < syscalls.CALL_NUMBERS for each in (*names, *syscalls.compat_numbers()))
    assert names[syscalls.number("openat") or -1] == "openat"
    assert syscalls.number("nothing") is None


def numbers_in(header: str) -> dict[int, str]:
    """What the C library's copy of a header of the kernel says; of an older kernel, perhaps, that lacks the newest."""
    command = ["gcc", "-E", "-dM", "-xc", "-"]
    said = subprocess.run(command, input=f"#include <{header}>\n", capture_output=True, text=True, check=True).stdout
    return {int(number): name for name, number in re.findall(r"^#define __NR_(\w+) (?:\(__X32_SYSCALL_BIT \+ )?(\d+)\)?$", said, re.MULTILINE)}


@pytest.mark.needs("gcc")
def test_the_numbers_are_those_of_the_kernel() -> None:
    known = numbers_in("asm/unistd.h")
    names = syscalls.names(platform.machine())
    assert {number: names.get(number) for number in known} == known
    assert len(known) > len(names) - 40


@pytest.mark.needs("gcc", "compat")
def test_the_numbers_of_x32_programs_are_those_of_the_kernel() -> None:
    """As those of other 64-bit programs, but for some of their own."""
    names, known = syscalls.names("x86_64"), numbers_in("asm/unistd_x32.h")
    assert {number: names.get(number) for number in known if number < 512} == {number: name for number, name in known.items() if number < 512}
    assert {512 + place: names[native] for place, native in syscalls.x32_numbers().items()} == {n: name for n, name in known.items() if n >= 512}


OTHER_NAMES = {
    7: "wait4",
    22: "umount2",
    59: "uname",
    67: "rt_sigaction",
    72: "rt_sigsuspend",
    73: "rt_sigpending",
    119: "rt_sigreturn",
    126: "rt_sigprocmask",
    140: "lseek",
    191: "getrlimit",
    192: "mmap",
    272: "fadvise64",
    300: "newfstatat",
}
"""Calls of 32-bit programs that are another call's with other arguments. 102 (socketcall) is told apart by its first argument."""
HAS_NO_SUCCESSOR = {17, 25, 31, 32, 34, 35, 44, 48, 53, 56, 58, 68, 69, 89, 98, 102, 112, 113, 117, 134, 166}


@pytest.mark.needs("gcc", "compat")
def test_the_numbers_of_32_bit_programs_are_those_of_the_kernel() -> None:
    """Each under the name that the same call has in 64-bit programs, which lack what their kind of machine does not need (`chown32`, `stat64`)."""
    names = syscalls.names("x86_64")
    compat = {number: names[native] for number, native in syscalls.compat_numbers().items()}
    known = {number: name for number, name in numbers_in("asm/unistd_32.h").items() if number < 480}
    for number, name in known.items():
        plain = name.removesuffix("32").removesuffix("64").removesuffix("_time")
        usual = {name, plain, plain.removeprefix("_new"), plain.removeprefix("old").removeprefix("old")}
        if number in HAS_NO_SUCCESSOR:
            assert number not in compat
        else:
            assert compat[number] in ({OTHER_NAMES[number]} if number in OTHER_NAMES else usual), (number, name)
    made_up = syscalls.COMPAT_SPECIAL["COMPAT_SOCKETCALLS"]
    assert {number for number in compat if number < made_up} - known.keys() <= set(range(max(known) + 1, made_up))


@pytest.mark.needs("gcc", "compat")
def test_what_passes_through_socketcall() -> None:
    """By the numbers of include/uapi/linux/net.h. There send and recv are calls of their own, which are sendto and recvfrom without an address."""
    said = subprocess.run(["gcc", "-E", "-dM", "-xc", "-"], input="#include <linux/net.h>\n", capture_output=True, text=True, check=True).stdout
    known = {int(number): name.lower() for name, number in re.findall(r"^#define SYS_(\w+)\s+(\d+)", said, re.MULTILINE)}
    names, compat = syscalls.names("x86_64"), syscalls.compat_numbers()
    made_up = syscalls.COMPAT_SPECIAL["COMPAT_SOCKETCALLS"]
    assert len(known) == 20
    for number, name in known.items():
        assert names[compat[made_up + number]] == {"send": "sendto", "recv": "recvfrom"}.get(name, name)


@pytest.mark.parametrize("there", [False, True])
def test_without_tracefs(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TRACEFS", (tmp_path,))
    if there:
        (tmp_path / "events").mkdir()
    with pytest.raises(KernelError, match=r"^tracefs is not mounted, or not readable: mount -t tracefs none /sys/kernel/tracing$"):
        tracefs()


def test_without_the_c_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "__file__", str(tmp_path / "infrasight" / "kernel" / "source.py"))
    with pytest.raises(KernelError, match=r"^InfraSight's bpf/ directory is missing: install it again$"):
        bpf_directory()
    installed = tmp_path / "infrasight" / "_bpf"
    (installed / "include").mkdir(parents=True)
    (installed / "include" / "emit.h").touch()
    assert bpf_directory() == installed, "as in a wheel"
