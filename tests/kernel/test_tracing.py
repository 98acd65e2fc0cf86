"""Starting and stopping: everything attaches here, nothing is left behind, we are not watched, and failures are one line."""

import asyncio
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from infrasight.errors import KernelError
from infrasight.kernel import Tracing, check, trace
from infrasight.kernel.percpu import PerCpuCounters, _possible_cpus
from infrasight.kernel.source import bpf_directory, exists, hooks
from infrasight.schema import KINDS, PROBES
from infrasight.schema.events.process import FORK
from infrasight.schema.layout import layouts
from tests import workloads
from tests.kernel.calls import openat
from tests.kernel.maps import maps_of, values_of
from tests.kernel.tap import Tap, eventually, tapping

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
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))


@kernel_side
def test_everything_attaches_here(tap: Tap) -> None:
    tracing = tap.tracing
    assert tracing.failed == {}
    wanted = {f"{hook.probe} {hook.place}" for probe in PROBES for hook in hooks(probe) if exists(hook)}
    assert set(tracing.attached) == wanted
    assert len(wanted) >= 14
    assert [ring.layout for ring in tracing.rings] == [each for probe in PROBES for each in layouts(KINDS[probe])]
    assert not [line for line in children(os.getpid()).values() if "infrasight.kernel.loader" in line], "it would keep 140 MB"
    assert set(tracing.losses()) <= {(probe, reason) for probe in PROBES for reason in ("ring_full", "inflight_full")}


@kernel_side
def test_nothing_is_left_open() -> None:
    """And process life is traced whether asked for or not."""

    async def once() -> None:
        tracing = await trace(("connect",), self_pid=os.getpid())
        assert {ring.layout.name for ring in tracing.rings} == {"connect", "process"}
        assert {name.split()[0] for name in tracing.attached} == {"connect", "process"}
        for _ in range(2):
            tracing.detach()
        for _ in range(2):
            tracing.close()

    before = open_files()
    for _ in range(3):
        asyncio.run(once())
    assert open_files() == before


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


@kernel_side
def test_a_full_ring_is_counted(tmp_path: Path) -> None:
    """What is read and what was lost make up what was done. Nobody reads meanwhile."""
    tracing = asyncio.run(trace(("open",), self_pid=os.getpid()))
    with tracing:
        (ring,) = [ring for ring in tracing.rings if ring.layout.name == "open"]
        count = ring.layout.ring_bytes // ring.layout.stride + 5003
        binary = workloads.build("opens")
        done = subprocess.run(["/bin/sh", "-c", f"{binary} --dir {tmp_path} --count {count} --absent; exit $?"], capture_output=True, check=True)
        tracing.detach()
        taken = ring.take(ring.end(), 1 << 30)
        lost = tracing.losses()["open", "ring_full"]
    ours = sum(np.count_nonzero(records["pid"] == json.loads(done.stdout)["pid"]) for records in taken)
    assert ours + lost >= count
    assert ours <= count
    assert lost >= 5003


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
async def test_a_probe_of_which_a_part_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without this call."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import infrasight.kernel.source as s\nthere = s.exists\ns.exists = lambda hook: 'openat2' not in hook.name and there(hook)\n"
    )
    with await trace(("open",), self_pid=os.getpid()) as tracing:
        assert "open enter:openat" in tracing.attached
        assert "open enter:openat2" not in tracing.attached
        assert tracing.failed == {}


@kernel_side
@pytest.mark.parametrize("damage", ["this is no C", "*(volatile u64 *)8 = 1;"], ids=["does not compile", "is refused"])
async def test_a_probe_that_the_kernel_refuses_leaves_the_others(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bpf_directory(), tmp_path / "bpf")
    file = tmp_path / "bpf" / "connect.c"
    file.write_text(file.read_text().replace("    bool unread =", f"    {damage}\n    bool unread ="))
    assert damage in file.read_text()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        f"import pathlib, infrasight.kernel.source as s\ns.bpf_directory = lambda: pathlib.Path({str(tmp_path / 'bpf')!r})\n"
    )
    with await trace(PROBES, self_pid=os.getpid()) as tracing:
        assert list(tracing.failed) == ["connect"]
        assert "\n" not in tracing.failed["connect"]
        assert {each.split()[0] for each in tracing.attached} == set(PROBES) - {"connect"}
        assert "connect" not in {ring.layout.name for ring in tracing.rings}


def only_places(places: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the loader make no more places for calls in flight than these."""
    monkeypatch.setenv("PYTHONPATH", str(path))
    (path / "sitecustomize.py").write_text(f"import infrasight.kernel.source as s\ns.LIMITS['CALL_PLACES'] = {places}\n")


@kernel_side
async def test_calls_whose_places_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty threads in a call at once, and four places for them."""
    only_places(4, tmp_path, monkeypatch)
    fifos = [tmp_path / f"fifo{number}" for number in range(20)]
    for fifo in fifos:
        os.mkfifo(fifo)
    with await trace(("open",), self_pid=1) as tracing:
        readers = [threading.Thread(target=lambda fifo=fifo: os.close(os.open(fifo, os.O_RDONLY))) for fifo in fifos]
        for reader in readers:
            reader.start()
        for fifo in reversed(fifos):
            os.close(os.open(fifo, os.O_WRONLY))
        for reader in readers:
            reader.join()
        (ring,) = (ring for ring in tracing.rings if ring.layout.name == "open")
        seen = Counter(
            bytes(path[:length])
            for records in ring.take(ring.end(), 1 << 24)
            for path, length, pid in zip(records["path"], records["path_len"], records["pid"], strict=True)
            if pid == os.getpid()
        )
        assert {path: count for path, count in seen.items() if b"/fifo" in path} == {os.fsencode(fifo): 2 for fifo in fifos}
        assert tracing.losses() == {}


@kernel_side
def test_threads_that_race_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They open as fast as they can, with one place for all: nothing is told of another thread, nothing is lost and not counted."""
    only_places(1, tmp_path, monkeypatch)
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
    with tapping(("open",)) as tap, maps_of(tap.tracing._hooks) as maps:
        subprocess.run([sys.executable, "-S", "-c", ANOTHER_THREAD, str(mark), end], check=True)
        assert len(tap.records("open", dirfd=mark)) == 2
        calls = [struct.unpack_from("<7Q", value) for value in values_of(maps["calls"]) if value]
        assert [call for call in calls if mark in call and (call[0] or call[-1])] == []


def loader(path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put another program in place of the loader: it finds its socket's number in `fd`."""
    path.write_text(f"#!{sys.executable}\nimport os, socket, sys\nfd = int(sys.argv[-1])\nchannel = socket.socket(fileno=fd)\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


ANSWER = 'channel.recv(4096); channel.sendall(b\'{"attached": ["open a:b"], "failed": {}, "rings": ["open"], "descriptors": 4}\\n\')'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), 9)", "ended without an answer|not loaded"),
        ("channel.recv(4096)", "ended without an answer|not loaded"),
        ("channel.recv(4096); channel.sendall(b'{\"attached\": [')", "ended without an answer"),
        (ANSWER, "ended too early"),
        (f"{ANSWER}; socket.send_fds(channel, [b'.'], [0, 1])", "ended too early"),
        ('channel.recv(4096); channel.sendall(b\'{"error": "no compiler"}\\n\')', "^no compiler$"),
        ('channel.recv(4096); channel.sendall(b\'{"attached": [], "failed": {"open": "refused"}}\\n\')', "^refused$"),
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
    assert open_files() == before
    assert not [line for line in children(os.getpid()).values() if "loader" in line]


async def test_a_check_of_a_machine_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(tmp_path / "loader", monkeypatch, 'channel.recv(4096); channel.sendall(b\'{"error": "no way"}\\n\')')
    assert await check() == [(probe, False, "no way") for probe in PROBES]


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0-127\n", 128), ("0,2-3\n", 4)])
def test_possible_cpus(text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "possible").write_text(text)
    monkeypatch.setattr("builtins.open", lambda *_: (tmp_path / "possible").open())
    assert _possible_cpus() == count


def test_counters_that_cannot_be_read() -> None:
    counters = PerCpuCounters(os.memfd_create("no map"), 8)
    with pytest.raises(KernelError, match="loss counters cannot be read"):
        counters.read()
    counters.close()
    counters.close()
