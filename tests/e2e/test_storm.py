"""A flood of processes, a crowd of them, and a cgroup for each: everything is stored or counted as lost, ancestry is right, memory is bounded.

In a tenth of the size by default; whole as `soak`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.system import Row, System, one_number
from tests.kernel.calls import cgroup_mount
from tests.ports import free_port
from tests.waiting import LIMIT_S, eventually
from tests.workloads import build, run

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.serial,
    pytest.mark.timeout(600),
    pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "gcc"),
]
log = logging.getLogger(__name__)
NODE_MIB_MAX = 160
"""Rings (33 MiB), interpreter and libraries (65 MiB), and what may wait: 16 MiB between actors and on the way, as much again while it is turned
from one form into the next, and the table of processes."""
PROCESSES_KEPT = 8_000
"""Ended processes that the node may still know: those of the last second or two."""
OPENS, CALLS = 3, 5


def sizes(small: int, whole: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("size", [small, pytest.param(whole, marks=pytest.mark.soak)])


@dataclass
class Watched:
    """A system, and its node seen from outside."""

    system: System
    node: int
    metrics: str

    def most_memory(self, during: Callable[[], Any]) -> tuple[Any, float]:
        """What `during` gives, and the most resident memory (MiB) that the node had meanwhile."""
        Path(f"/proc/{self.node}/clear_refs").write_text("5")  # proc(5): the peak begins anew
        result = during()
        line = next(line for line in Path(f"/proc/{self.node}/status").read_text().splitlines() if line.startswith("VmHWM"))
        return result, int(line.split()[1]) / 1024

    def gauge(self, name: str) -> float:
        text = urllib.request.urlopen(self.metrics, timeout=10).read().decode()
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    def lost(self, probe: str, reason: str | None = None) -> int:
        which = f"AND reason = '{reason}'" if reason else ""
        return self.system.count(f"SELECT sum(count) AS n FROM loss WHERE probe = '{probe}' {which}")

    def settled(self, sql: str, whole: Callable[[list[Row]], object]) -> list[Row]:
        """Rows of a statement, once they are `whole` with what was lost, and have not changed for two intervals of accounts; or when time is over."""
        return self.system.rows_once(sql, whole, still_s=2.5, within_s=2 * LIMIT_S)


@contextmanager
def watched(path: Path, *arguments: str) -> Iterator[Watched]:
    port = free_port()
    with System(path, "--prometheus-port", str(port), "--interval-s", "1", *arguments) as system:
        yield Watched(system, system.pid_of("infrasight.node"), f"http://127.0.0.1:{port}/metrics")


@pytest.fixture(scope="module")
def watched_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("storm")) as each:
        yield each


def test_memory_at_rest(watched_system: Watched) -> None:
    """With all probes on and all rings mapped."""
    _, mib = watched_system.most_memory(lambda: time.sleep(2))
    log.info(f"at rest: {mib:.0f} MiB")
    assert mib < 120


EACH = 100
NUMBER = "toUInt64(splitByChar('/', path)[-1])"
"""Of the process, as it tells it itself, by what it opens."""
PARENT = f"if({NUMBER} % 5 = 1, concat('c', toString({NUMBER} - 1)), concat('p', toString(intDiv({NUMBER}, {EACH}))))"
LINEAGE = f"arrayConcat([{PARENT}], if({NUMBER} % 5 = 1, [concat('p', toString(intDiv({NUMBER}, {EACH})))], []), ['storm'])"


@sizes(4_999, 49_999)
def test_a_storm_of_short_processes(watched_system: Watched, tmp_path: Path, size: int) -> None:
    system = watched_system.system
    shutil.copy(build("storm"), tmp_path / "leaf")
    before = {probe: watched_system.lost(probe) for probe in ("process", "open", "execve")}
    began = time.time()
    arguments = ("--dir", tmp_path, "--count", size, "--each", EACH, "--batch", 8, "--opens", OPENS)
    said, mib = watched_system.most_memory(lambda: run("storm", *arguments, timeout_s=300))
    # By the names that the kernel told, which hold whatever becomes of the ancestry.
    ours = f"FROM process WHERE ts > toDateTime64('{began:.6f}', 9) AND match(comm, '^([cp][0-9]+|leaf|storm)$') AND pid != {said['pid']}"
    told = f"SELECT 'process' AS probe, action, count() AS n, uniqExact(process_id) AS ids {ours} GROUP BY action"
    told += f" UNION ALL SELECT 'open', '', count(), count() FROM open WHERE startsWith(path, '{tmp_path}/none/')"
    told += f" UNION ALL SELECT 'execve', '', count(), count() FROM execve WHERE path = '{tmp_path}/leaf' AND ret = 0"
    told += " UNION ALL SELECT probe, 'lost', sum(count), sum(count) FROM loss GROUP BY probe"
    made = {("process", "fork"): said["processes"], ("process", "exec"): said["execs"], ("process", "exit"): said["processes"]}
    made |= {("open", ""): said["opens"], ("execve", ""): said["execs"]}

    def of_each(rows: list[Row]) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        """What is stored, and what was lost meanwhile."""
        counts = {(row["probe"], row["action"]): int(row["n"]) for row in rows}
        return {key: counts.get(key, 0) for key in made}, {probe: counts.get((probe, "lost"), 0) - count for probe, count in before.items()}

    def missing(rows: list[Row]) -> dict[str, int]:
        """What is neither."""
        stored, lost = of_each(rows)
        return {probe: sum(made[key] - stored[key] for key in made if key[0] == probe) - lost[probe] for probe in before}

    rows = watched_system.settled(told, lambda rows: max(missing(rows).values()) <= 0)
    stored, lost = of_each(rows)
    rate = said["processes"] / said["elapsed_ns"] * 1e9
    log.info(f"{said}, {rate:.0f}/s: {stored}, lost {lost}, node at most {mib:.0f} MiB")
    assert max(missing(rows).values()) <= 0, "what is missing is counted"
    assert all(stored[key] <= made[key] for key in made), "none twice"
    lives = [row for row in rows if row["probe"] == "process" and row["action"] != "lost"]
    assert all(int(row["n"]) == int(row["ids"]) for row in lives), "each process has an id of its own"
    assert all(stored["process", action] for action in ("fork", "exec", "exit"))
    check_ancestry(system, tmp_path, complete=not lost["process"])
    check_ends(system, said, ours)
    assert mib < NODE_MIB_MAX
    eventually(lambda: watched_system.gauge("infrasight_processes") < PROCESSES_KEPT)


def check_ancestry(system: System, path: Path, complete: bool) -> None:
    """Names from the nearest up to the root, as the numbers say. Where forks were lost a lineage may end early, but must not be wrong."""
    where = f"FROM open WHERE startsWith(path, '{path}/none/')"
    (row,) = system.query(f"SELECT uniqExact(arraySlice(ancestors, indexOf(ancestors, 'storm') + 1)) AS n {where} AND has(ancestors, 'storm')")
    assert int(row["n"]) == 1, "above the root all are the same"
    told = "if(has(ancestors, 'storm'), arraySlice(ancestors, 1, indexOf(ancestors, 'storm')), ancestors)"
    prefix = f"startsWith(arrayStringConcat(arrayPushBack({LINEAGE}, ''), '/'), arrayStringConcat(arrayPushBack({told}, ''), '/'))"
    wrong = system.query(f"SELECT path, ancestors, {LINEAGE} AS right {where} AND notEmpty(ancestors) AND NOT {prefix} LIMIT 5")
    assert wrong == []
    early = system.count(f"SELECT count() AS n {where} AND {told} != {LINEAGE}")
    assert early == 0 or not complete


def check_ends(system: System, said: Row, ours: str) -> None:
    """How each ended, told by its number; one that has become another program has lost its name."""
    number = "toUInt64OrZero(substring(comm, 2))"
    where = f"{ours} AND action = 'exit' AND match(comm, '^c[0-9]+$')"
    right = f"if({number} % 7 = 0, signal = 9 AND exit_code = 0, signal = 0 AND exit_code = {number} % 251)"
    assert system.count(f"SELECT count() AS n {where} AND NOT ({right})") == 0
    assert 0 < system.count(f"SELECT count() AS n {where} AND signal = 9") <= said["killed"]


def room_for(size: int) -> int:
    """So many of them can live at once here: process ids are given out up to pid_max, and the test and others need some."""
    live = sum(int(Path(entry.path, "stat").exists()) for entry in os.scandir("/proc") if entry.name.isdigit())
    return min(size, int(Path("/proc/sys/kernel/pid_max").read_text()) - live - 1000)


@sizes(2_003, 20_011)
def test_a_crowd_of_living_processes(watched_system: Watched, size: int) -> None:
    system, wanted = watched_system.system, room_for(size)
    before = {probe: (watched_system.lost(probe), watched_system.lost(probe, "accounts_full")) for probe in ("resource", "syscall_freq")}
    crowd = subprocess.Popen([build("crowd"), "--count", str(wanted), "--calls", str(CALLS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert crowd.stdin
        assert crowd.stdout
        said, mib = watched_system.most_memory(lambda: json.loads(crowd.stdout.readline()))
        assert said["processes"] == wanted, f"fork: {os.strerror(said['errno'])}"
        whose = f"WHERE ppid = {said['pid']}"
        accounts = (
            "SELECT f.processes AS callers, f.calls, r.processes AS users, r.ended FROM"
            f" (SELECT uniqExact(process_id) AS processes, sum(count) AS calls FROM syscall_freq {whose} AND syscall = 'getppid') AS f,"
            f" (SELECT uniqExact(process_id) AS processes, uniqExactIf(process_id, final) AS ended FROM resource {whose}) AS r"
        )

        def full() -> dict[str, int]:
            return {probe: watched_system.lost(probe, "accounts_full") - count[1] for probe, count in before.items()}

        def all_live(rows: list[Row]) -> bool:
            there, not_there = rows[0], full()
            calls, users = int(there["calls"]) + not_there["syscall_freq"], int(there["users"]) + not_there["resource"]
            return calls >= wanted * CALLS and users >= wanted

        (alive,), mib_alive = watched_system.most_memory(lambda: watched_system.settled(accounts, all_live))
        no_room = full()
        log.info(f"{said}: {alive}, no room for {no_room}, node at most {max(mib, mib_alive):.0f} MiB")
        assert int(alive["calls"]) <= wanted * CALLS <= int(alive["calls"]) + no_room["syscall_freq"]
        assert int(alive["users"]) <= wanted <= int(alive["users"]) + no_room["resource"]
        assert int(alive["ended"]) == 0
        assert watched_system.gauge("infrasight_processes") >= wanted
        crowd.stdin.close()
        assert crowd.wait(2 * LIMIT_S) == 0
    finally:
        crowd.stdin.close()
        crowd.wait(2 * LIMIT_S)

    def gone() -> dict[str, int]:
        return {probe: watched_system.lost(probe) - count[0] for probe, count in before.items()}

    def all_ended(rows: list[Row]) -> bool:
        there, not_there = rows[0], gone()
        return int(there["ended"]) + not_there["resource"] >= wanted and int(there["calls"]) + CALLS * not_there["syscall_freq"] >= wanted * CALLS

    (ended,), mib_after = watched_system.most_memory(lambda: watched_system.settled(accounts, all_ended))
    lost = gone()
    log.info(f"after their end: {ended}, lost {lost}, node at most {mib_after:.0f} MiB")
    assert int(ended["calls"]) <= wanted * CALLS <= int(ended["calls"]) + CALLS * lost["syscall_freq"]
    assert int(ended["ended"]) <= wanted <= int(ended["ended"]) + lost["resource"]
    assert lost == no_room, "an end that finds the ring full is told all the same"
    nameless = system.count(f"SELECT count() AS n FROM resource {whose} AND final AND exe != '{build('crowd')}'")
    assert nameless <= watched_system.lost("process"), "and who it was is known still"
    each = f"SELECT process_id, sum(count) AS calls FROM syscall_freq {whose} AND syscall = 'getppid' GROUP BY process_id"
    assert system.count(f"SELECT count() AS n FROM ({each}) WHERE calls > {CALLS}") == 0, "none twice"
    assert max(mib, mib_alive, mib_after) < NODE_MIB_MAX
    eventually(lambda: watched_system.gauge("infrasight_processes") < PROCESSES_KEPT)


@contextmanager
def cgroups(count: int) -> Iterator[tuple[Path, dict[int, int]]]:
    """So many empty cgroups below one, c0, c1 and so on; their ids by number. They are gone afterwards."""
    base = cgroup_mount() / f"infrasight-storm-{os.getpid()}"
    base.mkdir()
    try:
        for number in range(count):
            (base / f"c{number}").mkdir()
        yield base, {number: (base / f"c{number}").stat().st_ino for number in range(count)}
    finally:
        for number in range(count):
            if (base / f"c{number}").exists():
                (base / f"c{number}").rmdir()
        base.rmdir()


def ids_told(system: System, path: Path) -> dict[int, tuple[int, int]]:
    """Number of a process -> its cgroup's id, how many opens of it were stored."""
    sql = f"SELECT {NUMBER} AS number, cgroup_id, count() AS n FROM open WHERE startsWith(path, '{path}/none/') GROUP BY number, cgroup_id"
    rows = system.query(sql)
    told = {int(row["number"]): (int(row["cgroup_id"]), int(row["n"])) for row in rows}
    assert len(told) == len(rows), "a process is in one cgroup"
    return told


@pytest.mark.needs("cgroup2")
@sizes(1_009, 10_007)
def test_a_cgroup_for_each_process(watched_system: Watched, tmp_path: Path, size: int) -> None:
    system = watched_system.system
    before = watched_system.lost("open")
    with cgroups(size) as (base, ids):
        arguments = ("--base", base, "--count", size, "--dir", tmp_path)
        said, mib = watched_system.most_memory(lambda: run("cgroups", *arguments))
        mine = f"SELECT count() AS n FROM open WHERE startsWith(path, '{tmp_path}/none/')"
        watched_system.settled(mine, lambda rows: one_number(rows) + watched_system.lost("open") - before >= size)
    told, lost = ids_told(system, tmp_path), watched_system.lost("open") - before
    log.info(f"{said}: {len(told)} told, lost {lost}, node at most {mib:.0f} MiB")
    assert size <= len(told) + lost
    assert told == {number: (ids[number], 1) for number in told}
    assert mib < NODE_MIB_MAX


@pytest.mark.needs("cgroup2")
@sizes(1_009, 10_007)
def test_a_rate_cap_for_each_cgroup(tmp_path: Path, size: int) -> None:
    """Each cgroup may open twice at once, and hardly any more after that; which is more cgroups than the kernel side remembers, when it is whole."""
    made, burst = 7, 2
    (tmp_path / "node.toml").write_text(
        f'[probe.open]\nallow = {{ comm = ["cgroups"], path = ["{tmp_path}"] }}\nrate = {{ per_second = 1, burst = {burst} }}\n'
    )
    with watched(tmp_path, "--config", str(tmp_path / "node.toml"), "--probes", "open") as each, cgroups(size) as (base, ids):
        said = run("cgroups", "--base", base, "--count", size, "--dir", tmp_path, "--opens", made)
        mine = f"SELECT count() AS n FROM open WHERE startsWith(path, '{tmp_path}/none/')"
        each.settled(mine, lambda rows: one_number(rows) + each.lost("open") >= size * made)
        told = ids_told(each.system, tmp_path)
        throttled, others = each.lost("open", "throttled"), each.lost("open") - each.lost("open", "throttled")
        log.info(f"{said}: {sum(n for _, n in told.values())} told, {throttled} throttled, {others} lost otherwise")
    stored = sum(count for _, count in told.values())
    assert stored + throttled <= size * made <= stored + throttled + others
    assert {number: place for number, (place, _) in told.items()} == {number: ids[number] for number in told}
    assert len(told) + others >= size, "each has its share"
    assert all(count <= burst + 1 for _, count in told.values())
