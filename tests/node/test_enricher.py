"""The enricher: every column of every kind, from records made by hand, against the same told plainly."""

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infrasight.actors import Mailbox
from infrasight.kernel import Records
from infrasight.node.columns import FEW
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.table import WAIT_S
from infrasight.node.enricher import Enricher
from infrasight.node.flow import Batch, Drain, Loss
from infrasight.node.identity import Identity
from infrasight.node.processes import Processes, Scan
from infrasight.runtimes import Facts, Key
from infrasight.schema import KINDS, arrow_schema
from infrasight.schema.columns import Source, Type
from infrasight.schema.events.process import CGROUP, CGROUP_GONE, CWD, EXEC, EXIT, FORK
from infrasight.wire.codec import decode, encode
from tests.node.records import TICK, cgroup, layout_of, life, make, names, together
from tests.waiting import LIMIT_S, until

OFFSET = 1_763_000_000_000_000_000
HEAD: dict[str, Any] = {
    "enter_ns": [5_000, 7_000, 6_000],
    "latency_ns": [10, 2**40, 0],
    "ret": [3, -2, 0],
    "cgroup_id": [1, 2**64 - 1, 7],
    "start_ns": [11 * TICK + 1, 12 * TICK, 11 * TICK + 9],
    "pid": [100, 200, 100],
    "tid": [100, 201, 102],
    "ppid": [1, 100, 1],
    "uid": [0, 4_000_000_000, 0],
    "gid": [0, 4_000_000_001, 0],
    "ns_pid": [100, 1, 100],
    "comm": [b"bash", b"\xff\x1b[31m\n", b""],
    "exec_id": [1, 3, 2],
    "euid": [0, 4_000_000_002, 33],
    "login_uid": [2**32 - 1, 1000, 0],
    "session_id": [2**32 - 1, 1, 0],
    "tty": [0, 136 << 20 | 3, 4 << 20 | 65],
    "cap_effective": [2**41 - 1, 0, 1 << 21],
    "cwd_key": [0, 2**64 - 1, 77],
}


@pytest.fixture(autouse=True, scope="module", params=[-1, FEW], ids=["as many", "as few"])
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways that columns are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infrasight.node.columns.FEW", request.param)
        patch.setattr("infrasight.node.columns.FEW_TEXTS", request.param)
        patch.setattr("infrasight.node.enricher.FEW", request.param)
        yield


@pytest.fixture
def enricher(tmp_path: Path) -> Enricher:
    return enricher_of(tmp_path)


def enricher_of(tmp_path: Path, *family: int, inbox: Mailbox[Drain] | None = None, outbox: Mailbox[Batch] | None = None) -> Enricher:
    """Over a /proc in which there is nobody."""
    (tmp_path / "proc").mkdir(exist_ok=True)
    made = Enricher(inbox or Mailbox("in", limit=9), outbox or Mailbox("out", limit=99), node="nöde", boot="boot", family=family)
    made.processes = Processes(Identity("nöde", "boot"), tmp_path / "proc")
    made.cgroups = Cgroups(list)
    return made


def drain(*data: tuple[str, Records], life: list[Records] | None = None, losses: list[Loss] | None = None) -> Drain:
    told = [(layout_of(name), records) for name, records in data]
    return Drain(life=life or [], data=told, losses=losses or [], accounts=[], wall_offset_ns=OFFSET)


def rows(batch: Batch) -> list[dict[str, Any]]:
    """Checked thoroughly, and the way over the wire included; times as integers."""
    assert batch.columns.schema.equals(arrow_schema(batch.kind), check_metadata=True)
    batch.columns.validate(full=True)
    columns = decode(batch.kind, encode(batch.columns))
    values = {
        column.name: (columns.column(column.name).cast("int64") if column.type is Type.TIME else columns.column(column.name)).to_pylist()
        for column in KINDS[batch.kind].columns
    }
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def one(enricher: Enricher, given: Drain) -> Batch:
    (batch,) = enricher.batches(given)
    return batch


def who(enricher: Enricher, row: int) -> dict[str, Any]:
    """What the first columns of row `row` of HEAD have to be."""
    identity = Identity("nöde", "boot")
    process_id = int(identity.of(np.array(HEAD["start_ns"], np.uint64), np.array(HEAD["pid"], np.uint32))[row])
    same = ("pid", "tid", "ppid", "uid", "gid", "ns_pid", "cgroup_id", "comm", "euid", "login_uid", "session_id", "cap_effective")
    return {
        "ts": HEAD["enter_ns"][row] + OFFSET,
        "node": "nöde".encode(),
        "user": b"root" if row != 1 else b"4000000000",
        "group": b"root" if row != 1 else b"4000000001",
        "process_id": process_id,
        "tty": [b"", b"pts/3", b"ttyS1"][row],
        "exe": b"",
        "cwd": b"",
        "container_id": b"",
        "container_runtime": b"",
        "pod_uid": b"",
        "container_name": b"",
        "image": b"",
        "image_digest": b"",
        "container_labels": b"",
        "container_created": 0,
        "privileged": 0,
        "pod_name": b"",
        "pod_namespace": b"",
        "identity": b"",
        "container_started": 0,
        "workload": b"",
        **{name: HEAD[name][row] for name in same},
    }


CALL = ("ret", "latency_ns")
EXPECTED: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "execve": (
        {
            "path": [b"/bin/\xff", b"", b"x" * 128],
            "path_place": [names(b"/usr/bin/\xff"), b"", names(b"/srv")],
            "path_whole": [1, 0, 0],
            "argv": [b"a\0\0b c\0", b"", b"cut off"],
            "argv_truncated": [0, 0, 1],
            "exe_memfd": [0, 1, 0],
            "exe_upper": [0, 0, 1],
        },
        [
            {
                "path": b"/bin/\xff",
                "path_resolved": b"/usr/bin/\xff",
                "argv": [b"a", b"", b"b c"],
                "argv_truncated": 0,
                "exe_memfd": 0,
                "exe_upper": 0,
                "redacted": 0,
            },
            {"path": b"", "path_resolved": b"", "argv": [], "argv_truncated": 0, "exe_memfd": 1, "exe_upper": 0, "redacted": 0},
            {
                "path": b"x" * 128,
                "path_resolved": b"/srv/" + b"x" * 128,
                "argv": [b"cut off"],
                "argv_truncated": 1,
                "exe_memfd": 0,
                "exe_upper": 1,
                "redacted": 0,
            },
        ],
    ),
    "open": (
        {
            "path": [b"/etc/\x1b]0;\n", b"", b"../" + b"x" * 77],
            "path_place": [b"", names(b"/a file"), names(b"/srv/data")],
            "path_whole": [0, 1, 2],
            "flags": [0o100, 2**32 - 1, 0],
            "mode": [0o644, 0, 2],
            "dirfd": [-100, 3, -1],
        },
        [
            {"path": b"/etc/\x1b]0;\n", "path_resolved": b"/etc/\x1b]0;\n", "flags": 0o100, "mode": 0o644, "dirfd": -100},
            {"path": b"", "path_resolved": b"/a file", "flags": 2**32 - 1, "mode": 0, "dirfd": 3},
            {"path": b"../" + b"x" * 77, "path_resolved": b".../srv/" + b"x" * 77, "flags": 0, "mode": 2, "dirfd": -1},
        ],
    ),
}


@pytest.mark.parametrize("name", ["execve", "execve_long", "open", "open_long"])
def test_every_column(name: str, enricher: Enricher) -> None:
    kind = name.removesuffix("_long")
    raw, expected = EXPECTED[kind]
    batch = one(enricher, drain((name, make(name, 3, **HEAD, **raw))))
    assert (batch.kind, batch.oldest_ns) == (kind, HEAD["enter_ns"][0] + OFFSET)
    for row, found in enumerate(rows(batch)):
        lineage = {"parent_id": found["parent_id"], "ancestors": b""}
        assert found == {**who(enricher, row), **{each: HEAD[each][row] for each in CALL}, **expected[row], **lineage}


def connects() -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """Raw members, a list each, and rows."""
    four, six = ipaddress.ip_address("10.0.0.255").packed, ipaddress.ip_address("2001:db8::1").packed
    inet, inet6, unix = int(socket.AF_INET), int(socket.AF_INET6), int(socket.AF_UNIX)
    rubbish = b"\xaa" * 16
    table = [
        # family, dport, daddr, socket family, type, protocol, saddr, sport, path, its place and whether that is the file itself
        (
            (inet, 443, four + rubbish[4:], inet, 1, 6, four + rubbish[4:], 40000, b"", b"", 0),
            (b"inet", b"tcp", b"10.0.0.255", 443, b"10.0.0.255", 40000, b"", b""),
        ),
        ((inet6, 53, six, inet6, 2, 17, bytes(16), 0, b"", b"", 0), (b"inet6", b"udp", b"2001:db8::1", 53, b"::", 0, b"", b"")),
        (
            (unix, 0, rubbish, unix, 1, 0, rubbish, 0, b"/var/run/s\0", names(b"/run/s"), 1),
            (b"unix", b"stream", b"", 0, b"", 0, b"/var/run/s", b"/run/s"),
        ),
        (
            (unix, 0, rubbish, unix, 1, 0, rubbish, 0, b"./s\0rubbish", names(b"/run"), 0),
            (b"unix", b"stream", b"", 0, b"", 0, b"./s", b"/run/s"),
        ),
        ((unix, 0, rubbish, unix, 2, 0, rubbish, 0, b"\0a\0\xff", b"", 0), (b"unix", b"dgram", b"", 0, b"", 0, b"@a\0\xff", b"")),
        ((unix, 0, rubbish, unix, 5, 0, rubbish, 0, b"", b"", 0), (b"unix", b"seqpacket", b"", 0, b"", 0, b"", b"")),
        (
            (unix, 0, rubbish, unix, 1, 0, rubbish, 0, b"/" + b"p" * 107, b"", 0),
            (b"unix", b"stream", b"", 0, b"", 0, b"/" + b"p" * 107, b"/" + b"p" * 107),
        ),
        ((16, 0, rubbish, 16, 3, 99, rubbish, 0, b"", b"", 0), (b"netlink", b"99", b"", 0, b"", 0, b"", b"")),
        ((inet, 9, four + bytes(12), 0, 0, 0, bytes(16), 0, b"", b"", 0), (b"inet", b"", b"10.0.0.255", 9, b"", 0, b"", b"")),
    ]
    members = ("family", "dport", "daddr", "socket_family", "socket_type", "socket_protocol", "saddr", "sport", "path", "path_place", "path_whole")
    columns = ("family", "protocol", "daddr", "dport", "saddr", "sport", "path", "path_resolved")
    raw = {member: [given[place] for given, _ in table] for place, member in enumerate(members)}
    raw["path_place_cut"] = [0] * len(table)
    return {**raw, "fd": list(range(-1, len(table) - 1))}, [
        {**dict(zip(columns, told, strict=True)), "fd": place - 1} for place, (_, told) in enumerate(table)
    ]


def test_connects(enricher: Enricher) -> None:
    raw, expected = connects()
    head = {name: 1 for name in HEAD if name != "comm"}
    found = rows(one(enricher, drain(("connect", make("connect", len(expected), comm=b"c", **head, **raw)))))
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
    assert (found[0]["ret"], found[0]["comm"], found[0]["ts"]) == (1, b"c", 1 + OFFSET)


@pytest.mark.parametrize("many", [1, 2000])
def test_kinds_that_come_together(tmp_path: Path, many: int) -> None:
    """Each row is told who did it as when its kind comes alone."""
    given = [(name, make(name, 3, **HEAD, **EXPECTED[name][0])) for name in ("execve", "open")]
    given.append(("mkdir", make("mkdir", 2 * many, pid=[7, 100] * many, start_ns=11 * TICK + 1, enter_ns=9, comm=b"")))
    found = list(enricher_of(tmp_path).batches(drain(*given)))
    assert [batch.kind for batch in found] == ["execve", "open", "mkdir"]
    assert [rows(batch) for batch in found] == [rows(one(enricher_of(tmp_path), drain(each))) for each in given]


def test_process_life(enricher: Enricher) -> None:
    fork = life(FORK, 10, 1, ppid=1, at=1, comm=b"sh", parent=b"init")
    records = together(fork, *(life(EXIT, 10 + number, 1, ppid=1, at=2, comm=b"sh") for number in range(4)), life(EXEC, 20, 1), life(9, 21, 1))
    records["status"][:] = [0, 0, 7 << 8, 9, 139, 0, 0]
    found = rows(one(enricher, drain(life=[records])))
    assert [(row["action"], row["exit_code"], row["signal"]) for row in found] == [
        (b"fork", 0, 0),
        (b"exit", 0, 0),
        (b"exit", 7, 0),
        (b"exit", 0, 9),
        (b"exit", 0, 11),
        (b"exec", 0, 0),
        (b"9", 0, 0),
    ]
    assert (found[0]["ancestors"], found[0]["comm"], found[0]["pid"], found[0]["ppid"]) == (b"init", b"sh", 10, 1)


def test_life_is_learned_before_the_events_are_told(enricher: Enricher) -> None:
    """Both in one drain, and once for each process."""
    born = [life(FORK, 100, 11, ppid=9, parent_start=3, parent=b"sshd"), life(FORK, 200, 12, ppid=100, parent_start=11, parent=b"bash")]
    told = list(enricher.batches(drain(("open", make("open", 3, **HEAD, **EXPECTED["open"][0])), life=born)))
    assert [batch.kind for batch in told] == ["process", "process", "open"]
    found = rows(told[2])
    assert [row["ancestors"] for row in found] == [b"sshd", b"bash\0sshd", b"sshd"]
    assert found[1]["parent_id"] == found[0]["process_id"] == found[2]["process_id"]
    assert enricher.processes.unknown == 0


def test_the_program_that_ran_then(enricher: Enricher) -> None:
    """A drain may hold the exec and, of the same process, events of before and after it."""
    born = together(
        life(FORK, 100, 11, ppid=9, comm=b"sh"),
        life(EXEC, 100, 11, exec_id=1, file=b"/bin/first", comm=b"first"),
        life(EXEC, 100, 11, exec_id=2, file=b"/bin/second \xff", comm=b"second"),
        life(FORK, 200, 12, ppid=100, parent_start=11, exec_id=2),
    )
    told = list(enricher.batches(drain(("open", make("open", 3, **{**HEAD, "exec_id": [1, 2, 2]}, **EXPECTED["open"][0])), life=[born])))
    assert [row["exe"] for row in rows(told[1])] == [b"/bin/first", b"/bin/second \xff", b"/bin/second \xff"]
    assert [row["exe"] for row in rows(told[0])] == [b"", b"/bin/first", b"/bin/second \xff", b"/bin/second \xff"]


def test_the_working_directory_then(enricher: Enricher) -> None:
    """The kernel tells what a number stands for, once; that is no row."""
    first = list(enricher.batches(drain(life=[together(life(CWD, 100, 11, cwd_key=77, cwd=b"/home/\xff"), life(CWD, 9, 9, cwd_key=5, cwd=b"/"))])))
    assert first == []
    found = rows(one(enricher, drain(("open", make("open", 3, **HEAD, **EXPECTED["open"][0])))))
    assert [row["cwd"] for row in found] == [b"", b"", b"/home/\xff"]
    moved = life(CWD, 100, 11, cwd_key=77, cwd=b"/moved", cut=2)
    found = rows(one(enricher, drain(("open", make("open", 3, **HEAD, **EXPECTED["open"][0])), life=[moved])))
    assert [row["cwd"] for row in found] == [b"", b"", b".../moved"]


def test_an_exit_that_is_told_twice_is_one_row(enricher: Enricher) -> None:
    end = life(EXIT, 10, 1)
    assert [batch.columns.num_rows for batch in enricher.batches(drain(life=[together(end, end)]))] == [1]
    assert list(enricher.batches(drain(life=[end]))) == []


def test_the_family_is_learned_and_not_shown(tmp_path: Path) -> None:
    enricher = enricher_of(tmp_path, 50, 60)
    mixed = together(
        life(EXEC, 50, 1, ppid=1, comm=b"us"), life(FORK, 70, 2, ppid=60, comm=b"ours"), life(FORK, 80, 3, ppid=70, parent_start=2, parent=b"ours")
    )
    found = rows(one(enricher, drain(life=[mixed])))
    assert [(row["pid"], row["ancestors"]) for row in found] == [(80, b"ours")]
    assert list(enricher.batches(drain(life=[life(EXIT, 70, 2, ppid=60)]))) == []
    assert len(enricher.processes) == 3


def test_losses(enricher: Enricher) -> None:
    losses = [Loss("open", "ring_full", 2**40, 5, 9), Loss("connect", "inflight_full", 1, 5, 9)]
    batch = one(enricher, drain(losses=losses))
    assert batch.kind == "loss"
    assert rows(batch) == [
        {"ts": 9, "node": "nöde".encode(), "since": 5, "probe": b"open", "reason": b"ring_full", "count": 2**40},
        {"ts": 9, "node": "nöde".encode(), "since": 5, "probe": b"connect", "reason": b"inflight_full", "count": 1},
    ]


def test_an_empty_drain_makes_nothing(enricher: Enricher) -> None:
    assert list(enricher.batches(drain())) == []


@pytest.mark.parametrize(
    "name", ["execve", "execve_long", "open", "open_long", "connect", "connect_long", "chmod", "mount_long", "ptrace", "process"]
)
@pytest.mark.parametrize("count", [1, 1000])
def test_rubbish_does_no_harm(name: str, count: int, enricher: Enricher) -> None:
    """Whatever lies in the records, there is a batch that the wire takes; the kernel bounds only the lengths."""
    records = make(name, count, action=FORK) if name == "process" else make(name, count)
    for slot in layout_of(name).kind.slots:
        if slot.source in (Source.USER, Source.PATH):
            records[slot.name][records[slot.name] == 0] = 1
    given = drain(life=[records]) if name == "process" else drain((name, records))
    assert len(rows(one(enricher, given))) == count


async def test_order_is_kept(tmp_path: Path) -> None:
    inbox: Mailbox[Drain] = Mailbox("in", limit=100)
    outbox: Mailbox[Batch] = Mailbox("out", limit=1)
    enricher = enricher_of(tmp_path, inbox=inbox, outbox=outbox)
    for number in range(5):
        records = make("open", 1, **{name: value[:1] for name, value in HEAD.items()}, path=[b"%d" % number])
        await inbox.put(drain(("open", records), ("open", records)))
    inbox.close()
    task = asyncio.create_task(enricher.run())
    got = [(await outbox.get()).columns.column("path").to_pylist() for _ in range(10)]
    await task
    assert got == [[b"%d" % (number // 2)] for number in range(10)]


async def test_the_table_is_primed_once_and_again_when_life_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again beside everything else: what is told meanwhile does not wait. Losses while /proc is looked at are mended afterwards, not at once."""
    inbox: Mailbox[Drain] = Mailbox("in", limit=100)
    enricher = enricher_of(tmp_path, inbox=inbox)
    scans, learned, go = [], [], threading.Event()

    def scan() -> Scan:
        scans.append(1)
        assert len(scans) == 1 or go.wait(LIMIT_S)
        return Scan({}, {})

    monkeypatch.setattr(enricher.processes, "scan", scan)
    monkeypatch.setattr(enricher.processes, "learn", learned.append)
    task = asyncio.create_task(enricher.run())
    await inbox.put(drain(losses=[Loss("open", "ring_full", 1, 0, 1)]))
    for _ in range(3):
        await inbox.put(drain(losses=[Loss("process", "ring_full", 1, 0, 1)]))
    await until(lambda: len(scans) == 2 and not inbox.statistics().depth)
    assert len(learned) == 1
    go.set()
    await until(lambda: enricher._scan is not None and enricher._scan.done())
    await inbox.put(drain())
    await until(lambda: len(learned) == 2)
    assert len(scans) == 2, "it is not due yet"
    enricher._scan_due_s = 0.0
    await inbox.put(drain())
    await until(lambda: len(scans) == 3)
    inbox.close()
    await task
    await enricher.run()
    assert len(scans) == 3, "a restart does not forget"


def test_containers_by_cgroup(enricher: Enricher) -> None:
    """What a process was in when it made each call: it can be moved. That a cgroup was made is no row."""
    outer, inner, pod = "0a" * 32, "0b" * 32, "f" * 32
    told = together(
        life(FORK, 10, 1),
        cgroup(CGROUP, 7, f"/docker/{outer}".encode()),
        cgroup(CGROUP, 8, f"/kubepods/pod{pod}/crio-{inner}".encode()),
        cgroup(CGROUP_GONE, 7, f"/docker/{outer}".encode()),
    )
    same = {"pid": 10, "start_ns": TICK, "exec_id": 1, "uid": 0, "gid": 0, "tty": 0, "cwd_key": 0}
    opens = make("open", 4, **same, cgroup_id=[1, 7, 8, 9], comm=b"sh", path=b"/a", path_place=b"", path_whole=0)
    forks, opened = (rows(batch) for batch in enricher.batches(drain(("open", opens), life=[told])))
    columns = "container_id", "container_runtime", "pod_uid"
    assert [row["action"] for row in forks] == [b"fork"]
    told_of = [tuple(row[name].decode() for name in columns) for row in opened]
    assert told_of == [("", "", ""), (outer, "docker", ""), (inner, "cri-o", pod), ("", "", "")]
    assert {row["process_id"] for row in opened} == {row["process_id"] for row in forks}


def in_containers(*ids: int) -> Records:
    """An open in each of these cgroups, of a process each."""
    pids = [100 + id for id in ids]
    same = {"start_ns": TICK, "exec_id": 1, "uid": 0, "gid": 0, "tty": 0, "cwd_key": 0, "comm": b"sh"}
    same |= {"path": b"/a", "path_place": b"", "path_whole": 0}
    return make("open", len(ids), pid=pids, cgroup_id=list(ids), **same)


def test_what_runtimes_say_of_containers(enricher: Enricher) -> None:
    enricher.containers.are_told_of({b"": {b"containerd"}})
    who = {"pod_name": b"web-1", "pod_namespace": b"shop", "pod_uid": b"u1", "workload": b"Deployment/web"}
    told = Facts(b"web", b"shop/web:1", b"sha256:5", (b"a=1", b"b="), 7_000_000_009, 8_000_000_000, True, **who)
    enricher.containers.shelf("s").learn(Key(b"known", b"default"), told)
    made = [b"/default/known", b"/default/other", b"/docker/" + b"a" * 64, b"/system.slice"]
    life = [cgroup(CGROUP, 7 + number, path) for number, path in enumerate(made)]
    (batch,) = enricher.batches(drain(("open", in_containers(7, 8, 9, 10, 11, 7)), life=life))
    columns = [column.name for column in KINDS["open"].columns]
    columns = columns[columns.index("pod_uid") : columns.index("workload") + 1]
    found = [tuple(row[name] for name in columns) for row in rows(batch)]
    known = (b"u1", b"web", b"shop/web:1", b"sha256:5", b"a=1\0b=", 7_000_000_009, 1, b"web-1", b"shop", b"complete")
    nothing = (b"", b"", b"", b"", b"", 0, 0, b"", b"")
    others = [(*nothing, identity, OFFSET if identity else 0, b"") for identity in (b"pending", b"path", b"", b"")]
    known = (*known, OFFSET, b"Deployment/web")
    assert found == [known, *others, known]


def test_when_a_container_was_started(enricher: Enricher) -> None:
    """When its cgroup was made, where that was seen, whatever its runtime says; those inside are no containers of their own."""
    enricher.containers.shelf("s").learn(Key(b"web", b"default"), Facts(started_ns=5))
    life = [cgroup(CGROUP, 6, b"/default", parent=2), cgroup(CGROUP, 7, b"/default/web", at=1_000, parent=6)]
    life += [cgroup(CGROUP, 8, b"/default/web/inside", at=2_000, parent=7), cgroup(CGROUP, 9, b"/default/web/other", at=3_000, parent=99)]
    life += [cgroup(CGROUP, 10, b"/default/web", at=4_000, parent=99)]
    (batch,) = enricher.batches(drain(("open", in_containers(6, 7, 8, 9, 10)), life=life))
    assert [row["container_started"] for row in rows(batch)] == [0, OFFSET + 1_000, OFFSET + 1_000, 5, OFFSET + 4_000]


async def test_a_new_container_is_waited_for(tmp_path: Path) -> None:
    """Until its runtime has told of it; then what it did goes on, complete. What comes after has not been overtaken."""
    inbox, outbox = Mailbox[Drain]("in", limit=9), Mailbox[Batch]("out", limit=99)
    enricher = enricher_of(tmp_path, inbox=inbox, outbox=outbox)
    enricher.containers.are_told_of({b"": {b"containerd"}})
    await inbox.put(drain(("open", in_containers(7)), life=[cgroup(CGROUP, 7, b"/default/new")]))
    await inbox.put(drain(("open", in_containers(8))))
    running = asyncio.create_task(enricher.run())
    await until(lambda: len(enricher.cgroups) == 1)
    assert outbox.statistics().accepted == 0
    enricher.containers.shelf("s").learn(Key(b"new", b"default"), Facts(name=b"n"))
    batches = [await outbox.get(), await outbox.get()]
    assert [[(row["container_name"], row["identity"]) for row in rows(batch)] for batch in batches] == [[(b"n", b"complete")], [(b"", b"")]]
    inbox.close()
    await running


async def test_a_container_that_nobody_tells_of_goes_on_as_it_is(tmp_path: Path) -> None:
    inbox, outbox = Mailbox[Drain]("in", limit=9), Mailbox[Batch]("out", limit=99)
    enricher = enricher_of(tmp_path, inbox=inbox, outbox=outbox)
    enricher.containers.are_told_of({b"": {b"containerd"}})
    await inbox.put(drain(("open", in_containers(7)), life=[cgroup(CGROUP, 7, b"/default/new")]))
    inbox.close()
    began = time.monotonic()
    await enricher.run()
    assert WAIT_S <= time.monotonic() - began < 10
    (row,) = rows(await outbox.get())
    assert (row["container_id"], row["identity"]) == (b"new", b"pending")


def test_nothing_but_cgroups(enricher: Enricher) -> None:
    assert list(enricher.batches(drain(life=[cgroup(CGROUP, 7, b"/a"), cgroup(CGROUP_GONE, 7, b"/a")]))) == []
    assert len(enricher.cgroups) == 1
