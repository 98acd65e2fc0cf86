"""The process table: who forked whom, told by records and by a /proc made by hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from infrasight.kernel import Records
from infrasight.node import processes as module
from infrasight.node.identity import Identity
from infrasight.node.processes import ANCESTORS_MAX, ENDED_KEPT_NS, PROGRAMS_KEPT, Process, Processes
from infrasight.schema.events.process import CWD, EXEC, EXIT, FORK
from tests.node.records import life, make, together

IDENTITY = Identity("node", "boot")


def key(pid: int, start: int) -> int:
    return int(IDENTITY.of_ticks(np.array([start], np.uint64), np.array([pid], np.uint32))[0])


def apply(table: Processes, *records: Records) -> list[bool]:
    return [bool(new) for each in records for new in table.apply(each)]


def found(table: Processes, pid: int, start: int) -> Process:
    return table.find(key(pid, start), pid)


def told(process: Process) -> tuple[int, int, bytes, bytes]:
    return process.pid, process.parent_id, process.comm, process.lineage


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

    def link(self, pid: int, exe: bytes) -> None:
        os.symlink(exe, bytes(self.path / str(pid) / "exe"))

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
    assert told(found(table, 30, 3)) == (30, key(20, 2), b"bash", b"bash\0sshd\0init")
    assert found(table, 20, 2).lineage == b"sshd\0init"
    assert told(found(table, 10, 1)) == (10, key(1, 0), b"renamed", b"init")
    assert table.unknown == 0


def exes(table: Processes, pid: int, start: int, *exec_ids: int) -> list[bytes]:
    return [found(table, pid, start).exe_at(exec_id) for exec_id in exec_ids]


def test_a_program_is_known_by_the_count_of_execs(table: Processes) -> None:
    """So an event of before an exec is told the program of then, whenever it is read."""
    apply(table, life(FORK, 10, 1, comm=b"sh"), *(life(EXEC, 10, 1, exec_id=number, file=b"/bin/%d" % number) for number in (5, 6, 7)))
    assert exes(table, 10, 1, 5, 6, 7) == [b"/bin/5", b"/bin/6", b"/bin/7"]
    assert exes(table, 10, 1, 4) == [b""], "what ran first was never seen"
    apply(table, life(EXEC, 10, 1, exec_id=7, file=b"/bin/7 again"))
    assert exes(table, 10, 1, 5, 6, 7) == [b"/bin/5", b"/bin/6", b"/bin/7 again"]


def test_a_child_runs_the_program_of_its_parent(table: Processes) -> None:
    """That of then: the fork may be read after the parent's next exec."""
    apply(
        table,
        life(FORK, 10, 1),
        life(EXEC, 10, 1, exec_id=1, file=b"/bin/one"),
        life(EXEC, 10, 1, exec_id=2, file=b"/bin/two"),
        life(FORK, 20, 2, ppid=10, parent_start=1, exec_id=1),
        life(FORK, 30, 3, ppid=10, parent_start=1, exec_id=2),
        life(EXEC, 30, 3, ppid=10, exec_id=3, file=b"/bin/three"),
    )
    assert (exes(table, 20, 2, 1), exes(table, 30, 3, 2, 3)) == ([b"/bin/one"], [b"/bin/two", b"/bin/three"])
    assert exes(table, 10, 1, 2) == [b"/bin/two"]


def test_the_programs_of_a_process_are_bounded(table: Processes) -> None:
    apply(table, life(FORK, 10, 1), *(life(EXEC, 10, 1, exec_id=number, file=b"/bin/%d" % number) for number in range(1, 100)))
    assert exes(table, 10, 1, 99, 98, 99 - PROGRAMS_KEPT) == [b"/bin/99", b"/bin/98", b"/bin/%d" % (99 - PROGRAMS_KEPT)]
    assert exes(table, 10, 1, 98 - PROGRAMS_KEPT) == [b"/bin/99"]
    assert len(found(table, 10, 1).before) == PROGRAMS_KEPT


def test_a_file_that_is_too_deep_says_so(table: Processes) -> None:
    apply(
        table,
        life(EXEC, 10, 1, exec_id=1, file=b"/c/d", cwd=b"/e", cwd_key=5, cut=1),
        life(EXEC, 20, 2, exec_id=1, file=b"/f", cwd=b"/g", cwd_key=6, cut=2),
    )
    assert (exes(table, 10, 1, 1), exes(table, 20, 2, 1)) == ([b".../c/d"], [b"/f"])
    assert (table.directory(5), table.directory(6)) == (b"/e", b".../g")


def test_directories_are_known_by_a_number(table: Processes) -> None:
    assert apply(table, life(CWD, 10, 1, cwd_key=5, cwd=b"/srv"), life(EXEC, 10, 1, cwd_key=6, cwd=b"/"), life(CWD, 10, 1, cwd_key=7)) == [
        False,
        True,
        False,
    ]
    assert [table.directory(number) for number in (5, 6, 7, 8)] == [b"/srv", b"/", b"", b""]
    apply(table, life(CWD, 10, 1, cwd_key=5, cwd=b"/moved"))
    assert table.directory(5) == b"/moved"


def test_the_directories_are_bounded(table: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those longest not told of go first."""
    monkeypatch.setattr(module, "DIRECTORIES_MAX", 10)
    apply(table, *(life(CWD, 10, 1, cwd_key=number, cwd=b"/%d" % number) for number in range(10)), life(CWD, 10, 1, cwd_key=0, cwd=b"/0"))
    apply(table, *(life(CWD, 10, 1, cwd_key=number, cwd=b"/%d" % number) for number in range(10, 15)))
    assert [number for number in range(20) if table.directory(number)] == [0, *range(6, 15)]
    assert len(table._directories) == 10


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


def test_an_ended_process_is_kept_until_all_it_did_has_come(table: Processes) -> None:
    """And a while longer."""
    apply(table, life(FORK, 10, 1, parent=b"sh", at=0), life(EXIT, 10, 1, at=100), life(FORK, 11, 2, at=1 << 60))
    table.forget(100 + ENDED_KEPT_NS)
    assert found(table, 10, 1).lineage == b"sh"
    assert table.unknown == 0
    table.forget(101 + ENDED_KEPT_NS)
    assert len(table) == 1
    assert found(table, 10, 1).lineage == b""
    assert table.unknown == 1


def test_a_process_whose_end_was_lost(table: Processes) -> None:
    """Another has its pid, so it has ended; what it did may still come."""
    apply(table, life(FORK, 10, 1, parent=b"sh", at=5), life(FORK, 11, 1, at=7), life(FORK, 10, 2, parent=b"sh", at=9))
    table.forget(7 + ENDED_KEPT_NS)
    assert found(table, 10, 1).lineage == b"sh"
    table.forget(8 + ENDED_KEPT_NS)
    assert {(process.pid, process.lineage) for process in table._table.values()} == {(11, b""), (10, b"sh")}
    assert key(10, 1) not in table._table


def test_brothers_share_their_lineage(table: Processes) -> None:
    """Ten thousands of them may live."""
    apply(table, life(FORK, 10, 1, parent=b"init"))
    apply(table, *(life(FORK, pid, pid, ppid=10, parent_start=1, parent=b"sh") for pid in (20, 21)))
    apply(table, life(FORK, 22, 22, ppid=10, parent_start=1, parent=b"renamed"), life(FORK, 23, 23, ppid=10, parent_start=1, parent=b"sh"))
    lines = [found(table, pid, pid).lineage for pid in (20, 21, 22, 23)]
    assert lines == [b"sh\0init", b"sh\0init", b"renamed\0init", b"sh\0init"]
    assert lines[0] is lines[1]


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
    """Nothing is guessed, and it is asked about once. When it forks, or is told of, what is then known counts."""
    apply(table, life(FORK, 10, 1, ppid=1, parent=b"init", comm=b"sh"))
    assert told(found(table, 50, 7)) == told(found(table, 50, 7)) == (50, 0, b"", b"")
    assert table.unknown == 1
    apply(table, life(FORK, 60, 8, ppid=50, parent_start=7, parent=b"lost"))
    assert told(found(table, 60, 8)) == (60, key(50, 7), b"", b"lost")
    apply(table, life(EXEC, 52, 9, ppid=10, parent_start=1, parent=b"sh", comm=b"ls"))
    assert (found(table, 52, 9).comm, found(table, 52, 9).lineage) == (b"ls", b"sh\0init")


def test_a_process_whose_fork_was_lost_is_found_in_proc(table: Processes, proc: Proc) -> None:
    """With the name that its parent has, which may have changed since that was forked."""
    apply(table, life(FORK, 10, 1, ppid=1, parent=b"init", comm=b"sh"), life(FORK, 70, 70, ppid=10, parent_start=1, parent=b"sh", comm=b"other"))
    found(table, 50, 7)
    proc.add(10, 1, 1, b"renamed")
    proc.add(50, 10, 7, b"daemon")
    proc.add(70, 1, 70, b"elsewhere")
    table.prime()
    assert told(found(table, 50, 7)) == (50, key(10, 1), b"daemon", b"renamed\0init")
    assert told(found(table, 70, 70)) == (70, key(10, 1), b"other", b"sh\0init"), "what is known stays"


def test_what_happens_while_proc_is_looked_at(table: Processes, proc: Proc) -> None:
    """It is learned later: who began meanwhile is not in it, and has not ended for that."""
    apply(table, life(FORK, 10, 1, parent=b"sh", at=3), life(FORK, 11, 1, parent=b"sh", at=4))
    proc.add(10, 0, 1, b"before")
    scan = table.scan()
    apply(table, life(FORK, 12, 2, parent=b"sh", at=5), life(EXIT, 10, 1, at=6))
    table.learn(scan)
    table.forget(1 << 60)
    assert {process.pid for process in table._table.values()} == {12}, "one has ended, the other was not found"


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
    assert told(found(table, 30, 8)) == (30, key(20, 7), b"cat", b"bash\0systemd")
    assert told(found(table, 1, 5)) == (1, 0, b"systemd", b"")


@pytest.mark.parametrize("comm", [b"a) S 1", b"(sd-pam)", b"((", b"two words", b"new\nline", b"\xff\xfe", b"", b")", b") R 9 9 9"])
def test_priming_with_names_that_nobody_expects(table: Processes, proc: Proc, comm: bytes) -> None:
    proc.add(1, 0, 5, comm)
    proc.add(2, 1, 6, b"child")
    table.prime()
    assert (found(table, 1, 5).comm, found(table, 2, 6).lineage) == (comm, comm)


def test_priming_learns_the_programs(table: Processes, proc: Proc) -> None:
    """Which by the kernel's count is not known: it is that of every event until the next exec."""
    for pid in (1, 2, 3):
        proc.add(pid, 0, pid, b"p%d" % pid)
    proc.link(1, b"/sbin/init")
    proc.link(3, b"/opt/\xff old (deleted)")
    table.prime()
    assert (exes(table, 1, 1, 0, 7), exes(table, 2, 2, 0), exes(table, 3, 3, 9)) == ([b"/sbin/init"] * 2, [b""], [b"/opt/\xff old"])
    apply(table, life(EXEC, 1, 1, exec_id=8, file=b"/bin/next"), life(FORK, 9, 9, ppid=3, parent_start=3, exec_id=4))
    assert exes(table, 1, 1, 7, 8) == [b"/sbin/init", b"/bin/next"]
    assert exes(table, 9, 9, 4) == [b"/opt/\xff old"]


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
    assert found(table, 30, 8).lineage == b"other\0sshd"


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
    table.forget(1 << 60)
    assert {(process.pid, process.comm) for process in table._table.values()} == {(12, b"new")}


def test_the_real_proc() -> None:
    """Everybody has a parent that is known, up to those that the kernel started."""
    table = Processes(IDENTITY)
    table.prime()
    start = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    me = found(table, os.getpid(), start)
    assert table.unknown == 0
    assert me.lineage
    assert me.exe == os.fsencode(os.readlink("/proc/self/exe"))
    assert me.parent_id in table._table


def test_mount_namespaces_are_those_last_told(proc: Proc) -> None:
    """0 for the table's own; a child has its parent's number itself, of which there are few."""
    for pid in ("self", "7", "8"):
        (proc.path / pid / "ns").mkdir(parents=True)
        (proc.path / pid / "ns/mnt").touch()
    own, other = (os.stat(proc.path / pid / "ns/mnt").st_ino for pid in ("self", "7"))
    os.remove(proc.path / "8/ns/mnt")
    os.link(proc.path / "self/ns/mnt", proc.path / "8/ns/mnt")
    for pid in (7, 8):
        proc.add(pid, 1, pid, b"before")
    table = Processes(IDENTITY, proc.path)
    table.prime()
    assert [found(table, pid, pid).mount_ns for pid in (7, 8)] == [other, 0]
    apply(table, life(FORK, 20, 20, ppid=7, parent_start=7, mount_ns=other), life(FORK, 21, 21, ppid=7, parent_start=7, mount_ns=2**32 - 1))
    assert found(table, 20, 20).mount_ns is found(table, 7, 7).mount_ns
    assert found(table, 21, 21).mount_ns == 2**32 - 1
    apply(table, life(EXEC, 20, 20, mount_ns=own), life(CWD, 21, 21, mount_ns=own + 5), life(EXIT, 21, 21, mount_ns=0))
    assert [found(table, pid, pid).mount_ns for pid in (20, 21)] == [0, own + 5]
    assert table.inside() == {other: 7}
