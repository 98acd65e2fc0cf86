"""Accounts of processes, on the real kernel: against what /proc and getrusage say of the same process at the same moment, what strace counts, and
what the programs know themselves."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infrasight.kernel import Records, Tracing, syscall_names, trace
from infrasight.kernel.syscalls import number
from infrasight.node.growth import Growth
from infrasight.node.identity import Identity
from infrasight.schema.events.resource import RESOURCE
from tests import workloads
from tests.kernel.conftest import Limits
from tests.kernel.tap import Tap, not_of_others, taken, tapping
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
ACCOUNTS = ("resource", "syscall_freq")
COUNTERS = [field.name for field in RESOURCE.fields if field.name != "interval"]
EXACT = ["mapped_bytes", "unmapped_bytes", "brk_grown_bytes", "brk_shrunk_bytes", "bytes_read", "bytes_written", "bytes_received", "bytes_sent"]
"""What a program knows of itself to the byte."""
PF_KTHREAD = 0x200000
READ = number("read")


def live(tracing: Tracing, kind: str, pid: int) -> list[dict[str, Any]]:
    """The accounts of a process as they are now."""
    every = ((records, row) for records in tracing.accounts[kind].read() for row in np.flatnonzero(records["pid"] == pid).tolist())
    return [{name: column[row] for name, column in records.columns.items()} for records, row in every]


def used(tracing: Tracing, pid: int) -> Counter[str]:
    """What is in the accounts of a process now."""
    return Counter({name: sum(int(account[name]) for account in live(tracing, "resource", pid)) for name in COUNTERS})


def is_blocked(pid: int) -> bool:
    """Whether it is inside read() and has given up the processor: the kernel tells no call before."""
    try:
        return Path(f"/proc/{pid}/syscall").read_text().split()[0] == str(READ)
    except ProcessLookupError:
        return False


def proc(pid: int) -> dict[str, float]:
    """What /proc says of a process."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return {
        "cpu_ns": (int(stat[11]) + int(stat[12])) * 1e7,
        "faults": int(stat[7]) + int(stat[9]),
        "bytes_read": int(io["rchar"]),
        "bytes_written": int(io["wchar"]),
    }


class Held:
    """The workload `uses`, which waits before and after what it does."""

    def __init__(self, *arguments: object) -> None:
        command = [workloads.build("uses"), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        eventually(lambda: is_blocked(self.pid))

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"x")
        self.process.stdin.flush()

    def work(self) -> dict[str, Any]:
        """Let it work; what it says it did, the byte that it was sent and its report included."""
        self.go()
        assert self.process.stdout
        line = self.process.stdout.readline()
        eventually(lambda: is_blocked(self.pid))
        said: dict[str, Any] = json.loads(line)
        said["bytes_read"] += 1
        said["bytes_written"] += len(line)
        return said

    def end(self) -> Any:
        """Let it end; what the kernel says it used, its end included."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        _, status, usage = os.wait4(self.pid, 0)
        self.process.stdout.close()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        assert status == 0
        return usage


def final(tap: Tap, kind: str, pid: int) -> list[Any]:
    """Records of its end, which comes a moment after its parent has been told: one for each account that it had."""
    eventually(lambda: tap.records(kind, pid=pid) and not live(tap.tracing, kind, pid))
    return tap.records(kind, pid=pid)


def total(tap: Tap, pid: int) -> Counter[str]:
    """All that was told of a process at its end."""
    return Counter({name: sum(each[name] for each in final(tap, "resource", pid)) for name in COUNTERS})


def calls(records: list[Any]) -> Counter[str]:
    """By name of the call, of accounts or records of them."""
    sums = sum(np.frombuffer(bytes(each["calls"]), np.uint32) for each in records)
    return Counter({syscall_names().get(place, str(place)): int(sums[place]) for place in np.flatnonzero(sums)})


def same(ours: float, theirs: float, slack: float) -> bool:
    """Within 2 %, and what may be between the two looks."""
    return abs(ours - theirs) <= 0.02 * theirs + slack


def agrees(ours: Counter[str], usage: Any) -> None:
    """With getrusage, over the whole life of a process. That leaves out the last time that each of up to four threads gave up the processor."""
    faults = ours["user_faults"] + ours["kernel_faults"]
    found = {
        "cpu": (ours["cpu_ns"] / 1e9, usage.ru_utime + usage.ru_stime, 0.005),
        "faults": (faults, usage.ru_minflt + usage.ru_majflt, 20),
        "voluntary": (ours["voluntary_switches"], usage.ru_nvcsw, 5),
        "involuntary": (ours["involuntary_switches"], usage.ru_nivcsw, 5),
    }
    assert not {name: values for name, values in found.items() if not same(*values)}


WORK = {
    "one thread": ("--cpu-ms", 700),
    "four threads": ("--cpu-ms", 200, "--threads", 4),
    "memory": ("--pages", 5003),
    "files": ("--files", 2003),
    "sockets": ("--sockets", 101),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_what_a_process_uses(tap: Tap, work: tuple[object, ...]) -> None:
    held = Held(*work)
    before, proc_before = used(tap.tracing, held.pid), proc(held.pid)
    said = held.work()
    after, proc_after = used(tap.tracing, held.pid), proc(held.pid)
    grown = {name: after[name] - before[name] for name in COUNTERS}
    theirs = {name: proc_after[name] - proc_before[name] for name in proc_after}
    if "--threads" in work:  # each has memory of the C library
        grown["brk_grown_bytes"] = 0
    assert {name: grown[name] for name in EXACT} == {name: said[name] for name in EXACT}
    assert (theirs["bytes_read"], theirs["bytes_written"]) == (grown["bytes_read"], grown["bytes_written"])
    assert same(grown["cpu_ns"], theirs["cpu_ns"], 20e6)
    assert same(grown["user_faults"] + grown["kernel_faults"], theirs["faults"], 5)
    assert grown["user_faults"] >= said["touched_pages"]
    assert after["bytes_read"] == proc_after["bytes_read"], "it was started after counting began"
    usage = held.end()
    agrees(total(tap, held.pid), usage)
    assert live(tap.tracing, "resource", held.pid) == []


def test_page_faults_are_told_apart(tap: Tap) -> None:
    """Pages that the kernel writes to first, and pages that the process does."""
    pages = "memory = mmap.mmap(-1, 2003 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\nmemory.madvise(mmap.MADV_NOHUGEPAGE)\n"
    ways = {"kernel": "os.readv(os.open('/dev/zero', os.O_RDONLY), [memory])", "user": "for page in range(2003): memory[4096 * page] = 1"}
    found = {}
    for way, line in ways.items():
        child = subprocess.Popen([sys.executable, "-S", "-c", f"import mmap, os\n{pages}{line}"])
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert status == 0
        found[way] = total(tap, child.pid)
        agrees(found[way], usage)
    more = {name: found["kernel"][name] - found["user"][name] for name in ("kernel_faults", "user_faults")}
    assert same(more["kernel_faults"], 2003, 20)
    assert same(-more["user_faults"], 2003, 20)


@pytest.mark.parametrize("work", [("--populate", 60_007), ("--cpu-ms", 50)], ids=["much to give back", "little"])
def test_what_it_takes_to_end_is_told_too(tap: Tap, work: tuple[object, ...]) -> None:
    """Giving back its memory takes a process as long as some of its work."""
    held = Held(*work)
    held.work()
    before = used(tap.tracing, held.pid)
    usage = held.end()
    ours = total(tap, held.pid)
    agrees(ours, usage)
    assert ours["cpu_ns"] > before["cpu_ns"]


def test_a_process_that_ran_before_counting_began() -> None:
    """And one while it did not: only what it does after that is in its account. Switched off and on, everything begins with nothing."""
    old, paused, other = (Held("--cpu-ms", 300, "--files", 101) for _ in range(3))
    old.work()
    with tapping(ACCOUNTS) as tap:
        paused.work()
        seen = used(tap.tracing, paused.pid)
        assert seen["cpu_ns"] >= 3e8
        tap.tracing.apply(())
        assert not any(accounts.running for accounts in tap.tracing.accounts.values())
        other.work()
        tap.tracing.apply(ACCOUNTS)
        assert [live(tap.tracing, kind, paused.pid) for kind in tap.tracing.accounts] == [[], []]
        for held in (old, paused, other):
            tap.follow(held.pid)
            held.go()
            held.end()
            ours = total(tap, held.pid)
            assert (ours["bytes_read"], ours["bytes_written"]) == (1, 0)
            assert 0 < ours["cpu_ns"] < 1e8
            assert calls(final(tap, "syscall_freq", held.pid)) == {"exit_group": 1}


def test_a_thread_that_never_gives_up_the_processor() -> None:
    """It is looked at once a second, on every processor; here by nothing else."""
    with tapping(("resource",)) as tap:
        (switch,) = [event for event in tap.tracing._hooks if event.name == "sched_switch"]
        tap.tracing._detach(switch)
        for cpu in sorted(os.sched_getaffinity(0)):
            busy = subprocess.Popen([workloads.build("uses"), "--cpu-ms", "60000"], stdin=subprocess.PIPE)
            assert busy.stdin
            os.sched_setaffinity(busy.pid, {cpu})
            busy.stdin.write(b"x")
            busy.stdin.flush()
            eventually(lambda pid=busy.pid: used(tap.tracing, pid)["cpu_ns"] > 5e8)
            assert used(tap.tracing, busy.pid)["cpu_ns"] <= proc(busy.pid)["cpu_ns"] + 20e6
            busy.kill()
            busy.communicate()


def test_another_program_and_another_thread(tap: Tap) -> None:
    """exec keeps the account and changes the name at once. A thread that is not the leader and does it is not counted twice."""
    held = Held("--cpu-ms", 100, "--exec", "/bin/cat")
    held.work()
    (before,) = live(tap.tracing, "resource", held.pid)
    held.go()
    eventually(lambda: os.readlink(f"/proc/{held.pid}/exe") != str(workloads.build("uses")) and is_blocked(held.pid))
    (after,) = live(tap.tracing, "resource", held.pid)
    assert (before["comm"], after["comm"]) == (b"uses", b"cat")
    assert (before["enter_ns"], before["exec_id"] + 1) == (after["enter_ns"], after["exec_id"])
    agrees(total(tap, held.pid) if (usage := held.end()) else Counter(), usage)
    assert {each["comm"].rstrip(b"\0") for kind in ("resource", "syscall_freq") for each in final(tap, kind, held.pid)} == {b"cat"}

    script = "import os, threading, time\ndef run():\n    while time.thread_time() < 0.4: pass\n    os.execv('/bin/true', ['true'])\n"
    child = subprocess.Popen([sys.executable, "-S", "-c", f"{script}thread = threading.Thread(target=run)\nthread.start()\nthread.join()"])
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    ours = total(tap, child.pid)
    assert status == 0
    assert same(ours["cpu_ns"] / 1e9, usage.ru_utime + usage.ru_stime, 0.01)


def test_each_process_has_its_own(tap: Tap, tmp_path: Path) -> None:
    """A fork opens another account; each is told once, at the end."""
    workloads.run("forkstorm", "--count", 211, "--batch", 7, "--depth", 4, "--touch", tmp_path, "--log", tmp_path / "log")
    born = {line["pid"]: line["ppid"] for line in workloads.read_log(tmp_path / "log")}
    for pid, ppid in born.items():
        for kind in ("resource", "syscall_freq"):
            (record,) = final(tap, kind, pid)
            assert (record["ppid"], record["start_ns"] // 10**7 > 0) == (ppid, True)
        assert calls(final(tap, "syscall_freq", pid))["exit_group"] == 1
    assert len(born) == 211


def test_who_has_none() -> None:
    """This process, and what it starts; kernel threads. What a child of it starts does."""
    with tapping(ACCOUNTS, self_pid=os.getpid()) as tap:
        child = subprocess.Popen(["/bin/sh", "-c", "echo; /bin/cat; exit"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline()
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        eventually(lambda: children.read_text().strip() and is_blocked(int(children.read_text())))
        grandchild = int(children.read_text())
        for kind, accounts in tap.tracing.accounts.items():
            pids = {pid for records in accounts.read() for pid in records["pid"].tolist()}
            assert grandchild in pids
            assert not pids & {os.getpid(), child.pid}
            assert not [pid for pid in pids if is_kernel_thread(pid)], kind
        child.communicate(b"")
        assert tap.records("resource", pid=child.pid) == []


def is_kernel_thread(pid: int) -> bool:
    try:
        return bool(int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[6]) & PF_KTHREAD)
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_more_processes_than_places(limits: Limits) -> None:
    """They are counted as others are, also those whose place becomes free meanwhile."""
    limits(RESOURCE_PLACES=2, SYSCALL_FREQ_PLACES=2, METER_PLACES=2)
    with tapping(ACCOUNTS) as tap:
        all_held = [Held("--cpu-ms", 40 + 10 * k, "--files", 7 * k) for k in range(9)]
        said = [held.work() for held in all_held]
        for held in all_held:
            assert used(tap.tracing, held.pid)["cpu_ns"] > 40e6
        usages = [held.end() for held in all_held]
        for held, usage, mine in zip(all_held, usages, said, strict=True):
            ours = total(tap, held.pid)
            agrees(ours, usage)
            assert ours["bytes_written"] == mine["bytes_written"]
            assert [live(tap.tracing, kind, held.pid) for kind in tap.tracing.accounts] == [[], []]
        assert tap.tracing.losses() == {}


@pytest.mark.serial  # it would fill the rings of others too
def test_threads_that_race_for_a_place(limits: Limits) -> None:
    """Nothing is lost between them, nor counted twice; a process that comes to have two accounts is told with both."""
    limits(RESOURCE_PLACES=1, SYSCALL_FREQ_PLACES=1, METER_PLACES=1)
    with tapping(ACCOUNTS) as tap:
        for _ in range(20):
            child = subprocess.Popen([workloads.build("frequent"), "--rounds", "150", "--threads", "16"], stdout=subprocess.PIPE)
            assert child.stdout
            said = json.loads(child.stdout.read())
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            child.stdout.close()
            found = calls(final(tap, "syscall_freq", child.pid))
            assert {name: count for name, count in found.items() if name in HARMLESS} == {name: said["calls"][name] for name in HARMLESS}
            assert same(total(tap, child.pid)["cpu_ns"] / 1e9, usage.ru_utime + usage.ru_stime, 0.005)
        assert tap.tracing.losses() == {}


def test_no_room_for_another_account_is_counted(limits: Limits) -> None:
    limits(SYSCALL_FREQ_PLACES=1, SYSCALL_FREQ_DISPLACED=2, RESOURCE_PLACES=1, RESOURCE_DISPLACED=2)
    with tapping(ACCOUNTS) as tap:
        held = [Held() for _ in range(5)]
        for each in held:
            each.end()
        assert {("resource", "accounts_full"), ("syscall_freq", "accounts_full")} <= tap.tracing.losses().keys()


def crowd(count: int, calls: int) -> int:
    """So many processes, which make calls and then all end at once: the id of their parent, which has ended too."""
    command = [workloads.build("crowd"), "--count", str(count), "--calls", str(calls)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    said = json.loads(process.stdout.readline())
    assert said["processes"] == count, os.strerror(said["errno"])
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()
    return process.pid


def living(tracing: Tracing, kind: str, parent: int) -> int:
    """How many accounts there are now of its children."""
    return sum(int(np.count_nonzero(records["ppid"] == parent)) for records in tracing.accounts[kind].read())


@pytest.mark.serial  # it would fill the rings of others too
@pytest.mark.parametrize("room", [32768, 100], ids=["room elsewhere", "no room"])
def test_ends_that_find_the_ring_full(room: int, limits: Limits) -> None:
    """Nobody reads while more processes end than a ring holds: all are told all the same, each once, as they were; or they are counted."""
    limits(RESOURCE_ENDED=room, SYSCALL_FREQ_ENDED=room)
    count, made = 5003, 7
    tracing = asyncio.run(trace(ACCOUNTS, self_pid=0, rules=not_of_others()))
    with tracing:
        parent = crowd(count, made)
        for kind, accounts in tracing.accounts.items():
            eventually(lambda kind=kind: not living(tracing, kind, parent))
            (ring,) = [ring for ring in tracing.rings if ring.name == kind]
            ends = [records for _, records in taken(ring, ring.end())]
            in_the_ring = sum(map(len, ends))
            more = True
            while more:
                records, more = accounts.take_ended()
                ends += [] if records is None else [records]
            mine = [records[records["ppid"] == parent] for records in ends]
            told = Counter(pid for records in mine for pid in records["pid"].tolist())
            lost = tracing.losses().get((kind, "ring_full"), 0)
            assert set(told.values()) == {1}
            assert len(told) <= count <= len(told) + lost
            assert bool(lost) == (room < count - in_the_ring)
            assert sum(map(len, ends)) <= in_the_ring + room
            for records in mine:
                assert (records["comm"] == b"crowd").all()
                assert ((records["enter_ns"] > 0) & (records["enter_ns"] + records["latency_ns"] < time.monotonic_ns())).all()
                if kind == "syscall_freq":
                    assert (records["calls"][:, number("getppid")] == made).all()
            assert accounts.take_ended() == (None, False)


@pytest.mark.serial  # it would fill the rings of others too
def test_what_ends_while_all_are_looked_at_is_told_once() -> None:
    """The ring is full, and accounts are read while they are put aside: the rows of each process add up to what it did."""
    count, made = 5003, 7
    tracing = asyncio.run(trace(("syscall_freq",), self_pid=os.getpid(), rules=not_of_others()))
    growth, told, looks = Growth(("calls",), Identity("node", "boot")), Counter[tuple[int, int]](), 0

    def tell(records: Records, *, final: bool) -> None:
        grown = growth.of(records, np.full(len(records), time.monotonic_ns(), np.uint64), final)
        if grown:
            rows = grown.rows(final)
            mine = rows[(rows["number"] == number("getppid")) & (rows["comm"] == b"crowd")]
            for pid, start_ns, calls in zip(mine["pid"].tolist(), mine["start_ns"].tolist(), mine["count"].tolist(), strict=True):
                told[pid, start_ns] += calls

    with tracing:
        accounts = tracing.accounts["syscall_freq"]
        command = f"{workloads.build('crowd')} --count {count} --calls {made} < /dev/null; exit $?"
        with subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.DEVNULL) as process:
            more = True
            while process.poll() is None or more:
                for records in accounts.read():
                    tell(records, final=False)
                records, more = accounts.take_ended()
                looks += 1
                if records is not None:
                    tell(records, final=True)
        assert process.returncode == 0
        (ring,) = [ring for ring in tracing.rings if ring.name == "syscall_freq"]
        for _, records in taken(ring, ring.end()):
            tell(records, final=True)
        lost = {reason: number for (probe, reason), number in tracing.losses().items() if probe == "syscall_freq"}
        assert (set(told.values()), len(told), lost) == ({made}, count, {})
        assert looks > 2, "else nothing ended meanwhile"


HARMLESS = ("getppid", "gettid", "sched_yield", "fchdir", "openat2", "getuid", "socket", "accept4", "chmod", "lseek")
"""Of the calls of the workload `frequent`, those that its C library does not make."""


def frequent(tap: Tap, *arguments: object) -> tuple[Counter[str], dict[str, int]]:
    """What was counted of the workload, and what it says itself."""
    said = workloads.run("frequent", *arguments)
    return calls(final(tap, "syscall_freq", said["pid"])), said["calls"]


def straced(path: Path, *arguments: object) -> Counter[str]:
    subprocess.run(["strace", "-c", "-f", "-o", path, workloads.build("frequent"), *map(str, arguments)], check=True, stdout=subprocess.PIPE)
    counts = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", path.read_text(), re.MULTILINE)
    return Counter({name: int(count) for count, name in counts if name != "total"})


@pytest.mark.needs("strace")
@pytest.mark.parametrize("threads", [(), ("--threads", 5)], ids=["one thread", "five threads"])
def test_calls_are_counted_as_strace_does(threads: tuple[object, ...], tap: Tap, tmp_path: Path) -> None:
    """Of two runs, one of which does nothing more than begin and end, so that it does not matter how they were started."""
    rounds = ("--rounds", 211, *threads)
    more, said = frequent(tap, *rounds)
    nothing, _ = frequent(tap, "--rounds", 0, *threads)
    ours, theirs = Counter(more), straced(tmp_path / "more", *rounds)
    ours.subtract(nothing)
    theirs.subtract(straced(tmp_path / "nothing", "--rounds", 0, *threads))
    waits = {"futex", "madvise", "munmap", "mmap", "mprotect"} if threads else set()  # as it happens
    ours, theirs = (Counter({name: count for name, count in each.items() if count and name not in waits}) for each in (ours, theirs))
    assert ours == theirs
    assert {name: count for name, count in ours.items() if name in said} == {name: count for name, count in said.items() if count}
    assert more["exit_group"] == nothing["exit_group"] == 1
    assert straced(tmp_path / "all", *rounds).keys() - {"futex"} <= more.keys()


@pytest.mark.needs("compat")
def test_calls_of_32_bit_programs_have_their_names(tap: Tap) -> None:
    ours, said = frequent(tap, "--rounds", 101, "--compat")
    nothing, _ = frequent(tap, "--rounds", 0)
    ours.subtract(nothing)
    assert {name: count for name, count in ours.items() if count} == said


def test_one_look_is_cheap(tap: Tap, capsys: pytest.CaptureFixture[str]) -> None:
    """Shown, and no more than a part of a second even here."""
    for kind, accounts in tap.tracing.accounts.items():
        cpu = time.thread_time()
        count = sum(map(len, accounts.read()))
        cost = time.thread_time() - cpu
        with capsys.disabled():
            sys.stdout.write(f" [{kind}: {count} accounts read in {1000 * cost:.1f} ms] ")
        assert cost < 0.5
