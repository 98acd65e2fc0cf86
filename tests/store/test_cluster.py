"""The tables of a cluster: their DDL is parsed by ClickHouse, and what needs no second server is run by it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infrasight.errors import StoreUnavailable
from infrasight.schema import KINDS
from infrasight.schema.ddl import DATABASE, SCHEMA_VERSION
from infrasight.schema.original import original_ddl
from infrasight.schema.tables import TABLES, views, whole_ddl
from infrasight.server.healer import Healer
from infrasight.store import Retention, Store, batches, copies, embedded, healing, open_store
from infrasight.store.addresses import parse
from infrasight.store.blocks import block
from infrasight.store.embedded import EmbeddedStore
from infrasight.store.engine import Session
from infrasight.store.joining import mark
from infrasight.store.rolling import MINUTE_S, Rolling
from infrasight.store.settings import ENGINE_XML, SERVER_INSERT, WRITER_SESSION
from infrasight.store.tables import migrate
from tests.store import samples
from tests.store.engines import session
from tests.store.test_copies import cleaned, counts, late
from tests.store.test_healing import KEY, START_NS, container, rows, states
from tests.waiting import LIMIT_S

CLUSTER = "it's-mine"
MARK = mark("t")
ONE_SHARD = """<tcp_port>9000</tcp_port><remote_servers><mine>
    <shard><replica><host>localhost</host><port>9000</port></replica></shard>
</mine></remote_servers>"""
"""A cluster of one, which ClickHouse takes for itself and does not connect to."""


class OneServer:
    """Runs what is for a cluster on one server, which has no Keeper: without ON CLUSTER and replication, and with all else."""

    def __init__(self, inner: Session) -> None:
        self._inner, self.rows = inner, inner.rows

    def execute(self, sql: str) -> object:
        assert " ON CLUSTER 'mine'" in sql or sql.startswith("INSERT")
        sql = re.sub(r" ON CLUSTER 'mine'", "", sql)
        sql = re.sub(r"Replicated(\w*MergeTree)\('[^']*', '\{replica\}'\)", r"\1", sql)
        return self._inner.execute(sql.replace(" replicated_deduplication_window", " non_replicated_deduplication_window"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Session]:
    with session(tmp_path, ONE_SHARD) as own:
        yield own


def test_every_statement_parses(own: Session) -> None:
    for cluster in ("", CLUSTER):
        for statement in whole_ddl(Retention(30).all(), cluster):
            assert own.explain(statement)[0].startswith(("CreateQuery", "CreateDatabaseQuery"))
            assert ("ON CLUSTER" in statement) == bool(cluster)


def test_what_the_ddl_makes_is_what_a_store_makes(own: Session) -> None:
    """So who runs it beforehand leaves a store nothing to do."""
    for statement in whole_ddl(Retention(30).all()):
        own.execute(statement)
    assert migrate(own, Retention(30)) == []


def insert(own: Session, kind: str, token: str, stored_s: int) -> None:
    settings = "".join(f"{name} = {value}, " for name, value in SERVER_INSERT.items())
    rows = block(samples.as_stored(kind, samples.batch(kind, 41), stored_s, MARK), batches.stored_types(kind))
    own.insert(lambda file: batches.file_statement(kind, token, file).replace("SETTINGS ", "SETTINGS " + settings), rows)


def test_rows_go_through_the_distributed_table_once_and_into_the_rollups(own: Session) -> None:
    server = OneServer(own)
    assert len(migrate(server, Retention(), "mine")) == 1 + 2 * len(TABLES) + len(views()) + len(original_ddl())
    assert migrate(server, Retention(), "mine") == []
    own.execute("SET insert_deduplicate = 1, insert_select_deduplicate = 1, max_insert_threads = 1")
    rolling = Rolling(own, shared=True)
    stored_s = rolling.stamp("open", 1_790_000_000)
    for kind in KINDS:
        for _ in range(2):
            insert(own, kind, "t", stored_s)
        for table in (kind, f"{kind}_local"):
            found = f"SELECT toString(batch), toString(toUInt32(stored)), toString(count()) FROM {DATABASE}.`{table}` GROUP BY ALL"
            assert own.rows(found) == [[str(MARK), str(stored_s), "41"]]
    assert own.rows(f"SELECT toString(uniqExact(length(ancestors))) FROM {DATABASE}.open") == [["5"]]
    for _ in range(2):
        for statement in rolling.statements(stored_s // MINUTE_S * MINUTE_S):
            server.execute(statement)
    for grain in ("1m", "1h"):
        for name in ("usage", "connections", "activity"):
            ((rows,),) = own.rows(f"SELECT toString(count()) FROM {DATABASE}.{name}_{grain}")
            assert int(rows) > 0
        assert own.rows(f"SELECT toString(sum(events)) FROM {DATABASE}.connections_{grain}") == [["41"]]


def test_the_originals_tables_are_views_of_the_distributed_ones(own: Session) -> None:
    server = OneServer(own)
    migrate(server, Retention(), "mine")
    for kind in ("open", "execve", "chmod"):
        insert(own, kind, "t", 1_790_000_000)
    assert own.rows("SELECT toString(count()) FROM audit.tracing_events") == [[str(3 * 41)]]
    own.execute("CREATE OR REPLACE VIEW audit.mount_events AS SELECT 1 AS older COMMENT 'InfraSight view 0'")
    (again,) = migrate(server, Retention(), "mine")
    assert again.startswith("CREATE OR REPLACE VIEW audit.mount_events ON CLUSTER 'mine' (")


def test_migrated_on_both_sides(own: Session) -> None:
    server = OneServer(own)
    migrate(server, Retention(), "mine")
    for table in ("open", "open_local"):
        own.execute(f"ALTER TABLE {DATABASE}.{table} DROP COLUMN flags")
    own.execute(f"ALTER DATABASE {DATABASE} MODIFY COMMENT 'schema 1'")
    changed = migrate(server, Retention(7, {"open": 7}), "mine")
    assert any("`open_local` ON CLUSTER 'mine' ADD COLUMN IF NOT EXISTS `flags`" in each for each in changed)
    assert any("`open` ON CLUSTER 'mine' ADD COLUMN IF NOT EXISTS `flags`" in each for each in changed)
    assert any("`open_local` ON CLUSTER 'mine' MODIFY SETTING ttl_only_drop_parts" in each for each in changed)
    assert migrate(server, Retention(7), "mine") == []
    assert own.rows(f"SELECT comment FROM system.databases WHERE name = '{DATABASE}'") == [[f"schema {SCHEMA_VERSION}"]]


def test_the_cluster_is_part_of_the_address() -> None:
    assert parse("clickhouse://h/?cluster=mine").cluster == "mine"
    assert parse("clickhouse://h/").cluster == ""


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """A store as a server's of a cluster, on the one server."""
    monkeypatch.setattr(embedded, "ENGINE_XML", ENGINE_XML.replace("</clickhouse>", ONE_SHARD + "</clickhouse>"))
    monkeypatch.setattr(embedded, "migrate", lambda session, retention: migrate(OneServer(session), retention, "mine"))
    listed = ", ".join(f"{name} = {value}" for name, value in SERVER_INSERT.items())
    monkeypatch.setattr(embedded, "WRITER_SESSION", f"{WRITER_SESSION}; SET {listed}")
    monkeypatch.setattr(copies, "ALL_S", 0.0)
    store = open_store(f"chdb://{tmp_path}/store")
    assert isinstance(store, EmbeddedStore)
    healer = store._healer
    monkeypatch.setattr(store, "_healer", lambda: OneServer(healer()))
    store._shared, store._cluster = True, "mine"
    await store.open()
    yield store
    await store.close()


async def test_rows_of_a_cluster_are_healed(store: EmbeddedStore) -> None:
    healer = Healer(store, every_s=0.01)
    now_ns = time.time_ns()
    await store.insert("open", rows(7, ts=now_ns), "a")
    await store.insert("container", container(ts=now_ns), "b")
    running = asyncio.create_task(healer.run())
    async with asyncio.timeout(LIMIT_S):
        while await states(store) != "complete 7":  # noqa: ASYNC110 - another's event
            await asyncio.sleep(0.02)
    healer.notes.close()
    await running
    assert not healer.failures, healer.problem


async def test_what_was_stored_twice_in_a_cluster_is_taken_out(store: EmbeddedStore) -> None:
    given = {token: samples.batch("open", 41) for token in "abc"}
    insert = await late(store, given)
    await store.insert_joined("open", given, doubtful=set(given))
    insert()
    for _ in range(2):
        await cleaned(store, "open_local")
    assert sorted((await counts(store)).values()) == [41, 41, 41]


async def test_a_mutation_that_fails_on_a_server_of_a_cluster_is_given_up(store: EmbeddedStore) -> None:
    await store.insert("open", samples.batch("open", 1), "a")
    session = store._healer()
    session.execute("ALTER TABLE infrasight.`open_local` ON CLUSTER 'mine' DELETE WHERE throwIf(1)")
    async with asyncio.timeout(LIMIT_S):
        while session.rows(healing.unfinished("open", "mine"))[0][1] == "":  # noqa: ASYNC110 - another's event
            await asyncio.sleep(0.02)
    with pytest.raises(StoreUnavailable, match="throwIf"):
        await store.heal("open", [KEY], START_NS, START_NS)
    assert session.rows(healing.unfinished("open", "mine")) == []


def test_mutations_of_a_cluster_parse(own: Session) -> None:
    gone = [copies.Surplus(b"it's\xff", 20_000, 2**64 - 1, 1_790_000_000)]
    for cluster in ("", CLUSTER):
        for sql in (healing.statement("open", [KEY], START_NS, START_NS, cluster), copies.removal("open", gone, cluster)):
            assert own.explain(sql)[0].startswith("AlterQuery")
            assert ("ON CLUSTER" in sql) == ("open_local" in sql) == bool(cluster)
        assert own.explain(healing.kill("open", "0000000001", cluster))[0].startswith("KillQueryQuery")
