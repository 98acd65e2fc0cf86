"""The C text: hooks are found, what the kernel lacks is left out, what is missing is said."""

import platform
import re
import subprocess
from pathlib import Path

import pytest

from infrasight.errors import KernelError
from infrasight.kernel import source, syscalls
from infrasight.kernel.source import Hook, bpf_directory, exists, hooks, program, tracefs
from infrasight.schema import PROBES

CALLS = {
    "execve": ["execve", "execveat"],
    "open": ["open", "openat", "openat2", "creat"],
    "connect": ["connect"],
    "process": [],
    "chmod": ["chmod", "fchmod", "fchmodat", "fchmodat2"],
    "ptrace": ["ptrace"],
    "mount": ["mount", "move_mount"],
    "umount": ["umount2"],
}
RAW = {"execve": ["sched_process_exec"], "process": ["sched_process_fork", "sched_process_exec", "sched_process_exit"]}


@pytest.mark.parametrize("probe", PROBES)
def test_every_hook_is_found(probe: str) -> None:
    expected = {Hook(probe, how, call) for call in CALLS[probe] for how in ("enter", "exit")}
    expected |= {Hook(probe, "raw", event) for event in RAW.get(probe, [])}
    assert set(hooks(probe)) == expected
    assert len(hooks(probe)) == len(re.findall(r"^(?:ENTER|EXIT|RAW)\(", (bpf_directory() / f"{probe}.c").read_text(), re.MULTILINE))


def test_hooks_are_written_as_people_do() -> None:
    hook = Hook("open", "enter", "openat2")
    assert (hook.function, hook.place) == ("enter__open__openat2", "enter:openat2")


def cases(text: str, how: str) -> dict[int, str]:
    """Number -> function, of the program on entry or exit of every system call."""
    body = text[text.index(f"int calls__sys_{how}(") :].partition("\n}\n")[0]
    return {int(number): function for number, function in re.findall(r"case (\d+):\n\s+return .*?(\w+__\w+__\w+)\(", body)}


@pytest.mark.parametrize("machine", syscalls.NUMBERS)
def test_calls_that_a_machine_lacks_are_left_out(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    text, programs = program(PROBES)
    served = [hook for each in programs for hook in each.hooks]
    wanted = [hook for probe in PROBES for hook in hooks(probe) if exists(hook)]
    assert sorted(served, key=repr) == sorted(wanted, key=repr)
    for how in ("enter", "exit"):
        there = {syscalls.NUMBERS[machine][hook.name]: hook.function for hook in wanted if hook.how == how}
        assert cases(text, how) == there
    assert ("ENTER(open, open)" in text) == (machine == "x86_64")
    assert "open_exit(s64 ret)" in text
    assert text.count("{") == text.count("}")


def test_everything_is_kept_on_this_machine() -> None:
    text, programs = program(PROBES)
    for probe in PROBES:
        assert (bpf_directory() / f"{probe}.c").read_text() in text
    assert {each.function for each in programs if not each.function.startswith("raw__")} == {"calls__sys_enter", "calls__sys_exit"}


@pytest.mark.needs("gcc")
def test_the_numbers_are_those_of_the_kernel() -> None:
    names = syscalls.NUMBERS[platform.machine()]
    source_text = "#include <asm/unistd.h>\n" + "".join(f"{name} __NR_{name}\n" for name in names)
    said = subprocess.run(["gcc", "-E", "-P", "-xc", "-"], input=source_text, capture_output=True, text=True, check=True).stdout
    known = {name: int(value) for name, value in (line.split() for line in said.splitlines() if len(line.split()) == 2) if value.isdigit()}
    assert known.items() <= names.items()
    assert len(known) > len(names) / 2, "the headers of an older kernel lack the newest"


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
