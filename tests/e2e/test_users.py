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

pytestmark = [pytest.mark.kernel, pytest.mark.serial, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "busybox")]
CONTAINERS, AT_A_TIME = 12, 3


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFRASIGHT_RUNTIMES", "none")
        with System(tmp_path_factory.mktemp("up")) as running:
            yield running


def who(system: System, marks: list[str]) -> list[tuple[str, int, str, str]]:
    """By each exec of /bin/true with one of these marks: the mark, the user's number, and the names."""
    ours = f"execve WHERE argv[2] IN ({', '.join(map(repr, marks))}) AND endsWith(argv[1], 'true') AND ret = 0"
    assert system.wait_for_count(f"SELECT count() FROM {ours}", len(marks)) == len(marks)
    rows = system.query(f"SELECT argv[2] AS mark, uid, user, `group` FROM {ours}")
    return sorted((row["mark"], int(row["uid"]), row["user"], row["group"]) for row in rows)


def marked(count: int = 1) -> list[str]:
    return [f"infrasight-{uuid.uuid4().hex[:8]}.{number}" for number in range(count)]


@pytest.mark.needs("containerd", "cgroup2")
def test_containers(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    """That live for a second: the names are those of their own files, or for a moment none, and never the host's; and events of one user only."""
    names = marked(CONTAINERS)
    with Containerd() as containerd, ThreadPoolExecutor(AT_A_TIME) as pool:
        script = "/bin/true {0}; /bin/sleep 1; exec /bin/true {0}-last".format
        list(pool.map(lambda name: containerd.run(name, script(name)), names))
    last = [f"{name}-last" for name in names]
    called = [row[2:] for row in who(system, [*names, *last])]
    assert set(called) <= {("captain", "bridge"), ("0", "0")}
    assert called.count(("captain", "bridge")) > 1.5 * CONTAINERS, "of two each: on a busy machine the node can come too late for some"
    assert main(["events", "--user", "captain", "--type", "execve", "-o", "json", "--last", "1000", "--server-port", str(system.port)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["user"] for event in events} == {"captain"}
    assert len(set(last) & {word for event in events for word in event["argv"]}) > CONTAINERS // 2


@pytest.mark.needs("containerd", "cgroup2")
def test_containers_that_end_at_once(system: System) -> None:
    """Their files are read before their program is executed, while the runtime makes them; on a busy machine the node comes too late for some."""
    names = marked(CONTAINERS)
    with Containerd() as containerd:
        for name in names:
            containerd.run(name, f"exec /bin/true {name}")
    called = [row[2:] for row in who(system, names)]
    assert set(called) <= {("captain", "bridge"), ("0", "0")}
    assert called.count(("captain", "bridge")) >= CONTAINERS // 4


def test_a_root_of_its_own_and_ids_of_its_own(system: System, tmp_path: Path) -> None:
    there = root(tmp_path / "root", b"captain:x:0:0::/:\n", b"bridge:x:0:\n")
    plain, mapped, host = marked(3)
    script = "/bin/true {0}; /bin/busybox sleep 0.5; exec /bin/true {0}".format
    for mark, before in ((plain, ()), (mapped, MAPPED_USER)):
        subprocess.run(command(there, script(mark), *before), check=True)
    subprocess.run(["/bin/true", host], check=True)
    assert who(system, [plain, plain, mapped, mapped, host]) == sorted(
        [*[(mark, 0, "captain", "bridge") for mark in (plain, plain, mapped, mapped)], (host, 0, "root", "root")]
    )


def test_one_after_the_other(system: System, tmp_path: Path) -> None:
    """The kernel gives inode numbers of namespaces that are no more to others: nobody is called what somebody was called who is gone."""
    roots = {name: root(tmp_path / name, f"{name}:x:0:0::/:\n".encode(), b"bridge:x:0:\n") for name in ("captain", "pilot")}
    marks = {mark: name for name in roots for mark in marked(4)}
    for mark in sorted(marks, key=lambda mark: mark[-1]):
        subprocess.run(command(roots[marks[mark]], f"/bin/busybox sleep 0.3; exec /bin/true {mark}"), check=True)
    called = {mark: user for mark, _, user, _ in who(system, list(marks))}
    assert {mark: user for mark, user in called.items() if user not in (marks[mark], "root", "0")} == {}
    assert [mark for mark, user in called.items() if user == marks[mark]]


def test_one_that_was_there_before(tmp_path: Path) -> None:
    there = root(tmp_path / "root", b"captain:x:0:0::/:\n", b"bridge:x:0:\n")
    mark, first = marked(2)
    child = subprocess.Popen(command(there, f"read go; exec /bin/true {mark}"), stdin=subprocess.PIPE)
    with System(tmp_path) as later:
        subprocess.run(["/bin/true", first], check=True)
        assert who(later, [first]) == [(first, 0, "root", "root")], "the node has begun"
        child.communicate(b"go\n")
        assert child.returncode == 0
        assert who(later, [mark]) == [(mark, 0, "captain", "bridge")]
