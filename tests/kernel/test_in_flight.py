"""What is kept between two moments in the kernel: calls in flight, accounts, meters. Of threads, of processes that end in the middle, of ids that
come round again; and when there is no room."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from infrasight.node.identity import Identity
from infrasight.schema.events.process import EXEC, EXIT, FORK
from tests import workloads
from tests.kernel.conftest import Limits
from tests.kernel.maps import calls_of, maps_of
from tests.kernel.tap import Record, Tap, tapping
from tests.kernel.test_accounts import final
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


def python(script: str, *arguments: object, **how: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, **how)  # type: ignore[call-overload,no-any-return]


ERESTARTSYS = 512
"""include/linux/errno.h: never seen by a program."""
EXITS_MEANWHILE = """
import os, sys, threading
threading.Thread(target=lambda: os.open(sys.argv[1], os.O_RDONLY), daemon=True).start()
sys.stdin.read()
os._exit(7)
"""


@pytest.mark.parametrize("end", ["exit", "killed"])
def test_an_end_in_the_middle_of_a_call(end: str, tmp_path: Path) -> None:
    """The kernel has the call return as if it were to be made again, and then ends the thread: told once, and its place is free."""
    os.mkfifo(tmp_path / "fifo")
    with tapping(("open",)) as tap, maps_of(tap.tracing) as maps:
        child = python(EXITS_MEANWHILE, tmp_path / "fifo", stdin=subprocess.PIPE)
        threads = Path(f"/proc/{child.pid}/task")
        eventually(lambda: [each for each in threads.iterdir() if "wait_for_partner" in (each / "wchan").read_text()])
        (waiting,) = (int(each.name) for each in threads.iterdir() if "wait_for_partner" in (each / "wchan").read_text())
        if end == "exit":
            child.communicate()
        else:
            child.kill()
        assert child.wait() == (7 if end == "exit" else -9)
        assert tap.one("process", pid=child.pid, action=EXIT)["status"] == (7 << 8 if end == "exit" else 9)
        (opened,) = [each for each in tap.records("open", pid=child.pid) if each["path"].endswith(b"/fifo")]
        assert (opened["tid"], opened["ret"]) == (waiting, -ERESTARTSYS)
        left = [call for call in calls_of(maps) if call.enter_ns == opened["enter_ns"]]
        assert [(call.task, call.in_flight, call.claims) for call in left] in ([], [(0, 0, 0)])
        assert tap.tracing.losses() == {}


def test_calls_for_which_there_is_no_room(tmp_path: Path, limits: Limits) -> None:
    """Each is told or counted, and there is room again when the others have returned."""
    limits(CALL_PLACES=1, DISPLACED_CALLS=4)
    count = 31
    fifos = [tmp_path / f"fifo{number}" for number in range(count)]
    for fifo in fifos:
        os.mkfifo(fifo)
    with tapping(("open",)) as tap:
        readers = [threading.Thread(target=lambda fifo=fifo: os.close(os.open(fifo, os.O_RDONLY))) for fifo in fifos]
        for reader in readers:
            reader.start()
        tasks = Path("/proc/self/task")
        eventually(lambda: sum("wait_for_partner" in (each / "wchan").read_text() for each in tasks.iterdir()) == count)
        before = tap.tracing.losses()
        for fifo in fifos:
            os.close(os.open(fifo, os.O_WRONLY))
        for reader in readers:
            reader.join()
        told = [each for each in tap.records("open", pid=os.getpid()) if b"/fifo" in each["path"]]
        losses = tap.tracing.losses()
        assert set(losses) == {("open", "inflight_full")}
        assert before["open", "inflight_full"] >= count - 5, "the first threads have all places"
        assert len(told) <= 2 * count <= len(told) + losses["open", "inflight_full"]
        os.close(os.open(tmp_path / "sitecustomize.py", os.O_RDONLY))
        assert tap.one("open", pid=os.getpid(), path=bytes(tmp_path / "sitecustomize.py"))


MANY = """
import os, sys
number = int(sys.argv[1])
children = []
ready, making = os.pipe()
for _ in range(number):
    pid = os.fork()
    if not pid:
        for _ in range(5):
            os.getpgid(0)
        os.close(making)
        sys.stdin.read()
        os._exit(0)
    children.append(pid)
os.close(making)
os.read(ready, 1)  # it ends when all have made their calls
print("there", flush=True)
sys.stdin.read()
for pid in children:
    os.waitpid(pid, 0)
"""
GETPGID = 121 if os.uname().machine == "x86_64" else 155  # arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h


def final_calls(tap: Tap, pids: set[int]) -> int:
    return sum(int(np.frombuffer(each["calls"], np.uint32)[GETPGID]) for each in tap.records("syscall_freq", pid=pids))


@pytest.mark.parametrize(("places", "displaced"), [(4, 1024), (1, 8)], ids=["room elsewhere", "no room"])
def test_accounts_whose_places_are_taken(places: int, displaced: int, limits: Limits) -> None:
    """Looked at while their processes live, and told when they end: each of them, or what is missing is counted."""
    limits(SYSCALL_FREQ_PLACES=places, SYSCALL_FREQ_DISPLACED=displaced)
    count = 101
    with tapping(("syscall_freq",)) as tap:
        child = python(MANY, count, stdin=subprocess.PIPE)
        assert child.stdout
        assert child.stdout.readline() == b"there\n"
        pids = {each["pid"] for each in tap.records("process", ppid=child.pid, action=FORK)}
        assert len(pids) == count
        accounts = tap.tracing.accounts["syscall_freq"]
        alive = [(pid, int(calls[GETPGID])) for read in accounts.read() for pid, calls in zip(read["pid"].tolist(), read["calls"], strict=True)]
        looked_at = [calls for pid, calls in alive if pid in pids]
        lost = tap.tracing.losses().get(("syscall_freq", "accounts_full"), 0)
        assert sum(looked_at) <= 5 * count <= sum(looked_at) + lost
        assert bool(lost) == (displaced < count)
        child.communicate()
        assert final_calls(tap, pids) == sum(looked_at)
        left = sum(int(np.isin(read["pid"], list(pids)).sum()) for read in accounts.read())
        assert left == 0, "nothing is kept of what has ended"
        assert {reason for _, reason in tap.tracing.losses()} <= {"accounts_full"}


COMES_ROUND = """
import os, sys, time
def child(wanted, calls, path):
    pid = os.fork()
    if pid:
        return pid if os.waitpid(pid, 0)[1] == 0 else 0
    if wanted not in (0, os.getpid()):
        os._exit(1)
    for _ in range(calls):
        os.getpgid(0)
    try:
        os.open(path, os.O_RDONLY)
    except OSError:
        pass
    os._exit(0)
first = child(0, 5, sys.argv[1] + "/first")
tick = time.clock_gettime(time.CLOCK_BOOTTIME)
while time.clock_gettime(time.CLOCK_BOOTTIME) < tick + 0.02:
    pass
again = 0
while not again:
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(first - 1))
    again = child(first, 7, sys.argv[1] + "/again")
print(first)
"""


@pytest.mark.serial  # others would have pids come round, too
@pytest.mark.needs("chosen_pid")
def test_a_pid_that_comes_round_again(tmp_path: Path) -> None:
    """Two processes: of each its own call, its own account, its own identity. Somebody else may take the pid in between."""
    with tapping(("open", "syscall_freq")) as tap:
        child = python(COMES_ROUND, tmp_path)
        pid = int(child.communicate()[0])
        forks = tap.records("process", pid=pid, ppid=child.pid, action=FORK)
        first, again = forks[0], forks[-1]
        assert first["start_ns"] < again["start_ns"]
        ids = Identity("node", "boot").of(np.array([first["start_ns"], again["start_ns"]], np.uint64), np.array([pid, pid], np.uint32))
        assert ids[0] != ids[1]
        for fork, name, calls in ((first, "first", 5), (again, "again", 7)):
            opened = tap.one("open", pid=pid, path=bytes(tmp_path / name))
            assert (opened["start_ns"], opened["ppid"]) == (fork["start_ns"], child.pid)
            account = tap.one("syscall_freq", pid=pid, start_ns=fork["start_ns"])
            assert np.frombuffer(account["calls"], np.uint32)[GETPGID] == calls
            assert tap.one("process", pid=pid, start_ns=fork["start_ns"], action=EXIT)


THREAD_EXECS = """
import os, sys, threading
nothing = os.open("/dev/null", os.O_WRONLY)
os.close(os.open(sys.argv[1] + "/leader", os.O_RDONLY | os.O_CREAT))
def other():
    os.write(nothing, bytes(1_000_003))
    os.close(os.open(sys.argv[1] + "/thread", os.O_RDONLY | os.O_CREAT))
    print(threading.get_native_id(), flush=True)
    os.execv(sys.argv[2], [sys.argv[2], "--dir", sys.argv[1], "--count", "13"])
threading.Thread(target=other).start()
threading.Event().wait()
"""


@pytest.mark.needs("gcc")
def test_a_thread_that_executes_a_program(tmp_path: Path) -> None:
    """It takes on the id of the leader, which is gone. The process stays what it is: its calls are told, what it used is counted once."""
    shutil.copy(workloads.build("opens"), tmp_path / "opens")
    (tmp_path / "leader").touch()
    (tmp_path / "thread").touch()
    with tapping(("open", "resource")) as tap:
        child = python(THREAD_EXECS, tmp_path, tmp_path / "opens")
        said = child.communicate()[0].splitlines()
        tid = int(said[0])
        assert child.returncode == 0
        assert tid != child.pid
        exec_ = [each for each in tap.records("process", pid=child.pid, action=EXEC) if each["comm"].startswith(b"opens")]
        assert [each["tid"] for each in exec_] == [child.pid]
        exit_ = tap.one("process", pid=child.pid, action=EXIT)
        ours: list[Record] = [each for each in tap.records("open", pid=child.pid) if each["path"].startswith(bytes(tmp_path) + b"/")]
        tids = {name: {each["tid"] for each in ours if each["path"].endswith(name)} for name in (b"/leader", b"/thread", b"/f000000")}
        assert tids == {b"/leader": {child.pid}, b"/thread": {tid}, b"/f000000": {child.pid}}
        assert len([each for each in ours if each["path"].endswith(b"/f000000")]) == 13
        assert {each["start_ns"] for each in ours} == {exit_["start_ns"]}
        written = sum(each["bytes_written"] for each in final(tap, "resource", child.pid))
        assert written == 1_000_003 + len(b"".join(said)) + len(said)
