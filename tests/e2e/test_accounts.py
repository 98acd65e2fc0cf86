"""What the node tells of processes, once a second and at their end: the rows of one add up to all that it did."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infrasight.schema.events.resource import RESOURCE
from tests import workloads
from tests.kernel.test_accounts import EXACT, HARMLESS, Held, agrees
from tests.waiting import LIMIT_S, eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
COUNTERS = [field.name for field in RESOURCE.fields if field.name != "interval"]


class Told:
    """A node that prints, and the rows that are in by now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        command = [sys.executable, "-m", "infrasight.node", "--output", "json", "--interval-s", "1", "--probes", "resource,syscall_freq"]
        self.node = subprocess.Popen([*command, "--prometheus-port", "0"], stdout=path.open("wb"), stderr=subprocess.PIPE)

    def rows(self, kind: str, pid: int) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return [row for row in found if row["kind"] == kind and row["pid"] == pid]

    def all_rows(self, kind: str, pid: int) -> list[dict[str, Any]]:
        """Once it has ended. Its last row is not told alone: the node is stopped, and has then told all."""
        eventually(lambda: any(row["final"] for row in self.rows(kind, pid)))
        self.stop()
        return self.rows(kind, pid)

    def stop(self) -> None:
        """Legal twice."""
        self.node.terminate()
        self.node.communicate(timeout=LIMIT_S)
        assert self.node.returncode == 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path / "rows")
    try:
        # Process life is always told; whoever begins now makes some.
        eventually(lambda: subprocess.run(["/bin/true"], check=True) and told.path.stat().st_size, 2 * LIMIT_S)
        yield told
    finally:
        told.stop()


def total(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter({name: sum(row[name] for row in rows) for name in COUNTERS})


def test_all_rows_of_a_process_add_up_to_what_it_did(node: Told) -> None:
    held = Held("--cpu-ms", 900, "--threads", 3, "--pages", 501, "--files", 211, "--sockets", 11)
    eventually(lambda: node.rows("resource", held.pid))
    before = total(node.rows("resource", held.pid))
    said = held.work()
    eventually(lambda: total(node.rows("resource", held.pid))["bytes_written"] >= said["bytes_written"])
    usage = held.end()
    rows = node.all_rows("resource", held.pid)
    agrees(total(rows), usage)
    known = [name for name in EXACT if name != "brk_grown_bytes"]  # threads have memory of the C library
    assert {name: total(rows)[name] - before[name] for name in known} == {name: said[name] for name in known}
    assert [row["final"] for row in rows].count(True) == 1
    assert len(rows) >= 3
    ends = [when(row) for row in rows]
    assert ends == sorted(ends)
    # A row without anything new is left out, so that there may be a gap before the next. What the clock shows is read a moment after the other clock.
    assert [row["interval_ns"] <= end - before + 1e8 for row, before, end in zip(rows[1:], ends, ends[1:], strict=False)] == [True] * (len(rows) - 1)
    assert {row["exe"] for row in rows} == {os.fspath(workloads.build("uses"))}


def when(row: dict[str, Any]) -> int:
    """ns since the epoch."""
    return int(np.datetime64(row["ts"].removesuffix("Z"), "ns").astype(np.int64))


def test_calls_add_up(node: Told) -> None:
    said = workloads.run("frequent", "--rounds", 1009, "--threads", 3)
    counts: Counter[str] = Counter()
    for row in node.all_rows("syscall_freq", said["pid"]):
        counts[row["syscall"]] += row["count"]
    assert {name: counts[name] for name in HARMLESS} == {name: said["calls"][name] for name in HARMLESS}
    assert counts["exit_group"] == 1
