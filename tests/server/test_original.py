from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infrasight.schema import KINDS, arrow_schema
from infrasight.schema.original import VIEWS
from infrasight.server import original
from infrasight.server.translation import MAX_EVENT_BYTES, Gathered, Refused
from infrasight.store import open_store
from infrasight.store.batches import check
from infrasight.wire._generated.others import pb
from infrasight.wire.access import Principal, Role
from infrasight.wire.original import OriginalEvent, events_of, read_event
from tests.server.original_agent import LABELS, NOW_MS, PAYLOADS, Agent, ack, event
from tests.server.running import MemoryStore, Running
from tests.store.conftest import ask
from tests.waiting import until

KIND_OF = {name: "syscall_freq" if name.startswith("syscall_freq") else name for name in PAYLOADS}


@pytest.fixture
async def stored(tmp_path: Path) -> AsyncIterator[Running]:
    """A server with a real store."""
    async with Running(open_store(f"chdb://{tmp_path}/store")) as server:
        yield server


async def rows(server: Running, sql: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await ask(server.store, sql, "JSONEachRow")).splitlines()]


async def test_events_of_all_types_are_rows_of_ours_and_of_the_original_s_tables(stored: Running) -> None:
    async with Agent(stored.port) as agent:
        answer = await agent.send_events(*(event(name) for name in PAYLOADS))
    assert (answer.status, answer.message) == ("OK", f"{len(PAYLOADS) + 2} rows stored")  # the vector has three
    for kind, count in Counter(KIND_OF.values()).items():
        found = await rows(stored, f"SELECT *, toUnixTimestamp64Nano(ts) AS at FROM `{kind}`")
        assert len(found) == count + 2 * (kind == "syscall_freq")
        for row in found:
            assert row["at"] == NOW_MS * 1_000_000 - 2_500_000
            assert {name: row[name] for name in ("node", "pid", "ns_pid", "uid", "euid", "gid", "group", "user", "comm", "identity")} == {
                **{"node": "old1", "pid": 4711, "ns_pid": 7, "uid": 1000, "euid": 1000, "gid": 100, "group": "100", "user": "ann", "comm": "cat"},
                "identity": "complete",
            }
            assert (row["image"], row["pod_name"], row["pod_namespace"], row["container_name"]) == ("nginx:1.27", "web-1", "shop", "nginx")
            assert row["container_labels"] == [f"{name}={LABELS[name]}" for name in sorted(LABELS)]
            assert (row["login_uid"], row["session_id"], row["process_id"]) == (2**32 - 1, 2**32 - 1, 0)
    expected = {
        "tracing_events": [{"filename": "/tmp/x"}, {"event_type": "execve", "filename": "/bin/ls"}, {"filename": "/etc/passwd", "return_code": -13}],
        "network_events": [
            {"sa_family": "AF_INET6", "saddr_ipv6": "fe80::1", "daddr_ipv6": "2001:db8::2", "daddr_ipv4": "", "sport": "80", "resolved_domain": None},
            {"sa_family": "AF_INET", "daddr_ipv4": "93.184.216.34", "daddr_ipv6": "", "dport": "443", "resolved_domain": "example.org"},
        ],
        "ptrace_events": [{"request": 16, "request_name": "PTRACE_ATTACH", "target_pid": 77, "addr": 1, "data": 2**64 - 1}],
        "mmap_events": [{"addr": 4096, "len": 8192, "prot": 5, "flags": 34, "fd": 2**64 - 1, "off": 4096, "return_code": 140_000_000_000_000}],
        "mount_events": [
            {"event_type": "mount", "dev_name": "/dev/sdb", "dir_name": "/mnt", "type": "ext4", "flags": 2**40 + 1, "latency_ms": 2.5},
            {"event_type": "umount", "dev_name": "", "dir_name": "/mnt", "type": "", "flags": 2, "return_code": -16},
        ],
        "resource_events": [{"cpu_ns": 5_000_000, "user_faults": 7, "bytes_written": 2**53, "vm_brk_shrink_bytes": 3, "isActive": 1}],
        "syscall_freq_events": [{"syscall_vector_json": {"0": 12, "1": 4, "257": 21}, "pid": 4711, "node_name": "old1"}],
    }
    for table, wanted in expected.items():
        calls = next(view for view in VIEWS if view.name == table).calls
        found = await rows(stored, f"SELECT * FROM audit.{table} ORDER BY {'event_type' if calls else 'pid'}")
        for row, want in zip(found, wanted, strict=True):
            assert {name: row[name] for name in want} == want
            assert row["wall_time_ms"] == NOW_MS - 3  # the call was entered 2.5 ms before
            assert row["container_labels_json"]["io"]["kubernetes"]["pod"] == {"name": "web-1", "namespace": "shop"}


async def test_a_batch_is_stored_and_its_node_is_known_as_of_the_original(running: Running) -> None:
    async with Agent(running.port) as agent:
        answer = await agent.send_batch(pb.Batch(type="resource", batch=[event("resource") for _ in range(700)]))
        assert (answer.status, answer.message) == ("OK", "700 rows stored")
        (node,) = running.server.status().nodes
    assert (node.name, node.version, node.rows, node.batches, node.rejected_batches) == ("old1", "original", 700, 1, 0)
    assert node.last_oldest_unix_ns == NOW_MS * 1_000_000 - 2_500_000
    ((kind, batch),) = running.store.kept.values()
    assert kind == "resource"
    check(kind, batch)


async def test_an_empty_stream_and_an_empty_batch_are_fine(running: Running) -> None:
    async with Agent(running.port) as agent:
        assert (await agent.send_events()).message == (await agent.send_batch(pb.Batch())).message == "0 rows stored"
    assert running.server.status().nodes == []


async def test_acknowledged_after_the_insert_only_and_a_stream_flushes_while_it_lives(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "FLUSH_S", 0.02)
    async with Agent(running.port) as agent, agent.stream() as stream:
        await stream.send_message(event())
        await until(lambda: running.store.rows() == 1)
        assert running.server.status().nodes[0].connected
        running.store.gate.clear()
        await stream.send_message(event("chmod"))
        await stream.end()
        answer = asyncio.ensure_future(ack(stream))
        await until(lambda: running.server.graph.statistics()["router to writer"].delivered == 2)
        assert not answer.done()
        running.store.gate.set()
        assert (await answer).message == "2 rows stored"
    assert len(set(running.store.tokens)) == 2
    assert not running.server.status().nodes[0].connected


async def test_many_events_are_flushed_by_number_and_a_full_server_makes_the_agent_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "FLUSH_ROWS", 100)
    data = bytes(event(snoop=pb.SnooperEvent(filename="/" + "x" * 4000)))  # more than HTTP/2's windows hold
    async with Running(MemoryStore(), ingest_bytes=100_000) as server, Agent(server.port) as agent, agent.stream() as stream:
        server.store.gate.clear()

        async def send() -> None:
            for _ in range(3_000):
                await stream.send_message(data)
            await stream.end()

        sending = asyncio.ensure_future(send())
        mailbox = next(edge.mailbox for edge in server.server.graph.edges if edge.source == "original")
        await until(lambda: mailbox.statistics().waiting_senders > 0)
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert mailbox.statistics().weight <= mailbox.limit
        server.store.gate.set()
        await sending
        assert (await ack(stream)).message == "3000 rows stored"


async def test_what_comes_of_many_agents_is_stored_together(running: Running) -> None:
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(Agent(running.port)) for _ in range(30)]
        answers = await asyncio.gather(*(agent.send_events(event(node_name=f"old{number}")) for number, agent in enumerate(agents)))
    assert {answer.message for answer in answers} == {"1 rows stored"}
    assert len(running.store.tokens) <= 10
    assert {(node.name, node.rows) for node in running.server.status().nodes} == {(f"old{number}", 1) for number in range(30)}


async def test_a_mistake_of_ours_costs_these_rows_only(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Agent(running.port) as agent:
        with monkeypatch.context() as patch:
            patch.setattr(Gathered, "batches", lambda _: 1 / 0)
            assert (await agent.send_events(event())).message == "0 rows stored; not stored: the server made a mistake, its log says which"
        assert (await agent.send_events(event())).message == "1 rows stored"


async def test_what_came_is_stored_though_the_agent_is_gone(running: Running) -> None:
    async with Agent(running.port) as agent:
        stream = agent.stream()
        await stream.__aenter__()
        for _ in range(30):
            await stream.send_message(event())
        await until(lambda: running.server.original._gathering._gathered.rows + running.store.rows() == 30)
    await until(lambda: running.store.rows() == 30)


async def test_a_server_that_stops_stores_what_came_and_says_so(running: Running) -> None:
    async with Agent(running.port) as agent:
        stream = agent.stream()
        await stream.__aenter__()
        await stream.send_message(event())
        await until(lambda: running.server.status().nodes)
        answer = asyncio.ensure_future(ack(stream))
        assert await running.stop()
        assert (await answer).message == "1 rows stored"
    assert running.store.rows() == 1


BAD: dict[str, tuple[pb.EbpfEvent | bytes, str]] = {
    "type": (event("fork", snoop=pb.SnooperEvent()), "no such event_type"),
    "none": (pb.EbpfEvent(node_name="old1"), "no such event_type"),
    "payload": (event("connect", network=None, snoop=pb.SnooperEvent()), "connect without network"),
    "no payload": (event("open", snoop=None), "open without snoop"),
    "address": (event("connect", network=pb.NetworkEvent(daddrv4="1.2.3.4.5", sa_family="AF_INET")), "an address that is none"),
    "scope": (event("connect", network=pb.NetworkEvent(daddrv6="fe80::1%eth0", sa_family="AF_INET6")), "an address that is none"),
    "port": (event("connect", network=pb.NetworkEvent(dport="65536", sa_family="AF_INET")), "dport is no port"),
    "port text": (event("connect", network=pb.NetworkEvent(sport="\u0663", sa_family="AF_INET")), "sport is no port"),
    "family": (event("connect", network=pb.NetworkEvent(sa_family="AF_X25")), "sa_family is none"),
    "json": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json="{")), "vector_json is no JSON"),
    "deep json": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json="[" * 50_000)), "vector_json is no JSON"),
    "json list": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json="[1]")), "no object of counts"),
    "json counts": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json='{"1": 1.5}')), "no object of counts"),
    "json names": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json='{"read": 1}')), "no object of counts"),
    "json same": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json='{"1": 1, "01": 2}')), "no object of counts"),
    "json negative": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json='{"1": -1}')), "out of range"),
    "json digits": (event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json='{"1": ' + "9" * 9000 + "}")), "vector_json is no JSON"),
    "json many": (
        event("syscall_freq_agg", syscall_freq_agg=pb.SyscallFreqAgg(vector_json=json.dumps({str(n): 1 for n in range(513)}))),
        "no object of counts",
    ),
    "nan": (event("resource", resource=pb.ResourceEvent(cpu_ns=float("nan"))), "cpu_ns is out of range"),
    "infinite": (event("resource", resource=pb.ResourceEvent(bytes_read=float("inf"))), "bytes_read is out of range"),
    "negative": (event("resource", resource=pb.ResourceEvent(bytes_read=-1.0)), "bytes_read is out of range"),
    "past": (event(timestamp_unix_ms=1), "too far from now"),
    "future": (event(timestamp_unix_ms=2**63 - 1), "too far from now"),
    "latency": (event(latency_ns=2**64 - 1), "too far from now"),
    "path": (event(snoop=pb.SnooperEvent(filename="x" * 4097)), "filename is longer than 4096 bytes"),
    "comm": (event(comm="x" * 1025), "comm is longer than 1024 bytes"),
    "huge": (event(user="x" * MAX_EVENT_BYTES), "an event that is too long"),
    "node": (event(node_name="another"), "of another node"),
    "cut off": (bytes(event())[:-3], "a field is cut off"),
    "noise": (b"\xff" * 40, "a number is too long"),
    "group": (b"\x0b", "not protobuf"),
    "wire type": (b"\x0a\x01x", "pid is of another type"),
    "wide": (b"\x08\xff\xff\xff\xff\xff\x01", "pid is out of range"),
}


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD)
async def test_a_bad_event_is_refused_and_the_others_are_kept(running: Running, bad: pb.EbpfEvent | bytes, why: str) -> None:
    async with Agent(running.port) as agent:
        answer = await agent.send_events(event(), bad, event("chmod"))
    assert answer.status == "PARTIAL"
    assert answer.message.startswith("2 rows stored; 1 events refused (1 ")
    assert why in answer.message
    assert running.grpc.refused == {"event": 1}
    assert running.store.rows() == 2


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ({"a": "x" * 2000, "b": "y"}, ["a=" + "x" * 1022, "b=y"]),
        ({"a": "x\0y", "b=c": "x", "": "x"}, ["a=xy"]),
        ({f"{n:03}": "" for n in range(250)}, [f"{n:03}=" for n in range(64)]),
        ({"io.kubernetes.pod.name": "p" * 2000}, ["io.kubernetes.pod.name=" + "p" * 1001]),
    ],
    ids=["long", "odd", "many", "a pod's"],
)
async def test_no_label_hides_what_its_container_does(stored: Running, labels: dict[str, str], kept: list[str]) -> None:
    async with Agent(stored.port) as agent:
        answer = await agent.send_events(event(container_labels_json=labels))
    assert answer.message == "1 rows stored"
    (row,) = await rows(stored, "SELECT container_labels, length(pod_name) AS pod FROM open")
    assert (row["container_labels"], row["pod"]) == (kept, 1024 if kept[0].startswith("io.") else 0)


async def test_no_argument_hides_a_call(stored: Running) -> None:
    """Of what is an int to the kernel the rest of the register may hold anything."""
    odd = 1 << 40
    events = (
        event("mmap", mmap=pb.MmapEvent(prot=odd + 7, flags=odd + 34, fd=odd + 2**32 - 1)),
        event("ptrace", ptrace=pb.PtraceEvent(request=16, target_pid=odd + 77)),
        event("ptrace", ptrace=pb.PtraceEvent(request=16, target_pid=-1)),
        event("umount", mount=pb.MountEvent(dir_name="/x", flags=odd + 2)),
    )
    async with Agent(stored.port) as agent:
        assert (await agent.send_events(*events)).message == "4 rows stored"
    assert await rows(stored, "SELECT prot, flags, fd FROM mmap") == [{"prot": 7, "flags": 34, "fd": -1}]
    assert await rows(stored, "SELECT target_pid FROM ptrace ORDER BY target_pid") == [{"target_pid": -1}, {"target_pid": 77}]
    assert await rows(stored, "SELECT flags FROM umount") == [{"flags": 2}]


async def test_more_labels_than_are_read(running: Running) -> None:
    async with Agent(running.port) as agent:
        answer = await agent.send_events(event(container_labels_json={str(n): "" for n in range(3000)}))
    assert answer.message == "1 rows stored"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 254, "new\nline"])
async def test_a_node_needs_a_name_as_ours_do(running: Running, name: str) -> None:
    async with Agent(running.port) as agent:
        answer = await agent.send_batch(pb.Batch(batch=[event(node_name=name), event()]))
    assert answer.message == "1 rows stored; 1 events refused (1 node_name is none)"
    assert [node.name for node in running.server.status().nodes] == ["old1"]


async def test_what_is_no_batch_is_an_error_and_what_came_before_is_stored(running: Running) -> None:
    async with Agent(running.port) as agent:
        for bad, stored in ((b"\xff\xff", 0), (bytes(pb.Batch(batch=[event()])) + b"\xff", 1), (b"\xba\x04\x00" * 50_001, 1)):
            with pytest.raises(GRPCError) as error:
                await agent.send_batch(bad)
            assert error.value.status is Status.INVALID_ARGUMENT
            assert running.store.rows() == stored
        with pytest.raises(GRPCError):
            await agent.send_events(event(), bytes(5 << 20))
        await until(lambda: running.store.rows() == 2)


async def test_what_the_store_rejects_is_said(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reject(kind: str, *_: object) -> None:
        from infrasight.errors import InvalidBatch

        raise InvalidBatch(f"{kind}: no")

    monkeypatch.setattr(running.store, "insert", reject)
    async with Agent(running.port) as agent:
        answer = await agent.send_events(event())
    assert (answer.status, answer.message) == ("ERROR", "0 rows stored; not stored: open: no")
    assert running.server.status().nodes[0].rejected_batches == 1


# Whatever comes: it is a sound batch of ours, or refused.

TEXT = st.one_of(st.sampled_from(["", "open", "AF_INET", "10.0.0.1", "::1", "80", '{"1": 2}', "a\0b"]), st.text(max_size=20))
U32, U64, I64 = (st.integers(low, high) for low, high in ((0, 2**32 - 1), (0, 2**64 - 1), (-(2**63), 2**63 - 1)))
NEAR = st.one_of(st.just(0), st.integers(NOW_MS - 10**6, NOW_MS + 10**6), I64)


@st.composite
def any_event(draw: st.DrawFn) -> pb.EbpfEvent:
    name = draw(st.sampled_from(sorted(PAYLOADS)))
    (which, payload), = PAYLOADS[name].items()
    fields = type(payload)._betterproto.meta_by_field_name
    by_type = {"string": TEXT, "uint32": U32, "uint64": U64, "int64": I64, "double": st.floats(width=64)}
    said = type(payload)(**{field: draw(by_type[meta.proto_type]) for field, meta in fields.items() if draw(st.booleans())})
    labels = draw(st.dictionaries(TEXT, TEXT, max_size=4))
    more = {"pid": draw(U32), "latency_ns": draw(st.one_of(st.integers(0, 10**12), U64)), "timestamp_unix_ms": draw(NEAR), "user": draw(TEXT)}
    return event(name, **{which: said}, **more, container_labels_json=labels)


def gathered(data: bytes) -> Gathered:
    found = Gathered()
    try:
        found.add(read_event(data), len(data))
    except (ValueError, Refused):
        assert found.rows == 0
    return found


def sound(found: Gathered) -> None:
    count = 0
    for kind, batch in found.batches():
        assert batch.schema.equals(arrow_schema(kind))
        batch.validate(full=True)
        check(kind, batch)
        count += batch.num_rows
    assert count == found.rows


@given(any_event())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_event_of_the_contract_becomes_sound_rows_or_is_refused(sent: pb.EbpfEvent) -> None:
    data = bytes(sent)
    sound(gathered(data))
    read = read_event(data)
    assert read.about.get("pid", 0) == sent.pid
    assert read.about.get("user", b"") == sent.user.encode()
    assert {name.decode(): value.decode() for name, value in read.labels.items()} == sent.container_labels_json


@given(any_event(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), st.integers(0, 400))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_is_refused_or_harmless(sent: pb.EbpfEvent, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(bytes(sent))
    for place, value in flips:
        data[place % len(data)] = value
    sound(gathered(bytes(data)))
    sound(gathered(bytes(data[:cut])))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_or_harmless(noise: bytes) -> None:
    sound(gathered(noise))
    with contextlib.suppress(ValueError):
        assert all(isinstance(each, bytes) for each in events_of(noise))


def test_every_kind_s_columns_are_columns() -> None:
    for name in PAYLOADS:
        data = bytes(event(name))
        ((kind, batch),) = gathered(data).batches()
        assert kind == KIND_OF[name]
        assert batch.schema.names == [column.name for column in KINDS[kind].columns]


def test_an_event_without_a_time_has_that_of_its_arrival() -> None:
    before = time.time_ns()
    ((_, batch),) = gathered(bytes(event(timestamp_unix_ms=0, latency_ns=0))).batches()
    assert before <= batch.column("ts").cast("int64")[0].as_py() <= time.time_ns()


def test_a_field_said_twice_is_the_last_and_of_two_payloads_the_last_holds() -> None:
    data = bytes(pb.EbpfEvent(pid=1)) + bytes(event("mount", pid=2)) + bytes(pb.EbpfEvent(snoop=pb.SnooperEvent(filename="/x")))
    read = read_event(data)
    assert isinstance(read, OriginalEvent)
    assert (read.about["pid"], read.payload, read.said) == (2, "snoop", {"filename": b"/x"})


async def test_an_agent_ships_under_the_name_that_its_token_is_for() -> None:
    class Bound:
        def admit(self, certificate: Any, authorization: str) -> Principal:
            return Principal(Role.NODE, "node 'old1'", frozenset({"old1"})) if authorization == "Bearer x" else Principal(Role.READER, "reader 'ann'")

    async with Running(MemoryStore(), access=Bound()) as server:
        async with Agent(server.port, authorization="Bearer x") as agent:
            assert (await agent.send_batch(pb.Batch(type="x", batch=[event()]))).status == "OK"
            for send in (agent.send_batch(pb.Batch(batch=[event(node_name="other")])), agent.send_events(event(node_name="other"))):
                with pytest.raises(GRPCError, match="may not ship as 'other'") as refusal:
                    await send
                assert refusal.value.status is Status.PERMISSION_DENIED
        async with Agent(server.port) as reader:
            with pytest.raises(GRPCError, match="reader 'ann' may not ship events"):
                await reader.send_batch(pb.Batch(batch=[event()]))
        assert server.store.rows() == 1
