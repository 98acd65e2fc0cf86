"""The process table: who forked whom, told by records and by a /proc made by hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from infrasight.kernel import Records
from infrasight.node import processes as module
from infrasight.node.identity import Identity
from infrasight.node.processes import ANCESTORS_MAX, ENDED_KEPT_NS, Process, Processes
from infrasight.schema.events.process import EXEC, EXIT, FORK
from tests.node.records import life, make, together

IDENTITY = Identity("node", "boot")


def key(pid: int, start: int) -> int:
    return int(IDENTITY.of_ticks(np.array([start], np.uint64), np.array([pid], np.uint32))[0])


def apply(table: Processes, *records: Records) -> list[bool]:
    return [bool(new) for each in records for new in table.apply(each)]


def found(table: Processes, pid: int, start: int, ppid: int = 0) -> Process:
    return table.find(key(pid, start), pid, ppid)


class Proc:
    """A /proc."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "self").mkdir(parents=True)
        (path / "uptime").touch()

    def add(self, pid: int, ppid: int, start: int, comm: bytes) -> None:
        (self.path / str(pid)).mkdir(exist_ok=True)
        rest = [b"S", b"%d" % ppid, *[b"0"] * 17, b"%d" % start, *[b"0"] * 30]
        (self.path / str(pid) / "stat").write_bytes(b"%d (%s) %s\n" % (pid, comm, b" ".join(rest)))

    def remove(self, pid: int) -> None:
        (self.path / str(pid) / "stat").unlink()
        (self.path / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


@pytest.fixture
def table(proc: Proc) -> Processes:
    return Processes(IDENTITY, proc.path)


def test_a_lineage_is_what_each_was_called_when_it_forked(table: Processes) -> None:
    apply(
        table,
        life(FORK, 10, 1, ppid=1, parent=b"init", comm=b"init"),
        life(EXEC, 10, 1, ppid=1, parent=b"init", comm=b"sshd"),
        life(FORK, 20, 2, ppid=10, parent_start=1, parent=b"sshd", comm=b"sshd"),
        life(EXEC, 20, 2, ppid=10, parent_start=1, comm=b"bash"),
        life(FORK, 30, 3, ppid=20, parent_start=2, parent=b"bash", comm=b"bash"),
        life(EXEC, 10, 1, ppid=1, comm=b"renamed"),
    )
    assert found(table, 30, 3) == Process(30, key(20, 2), b"bash", b"bash\0sshd\0init")
    assert found(table, 20, 2).lineage == b"sshd\0init"
    assert found(table, 10, 1) == Process(10, key(1, 0), b"renamed", b"init")
    assert table.unknown == 0


def test_an_orphan_keeps_its_lineage(table: Processes) -> None:
    """Its records tell another parent then; who forked it is what counts."""
    apply(table, life(FORK, 10, 1, ppid=5, parent=b"sh"), life(EXEC, 10, 1, ppid=1, parent=b"init", comm=b"daemon"))
    apply(table, life(EXIT, 5, 0), life(EXIT, 10, 1, ppid=1, parent=b"init"))
    assert (found(table, 10, 1).lineage, found(table, 10, 1).parent_id) == (b"sh", key(5, 0))


def test_the_lineage_is_bounded(table: Processes) -> None:
    for pid in range(2, 100):
        apply(table, life(FORK, pid, pid, ppid=pid - 1, parent_start=pid - 1, parent=b"p%d" % (pid - 1)))
    lineage = found(table, 99, 99).lineage.split(b"\0")
    assert lineage == [b"p%d" % pid for pid in range(98, 98 - ANCESTORS_MAX, -1)]


def test_a_pid_that_comes_round_again_is_another_process(table: Processes) -> None:
    apply(table, life(FORK, 10, 1, ppid=1, parent=b"first"), life(EXIT, 10, 1, at=5), life(FORK, 10, 2, ppid=1, parent=b"second"))
    assert (found(table, 10, 1).lineage, found(table, 10, 1).ended) == (b"first", True)
    assert (found(table, 10, 2).lineage, found(table, 10, 2).ended) == (b"second", False)
    assert found(table, 99, 9, ppid=10).parent_id == key(10, 2)


def test_an_ended_process_is_kept_a_while(table: Processes) -> None:
    apply(table, life(FORK, 10, 1, parent=b"sh", at=0), life(EXIT, 10, 1, at=100))
    apply(table, life(FORK, 11, 2, at=100 + ENDED_KEPT_NS))
    assert found(table, 10, 1).lineage == b"sh"
    assert table.unknown == 0
    apply(table, life(FORK, 12, 3, at=101 + ENDED_KEPT_NS))
    assert len(table) == 2
    assert found(table, 10, 1).lineage == b""
    assert table.unknown == 1


def test_an_exit_that_is_told_twice(table: Processes) -> None:
    assert apply(table, life(FORK, 10, 1), life(EXIT, 10, 1), life(EXIT, 10, 1), life(EXIT, 11, 2), life(EXIT, 11, 2)) == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_records_come_in_one_array(table: Processes) -> None:
    records = together(life(FORK, 10, 1, parent=b"sh"), life(FORK, 11, 2, ppid=10, parent_start=1, parent=b"sh"), life(EXIT, 10, 1))
    assert table.apply(records).tolist() == [True, True, True]
    assert found(table, 11, 2).lineage == b"sh\0sh"
    assert table.apply(make("process", 0)).tolist() == []


def test_a_process_whose_fork_was_lost(table: Processes) -> None:
    """It counts as a child of whoever has its parent's pid now, and is asked about once."""
    apply(table, life(FORK, 10, 1, ppid=1, parent=b"init", comm=b"sh"))
    assert found(table, 50, 7, ppid=10) == Process(50, key(10, 1), b"", b"sh\0init")
    assert found(table, 51, 8, ppid=40) == Process(51, 0, b"", b"")
    assert found(table, 50, 7, ppid=40).parent_id == key(10, 1)
    assert table.unknown == 2
    apply(table, life(EXEC, 52, 9, ppid=10, parent_start=1, parent=b"sh", comm=b"ls"))
    assert (found(table, 52, 9).comm, found(table, 52, 9).lineage) == (b"ls", b"sh\0init")


def test_the_table_is_bounded(table: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROCESSES_MAX", 100)
    apply(table, *(life(FORK, pid, pid) for pid in range(1, 61)), *(life(EXIT, pid, pid) for pid in range(41, 51)))
    apply(table, *(life(FORK, pid, pid) for pid in range(61, 111)))
    assert len(table) == 100
    apply(table, *(life(FORK, pid, pid) for pid in range(111, 116)))
    assert (len(table), len(table._alive)) == (100, 100)
    known = {process.pid for process in table._table.values()}
    assert not known & set(range(41, 51)), "those that have ended go first"
    assert not known & set(range(1, 6)), "then the oldest"
    apply(table, *(each for pid in range(1000, 3000) for each in (life(FORK, pid, pid), life(EXIT, pid, pid))))
    assert len(table) == 100
    assert len(table._ended) <= 100


def test_priming(table: Processes, proc: Proc) -> None:
    proc.add(1, 0, 5, b"systemd")
    proc.add(30, 20, 8, b"cat")
    proc.add(20, 1, 7, b"bash")
    proc.add(2, 0, 6, b"kthreadd")
    table.prime()
    assert len(table) == 4
    assert found(table, 30, 8) == Process(30, key(20, 7), b"cat", b"bash\0systemd")
    assert found(table, 1, 5) == Process(1, 0, b"systemd", b"")


@pytest.mark.parametrize("comm", [b"a) S 1", b"(sd-pam)", b"((", b"two words", b"new\nline", b"\xff\xfe", b"", b")", b") R 9 9 9"])
def test_priming_with_names_that_nobody_expects(table: Processes, proc: Proc, comm: bytes) -> None:
    proc.add(1, 0, 5, comm)
    proc.add(2, 1, 6, b"child")
    table.prime()
    assert (found(table, 1, 5).comm, found(table, 2, 6).lineage) == (comm, comm)


def test_priming_while_processes_vanish(table: Processes, proc: Proc) -> None:
    proc.add(1, 0, 5, b"init")
    (proc.path / "77").mkdir()
    (proc.path / "78").mkdir()
    (proc.path / "78" / "stat").mkdir()
    table.prime()
    assert len(table) == 1


def test_priming_with_parents_in_a_circle(table: Processes, proc: Proc) -> None:
    """Not one moment: a pid may have come round between two reads."""
    proc.add(5, 6, 1, b"a")
    proc.add(6, 5, 2, b"b")
    proc.add(7, 7, 3, b"c")
    table.prime()
    assert len(table) == 3


def test_priming_leaves_what_is_known(table: Processes, proc: Proc) -> None:
    apply(table, life(FORK, 20, 7, ppid=1, parent=b"sshd", comm=b"sshd"), life(EXEC, 20, 7, comm=b"bash"))
    proc.add(1, 0, 5, b"init")
    proc.add(20, 1, 7, b"other")
    proc.add(30, 20, 8, b"ls")
    table.prime()
    assert (found(table, 20, 7).comm, found(table, 20, 7).lineage) == (b"bash", b"sshd")
    assert found(table, 30, 8).lineage == b"bash\0sshd"


def test_a_record_of_before_the_priming(table: Processes, proc: Proc) -> None:
    """Tracing starts first, so the forks of the processes found may still be in the ring."""
    proc.add(10, 1, 1, b"ls")
    table.prime()
    apply(table, life(FORK, 10, 1, ppid=9, parent=b"sh", comm=b"sh"), life(EXEC, 10, 1, comm=b"ls"))
    assert (found(table, 10, 1).comm, found(table, 10, 1).lineage, len(table)) == (b"ls", b"sh", 1)


def test_what_ended_unseen_is_forgotten_in_time(table: Processes, proc: Proc) -> None:
    """Its exit may be lost, or not be read yet: then it still counts, and its last events know it."""
    proc.add(10, 1, 1, b"short")
    proc.add(11, 1, 1, b"gone")
    proc.add(12, 1, 1, b"replaced")
    table.prime()
    for pid in (10, 11):
        proc.remove(pid)
    proc.add(12, 1, 2, b"new")
    table.prime()
    assert apply(table, life(EXIT, 10, 1, at=10), life(EXIT, 10, 1, at=10)) == [True, False]
    assert found(table, 10, 1).comm == b"short"
    assert found(table, 12, 2).comm == b"new"
    assert found(table, 99, 9, ppid=11).parent_id == 0, "nobody has that pid now"
    apply(table, life(FORK, 13, 3, at=1 << 62))
    assert {process.pid for process in table._table.values()} == {12, 13, 99}


def test_the_real_proc() -> None:
    """Everybody has a parent that is known, up to those that the kernel started."""
    table = Processes(IDENTITY)
    table.prime()
    start = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    me = found(table, os.getpid(), start)
    assert table.unknown == 0
    assert me.lineage
    assert me.parent_id in table._table
