"""Users and groups are called what they are called where the process is: in containers, and in any mount namespace with a root of its own."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infrasight.cli.main import main
from tests.e2e.containerd import Containerd
from tests.e2e.system import System
from tests.node.names.mounted import MAPPED_USER, command, root
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.serial, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "busybox")]
CONTAINERS, AT_A_TIME = 12, 3


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFRASIGHT_RUNTIMES", "none")
        with System(tmp_path_factory.mktemp("up")) as running:
            yield running


def execs(marks: list[str]) -> str:
    """Of /bin/true with one of these marks."""
    return f"execve WHERE argv[2] IN ({', '.join(map(repr, marks))}) AND endsWith(argv[1], 'true') AND ret = 0"


def who(system: System, marks: list[str], count: int) -> list[tuple[str, int, str, str]]:
    """By each of so many of these execs: the mark, the user's number, and the names."""
    rows = system.rows_once(f"SELECT argv[2] AS mark, uid, user, `group` FROM {execs(marks)}", lambda rows: len(rows) == count)
    assert len(rows) == count
    return sorted((row["mark"], int(row["uid"]), row["user"], row["group"]) for row in rows)


def marked(count: int = 1) -> list[str]:
    return [f"infrasight-{uuid.uuid4().hex[:8]}.{number}" for number in range(count)]


def named(system: System, mark: str, user: str) -> bool:
    """Whether it is told by now that this user did it."""
    return system.count(f"SELECT count() FROM {execs([mark])} AND user = '{user}'") > 0


OWN, NOT_YET = ("captain", "bridge"), ("0", "0")
"""What the users in the image are called; and what they are called before its files are read, for which a busy machine may need some time."""


@pytest.mark.needs("containerd", "cgroup2")
def test_containers(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    """The names are those of their own files, or for a moment none, and never the host's; and events of one user only."""
    names = marked(CONTAINERS)
    with Containerd() as containerd, ThreadPoolExecutor(2 * AT_A_TIME) as pool:

        def live(name: str) -> int:
            """Until it is known who that is; how often it did something before."""
            script = f"trap 'exec /bin/true {name}-last' TERM; while :; do /bin/true {name}; /bin/sleep 0.1 & wait $!; done"
            running = pool.submit(containerd.run, name, script)
            try:
                eventually(lambda: running.done() or named(system, name, "captain"))
            finally:
                containerd.signal(name, "TERM")
            running.result()
            return system.count(f"SELECT count() FROM {execs([name])}")

        with ThreadPoolExecutor(AT_A_TIME) as starting:
            assert all(starting.map(live, names))
    last = [f"{name}-last" for name in names]
    assert [row[2:] for row in who(system, last, CONTAINERS)] == [OWN] * CONTAINERS
    called = system.query(f"SELECT DISTINCT user, `group` FROM {execs(names)}")
    assert {(row["user"], row["group"]) for row in called} <= {OWN, NOT_YET}
    wanted = ["--user", "captain", "--type", "execve", "-o", "json", "--last", "100000", "--server-port", str(system.port)]
    assert main(["events", *wanted]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["user"] for event in events} == {"captain"}
    assert set(last) <= {word for event in events for word in event["argv"]}


@pytest.mark.needs("containerd", "cgroup2")
def test_containers_that_end_at_once(system: System) -> None:
    """Their files are read before their program is executed, while the runtime makes them; on a busy machine the node comes too late for some."""
    called: list[tuple[str, str]] = []
    with Containerd() as containerd:
        while called.count(OWN) < CONTAINERS // 4 and len(called) < 10 * CONTAINERS:
            names = marked(CONTAINERS)
            for name in names:
                containerd.run(name, f"exec /bin/true {name}")
            called += [row[2:] for row in who(system, names, CONTAINERS)]
    assert set(called) <= {OWN, NOT_YET}
    assert called.count(OWN) >= CONTAINERS // 4


def stay(system: System, command: list[str], mark: str, user: str) -> set[tuple[int, str, str]]:
    """A shell begun so executes something again and again until it is known who that is: who it was said to be all the while."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as shell:
        assert shell.stdin is not None
        pipe = shell.stdin

        def again() -> bool:
            pipe.write(b"\n")
            pipe.flush()
            return named(system, mark, user)

        try:
            eventually(again)
        finally:
            pipe.close()
    return {(int(row["uid"]), row["user"], row["group"]) for row in system.query(f"SELECT DISTINCT uid, user, `group` FROM {execs([mark])}")}


AGAIN = "while read go; do /bin/true {0}; done".format


def test_a_root_of_its_own_and_ids_of_its_own(system: System, tmp_path: Path) -> None:
    there = root(tmp_path / "root", b"captain:x:0:0::/:\n", b"bridge:x:0:\n")
    plain, mapped, host = marked(3)
    for mark, before in ((plain, ()), (mapped, MAPPED_USER)):
        called = stay(system, command(there, AGAIN(mark), *before), mark, "captain")
        assert called <= {(0, *OWN), (0, *NOT_YET), (0, "root", "root")}, "it had the host's root before"
    assert stay(system, ["/bin/sh", "-c", AGAIN(host)], host, "root") == {(0, "root", "root")}


def test_one_after_the_other(system: System, tmp_path: Path) -> None:
    """The kernel gives inode numbers of namespaces that are no more to others: nobody is called what somebody was called who is gone."""
    roots = {name: root(tmp_path / name, f"{name}:x:0:0::/:\n".encode(), b"bridge:x:0:\n") for name in ("captain", "pilot")}
    for _ in range(4):
        for name, there in roots.items():
            (mark,) = marked()
            called = stay(system, command(there, AGAIN(mark)), mark, name)
            assert {user for _, user, _ in called} <= {name, "root", "0"}


def test_one_that_was_there_before(tmp_path: Path) -> None:
    there = root(tmp_path / "root", b"captain:x:0:0::/:\n", b"bridge:x:0:\n")
    mark, first = marked(2)
    child = subprocess.Popen(command(there, f"read go; exec /bin/true {mark}"), stdin=subprocess.PIPE)
    with System(tmp_path) as later:
        subprocess.run(["/bin/true", first], check=True)
        assert who(later, [first], 1) == [(first, 0, "root", "root")], "the node has begun"
        child.communicate(b"go\n")
        assert child.returncode == 0
        assert who(later, [mark], 1) == [(mark, 0, "captain", "bridge")]
