"""Starting and stopping: everything attaches here, nothing is left behind, we are not watched, and failures are one line."""

import asyncio
import gc
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infrasight.errors import KernelError
from infrasight.kernel import Tracing, check, trace
from infrasight.kernel.bpf import possible_cpus
from infrasight.kernel.check import _verdict
from infrasight.kernel.percpu import PerCpuCounters
from infrasight.kernel.source import bpf_directory, exists, hooks
from infrasight.kernel.syscalls import number
from infrasight.schema import PROBES
from infrasight.schema.events.process import FORK
from infrasight.schema.kinds import BUFFERS, records_of
from tests import workloads
from tests.kernel.calls import openat
from tests.kernel.conftest import InTheLoader, Limits
from tests.kernel.maps import calls_of, maps_of
from tests.kernel.tap import Interval, Tap, taken, tapping
from tests.waiting import eventually

real = pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")


def kernel_side(test: object) -> object:
    return pytest.mark.kernel(real(test))


def children(pid: int) -> dict[str, str]:
    """Command lines by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found[entry.name] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def open_files() -> list[str]:
    gc.collect()  # what earlier tests have dropped is closed
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))


@kernel_side
def test_nothing_is_left_open() -> None:
    """And process life is traced whether asked for or not. The first test: rings of a fixture, mapped as they are needed, hold files too."""

    async def once() -> None:
        tracing = await trace(("connect",), self_pid=os.getpid())
        assert attached_to(tracing) == {**LIFE, **CALLS}
        for _ in range(2):
            tracing.detach()
        for _ in range(2):
            tracing.close()

    before = open_files()
    for _ in range(3):
        asyncio.run(once())
    assert open_files() == before


@kernel_side
def test_everything_attaches_here(tap: Tap) -> None:
    tracing = tap.tracing
    assert tracing.failed == {}
    wanted = {f"{hook.probe} {hook.place}" for probe in PROBES for hook in hooks(probe) if exists(hook) and hook.how != "program"}
    assert set(tracing.attached) == wanted
    assert len(tracing.attached) == len(wanted) >= 20
    assert [(ring.name, ring.layouts) for ring in tracing.rings] == [(name, records_of(name)) for name in BUFFERS]
    assert not [line for line in children(os.getpid()).values() if "infrasight.kernel.loader" in line], "it would keep 140 MB"
    assert set(tracing.losses()) <= {(probe, reason) for probe in PROBES for reason in ("ring_full", "inflight_full")}


def attached_to(tracing: Tracing) -> dict[str, set[str]]:
    """Tracepoint -> the probes for which a program hangs on it; none where the system calls pass."""
    found: dict[str, set[str]] = {}
    for event in tracing._hooks:
        found.setdefault(event.name, set()).update(event.probes)
    return found


LIFE = {event: {"process"} for event in ("sched_process_fork", "sched_process_exec", "sched_process_exit", "cgroup_mkdir", "cgroup_rmdir")}
CALLS: dict[str, set[str]] = {"sys_enter": {"syscall_freq"}, "sys_exit": set()}


@kernel_side
def test_only_what_runs_is_attached(tmp_path: Path) -> None:
    """All are loaded, but a program at a tracepoint costs whoever passes it."""
    (tmp_path / "file").touch()
    with tapping(()) as tap:
        tracing = tap.tracing
        assert attached_to(tracing) == LIFE
        tracing.apply(("execve",))
        assert attached_to(tracing) == {**LIFE, **CALLS, "sched_process_exec": {"execve", "process"}}
        tracing.apply(PROBES)
        everything = attached_to(tracing)
        tracing.apply(PROBES)
        assert attached_to(tracing) == everything
        tracing.apply(())
        assert attached_to(tracing) == LIFE
        interests = {call: tracing.maps["interests"].lookup(call.to_bytes(4, "little")) for call in tracing.calls}
        assert {call for call, interest in interests.items() if interest != bytes(4)} == set()
        with Interval() as interval:
            openat(bytes(tmp_path / "file"))
            subprocess.run(["/bin/true"], check=True)
        assert not [each for probe in PROBES if probe != "process" for each in tap.records(probe) if each["enter_ns"] >= interval.start]
        assert tap.records("process")


@kernel_side
def test_a_probe_that_comes_and_goes_disturbs_no_other(tmp_path: Path) -> None:
    """Programs open files, in a known number, while another probe is switched on and off."""
    times, count = 50, 211  # the tap takes 0.1 ms for each
    command = [workloads.build("opens"), "--dir", tmp_path, "--count", str(count), "--absent"]
    (tmp_path / "mark").touch()
    pids: list[int] = []
    with tapping(("open",)) as tap:
        for on in range(times):
            opener = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            pids.append(opener.pid)
            tap.tracing.apply(("open", "chmod"))
            os.chmod(tmp_path / "mark", 0o600 + on % 2)
            tap.tracing.apply(("open",))
            os.chmod(tmp_path / "mark", 0o604)
            assert opener.wait() == 0
        opened = Counter(each["pid"] for each in tap.records("open", pid=set(pids)) if each["path"].startswith(bytes(tmp_path)))
        assert opened == dict.fromkeys(pids, count), tap.tracing.losses()
        chmods = tap.records("chmod", pid=os.getpid())
        assert [each["mode"] for each in chmods] == [0o600 + on % 2 for on in range(times)], "on means on, and off means off, at once"


@kernel_side
def test_a_call_of_which_the_end_was_not_seen(tmp_path: Path) -> None:
    """Nobody wanted any call when it ended. What the thread does next, while they are wanted again, is not taken for its end."""
    os.mkfifo(tmp_path / "fifo")
    reader, writer = os.pipe()

    def open_and_read() -> None:
        fd = os.open(tmp_path / "fifo", os.O_RDONLY)
        os.read(reader, 1)
        os.getppid()
        os.close(fd)

    with tapping(("open",)) as tap, maps_of(tap.tracing) as maps:
        thread = threading.Thread(target=open_and_read)
        thread.start()
        eventually(lambda: any(call.in_flight and call.number == number("openat") for call in calls_of(maps)))
        tap.tracing.apply(())
        os.close(os.open(tmp_path / "fifo", os.O_WRONLY))
        eventually(lambda: "pipe" in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text())
        tap.tracing.apply(("open",))
        os.write(writer, b".")
        thread.join()
        assert tap.records("open", tid=thread.native_id) == []
    os.close(reader)
    os.close(writer)


@kernel_side
def test_a_call_that_was_begun_while_its_probe_ran(tmp_path: Path) -> None:
    """It ends when nobody wants it any more, and is not told; its place is free again for a call that is."""
    os.mkfifo(tmp_path / "fifo")
    with tapping(("open",)) as tap, maps_of(tap.tracing) as maps:
        thread = threading.Thread(target=lambda: os.close(os.open(tmp_path / "fifo", os.O_RDONLY)))
        thread.start()
        eventually(lambda: any(call.in_flight and call.number == number("openat") for call in calls_of(maps)))
        tap.tracing.apply(())
        tap.tracing.apply(("chmod",))
        os.close(os.open(tmp_path / "fifo", os.O_WRONLY))
        thread.join()
        os.chmod(tmp_path / "fifo", 0o611)
        tap.tracing.apply(("open",))
        assert [each for each in tap.records("open") if each["path"].endswith(b"/fifo")] == []
        assert tap.one("chmod", pid=os.getpid())["mode"] == 0o611
        assert not [call for call in calls_of(maps) if call.in_flight and call.number == number("openat")]


@kernel_side
def test_who_is_not_watched(tmp_path: Path) -> None:
    """This process and its children, and another that is given and its children, of which one may be the node. Theirs are watched; and process
    life is told of all, since it is needed for ancestry."""
    script = f"read go; : < {tmp_path}/@; /bin/cat {tmp_path}/@child; /bin/sh -c '/bin/cat {tmp_path}/@grandchild; exit 0'; exit 0"
    ours, theirs = script.replace("@", "ours-"), script.replace("@", "theirs-")
    one = subprocess.Popen(["/bin/bash", "-c", ours], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    other = subprocess.Popen(["/bin/bash", "-c", f"/bin/bash -c {shlex.quote(theirs)}; exit 0"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    eventually(lambda: children(other.pid))
    (family,) = map(int, children(other.pid))
    with tapping(("open", "execve"), self_pid=os.getpid(), family_pid=family) as tap:
        for process in (one, other):
            tap.follow(process.pid)
        tap.follow(family)
        openat(bytes(tmp_path / "self"))
        for process in (one, other):
            process.communicate(b"\n")
        opened, executed = ({each["path"] for each in tap.records(probe)} for probe in ("open", "execve"))
        told = tap.records("process", ppid=one.pid, action=FORK)
    watched = {path.name for path in map(Path, map(os.fsdecode, opened)) if path.parent == tmp_path}
    assert watched == {"ours-child", "ours-grandchild", "theirs-grandchild"}
    assert executed == {b"/bin/cat", b"/bin/sh"}
    assert len(told) == 2


@pytest.mark.serial  # it would fill the rings of others too
@kernel_side
def test_a_full_ring_is_counted() -> None:
    """What is read and what was lost make up what was done. Nobody reads meanwhile."""
    tracing = asyncio.run(trace(("open",), self_pid=os.getpid()))
    with tracing:
        (ring,) = [ring for ring in tracing.rings if ring.name == "open"]
        count = BUFFERS["open"].bytes // ring.stride + 5003
        binary = workloads.build("opens")
        with tempfile.TemporaryDirectory() as short:
            done = subprocess.run(["/bin/sh", "-c", f"{binary} --dir {short} --count {count} --absent; exit $?"], capture_output=True, check=True)
        tracing.detach()
        found = list(taken(ring, ring.end()))
        lost = tracing.losses()["open", "ring_full"]
    ours = sum(np.count_nonzero(records["pid"] == json.loads(done.stdout)["pid"]) for _, records in found)
    assert ours + lost >= count
    assert ours <= count
    assert lost >= 5003


@kernel_side
def test_a_debugger_leaves_room_for_others() -> None:
    """What strace makes of ptrace in the third of a second in which nobody reads, and one call that is rare in the end."""
    with asyncio.run(trace(("ptrace", "unshare"), self_pid=0)) as tracing:
        code = "import ctypes, os; libc = ctypes.CDLL(None)\n"
        code += "for _ in range(15000): libc.ptrace(3, 1 << 22, 0, 0)\n"
        code += "libc.unshare(1 << 31)"
        made = subprocess.Popen([sys.executable, "-S", "-c", code])
        assert made.wait() == 0
        assert ("ptrace", "ring_full") not in tracing.losses()
        (ring,) = [ring for ring in tracing.rings if ring.name == "call"]
        taken = ring.take(ring.end(), 1 << 30)
    ours = Counter(name.name for name, records in taken for pid in records["pid"].tolist() if pid == made.pid)
    assert ours == {"ptrace": 15000, "unshare": 1}


async def test_the_check_says_what_each_probe_hangs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def part(probes: tuple[str, ...], *, self_pid: int) -> Tracing:
        assert (probes, self_pid) == (PROBES, os.getpid())
        attached = ["open a:enter", "open a:exit", "execve a:b", "process raw:c"]
        return Tracing([], PerCpuCounters(os.memfd_create("no map"), 8), attached, {"execve": "raw:exec: refused"})

    monkeypatch.setattr(sys.modules["infrasight.kernel.check"], "trace", part)
    assert await check() == [
        ("execve", False, "raw:exec: refused"),
        ("open", True, "a:enter, a:exit"),
        ("connect", False, ""),
        ("process", True, "raw:c"),
        *((probe, False, "") for probe in PROBES[4:]),
    ]


@kernel_side
async def test_a_probe_of_which_a_part_is_missing(in_the_loader: InTheLoader) -> None:
    """A machine without this call."""
    in_the_loader("import infrasight.kernel.source as s\nthere = s.exists\ns.exists = lambda hook: 'openat2' not in hook.name and there(hook)\n")
    with await trace(("open",), self_pid=os.getpid()) as tracing:
        assert "open exit:openat" in tracing.attached
        assert "open exit:openat2" not in tracing.attached
        assert tracing.failed == {}


DAMAGE = pytest.mark.parametrize("damage", ["this is no C", "*(volatile u64 *)8 = 1;"], ids=["does not compile", "is refused"])


@pytest.fixture
def damaged(tmp_path: Path, in_the_loader: InTheLoader) -> Callable[[str, str, str], None]:
    """Puts a line first into a function of a probe: its hook as it is written, and the line."""

    def damage(probe: str, hook: str, line: str) -> None:
        shutil.copytree(bpf_directory(), tmp_path / "bpf")
        file = tmp_path / "bpf" / f"{probe}.c"
        file.write_text(file.read_text().replace(f"{hook}\n{{\n", f"{hook}\n{{\n    {line}\n"))
        assert line in file.read_text()
        in_the_loader(f"import pathlib, infrasight.kernel.source as s\ns.bpf_directory = lambda: pathlib.Path({str(tmp_path / 'bpf')!r})\n")

    return damage


@kernel_side
@DAMAGE
async def test_a_probe_that_the_kernel_refuses_leaves_the_others(damage: str, damaged: Callable[[str, str, str], None]) -> None:
    damaged("connect", "ENTER(connect, connect)", damage)
    with await trace(PROBES, self_pid=os.getpid()) as tracing:
        assert list(tracing.failed) == ["connect"]
        assert "\n" not in tracing.failed["connect"]
        assert "connect enter:connect" not in tracing.attached
        assert {each.split()[0] for each in tracing.attached} - {"connect"} == set(PROBES) - {"connect"}
        assert [verdict[:2] for verdict in [_verdict("connect", tracing.attached, tracing.failed)]] == [("connect", False)]


@kernel_side
@DAMAGE
def test_what_counts_every_call_falls_alone_too(damage: str, damaged: Callable[[str, str, str], None], tmp_path: Path) -> None:
    """It is in the program that all calls need, which goes on without it."""
    damaged("syscall_freq", "EVERY(syscall_freq, call)", damage)
    (tmp_path / "mark").touch()
    with tapping() as tap:
        tracing = tap.tracing
        assert list(tracing.failed) == ["syscall_freq"]
        assert "\n" not in tracing.failed["syscall_freq"]
        assert "syscall_freq every:call" not in tracing.attached
        assert {each.split()[0] for each in tracing.attached} - {"syscall_freq"} == set(PROBES) - {"syscall_freq"}
        assert _verdict("syscall_freq", tracing.attached, tracing.failed)[:2] == ("syscall_freq", False)
        assert attached_to(tracing)["sys_enter"] == set()
        for mode in (0o611, 0o612):
            os.chmod(tmp_path / "mark", mode)
            assert tap.one("chmod", mode=mode)["pid"] == os.getpid()
            tracing.apply(())
            tracing.apply(PROBES)
        ended = subprocess.Popen(["/bin/true"])
        ended.wait()
        eventually(lambda: tap.records("resource", pid=ended.pid))
        assert tap.records("syscall_freq") == []
        assert tap.records("open", pid=ended.pid)


@kernel_side
async def test_a_tracepoint_that_is_missing(in_the_loader: InTheLoader) -> None:
    """The probe says so, whenever it is asked for, and the others run."""
    in_the_loader(
        "import infrasight.kernel.source as s\n"
        "made = s.program\n"
        "def program(probes):\n"
        "    text, programs = made(probes)\n"
        "    old, new = 'raw__execve__sched_process_exec', 'no_such_event'\n"
        "    return text, [s.Program(each.function, (s.Hook('execve', 'raw', new),)) if each.function == old else each for each in programs]\n"
        "s.program = program\n"
    )
    with await trace(("open",), self_pid=os.getpid()) as tracing:
        assert tracing.failed == {}
        tracing.apply(("open", "execve"))
        assert tracing.failed == {"execve": "no_such_event: not attached: No such file or directory"}
        assert "execve raw:no_such_event" not in tracing.attached
        assert attached_to(tracing) == {**LIFE, **CALLS}


@kernel_side
async def test_a_tracepoint_that_the_kernel_is_too_old_for(in_the_loader: InTheLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the probe runs, and nothing is amiss."""
    in_the_loader(
        "import infrasight.kernel.source as s\n"
        "made = s.program\n"
        "def program(probes):\n"
        "    text, programs = made(probes)\n"
        "    old, new = 'raw__dns__sock_send_length', 'no_such_event'\n"
        "    return text, [s.Program(each.function, (s.Hook('dns', 'raw', new),)) if each.function == old else each for each in programs]\n"
        "s.program = program\n"
    )
    monkeypatch.setattr("infrasight.kernel.tracing.NEWER", ("no_such_event",))
    with await trace(("dns",), self_pid=os.getpid()) as tracing:
        assert tracing.failed == {}
        assert {"dns exit:sendto", "dns raw:sock_recv_length"} <= set(tracing.attached)
        assert "dns raw:no_such_event" not in tracing.attached
        assert _verdict("dns", tracing.attached, tracing.failed)[1]


@kernel_side
def test_calls_whose_places_are_taken(tmp_path: Path, limits: Limits) -> None:
    """Twenty threads in a call at once, and four places for them."""
    limits(CALL_PLACES=4)
    fifos = [tmp_path / f"fifo{number}" for number in range(20)]
    for fifo in fifos:
        os.mkfifo(fifo)
    with tapping(("open",)) as tap:
        readers = [threading.Thread(target=lambda fifo=fifo: os.close(os.open(fifo, os.O_RDONLY))) for fifo in fifos]
        for reader in readers:
            reader.start()
        for fifo in reversed(fifos):
            os.close(os.open(fifo, os.O_WRONLY))
        for reader in readers:
            reader.join()
        seen = Counter(each["path"] for each in tap.records("open", pid=os.getpid()) if b"/fifo" in each["path"])
        assert seen == {os.fsencode(fifo): 2 for fifo in fifos}
        assert tap.tracing.losses() == {}


@pytest.mark.serial  # it would fill the rings of others too
@kernel_side
def test_threads_that_race_for_a_place(tmp_path: Path, limits: Limits) -> None:
    """They open as fast as they can, with one place for all: nothing is told of another thread, nothing is lost and not counted."""
    limits(CALL_PLACES=1)
    with tapping(("open",)) as tap:
        said = workloads.run("threads", "--dir", tmp_path, "--threads", 8, "--opens", 20000)
        records, lost = tap.records("open", pid=said["pid"]), tap.tracing.losses()
    paths = {thread["tid"]: thread["path"].encode() for thread in said["threads"]}
    ours = [each for each in records if each["tid"] in paths]
    assert [each for each in ours if each["path"] != paths[each["tid"]]] == []
    assert set(lost) <= {("open", "ring_full")}
    assert len(ours) + lost.get(("open", "ring_full"), 0) >= sum(thread["opens"] for thread in said["threads"])


ANOTHER_THREAD = """
import os, sys, threading
os.close(os.open("/", os.O_RDONLY, dir_fd=int(sys.argv[1])))
def other():
    os.close(os.open("/", os.O_RDONLY, dir_fd=int(sys.argv[1])))
    if "exec" in sys.argv:
        os.execv("/bin/true", ["true"])
thread = threading.Thread(target=other)
thread.start()
thread.join()
"""


@kernel_side
@pytest.mark.parametrize("end", ["exit", "exec"])
def test_a_place_is_free_when_its_thread_is_gone(end: str) -> None:
    """Also when it took on the id of its leader, by exec. The mark is given as the directory, which an absolute path does not need."""
    mark = int.from_bytes(os.urandom(3), "little") | 1 << 30
    with tapping(("open",)) as tap, maps_of(tap.tracing) as maps:
        subprocess.run([sys.executable, "-S", "-c", ANOTHER_THREAD, str(mark), end], check=True)
        assert len(tap.records("open", dirfd=mark)) == 2
        assert [call for call in calls_of(maps) if mark in call.args and (call.task or call.in_flight or call.claims)] == []
        assert [call for call in calls_of(maps) if mark in call.args], "what was there is left, or this would prove nothing"


def loader(path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put another program in place of the loader: it finds its socket's number in `fd`."""
    path.write_text(f"#!{sys.executable}\nimport os, socket, sys\nfd = int(sys.argv[-1])\nchannel = socket.socket(fileno=fd)\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


ANSWER = """channel.recv(4096); channel.sendall(b'{"attached": ["open a:b"], "failed": {}, "maps": {"losses": [4, 8]}, "events": [{}, {}, {}]}\\n')"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), 9)", "ended without an answer|not loaded"),
        ("channel.recv(4096)", "ended without an answer|not loaded"),
        ("channel.recv(4096); channel.sendall(b'{\"attached\": [')", "ended without an answer"),
        (ANSWER, "ended too early"),
        (f"{ANSWER}; socket.send_fds(channel, [b'.'], [0, 1])", "ended too early"),
        ('channel.recv(4096); channel.sendall(b\'{"error": "no compiler"}\\n\')', "^no compiler$"),
        ('channel.recv(4096); channel.sendall(b\'{"attached": [], "failed": {"open": "refused"}, "maps": {}, "events": []}\\n\')', "^refused$"),
    ],
    ids=["killed", "silent", "half an answer", "no descriptors", "too few descriptors", "cannot", "nothing attached"],
)
async def test_a_loader_that_fails(body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(tmp_path / "loader", monkeypatch, body)
    with pytest.raises(KernelError, match=message) as failure:
        await trace(("open",), self_pid=os.getpid())
    assert "\n" not in str(failure.value)
    before = open_files()
    with pytest.raises(KernelError):
        await trace(("open",), self_pid=os.getpid())
    assert not Counter(open_files()) - Counter(before), "what is dropped meanwhile may be another test's"
    assert not [line for line in children(os.getpid()).values() if "loader" in line]


async def test_a_check_of_a_machine_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(tmp_path / "loader", monkeypatch, 'channel.recv(4096); channel.sendall(b\'{"error": "no way"}\\n\')')
    assert await check() == [(probe, False, "no way") for probe in PROBES]


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0-127\n", 128), ("0,2-3\n", 4)])
def test_possible_cpus(text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "possible").write_text(text)
    monkeypatch.setattr("builtins.open", lambda *_: (tmp_path / "possible").open())
    assert possible_cpus() == count


def test_counters_that_cannot_be_read() -> None:
    counters = PerCpuCounters(os.memfd_create("no map"), 8)
    with pytest.raises(KernelError, match="loss counters cannot be read"):
        counters.read()
    counters.close()
    counters.close()
