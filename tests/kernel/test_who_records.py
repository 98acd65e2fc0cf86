"""Who did it, made by the running kernel, against what /proc says of the same process then; program and directory through the enricher."""

import ctypes
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infrasight.actors import Mailbox
from infrasight.node.enricher import Enricher
from infrasight.node.paths import terminal
from infrasight.node.reader import Reader
from infrasight.schema.events.process import EXEC
from tests.kernel.tap import Record, Tap, tapping
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
ABSENT = "/nonexistent/who"
NOBODY = 2**32 - 1


def proc_says() -> dict[str, Any]:
    """Of this very process, by other ways than those that are tested."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "pid": os.getpid(),
        "uid": int(status["Uid"].split()[0]),
        "euid": int(status["Uid"].split()[1]),
        "gid": int(status["Gid"].split()[0]),
        "cap_effective": int(status["CapEff"], 16),
        "login_uid": int(Path("/proc/self/loginuid").read_text()),
        "session_id": int(Path("/proc/self/sessionid").read_text()),
        "exe": os.readlink("/proc/self/exe"),
        "cwd": os.readlink("/proc/self/cwd"),
    }


def in_child(body: Callable[[], None]) -> dict[str, Any]:
    """What a forked child is after `body`, in which it then opens ABSENT: before and after it says who it is, the same both times."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            body()
            said = proc_says()
            for _ in range(3):
                try:
                    os.open(ABSENT, os.O_RDONLY)
                except OSError:
                    continue
            os.write(writer, json.dumps(said if said == proc_says() else {}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = json.loads(pipe.read())
    assert os.waitpid(child, 0)[1] == 0
    return dict(said)


def told(tap: Tap, pid: int) -> Record:
    """The three opens say the same."""
    first, *more = tap.records("open", pid=pid, path=ABSENT.encode())
    names = ("uid", "euid", "gid", "login_uid", "session_id", "cap_effective", "tty", "exec_id", "cwd_key")
    assert len(more) == 2
    assert all(each[name] == first[name] for each in more for name in names)
    return first


def check(tap: Tap, said: dict[str, Any]) -> Record:
    record = told(tap, said["pid"])
    names = ("uid", "euid", "gid", "login_uid", "session_id", "cap_effective")
    assert {name: record[name] for name in names} == {name: said[name] for name in names}
    return record


def test_as_we_are(tap: Tap) -> None:
    check(tap, in_child(lambda: None))


def test_an_effective_user(tap: Tap) -> None:
    """Whose capabilities the kernel takes away with it."""
    said = in_child(lambda: os.seteuid(12345))
    assert (said["uid"], said["euid"], said["cap_effective"]) == (0, 12345, 0)
    check(tap, said)


def test_some_capabilities(tap: Tap) -> None:
    """From both halves of the set."""
    chosen = 1 << 2 | 1 << 21 | 1 << 39  # CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_BPF

    def give_up_the_others() -> None:
        header = struct.pack("<Ii", 0x20080522, 0)  # struct __user_cap_header_struct
        data = struct.pack("<6I", chosen & NOBODY, chosen & NOBODY, 0, chosen >> 32, chosen >> 32, 0)
        assert ctypes.CDLL(None).capset(header, data) == 0

    said = in_child(give_up_the_others)
    assert said["cap_effective"] == chosen
    check(tap, said)


def test_another_user_and_group(tap: Tap) -> None:
    def change() -> None:
        os.setgid(23456)
        os.setuid(12345)

    said = in_child(change)
    assert (said["uid"], said["gid"], said["cap_effective"]) == (12345, 23456, 0)
    check(tap, said)


def test_a_login(tap: Tap) -> None:
    """The kernel numbers sessions itself, when the login user is set."""

    def login() -> None:
        Path("/proc/self/loginuid").write_text("4321")

    said = in_child(login)
    assert said["login_uid"] == 4321
    assert said["session_id"] != NOBODY
    check(tap, said)


def test_a_login_is_kept_by_whoever_one_becomes(tap: Tap) -> None:
    def login_and_become() -> None:
        Path("/proc/self/loginuid").write_text("4321")
        os.setuid(12345)

    said = in_child(login_and_become)
    assert (said["login_uid"], said["uid"]) == (4321, 12345)
    check(tap, said)


def test_a_terminal(tap: Tap) -> None:
    reader, writer = os.pipe()
    child, ours = pty.fork()
    if not child:
        try:
            os.write(writer, os.ttyname(0).encode())
            for _ in range(3):
                try:
                    os.open(ABSENT, os.O_RDONLY)
                except OSError:
                    continue
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        name = pipe.read()
    os.waitpid(child, 0)
    os.close(ours)
    assert name.startswith(b"/dev/pts/")
    assert b"/dev/" + terminal(told(tap, child)["tty"]) == name


def test_no_terminal(tap: Tap) -> None:
    said = in_child(os.setsid)
    assert terminal(told(tap, said["pid"])["tty"]) == b""


def test_a_program_is_counted(tap: Tap) -> None:
    """Each exec is one more, and what is done in between says which."""
    child = subprocess.Popen(["/bin/sh", "-c", f"true < {ABSENT}; exec /bin/sh -c 'true < {ABSENT}; exit 0'"], stderr=subprocess.DEVNULL)
    child.wait()
    opens = tap.records("open", pid=child.pid, path=ABSENT.encode())
    execs = tap.records("process", pid=child.pid, action=EXEC)
    assert [each["exec_id"] for each in opens] == [each["exec_id"] for each in execs]
    assert execs[1]["exec_id"] == execs[0]["exec_id"] + 1


class Rows:
    """What the reader and the enricher make of everything that is in the rings."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._reader = Reader(tap.tracing, Mailbox("drains", limit=9))
        self._enricher = Enricher(Mailbox("in", limit=9), Mailbox("out", limit=9), node="node", boot="boot")
        self._enricher.processes.prime()
        self._rows: list[dict[str, Any]] = []

    def look(self) -> list[dict[str, Any]]:
        """All rows of opens of ABSENT so far."""
        for batch in self._enricher.batches(self._reader._drain()):
            if batch.kind == "open":
                columns = batch.columns.select(["pid", "path", "exe", "cwd", "tty", "euid", "ret"])
                self._rows += [row for row in columns.to_pylist() if row["path"] == ABSENT.encode()]
        return self._rows

    def of(self, pid: int, count: int) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [row for row in self.look() if row["pid"] == pid]

        eventually(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """Over a tracing that nobody else reads."""
    with tapping(("open",)) as tap:
        tap._stop.set()
        tap._thread.join()
        yield Rows(tap)


def test_program_and_directory(rows: Rows, tmp_path: Path) -> None:
    """Of a process that was there before, and of children that go elsewhere."""
    odd = tmp_path / "odd \udcff\n\x1b[31m"
    odd.mkdir()
    bodies: list[Callable[[], None]] = [lambda: None, lambda: os.chdir(odd), lambda: os.chdir("/"), lambda: None]
    reported = [in_child(body) for body in bodies]
    for said in reported:
        assert {(row["exe"], row["cwd"]) for row in rows.of(said["pid"], 3)} == {(os.fsencode(said["exe"]), os.fsencode(said["cwd"]))}
    assert [os.fsencode(said["cwd"]) for said in reported[1:3]] == [bytes(odd), b"/"]


def test_a_directory_that_is_moved(rows: Rows, tmp_path: Path) -> None:
    """An event says where it is now, or, of another name for the same place, what it was called when first seen."""
    (tmp_path / "before").mkdir()

    def move() -> None:
        os.chdir(tmp_path / "before")
        (tmp_path / "before").rename(tmp_path / "after")

    said = in_child(move)
    assert {row["cwd"] for row in rows.of(said["pid"], 3)} == {os.fsencode(said["cwd"])} == {bytes(tmp_path / "after")}


def test_a_directory_that_is_removed_and_made_again(rows: Rows, tmp_path: Path) -> None:
    """Addresses in the kernel come round: what was told of one is not told of the next."""
    for number in range(31):
        place = tmp_path / f"d{number}"
        place.mkdir()
        said = in_child(lambda place=place: os.chdir(place))
        assert {row["cwd"] for row in rows.of(said["pid"], 3)} == {bytes(place)}
        place.rmdir()


def test_a_deep_directory(rows: Rows, tmp_path: Path) -> None:
    """What does not fit says so, and what is told is the end of it."""
    deep = tmp_path / "/".join(["deep" * 10] * 8)
    deep.mkdir(parents=True)
    said = in_child(lambda: os.chdir(deep))
    (cwd,) = {row["cwd"] for row in rows.of(said["pid"], 3)}
    assert cwd.startswith(b".../")
    assert bytes(deep).endswith(cwd[3:])
    assert len(cwd) > 100


def test_a_program_of_many(rows: Rows, tmp_path: Path) -> None:
    """Each open is told with the program that made it, though all is read at the end."""
    shells = [tmp_path / f"shell{number}" for number in range(3)]
    for shell in shells:
        shutil.copy(os.path.realpath("/bin/sh"), shell)
    script = tmp_path / "script"
    script.write_text(f'true < {ABSENT}\n[ "$1" ] || exit 0\nnext=$1\nshift\nexec "$next" {script} "$@"\n')
    child = subprocess.Popen([shells[0], script, shells[1], shells[2]], stderr=subprocess.DEVNULL)
    child.wait()
    assert [row["exe"] for row in rows.of(child.pid, 3)] == [bytes(shell) for shell in shells]


OPENS_IN_A_THREAD = f"""
import os, threading
def go():
    try: os.open({ABSENT!r}, 0)
    except OSError: pass
thread = threading.Thread(target=go)
thread.start()
thread.join()
"""


def test_a_thread_of_another_program(rows: Rows, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", OPENS_IN_A_THREAD], cwd=tmp_path)
    child.wait()
    (row,) = rows.of(child.pid, 1)
    assert (row["exe"], row["cwd"]) == (os.fsencode(os.path.realpath(sys.executable)), bytes(tmp_path))


def test_in_a_chroot(rows: Rows, tmp_path: Path) -> None:
    """The names are those of the host."""
    (tmp_path / "inside").mkdir()
    script = "import os, sys\nos.chroot(sys.argv[1]); os.chdir('/inside')\ntry: os.open(sys.argv[2], 0)\nexcept OSError: pass"
    child = subprocess.Popen([sys.executable, "-S", "-c", script, tmp_path, ABSENT])
    child.wait()
    (row,) = rows.of(child.pid, 1)
    assert (row["exe"], row["cwd"]) == (os.fsencode(os.path.realpath(sys.executable)), bytes(tmp_path / "inside"))
