"""What happens when a part stands still or dies: memory stays bounded, and what was produced is stored or counted as lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import Row, System, signalled
from tests.waiting import LIMIT_S, eventually
from tests.workloads import build

pytestmark = [pytest.mark.kernel, pytest.mark.serial, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "gcc")]
NODE_MIB_MAX = 160
SERVER_GROWTH_MIB_MAX = 384
"""All that nodes kept meanwhile comes at once when it goes on."""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """It is told of nothing but what the workload opens: of what is lost, the kernel does not know whose it was."""
    (tmp_path / "node.toml").write_text(f'[probe.open]\nallow = {{ comm = ["opens"], path = ["{tmp_path}"] }}\n')
    with System(tmp_path, "--probes", "open", "--config", str(tmp_path / "node.toml")) as system:
        yield system


def resident_mib(pid: int) -> float:
    """Resident memory of a process now."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def opens(directory: Path, *arguments: object) -> subprocess.Popen[str]:
    """The workload, started below a shell: what the tests themselves start is no different from the rest of the machine."""
    return subprocess.Popen([build("opens"), "--dir", directory, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def said(workload: subprocess.Popen[str]) -> Row:
    """What it did, once it has ended."""
    answer: Row = json.loads(workload.communicate(timeout=LIMIT_S)[0])
    return answer


def accounted(system: System, report: Row) -> tuple[int, int]:
    """Of what a workload opened, how many are stored and how many counted as lost, once that is all of them."""
    stored, lost = f"(SELECT count() FROM open WHERE pid = {report['pid']})", "(SELECT sum(count) FROM loss WHERE probe = 'open')"
    rows = system.rows_once(f"SELECT {stored} AS stored, {lost} AS lost", lambda rows: sum(map(int, rows[0].values())) == report["opens"])
    assert rows
    return int(rows[0]["stored"]), int(rows[0]["lost"])


def test_a_store_that_stands_still_for_ten_seconds(system: System, tmp_path: Path) -> None:
    node, server = system.pid_of("infrasight.node"), system.pid_of("infrasight.server")
    before, pages = resident_mib(server), []
    workload = opens(tmp_path, "--absent", "--distinct", 1000, "--seconds", 11)
    time.sleep(0.5)
    signalled(server, signal.SIGSTOP)
    for _ in range(20):
        time.sleep(0.5)
        pages.append(int(Path(f"/proc/{node}/statm").read_text().split()[1]))
    signalled(server, signal.SIGCONT)
    report = said(workload)
    stored, lost = accounted(system, report)
    assert stored + lost == report["opens"]
    assert stored > 0.9 * report["opens"], "ten seconds at full speed fit into the spool"
    assert max(pages) * os.sysconf("SC_PAGESIZE") / 2**20 < NODE_MIB_MAX
    assert resident_mib(server) - before < SERVER_GROWTH_MIB_MAX
    again = said(opens(tmp_path, "--count", 1009))
    assert system.wait_for_count(f"SELECT count() AS n FROM open WHERE pid = {again['pid']}", 1009) == 1009


def test_killing_the_server_while_somebody_watches(tmp_path: Path) -> None:
    """Then batches travel in pieces, and some have come in part when it dies."""
    bustle = 'while [ -e "$0" ]; do touch "$0.x"; chmod 600 "$0.x"; mkdir "$0.d"; rmdir "$0.d"; mv "$0.x" "$0.z"; rm "$0.z"; done'
    (busy := tmp_path / "busy").touch()
    with System(tmp_path, "-o", "compact") as system:
        others = subprocess.Popen(["/bin/sh", "-c", bustle, busy])
        try:
            _kill_the_server(system, tmp_path)

            def pieces() -> bool:
                edges = {edge.name: edge for edge in system.status().edges}
                return edges["ingest to router"].accepted > edges["router to writer"].accepted

            eventually(pieces)
        finally:
            busy.unlink()
            others.wait(LIMIT_S)


def test_killing_the_server_loses_nothing(system: System, tmp_path: Path) -> None:
    _kill_the_server(system, tmp_path)


def _kill_the_server(system: System, tmp_path: Path) -> None:
    dice = random.Random(20)
    workload = opens(tmp_path, "--count", 30_011, "--rate", 4000)
    for restart in range(2, 5):
        time.sleep(dice.uniform(0.3, 1.5))
        signalled(system.pid_of("infrasight.server"), signal.SIGKILL)
        system.wait_for("infrasight server ready", restart)
    assert accounted(system, said(workload)) == (30_011, 0), "each once, none twice"


def test_killing_the_node_leaves_a_working_system(system: System, tmp_path: Path) -> None:
    dice = random.Random(21)
    workload = opens(tmp_path, "--seconds", 6, "--rate", 2000)
    for restart in range(2, 4):
        time.sleep(dice.uniform(0.3, 1.5))
        signalled(system.pid_of("infrasight.node"), signal.SIGKILL)
        system.wait_for("infrasight node ready", restart)
    report, again = said(workload), said(opens(tmp_path, "--count", 1009))
    assert system.wait_for_count(f"SELECT count() AS n FROM open WHERE pid = {again['pid']}", 1009) == 1009
    assert system.count(f"SELECT count() AS n FROM open WHERE pid = {report['pid']}") <= report["opens"], "what was written down is there once"
    unseen = "SELECT count() AS n FROM loss WHERE reason = 'unseen' AND probe = '' AND count = 0 AND since < ts"
    assert system.wait_for_count(unseen, 2) == 2, "each kill is told"
    before = system.count("SELECT count() AS n FROM open")
    assert system.stop() == 0
    with System(tmp_path) as next_one:
        assert next_one.count("SELECT count() AS n FROM open") >= before
        more = said(opens(tmp_path, "--count", 1009))
        assert next_one.wait_for_count(f"SELECT count() AS n FROM open WHERE pid = {more['pid']}", 1009) == 1009
        assert next_one.count(unseen) == 2, "but no clean end"
