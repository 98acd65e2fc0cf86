"""A workload of known prime counts gives exactly those rows, with everything in them right."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import Row, System
from tests.workloads import build, read_log

pytestmark = [pytest.mark.kernel, pytest.mark.serial, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "gcc")]
EXECS, OPENS, ENOENT, CONNECTS = 1_009, 100_003, 30_011, 211


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("exact")) as system:
        yield system


def run_as_nobody(name: str, *arguments: object) -> Row:
    """Run a workload as another user, below a shell of a name that tests can look for among the ancestors."""
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*become, "/bin/sh", "-c", '"$@"; exit $?', "sh", str(build(name)), *map(str, arguments)]
    said: Row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return said


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody may use; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="infrasight-e2e-") as name:
        path = Path(name)
        path.chmod(0o777)
        for workload in ("opens", "execs", "connects"):
            build(workload).parent.chmod(0o755)
        build("opens").parent.parent.chmod(0o755)
        yield path


def check_who(rows: list[Row], comm: str | None, pid: int | None = None) -> None:
    """What is the same for every row of a workload that `run_as_nobody` ran."""
    for row in rows:
        assert (row["uid"], row["user"], row["gid"], row["group"]) == (65534, "nobody", 65534, "nogroup")
        assert comm is None or row["comm"] == comm
        assert pid is None or (row["pid"], row["tid"], row["ns_pid"]) == (pid, pid, pid)
        assert row["node"] == os.uname().nodename
        assert row["latency_ns"] > 0
    assert len({row["process_id"] for row in rows}) == len({row["pid"] for row in rows})


def test_opens(system: System, folder: Path) -> None:
    said = run_as_nobody(
        "opens", "--count", OPENS, "--enoent", ENOENT, "--dir", folder, "--distinct", 257, "--mix", "openat:3,open:1,openat2:1,creat:1"
    )
    where = f"FROM open WHERE pid = {said['pid']}"
    assert system.wait_for_count(f"SELECT count() AS n {where}", OPENS) == OPENS
    assert system.count(f"SELECT count() AS n {where} AND ret = -2") == sum(said["enoent"].values()) == ENOENT
    assert system.count(f"SELECT count() AS n {where} AND ret >= 0") == sum(said["ok"].values()) == OPENS - ENOENT
    created = said["ok"]["creat"] + said["enoent"]["creat"]
    assert system.count(f"SELECT count() AS n {where} AND flags = {os.O_CREAT | os.O_WRONLY | os.O_TRUNC} AND mode = {0o644}") == created
    paths = {f"{folder}/f{k:06d}" for k in range(257)} | {f"{folder}/none/f{k:06d}" for k in range(257)}
    assert {row["path"] for row in system.query(f"SELECT DISTINCT path {where}")} == paths
    rows = system.query(f"SELECT * {where} ORDER BY ts LIMIT 1000")
    check_who(rows, "opens", said["pid"])
    (ancestry,) = system.query(f"SELECT DISTINCT ancestors, parent_id, ppid {where}")
    assert ancestry["ancestors"][0] == "sh"
    assert ancestry["ancestors"][-1] == Path("/proc/1/comm").read_text().rstrip("\n")
    shell = f"SELECT DISTINCT pid, comm FROM execve WHERE process_id = {ancestry['parent_id']} AND comm = 'sh'"
    (parent,) = system.rows_once(shell, lambda rows: len(rows) == 1)
    assert (parent["pid"], parent["comm"]) == (ancestry["ppid"], "sh")


def test_execs(system: System, folder: Path) -> None:
    said = run_as_nobody("execs", "--count", EXECS, "--dir", folder, "--log", folder / "log")
    asked = read_log(folder / "log")
    where = f"FROM execve WHERE ppid = {said['pid']}"
    assert system.wait_for_count(f"SELECT count() AS n {where}", EXECS) == EXECS == len(asked)
    rows = {row["pid"]: row for row in system.query(f"SELECT * {where}")}
    check_who(list(rows.values()), "execs")
    assert Counter(row["ret"] for row in rows.values()) == Counter(each["ret"] for each in asked)
    for each in asked:
        row = rows[each["pid"]]
        assert row["ret"] == each["ret"]
        assert row["path_resolved" if each["kind"] == "execveat_fd" else "path"] == each["path"]
        if each["kind"] == "long_argv":
            assert row["argv_truncated"]
            whole = "\0".join(each["argv"])
            assert "\0".join(row["argv"]) == whole[:4096]
        elif row["argv_truncated"]:
            # The kernel gave up before it had read the arguments, and they lie in a page of the program file that this new child never touched.
            assert each["ret"] in (-errno.ENOENT, -errno.EACCES)
            assert row["argv"] == each["argv"][: len(row["argv"])]
        else:
            assert row["argv"] == each["argv"]
        assert row["ancestors"][:2] == ["execs", "sh"]
    lives = f"FROM process WHERE ppid = {said['pid']} AND action != 'exit'"
    done = {"fork": EXECS, "exec": sum(each["ret"] == 0 for each in asked)}
    system.wait_for_count(f"SELECT count() AS n {lives}", sum(done.values()))
    assert {each["action"]: int(each["n"]) for each in system.query(f"SELECT action, count() AS n {lives} GROUP BY action")} == done


@pytest.mark.needs("ipv6")
def test_connects(system: System, folder: Path) -> None:
    said = run_as_nobody("connects", "--count", CONNECTS, "--dir", folder, "--log", folder / "log")
    asked = read_log(folder / "log")
    where = f"FROM connect WHERE pid = {said['pid']}"
    assert system.wait_for_count(f"SELECT count() AS n {where}", CONNECTS) == CONNECTS == len(asked)
    rows = system.query(f"SELECT * {where} ORDER BY ts")
    check_who(rows, "connects", said["pid"])
    for row, each in zip(rows, asked, strict=True):
        address = row["path"] if row["family"] == "unix" else row["daddr"]
        assert (address, row["dport"], row["ret"]) == (each["address"], each["port"], each["ret"]), each
        assert row["protocol"] == ("stream" if row["family"] == "unix" else "udp" if "udp" in each["kind"] else "tcp")


def test_nothing_was_lost_and_nothing_of_ours_was_traced(system: System) -> None:
    assert system.query("SELECT * FROM loss") == []
    ours = [system.pid_of("infrasight.node"), system.pid_of("infrasight.server")]
    for table in ("open", "execve", "connect", "process"):
        assert system.count(f"SELECT count() AS n FROM {table} WHERE pid IN ({ours[0]}, {ours[1]})") == 0
