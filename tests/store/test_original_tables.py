"""The original's tables: queries as its dashboards make them, on rows that came as all rows come."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from infrasight.errors import QueryRefused
from infrasight.schema import KINDS, Type
from infrasight.schema.original import _CALL, _COMMON, MARK, VIEWS
from infrasight.store import Store, open_store
from infrasight.store.addresses import parse
from infrasight.store.connection import Connection
from infrasight.store.tables import migrate
from infrasight.store.views import make_views
from tests.store import samples
from tests.store.clickhouse import ClickHouse
from tests.store.conftest import ask
from tests.store.test_tables import session

T0 = 1_795_000_000_000_000_000 // 60_000_000_000 * 60_000_000_000
"""A whole minute, ns since the epoch."""
DAY = 86_400 * 10**9


def batch(kind: str, *rows: dict[str, object]) -> pa.RecordBatch:
    """Rows of a kind, each as given and otherwise empty."""

    def empty(type: Type) -> object:
        return [] if type is Type.WORDS else b"" if type in (Type.NAME, Type.TEXT, Type.LINEAGE) else 0

    columns = KINDS[kind].columns
    arrays = [samples.array(column, [row.get(column.name, empty(column.type)) for row in rows]) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def pod(name: str) -> bytes:
    return f"app=shop\0io.kubernetes.pod.name={name}\0io.kubernetes.pod.namespace=prod".encode()


@pytest.fixture
async def filled(store: Store) -> Store:
    """Six opens, two execs, three connections and the system calls of two processes, of two nodes and three containers, over two minutes."""
    opens = [
        {"ts": T0 + 1_000_000 * each, "node": b"n1", "comm": b"cat", "path": b"/etc/%d" % each, "latency_ns": 1_000_000 * each, "ret": each - 3}
        | {"container_id": b"c1", "image": b"nginx", "container_labels": pod("web"), "pid": 10 + each}
        for each in range(4)
    ]
    opens += [{"ts": T0 + 61 * 10**9, "node": b"n2", "comm": b"vim", "path": b"/x", "latency_ns": 9_000_000, "pid": 20}] * 2
    await store.insert("open", batch("open", *opens), "open")
    execs = [{"ts": T0 + 5, "node": b"n1", "comm": b"ls", "path": b"/bin/ls", "image": b"redis", "container_labels": pod("db")}, {"ts": T0 + 6}]
    await store.insert("execve", batch("execve", *execs), "execve")
    ends = {"node": b"n1", "family": b"inet", "daddr": b"10.0.0.9", "dport": 443, "saddr": b"10.0.0.1", "sport": 40000, "comm": b"curl"}
    connects = [
        {**ends, "ts": T0, "name": b"a.example", "container_labels": pod("web")},
        {**ends, "ts": T0, "family": b"inet6", "daddr": b"::1", "saddr": b"::2"},
        {**ends, "ts": T0, "family": b"unix", "path": b"/run/x"},
    ]
    await store.insert("connect", batch("connect", *connects), "connect")
    frequencies = [
        {"ts": T0 + minute * 60 * 10**9, "node": b"n1", "pid": pid, "process_id": pid * 7, "comm": b"p%d" % pid}
        | {"number": number, "count": pid + number}
        for minute in range(2)
        for pid in (1, 2)
        for number in (0, 257)
    ]
    await store.insert("syscall_freq", batch("syscall_freq", *frequencies), "syscall_freq")
    return store


MINUTE = f"toDateTime64({T0 // 10**9}, 3)"
QUERIES = {
    "rollup by minute": (
        "SELECT toStartOfMinute(wall_time_dt) AS minute, event_type, count() AS events FROM audit.tracing_events "
        f"WHERE wall_time_dt >= {MINUTE} AND wall_time_dt < {MINUTE} + INTERVAL 1 HOUR GROUP BY minute, event_type ORDER BY events DESC",
        lambda rows: [row.split("\t")[1:] for row in rows] == [["open", "4"], ["open", "2"], ["execve", "2"]],
    ),
    "top commands": (
        "SELECT comm, count(*) AS n FROM audit.tracing_events WHERE event_type = 'open' GROUP BY comm ORDER BY n DESC LIMIT 1",
        ["cat\t4"],
    ),
    "latency": (
        "SELECT quantileExact(0.5)(latency_ms), max(latency_ms), avg(latency_ns) FROM audit.tracing_events "
        "WHERE event_type = 'open' AND node_name = 'n1'",
        ["2\t3\t1500000"],
    ),
    "failed": (
        "SELECT filename, return_code FROM audit.tracing_events WHERE return_code < 0 ORDER BY filename",
        ["/etc/0\t-3", "/etc/1\t-2", "/etc/2\t-1"],
    ),
    "latest": (
        "SELECT node_name, argMax(filename, wall_time_ms), argMax(comm, wall_time_dt) FROM audit.tracing_events WHERE event_type = 'open' "
        "GROUP BY node_name ORDER BY node_name",
        ["n1\t/etc/3\tcat", "n2\t/x\tvim"],
    ),
    "by pod": (
        "SELECT CAST(container_labels_json.io.kubernetes.pod.name AS String) AS pod, count(*) AS n FROM audit.tracing_events "
        "WHERE container_labels_json != '{}' GROUP BY pod ORDER BY n DESC",
        ["web\t4", "db\t1"],
    ),
    "one pod": (
        "SELECT count() FROM audit.tracing_events "
        "WHERE container_labels_json.io.kubernetes.pod.namespace = 'prod' AND container_labels_json.app = 'shop'",
        ["5"],
    ),
    "outside of containers": ("SELECT count() FROM audit.tracing_events WHERE container_labels_json = '{}'", ["3"]),
    "by image": (
        "SELECT container_image, uniq(pid) FROM audit.tracing_events WHERE container_image != '' GROUP BY container_image ORDER BY container_image",
        ["nginx\t4", "redis\t1"],
    ),
    "destinations": (
        "SELECT daddr_ipv4, dport, sa_family, resolved_domain FROM audit.network_events WHERE event_type = 'connect' AND daddr_ipv4 != ''",
        ["10.0.0.9\t443\tAF_INET\ta.example"],
    ),
    "six": (
        "SELECT daddr_ipv6, saddr_ipv6, sport, resolved_domain IS NULL FROM audit.network_events WHERE sa_family = 'AF_INET6'",
        ["::1\t::2\t40000\t1"],
    ),
    "no unix sockets": ("SELECT count() FROM audit.network_events", ["2"]),
    "vectors": (
        "SELECT pid, comm, syscall_vector_json FROM audit.syscall_freq_events WHERE wall_time_dt < " + MINUTE + " + INTERVAL 1 MINUTE ORDER BY pid",
        ['1\tp1\t{"0":1,"257":258}', '2\tp2\t{"0":2,"257":259}'],
    ),
    "one call": (
        "SELECT comm, sum(syscall_vector_json.`257`::UInt64) AS n FROM audit.syscall_freq_events GROUP BY comm ORDER BY n",
        ["p1\t516", "p2\t518"],
    ),
    "between": (f"SELECT count() FROM audit.tracing_events WHERE wall_time_ms BETWEEN {T0 // 10**6 + 1} AND {T0 // 10**6 + 2}", ["2"]),
    "monotonic": ("SELECT uniqExact(monotonic_ts_exit_ns - monotonic_ts_enter_ns = latency_ns) FROM audit.tracing_events", ["1"]),
}


async def test_queries_as_dashboards_make_them_are_right(filled: Store) -> None:
    for name, (sql, right) in QUERIES.items():
        rows = (await ask(filled, sql, "TSVRaw")).splitlines()
        assert right(rows) if callable(right) else rows == right, (name, rows)


async def test_columns_and_types_are_the_original_s(store: Store) -> None:
    common = {"pid", "uid", "gid", "ppid", "user_pid", "user_ppid", "cgroup_id", "cgroup_name", "comm", "node_name", "user", "container_id"}
    common |= {"container_image", "container_labels_json", "wall_time_ms", "wall_time_dt"}
    assert set(_COMMON) == common
    for view in VIEWS:
        text = await ask(store, f"SELECT name, type FROM system.columns WHERE database = 'audit' AND table = '{view.name}' ORDER BY position")
        assert tuple(tuple(line.split("\t")) for line in text.splitlines()) == view.columns
        names = [name for name, _ in view.columns]
        assert ("event_type" in names) == view.calls == (set(_CALL) <= set(names))
    assert await ask(store, "SHOW TABLES FROM audit") == "\n".join(sorted(view.name for view in VIEWS))


async def test_conditions_on_time_and_node_reach_the_keys_of_our_tables(store: Store) -> None:
    for view in VIEWS:
        for part in view.parts:
            for day in range(3):
                rows = ({"ts": T0 + day * DAY, "node": node, "family": b"inet", "call": b"mount"} for node in (b"a", b"b"))
                await store.insert(part.kind, batch(part.kind, *rows), f"{part.kind} {day}")
        limits = (f"wall_time_dt >= {MINUTE} + INTERVAL 47 HOUR", f"wall_time_ms >= {(T0 + 2 * DAY) // 10**6}")
        for condition in limits:
            where = f"FROM audit.{view.name} WHERE node_name = 'a' AND {condition}"
            assert await ask(store, f"SELECT count() {where}") == str(len(view.parts))
            plan = await ask(store, f"EXPLAIN indexes = 1 SELECT pid {where}", "TSVRaw")
            pruned = re.findall(r"Min-Max.*?Parts: (\d+)/(\d+)", plan, re.DOTALL)
            keyed = re.findall(r"PrimaryKey.*?Condition: ([^\n]*)", plan, re.DOTALL)
            assert pruned == [("1", "3")] * len(view.parts), plan
            assert len(keyed) == len(view.parts)
            assert all("node" in condition and "ts" in condition for condition in keyed)


async def test_labels_that_are_no_object_are_none_and_spoil_no_query(store: Store) -> None:
    labels = [b"a=1\0a=2", b"noname", b"=", b"\xff=\xfe", b"a=1\0a.b=2", b"a={\"b\": 'c'\\}", b"", "x=\u017e".encode()]
    await store.insert("open", batch("open", *({"ts": T0 + place, "container_labels": each} for place, each in enumerate(labels))), "1")
    found = await ask(store, "SELECT container_labels_json FROM audit.tracing_events ORDER BY monotonic_ts_enter_ns", "TSVRaw")
    bad = "\ufffd"
    assert found.splitlines() == [
        *("{}", '{"noname":""}', '{"":""}', f'{{"{bad}":"{bad}"}}', '{"a":"1","a":{"b":"2"}}'),
        *('{"a":"{\\"b\\": \'c\'\\\\}"}', "{}", '{"x":"\u017e"}'),
    ]


async def test_every_kind_of_row_can_be_read_whatever_is_in_it(store: Store) -> None:
    for view in VIEWS:
        for part in view.parts:
            await store.insert(part.kind, samples.batch(part.kind, 60), part.kind)
        assert await ask(store, f"SELECT * FROM audit.{view.name}", "JSONEachRow") or part.where


async def test_they_are_read_only_as_all_is(store: Store) -> None:
    with pytest.raises(QueryRefused):
        await ask(store, "DROP VIEW audit.tracing_events")
    with pytest.raises(QueryRefused):
        await ask(store, "INSERT INTO audit.tracing_events (pid) VALUES (1)")


def test_what_others_have_under_their_names_is_left_alone_and_ours_is_kept_as_declared(tmp_path: Path) -> None:
    with session(tmp_path) as engine:
        engine.execute("CREATE DATABASE audit")
        engine.execute("CREATE TABLE audit.tracing_events (a UInt32) ENGINE = MergeTree ORDER BY a")
        engine.execute("CREATE VIEW audit.mmap_events AS SELECT 1 AS mine")
        engine.execute(f"CREATE VIEW audit.mount_events AS SELECT 1 AS older COMMENT '{MARK}0'")
        statements = migrate(engine)
        assert sum(each.startswith("CREATE VIEW") for each in statements) == len(VIEWS) - 3
        assert [each.split(" (")[0] for each in statements if "OR REPLACE" in each] == ["CREATE OR REPLACE VIEW audit.mount_events"]
        assert make_views(engine) == []
        assert engine.rows("DESCRIBE audit.tracing_events")[0][:2] == ["a", "UInt32"]
        assert engine.rows("SELECT * FROM audit.mmap_events") == [["1"]]


async def test_a_database_that_lets_us_make_none_goes_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infrasight.schema.original.ORIGINAL_DATABASE", "no such ` name")
    store = open_store(f"chdb://{tmp_path}/store")
    await store.open()
    assert await ask(store, "SELECT count() FROM open") == "0"
    await store.close()
    assert "are not there as views" in caplog.text


@pytest.mark.needs("clickhouse")
def test_a_server_that_is_too_old_for_them_is_warned_about_and_goes_on(clickhouse: ClickHouse, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Connection(parse(clickhouse.url()))) as connection:
        assert make_views(connection) == []
        assert connection.rows("SELECT 'still'") == [["still"]]
    assert "are not there as views" in caplog.text
