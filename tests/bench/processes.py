"""What a process and its descendants have used, and how it is ended: by its own pid, never by a name."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Gently first; a tracer that is killed outright may leave its output unflushed.
ENDINGS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB: now, and at its highest."""

    rss_mib: float
    peak_mib: float


def wait_until(happened: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Whether `happened` came true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat after the name, so from field 3 (state) on; empty when the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """`pid` and all its living descendants."""
    parents = {int(entry.name): fields[1] for entry in PROC.iterdir() if entry.name.isdigit() and (fields := _stat(int(entry.name)))}
    found = [pid]
    for member in found:  # grows while we walk it
        found.extend(child for child, parent in parents.items() if parent == str(member))
    return found


def cpu_s(pid: int) -> float:
    """User and system time of the family, the children already waited for included (proc(5): utime, stime, cutime, cstime)."""
    return sum(int(ticks) for member in family(pid) for ticks in _stat(member)[11:15]) / TICKS_PER_S


def memory(pid: int) -> Memory:
    """Resident memory of the family."""
    kib = {"VmRSS": 0, "VmHWM": 0}
    for member in family(pid):
        try:
            lines = (PROC / str(member) / "status").read_text().splitlines()
        except OSError:
            continue
        for name, _, rest in (line.partition(":") for line in lines):
            if name in kib:
                kib[name] += int(rest.split()[0])
    return Memory(kib["VmRSS"] / 1024, kib["VmHWM"] / 1024)


def wait_idle(pid: int, timeout_s: float = 10.0, window_s: float = 0.3) -> None:
    """Wait until the family uses less than a tenth of a core, so until it has worked off what was queued."""
    deadline = time.monotonic() + timeout_s
    before = cpu_s(pid)
    while time.monotonic() < deadline:
        time.sleep(window_s)
        now = cpu_s(pid)
        if now - before <= window_s / 10:
            return
        before = now


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started, the gentle way first, and then whatever of its family it has left behind."""
    born = {member: _stat(member)[19:20] for member in family(process.pid)}  # a pid may be somebody else's by then: the start time tells
    _end(process)
    for member, start in born.items():
        if start and _stat(member)[19:20] == start and _stat(member)[0] != "Z":
            os.kill(member, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    for ending, timeout_s in ENDINGS:
        if process.poll() is not None:
            return
        process.send_signal(ending)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            continue
