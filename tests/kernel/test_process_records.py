"""Records of process life, made by the running kernel, against what the parent knows."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infrasight.schema.events.process import EXEC, EXIT, FORK, MOUNT_NS_INODE
from tests import workloads
from tests.kernel.calls import me, start_ticks
from tests.kernel.tap import Interval, Record, Tap
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


def life(tap: Tap, pid: int) -> list[Record]:
    return tap.records("process", pid=pid)


def test_fork_exec_exit(tap: Tap) -> None:
    with Interval() as interval:
        child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
        ticks, ours = start_ticks(child.pid), start_ticks(os.getpid())
        child.communicate()
    fork, execution, end = life(tap, child.pid)
    assert [each["action"] for each in (fork, execution, end)] == [FORK, EXEC, EXIT]
    assert interval.start < fork["enter_ns"] < execution["enter_ns"] < end["enter_ns"] < interval.end
    for record in (fork, execution, end):
        expected = {**me(), "pid": child.pid, "tid": child.pid, "ppid": os.getpid(), "ns_pid": child.pid, "comm": b"cat", "ret": 0, "latency_ns": 0}
        if record is fork:
            expected["comm"] = me()["comm"]
        assert {key: record[key] for key in expected} == expected
        assert (record["start_ns"] // 10_000_000, record["parent_start_ns"] // 10_000_000) == (ticks, ours)
        assert record["parent_comm"] == Path(f"/proc/{os.getpid()}/comm").read_bytes().rstrip(b"\n")
        assert record["status"] == 0
    assert tap.one("execve", pid=child.pid)["start_ns"] == fork["start_ns"]


def test_mount_namespaces(tap: Tap) -> None:
    """That of the parent, and after unshare one's own."""
    with subprocess.Popen(["unshare", "--mount", "/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        assert child.stdout.read(1) == b"x"
        theirs = os.stat(f"/proc/{child.pid}/ns/mnt").st_ino
        child.stdin.close()
    ours = os.stat("/proc/self/ns/mnt").st_ino
    assert theirs != ours
    told = [(each["action"], each["mount_ns"] & MOUNT_NS_INODE) for each in life(tap, child.pid) if each["action"] in (FORK, EXEC)]
    assert told == [(FORK, ours), (EXEC, ours), (EXEC, theirs)]


def test_no_mount_namespace_is_taken_for_another(tap: Tap) -> None:
    """Of one after the other, which have the same inode number."""
    pids = []
    for _ in range(3):
        with subprocess.Popen(["unshare", "--mount", "/bin/true"]) as child:
            pids.append(child.pid)
    theirs = [[each["mount_ns"] for each in life(tap, pid) if each["action"] == EXEC][-1] for pid in pids]
    assert len(set(theirs)) == len(pids)
    assert all(each >> 32 for each in theirs)


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes(tap: Tap, code: int) -> None:
    child = subprocess.Popen(["/bin/sh", "-c", f"exit {code}"])
    assert child.wait() == code
    assert life(tap, child.pid)[-1]["status"] == code << 8


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_killed_by_a_signal(tap: Tap, number: int) -> None:
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, preexec_fn=_no_core)
    child.send_signal(number)
    assert child.wait() == -number
    assert child.stdin is not None
    child.stdin.close()
    assert life(tap, child.pid)[-1]["status"] & 0x7F == number
    assert life(tap, child.pid)[-1]["status"] >> 8 == 0


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_threads_are_no_processes(tap: Tap, tmp_path: Path) -> None:
    said = workloads.run("threads", "--dir", tmp_path, "--threads", 7, "--opens", 3)
    assert [each["action"] for each in life(tap, said["pid"])] == [FORK, EXEC, EXIT]
    assert life(tap, said["pid"])[-1]["tid"] == said["pid"]


def test_an_exec_from_a_thread_is_one_process_still(tap: Tap, tmp_path: Path) -> None:
    said = workloads.run("threads", "--dir", tmp_path, "--threads", 3, "--opens", 3, "--exec")
    records = life(tap, said["pid"])
    assert [each["action"] for each in records] == [FORK, EXEC, EXEC, EXIT]
    assert len({(each["start_ns"], each["ppid"], each["ns_pid"]) for each in records}) == 1


def test_the_end_of_the_leader_is_not_the_end(tap: Tap) -> None:
    """Its status is what the whole group ended with."""
    code = "import ctypes, os, threading, time\n"
    code += "def later(me=os.getpid()):\n"
    code += "    while open(f'/proc/{me}/task/{me}/stat').read().rsplit(')', 1)[1].split()[0] != 'Z': time.sleep(0.001)\n"
    code += "    os._exit(9)\n"
    code += f"threading.Thread(target=later).start(); ctypes.CDLL(None).syscall({60 if os.uname().machine == 'x86_64' else 93}, 3)"
    child = subprocess.Popen([sys.executable, "-S", "-c", code])
    assert child.wait() == 9
    assert [(each["action"], each["status"]) for each in life(tap, child.pid) if each["action"] == EXIT] == [(EXIT, 9 << 8)]


def test_orphans_tell_their_new_parent(tap: Tap) -> None:
    """`ppid` is the parent at that time: at first the shell, in the end whoever took the orphan in."""
    reader, writer = os.pipe()
    shell = subprocess.run(
        ["/bin/bash", "-c", f"/bin/cat <&{reader} >/dev/null & echo $!"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[reader],
        check=True,
    )
    (fork,) = tap.records("process", action=FORK, pid=int(shell.stdout))
    os.close(reader)
    os.close(writer)
    eventually(lambda: tap.records("process", action=EXIT, pid=int(shell.stdout)))
    (end,) = tap.records("process", action=EXIT, pid=int(shell.stdout))
    assert life(tap, fork["ppid"])[-1]["action"] == EXIT
    assert end["ppid"] not in (fork["ppid"], 0)


def test_a_storm_of_forks(tap: Tap, tmp_path: Path) -> None:
    said = workloads.run("forkstorm", "--count", 101, "--batch", 7, "--depth", 4, "--log", tmp_path / "log")
    for line in workloads.read_log(tmp_path / "log"):
        fork, end = life(tap, line["pid"])
        assert (fork["action"], end["action"], end["status"]) == (FORK, EXIT, 0)
        assert fork["ppid"] == line["ppid"]
        parent = said["pid"] if line["depth"] == 1 else line["ppid"]
        assert fork["parent_start_ns"] == life(tap, parent)[0]["start_ns"]
