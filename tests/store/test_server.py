"""A real server: connecting, inserting, and everything that can break in between."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from asynch.proto.connection import Connection as Protocol

from infrasight.errors import InvalidBatch, QueryFailed, StoreError, StoreIncompatible, StoreUnavailable
from infrasight.schema import KINDS, Type
from infrasight.schema.ddl import MARK_GIVEN, STORED, stored_name
from infrasight.store import QueryLimits, Store, batches, open_store
from infrasight.store.addresses import parse
from infrasight.store.connection import Connection
from infrasight.store.http import Session
from infrasight.store.session import EngineError
from tests.ports import free_port
from tests.store import samples
from tests.store.clickhouse import PASSWORD, ClickHouse, older_tables
from tests.store.conftest import ask
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.needs("clickhouse")


@contextmanager
def connected(url: str, *kinds: str) -> Iterator[Connection]:
    """A connection, with empty tables of `kinds`."""
    connection = Connection(parse(url))
    try:
        for kind in kinds:
            connection.execute("CREATE DATABASE IF NOT EXISTS infrasight")
            connection.execute(f"DROP TABLE IF EXISTS infrasight.`{kind}`")
        older_tables(connection, kinds)
        yield connection
    finally:
        connection.close()


def insert(connection: Connection, kind: str, batch: pa.RecordBatch, **settings: str) -> None:
    connection.insert(batches.native_statement(kind), settings, samples.as_stored(kind, batch, 7))


def count(connection: Connection, kind: str = "open") -> int:
    return int(connection.rows(f"SELECT toString(count()) FROM infrasight.`{kind}`")[0][0])


async def read_by_asynch(clickhouse: ClickHouse, kind: str) -> list[dict[str, Any]]:
    """All rows, read value by value by asynch itself, which knows nothing of blocks.py."""
    protocol = Protocol(host="127.0.0.1", port=clickhouse.native, settings={"strings_as_bytes": True})
    names = [stored_name(column) for column in KINDS[kind].columns]
    listed = ", ".join(f"`{name}`" for name in names)
    rows = await protocol.execute(f"SELECT {listed} FROM infrasight.`{kind}` ORDER BY ts")
    await protocol.disconnect()
    return [dict(zip(names, row, strict=True)) for row in rows]


def as_sent(kind: str, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    times = [c.name for c in KINDS[kind].columns if c.type is Type.TIME]
    for name in times:
        batch = batch.set_column(batch.schema.get_field_index(name), name, batch.column(name).cast(pa.int64()))
    return samples.as_stored(kind, batch, 7).drop_columns([MARK_GIVEN, STORED]).to_pylist()


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """asynch has some values as bytearray."""
    return [{name: bytes(value) if isinstance(value, bytearray) else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_of_every_kind_arrives(clickhouse: ClickHouse, kind: str) -> None:
    batch = samples.batch(kind, 41)
    with connected(clickhouse.url(), kind) as connection:
        insert(connection, kind, batch)
    assert plain(asyncio.run(read_by_asynch(clickhouse, kind))) == as_sent(kind, batch)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_a_big_batch_arrives_as_one_part(clickhouse: ClickHouse, compression: str, secure: bool) -> None:
    """Compressed or not, encrypted or not; of many frames, and larger than what a server makes one block of by itself."""
    rows = 997 * 1103
    batch = pa.concat_batches([samples.batch("loss", 997)] * 1103)
    given = {"compression": compression}
    url = clickhouse.secure_url(ca=clickhouse.certificate, **given) if secure else clickhouse.url(**given)
    with connected(url, "loss") as connection:
        insert(connection, "loss", batch, min_insert_block_size_rows="1000000000", min_insert_block_size_bytes="1000000000000")
        assert connection.rows("SELECT toString(count()), toString(uniqExact(probe)) FROM infrasight.loss") == [
            [str(rows), str(len(samples.HOSTILE))]
        ]
        assert connection.rows("SELECT toString(count()) FROM system.parts WHERE active AND table = 'loss'") == [["1"]]


def test_queries_over_tls(clickhouse: ClickHouse) -> None:
    address = parse(clickhouse.secure_url(ca=clickhouse.certificate))
    with connected(clickhouse.url(), "open"):
        assert Session(address).rows("SELECT 1") == [["1"]]


def test_a_batch_that_never_can_be_stored(clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.blocks.MAX_TEXT_BYTES", 1 << 20)
    with connected(clickhouse.url(), "open") as connection:
        with pytest.raises(InvalidBatch, match="1 MiB of text in path") as error:
            insert(connection, "open", samples.batch("open", 20_000))
        assert error.value.__cause__ is None
        insert(connection, "open", samples.batch("open", 20))
        assert count(connection) == 20


def test_what_is_not_trusted_is_not_talked_to(clickhouse: ClickHouse) -> None:
    address = parse(clickhouse.secure_url())
    with closing(Connection(address)) as connection, pytest.raises(StoreUnavailable, match="certificate verify failed"):
        connection.rows("SELECT 1")
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        Session(address).rows("SELECT 1")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read(clickhouse: ClickHouse, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    address = parse(clickhouse.secure_url(ca=tmp_path / "ca.pem"))
    with closing(Connection(address)) as connection, pytest.raises(StoreUnavailable, match=r"ca\.pem cannot be read|no certificate"):
        connection.rows("SELECT 1")
    with pytest.raises(StoreUnavailable, match=r"ca\.pem"):
        Session(address).rows("SELECT 1")


def test_a_name_that_the_certificate_does_not_have(clickhouse: ClickHouse) -> None:
    address = parse(clickhouse.secure_url(ca=clickhouse.certificate).replace("127.0.0.1", "localhost"))
    with closing(Connection(address)) as connection, pytest.raises(StoreUnavailable, match="certificate"):
        connection.rows("SELECT 1")


@pytest.mark.parametrize("secret", ["wrong-secret", ""])
def test_a_wrong_password(clickhouse: ClickHouse, tmp_path: Path, secret: str) -> None:
    (tmp_path / "password").write_text(secret)
    address = parse(clickhouse.url(password_file=tmp_path / "password"))
    with closing(Connection(address)) as connection, pytest.raises(StoreUnavailable, match=r"writer.*\[ClickHouse 19[34]\]") as refusal:
        connection.rows("SELECT 1")
    with pytest.raises(EngineError, match=r"writer.*\[ClickHouse 19[34]\]") as over_http:
        Session(address).rows("SELECT 1")
    assert "wrong-secret" not in f"{refusal.value!r} {over_http.value!r}"


def test_a_password_that_changes_is_taken_without_a_restart(clickhouse: ClickHouse, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("old")
    with closing(Connection(parse(clickhouse.url(password_file=tmp_path / "password")))) as connection:
        with pytest.raises(StoreUnavailable):
            connection.rows("SELECT 1")
        (tmp_path / "password").write_text(PASSWORD)
        assert connection.rows("SELECT 'x'") == [["x"]]


def test_who_asks_can_be_another_user_than_who_writes(clickhouse: ClickHouse, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("asker's\n")
    address = parse(clickhouse.url(reader="asker", reader_password_file=tmp_path / "password"))
    asked = "SELECT DISTINCT user FROM system.processes WHERE query LIKE '%whose query is this%'"
    with connected(clickhouse.url(), "open"):
        assert Session(address).rows(asked) == [["asker"]]
    with closing(Connection(address)) as connection:
        assert connection.rows(asked) == [["writer"]]


async def test_no_secret_is_logged(clickhouse: ClickHouse, older: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asynch").setLevel(logging.DEBUG)
    try:
        async with opened(clickhouse) as store:
            await store.insert("open", samples.batch("open", 3), "t")
            assert await ask(store, "SELECT 1") == "1"
            with pytest.raises(StoreUnavailable):
                await open_store(clickhouse.url(host="127.0.0.1:1").replace("writer@", "nobody@")).open()
    finally:
        logging.getLogger("asynch").setLevel(logging.ERROR)
    assert "Connecting" in caplog.text
    assert PASSWORD not in caplog.text


def test_the_next_host_takes_over(clickhouse: ClickHouse) -> None:
    url = clickhouse.url(host=f"127.0.0.1:{clickhouse.native}").replace(f":{clickhouse.native}/", f":{free_port()}/", 1)
    with closing(Connection(parse(url))) as connection:
        assert connection.rows("SELECT 'x'") == [["x"]]
    assert Session(parse(clickhouse.url().replace("127.0.0.1:", "127.0.0.2:", 1) + "&host=127.0.0.1")).rows("SELECT 1") == [["1"]]


def test_all_hosts_are_named_when_none_answers() -> None:
    first, second = free_port(), free_port()
    address = parse(f"clickhouse://127.0.0.1:{first}/?host=127.0.0.2:{second}&http_port={first}")
    with closing(Connection(address)) as connection, pytest.raises(StoreUnavailable, match=f"127.0.0.1:{first}: .*; 127.0.0.2:{second}: ") as error:
        connection.rows("SELECT 1")
    assert "\n" not in str(error.value)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1.*; 127\.0\.0\.2"):
        Session(address).rows("SELECT 1")


def test_the_two_ports_exchanged(clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.connection.CONNECT_S", 3.0)  # over HTTP a server waits for the rest
    address = parse(f"clickhouse://127.0.0.1:{clickhouse.http}/?http_port={clickhouse.native}")
    with closing(Connection(address)) as connection, pytest.raises(StoreUnavailable) as error:
        connection.rows("SELECT 1")
    assert "\n" not in str(error.value)
    with pytest.raises(EngineError, match="no ClickHouse server's HTTP port"):
        Session(address).rows("SELECT 1")


async def test_a_server_that_is_too_old_is_refused(clickhouse: ClickHouse) -> None:
    store = open_store(clickhouse.url())
    with pytest.raises(StoreIncompatible, match=r"^ClickHouse 18\.16\.1 is too old: 25\.3 or newer is needed$"):
        await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("drift", "error", "says"),
    [
        ("DROP TABLE infrasight.open", EngineError, r"doesn't exist.*\[ClickHouse 60\]"),
        ("ALTER TABLE infrasight.open DROP COLUMN flags", EngineError, r"flags.*\[ClickHouse 16\]"),
        ("ALTER TABLE infrasight.open MODIFY COLUMN flags String", StoreIncompatible, "the column flags is String on the server"),
    ],
)
def test_a_table_that_is_not_as_it_should_be(clickhouse: ClickHouse, drift: str, error: type[StoreError], says: str) -> None:
    with connected(clickhouse.url(), "open") as connection:
        connection.execute(drift)
        with pytest.raises(error, match=says) as refusal:
            insert(connection, "open", samples.batch("open", 3))
        assert "\n" not in str(refusal.value)
        assert connection._protocol is None  # closed, not to be used again
    with connected(clickhouse.url(), "open") as connection:
        insert(connection, "open", samples.batch("open", 3))
        assert count(connection) == 3


def test_a_statement_that_fails_costs_its_connection_only(clickhouse: ClickHouse) -> None:
    with connected(clickhouse.url()) as connection:
        for sql in ("SELECT nothing", "SELEC", "SELECT throwIf(number = 3) FROM numbers(5)"):
            with pytest.raises(EngineError) as error:
                connection.rows(sql)
            assert connection._protocol is None
            assert "DB::Exception" not in str(error.value)
        assert connection.rows("SELECT 'x'") == [["x"]]


def test_a_statement_that_moves_many_rows_by_itself(clickhouse: ClickHouse) -> None:
    """As rollups do: the server tells of its progress, and there is no result."""
    with connected(clickhouse.url(), "loss") as connection:
        connection.execute("INSERT INTO infrasight.loss (node, count) SELECT toString(number % 7), number FROM system.numbers LIMIT 3000000")
        assert connection.rows("SELECT toString(count()) FROM infrasight.loss") == [["3000000"]]


def emptied(clickhouse: ClickHouse) -> None:
    """An empty table `open`."""
    with connected(clickhouse.url(), "open"):
        pass


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT 1; SELECT 2", "Multi-statements are not allowed"),
        ("SELECT 1; DROP TABLE infrasight.open", "Multi-statements are not allowed"),
        ("SELECT 1 INTO OUTFILE '/tmp/out'", "INTO OUTFILE is not allowed"),
        ("CREATE TABLE infrasight.t (a Int8) ENGINE = Memory", "readonly"),
        ("INSERT INTO infrasight.open (pid) SELECT 1", "readonly"),
        ("SET max_threads = 1", "readonly"),
        ("SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a String')", "readonly"),
    ],
)
def test_what_a_server_refuses_by_itself(clickhouse: ClickHouse, older: None, sql: str, says: str) -> None:
    """Which the gate refuses before it, too."""
    with connected(clickhouse.url(), "open"):
        pass
    session = Session(parse(clickhouse.url()))
    session.restrict(QueryLimits(), "0a")
    with pytest.raises(EngineError, match=says):
        session.execute(sql)


@asynccontextmanager
async def opened(clickhouse: ClickHouse) -> AsyncIterator[Store]:
    await asyncio.to_thread(emptied, clickhouse)
    store = open_store(clickhouse.url())
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def test_kill_9_and_restart(own: ClickHouse, older: None) -> None:
    """Each insert is acknowledged and there, or failed; the store finds the server again by itself."""
    async with opened(own) as store:
        batch, stored, failed = samples.batch("open", 211), 0, 0
        for round in range(3):
            killer, before = threading.Timer(0.1 + 0.05 * round, own.kill), stored
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        await store.insert("open", batch, "t")
                        stored += 1
                    except StoreUnavailable:
                        break
                    if stored == before + 1:
                        killer.start()
            killer.join()
            with pytest.raises(StoreUnavailable) as error:
                await store.insert("open", batch, "t")
            assert "\n" not in str(error.value)
            failed += 2
            own.start()
            found = int(await ask(store, "SELECT count() FROM open"))
            assert found % 211 == 0
            assert stored * 211 <= found <= (stored + round + 1) * 211  # of each kill, one insert whose answer was lost may be in
        await store.insert("open", batch, "t")
        assert stored
        assert store.statistics().insert_failures == failed


async def test_a_frozen_server_is_given_up(own: ClickHouse, older: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.connection.ANSWER_S", 3.0)
    monkeypatch.setattr("infrasight.store.connection.CONNECT_S", 3.0)
    async with opened(own) as store:
        await store.insert("open", samples.batch("open", 5), "t")
        own.signal(signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer"):
            await store.insert("open", samples.batch("open", 5), "t")
        assert time.monotonic() - start < 30
        own.signal(signal.SIGCONT)
        await store.insert("open", samples.batch("open", 5), "t")
        assert int(await ask(store, "SELECT count() FROM open")) == 10


async def test_closing_does_not_wait_for_a_frozen_server(own: ClickHouse, older: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.server.CLOSE_S", 0.3)
    async with opened(own) as store:
        await store.insert("open", samples.batch("open", 5), "t")
        own.signal(signal.SIGSTOP)
        waiting = asyncio.create_task(store.insert("open", samples.batch("open", 5), "t"), name="insert")
        await asyncio.sleep(0)
        start = time.monotonic()
        await store.close()
        assert time.monotonic() - start < 30
        with pytest.raises(StoreUnavailable, match="given up"):
            await waiting
        own.signal(signal.SIGCONT)


async def test_closing_ends_a_query_on_a_frozen_server(own: ClickHouse, older: None) -> None:
    async with opened(own) as store:
        query = asyncio.create_task(ask(store, "SELECT sum(number) FROM system.numbers"), name="query")
        while await ask(store, "SELECT count() FROM system.processes WHERE query LIKE '%system.numbers'") != "1":  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
        own.signal(signal.SIGSTOP)
        start = time.monotonic()
        await store.close()
        assert time.monotonic() - start < 30
        with pytest.raises(QueryFailed, match="the query was ended"):
            await query
        own.signal(signal.SIGCONT)


async def test_a_query_whose_server_dies(own: ClickHouse, older: None) -> None:
    async with opened(own) as store:
        chunks = store.query("SELECT number FROM system.numbers LIMIT 1000000000000", format="TSV", limits=QueryLimits(rows=10**13))
        assert await anext(chunks)
        own.kill()
        with pytest.raises(StoreUnavailable) as error:
            async for _ in chunks:
                pass
        assert "\n" not in str(error.value)
        own.start()
        assert await ask(store, "SELECT 1") == "1"


@asynccontextmanager
async def cut_after(port: int, limit: int) -> AsyncIterator[int]:
    """A port that leads to `port` and breaks each connection when the client has sent so many bytes."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)

        async def forth() -> None:
            left = limit
            while left and (data := await reader.read(min(left, 65536))):
                back.write(data)
                await back.drain()
                left -= len(data)
            back.transport.abort()
            writer.transport.abort()

        async def fro() -> None:
            while data := await there.read(65536):
                writer.write(data)

        await asyncio.gather(forth(), fro(), return_exceptions=True)

    async with await asyncio.start_server(lead, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("limit", [1000, 50_000, 500_000])
async def test_a_connection_cut_inside_a_block_stores_nothing(clickhouse: ClickHouse, limit: int) -> None:
    await asyncio.to_thread(emptied, clickhouse)
    batch = samples.batch("open", 20_000)
    async with cut_after(clickhouse.native, limit) as port:
        cut = Connection(parse(clickhouse.url(compression="none").replace(f":{clickhouse.native}/", f":{port}/", 1)))
        with pytest.raises(StoreUnavailable) as error:
            await asyncio.to_thread(insert, cut, "open", batch)
        assert "\n" not in str(error.value)
        await asyncio.to_thread(cut.close)
    connection = Connection(parse(clickhouse.url()))
    assert await asyncio.to_thread(count, connection) == 0
    await asyncio.to_thread(insert, connection, "open", batch)
    assert await asyncio.to_thread(count, connection) == 20_000
    await asyncio.to_thread(connection.close)
