"""Nobody gets out of a query; everybody gets their questions answered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrasight.errors import QueryFailed, QueryRefused
from infrasight.store import Store, http, open_store
from infrasight.store.functions import OPEN, OPEN_TABLES
from infrasight.store.gate import Gate
from tests.store import samples
from tests.store.conftest import ask

SECRET = "the-content-of-a-file"
ATTACKS = {
    "writes": [
        "INSERT INTO open (pid) VALUES (1)",
        "INSERT INTO FUNCTION file('{dir}/out', 'TSV', 'a Int') SELECT 1",
        "DROP TABLE open",
        "TRUNCATE TABLE open",
        "ALTER TABLE open DELETE WHERE 1",
        "DELETE FROM open WHERE 1",
        "UPDATE open SET pid = 1 WHERE 1",
        "CREATE TABLE t (a Int) ENGINE = Memory",
        "CREATE TEMPORARY TABLE t (a Int)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE FUNCTION f AS x -> x",
        "CREATE USER u",
        "CREATE DICTIONARY d (a Int) PRIMARY KEY a SOURCE(FILE(path '{dir}/secret' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "RENAME TABLE open TO open2",
        "OPTIMIZE TABLE open FINAL",
        "EXPLAIN INSERT INTO open SELECT * FROM open",
        "EXPLAIN AST DROP TABLE open",
    ],
    "commands": [
        "SYSTEM SHUTDOWN",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "SET max_rows_to_read = 0",
        "SET ROLE writer",
        "SET readonly = 0",
        "USE system",
        "GRANT ALL ON *.* TO default",
        "EXECUTE AS default SELECT 1",
        "BACKUP TABLE open TO File('{dir}/b')",
        "ATTACH TABLE t",
        "DETACH TABLE open",
        "CHECK TABLE open",
        "BEGIN TRANSACTION",
        "PARALLEL WITH SELECT 1",
        "exit",
        "quit",
        "\\q",
        "SHOW GRANTS",
        "SHOW USERS",
    ],
    "several": ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE open", "SELECT 1;;SET ROLE writer", "SELECT '\\'; DROP TABLE open; --'; SELECT 1"],
    "limits": [
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
        "SELECT 1 FORMAT JSON SETTINGS max_threads = 64",
        "EXPLAIN SELECT 1 SETTINGS allow_introspection_functions = 1",
        "WITH x AS (SELECT 1 SETTINGS max_memory_usage = 0) SELECT * FROM x",
    ],
    "formats": [
        "SELECT 1 FORMAT CSV",
        "SHOW TABLES FORMAT JSON",
        "EXPLAIN SELECT 1 FORMAT Null",
        "DESCRIBE open FORMAT CSV",
        "SELECT 1 UNION ALL SELECT 2 FORMAT Native",
    ],
    "files": [
        "SELECT file('{dir}/secret')",
        "SELECT FILE('{dir}/secret')",
        "SELECT `file`('{dir}/secret')",
        'SELECT "file"(\'{dir}/secret\')',
        "SELECT `fi\\x6ce`('{dir}/secret')",
        "SELECT file/**/('{dir}/secret')",
        "WITH x -> file(x) AS f SELECT f('{dir}/secret')",
        "SELECT arrayMap(x -> file(x), ['{dir}/secret'])",
        "SELECT * APPLY file FROM (SELECT '{dir}/secret')",
        "SELECT * APPLY(x -> file(x)) FROM (SELECT '{dir}/secret')",
        "SELECT * REPLACE(file(a) AS a) FROM (SELECT '{dir}/secret' AS a)",
        "SELECT COLUMNS('a') APPLY(file) FROM (SELECT '{dir}/secret' AS a)",
        "SELECT 1 ORDER BY file('{dir}/secret')",
        "SELECT 1 LIMIT length(file('{dir}/secret'))",
        "SELECT 1 HAVING file('{dir}/secret') != ''",
        "SELECT sum(1) OVER (PARTITION BY file('{dir}/secret'))",
        "SELECT 1 ORDER BY 1 WITH FILL FROM length(file('{dir}/secret')) TO 2",
        "SELECT * FROM (SELECT file('{dir}/secret'))",
        "SELECT (SELECT file('{dir}/secret'))",
        "SELECT 1 IN (SELECT file('{dir}/secret'))",
        "WITH RECURSIVE t AS (SELECT file('{dir}/secret')) SELECT * FROM t",
        "EXPLAIN SELECT file('{dir}/secret')",
        "EXPLAIN SYNTAX run_query_tree_passes = 1 SELECT file('{dir}/secret')",
        "EXPLAIN QUERY TREE SELECT file('{dir}/secret')",
        "DESCRIBE (SELECT file('{dir}/secret'))",
        "SELECT throwIf(1, file('{dir}/secret'))",
        "SELECT eval('1')",
        "SELECT * FROM eval('SELECT 1')",
        "SELECT * FROM file('{dir}/secret', 'LineAsString')",
        "DESCRIBE file('{dir}/secret', 'LineAsString')",
        "DESCRIBE TABLE file('{dir}/secret', 'CSV')",
        "SELECT * FROM view(SELECT * FROM file('{dir}/secret', 'LineAsString'))",
        "SELECT * FROM viewIfPermitted(SELECT 1 ELSE file('{dir}/secret', 'LineAsString', 's String'))",
        "SELECT * FROM default.`{dir}/secret`",
        "SELECT * FROM `{dir}/secret`",
        "SELECT 1 IN default.`{dir}/secret`",
        "SELECT * FROM fileCluster('default', '{dir}/secret', 'LineAsString')",
        "SELECT * FROM filesystem('{dir}')",
        "SELECT * FROM sqlite('{dir}/secret', 't')",
        "SELECT * FROM deltaLakeLocal('{dir}')",
        "SELECT * FROM icebergLocal('{dir}')",
        "SELECT * FROM executable('x', 'TSV', 'a String')",
        "SELECT * FROM Python(store)",
        "SELECT * FROM pyThon(\"store\")",
        "DESCRIBE Python(store)",
        "SELECT 1 IN Python(store)",
        "SELECT 1 INTO OUTFILE '{dir}/out'",
        "(SELECT 1) INTO OUTFILE '{dir}/out' APPEND",
        "EXPLAIN SELECT 1 INTO OUTFILE '{dir}/out'",
        "SHOW TABLES INTO OUTFILE '{dir}/out'",
    ],
    "network": [
        "SELECT * FROM url('http://127.0.0.1:{port}/', 'LineAsString')",
        "SELECT * FROM s3('http://127.0.0.1:{port}/a/b', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1:{port}', 'system', 'one')",
        "SELECT * FROM remoteSecure('127.0.0.1:{port}', 'system', 'one')",
        "SELECT * FROM cluster('default', 'system', 'one')",
        "SELECT * FROM mysql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
        "SELECT * FROM postgresql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
        "SELECT * FROM mongodb('127.0.0.1:{port}', 'a', 'b', 'c', 'd', 'x Int')",
        "SELECT * FROM redis('127.0.0.1:{port}', 'a', 'a String, b String')",
        "SELECT * FROM hdfs('hdfs://127.0.0.1:{port}/x', 'TSV', 'a String')",
        "SELECT * FROM jdbc('a', 'b', 'c')",
        "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:{port}', 'a', 'b', 'c', 'd') COLUMNS (a Int)",
        "SELECT reverseDNSQuery('127.0.0.1')",
        "SELECT aiGenerate('a', 'b')",
        "SELECT AIGenerate('a', 'b')",
    ],
    "insides": [
        "SELECT addressToLine(1::UInt64)",
        "SELECT demangle('x')",
        "SELECT sleep(3)",
        "SELECT sleepEachRow(3)",
        "SELECT getServerSetting('max_thread_pool_size')",
        "SELECT getMacro('x')",
        "SELECT dictGet('a', 'b', 1)",
        "SELECT joinGet('a', 'b', 1)",
        "SELECT * FROM dictionary('a')",
        "SELECT * FROM system.users",
        "SELECT * FROM system.stack_trace",
        "SELECT * FROM `system`.`stack_trace`",
        "SELECT 1 IN system.stack_trace",
        "SELECT * FROM merge('system', '.*')",
        "SELECT * FROM mergeTreeIndex('infrasight', 'open')",
        "SELECT * FROM default.t",
        "SELECT * FROM `default`.`t`",
        "SELECT 1 IN default.t",
        "SELECT 1 WHERE 1 NOT IN (default.t)",
        "SELECT * FROM open JOIN default.t USING pid",
        "SHOW CREATE TABLE default.t",
        "SHOW CREATE DATABASE default",
        "EXISTS default.t",
        "DESCRIBE default.t",
        "SELECT * FROM format('LineAsString', 'a')",
        "SELECT * FROM fuzzJSON('{{}}', 1)",
        "SELECT * FROM input('a Int')",
        "SELECT chdb()",
        "SELECT getClientHTTPHeader('X-ClickHouse-Key')",
        "SELECT filesystemAvailable()",
        "SELECT hasColumnInTable('system', 'users', 'name')",
        "SELECT showCertificate()",
        "SELECT * FROM system.named_collections",
        "SELECT * FROM system.server_settings",
        "SELECT * FROM system.dictionaries",
        "SELECT * FROM system.clusters",
        "SELECT * FROM loop(numbers(1))",
        "SELECT {name:String}",
        "SELECT 1\0",
    ],
}  # fmt: skip
LEGITIMATE = [
    "SELECT 1",
    "SELECT 1;",
    "  select 1 ; -- and a comment",
    "/* why */ SELECT count() FROM open",
    "SELECT * FROM infrasight.open ORDER BY ts DESC LIMIT 5",
    "FROM open SELECT comm",
    "WITH 10 AS n SELECT number FROM numbers(n) WHERE number % 2",
    "SELECT comm, count() AS n FROM open GROUP BY comm WITH TOTALS HAVING n > 0 ORDER BY n DESC, comm LIMIT 3 BY comm LIMIT 10 OFFSET 0",
    "SELECT comm, has(ancestors, 'sh'), ancestors[1], length(ancestors), arrayStringConcat(ancestors, ' < ') FROM open",
    "SELECT arrayJoin(ancestors) AS a, uniq(process_id) FROM open GROUP BY a",
    "SELECT a FROM open ARRAY JOIN ancestors AS a",
    "SELECT quantilesTDigestIf(0.5, 0.99)(latency_ns, ret >= 0), avgOrNull(ret), argMax(path, ts), groupUniqArray(3)(comm) FROM open",
    "SELECT toStartOfInterval(ts, INTERVAL 1 MINUTE) AS m, count() FROM open GROUP BY m ORDER BY m WITH FILL STEP INTERVAL 1 MINUTE",
    "SELECT ts, row_number() OVER (PARTITION BY comm ORDER BY ts), lagInFrame(ts) OVER w FROM open WINDOW w AS (ORDER BY ts)",
    "SELECT o.path, e.argv FROM open AS o JOIN execve AS e ON o.process_id = e.process_id",
    "SELECT o.path FROM open AS o ASOF LEFT JOIN execve AS e ON o.process_id = e.process_id AND o.ts >= e.ts",
    "SELECT path FROM open WHERE process_id IN (SELECT process_id FROM execve) AND path LIKE '/etc/%' AND NOT match(path, 'a.*b')",
    "SELECT path FROM open WHERE EXISTS (SELECT 1 FROM execve WHERE ret < 0)",
    "SELECT comm FROM open UNION ALL SELECT comm FROM execve",
    "SELECT comm FROM open INTERSECT SELECT comm FROM execve",
    "SELECT comm FROM open EXCEPT SELECT comm FROM execve",
    "(SELECT 1) UNION DISTINCT (SELECT 2)",
    "SELECT * EXCEPT (path, flags) REPLACE (upper(comm) AS comm) FROM open",
    "SELECT COLUMNS('id$') FROM open",
    "SELECT open.* FROM open",
    "SELECT ret::String, CAST(ret AS Int32), toString(ts), ts::Date, if(ret < 0, 'no', 'yes') FROM open",
    "SELECT CASE WHEN ret < 0 THEN 1 ELSE 2 END, ret BETWEEN 1 AND 2 FROM open",
    "SELECT CASE comm WHEN 'sh' THEN 1 ELSE 2 END, SUM(ret), substr(comm, 1, 2), SUBSTR(comm, 1, 2) FROM open GROUP BY comm",
    "WITH x -> upper(x) AS shout SELECT shout(comm) FROM open",
    "SELECT sumIf(ret, ret > 0), countDistinct(comm), uniqExactState(comm), anyLastOrDefault(comm) FROM open",
    "SELECT avgMerge(s) FROM (SELECT avgState(ret) AS s FROM open)",
    "SELECT o.ret FROM infrasight.open AS o WHERE open.ret IN (1, 2) OR o.comm IN (SELECT comm FROM infrasight.execve)",
    "SELECT infrasight.open.comm FROM infrasight.open",
    "SELECT hex(path), splitByChar('/', path)[-1], replaceRegexpAll(path, '[0-9]+', 'N'), extract(path, 'a(b)') FROM open",
    "SELECT format('{} {}', comm, user), bitAnd(flags, 3) FROM open",
    "SELECT formatReadableSize(1e9), formatReadableTimeDelta(90), formatReadableQuantity(1e6)",
    "SELECT now() > '2020-01-01', version(), hostName(), bar(1, 0, 2, 10)",
    "SELECT cityHash64(path), JSONExtractString('{\"a\":\"b\"}', 'a'), IPv4NumToString(1) FROM open",
    "SELECT domain('http://a.b/c'), tuple(1, 'a').1, map('a', 1)['a'] FROM open",
    "SELECT path FROM open PREWHERE ret < 0 WHERE comm != '' QUALIFY row_number() OVER (ORDER BY ts) = 1",
    "SELECT x FROM open ARRAY JOIN arrayMap(a -> lower(a), ancestors) AS x",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT max(n) FROM t",
    "WITH slow AS (SELECT * FROM open WHERE latency_ns > 1000) SELECT count() FROM slow",
    "SELECT (SELECT max(ts) FROM open) AS newest, count() FROM open WHERE ts > newest - INTERVAL 1 HOUR",
    "SELECT grouping(comm), count() FROM open GROUP BY ROLLUP(comm)",
    "SELECT 'a\nFunction file', 'SELECT 1; DROP TABLE x', 'FORMAT CSV' AS `odd name`",
    "SELECT sum(count) FROM loss",
    "SELECT sum(rows), formatReadableSize(sum(bytes_on_disk)) FROM system.parts WHERE active",
    "SELECT name FROM system.columns WHERE table = 'open'",
    "SELECT table_name FROM information_schema.tables",
    "SHOW TABLES",
    "SHOW TABLES FROM infrasight LIKE '%e%'",
    "SHOW DATABASES",
    "SHOW CREATE TABLE open",
    "SHOW COLUMNS FROM open",
    "DESCRIBE open",
    "DESCRIBE TABLE infrasight.open",
    "DESCRIBE (SELECT ts, comm FROM open)",
    "EXISTS TABLE open",
    "EXISTS nowhere",
    "EXPLAIN SELECT count() FROM open",
    "EXPLAIN AST SELECT 1",
    "SELECT 1 AS `a\nFunction sum`",
    "EXPLAIN SYNTAX SELECT 1",
    "EXPLAIN PIPELINE SELECT count() FROM open",
    "EXPLAIN indexes = 1 SELECT count() FROM open WHERE node = 'a'",
    "EXPLAIN ESTIMATE SELECT * FROM open",
]


@pytest.fixture(scope="module", params=["chdb"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store with a few rows for all of this module: nobody is able to change it."""
    store = open_store(f"{request.param}://{tmp_path_factory.mktemp('gate')}")

    async def fill() -> None:
        await store.open()
        for kind in ("open", "execve"):
            await store.insert(kind, samples.batch(kind, 23), "t")

    asyncio.run(fill())
    yield store
    asyncio.run(store.close())


@pytest.fixture
def by_parse(full: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, judging as with a server: that has no classification of its own, only EXPLAIN AST (and takes one statement at a time)."""
    monkeypatch.setattr("infrasight.store.engine.Session.is_one_read", http.Session.is_one_read)
    return full


@pytest.mark.parametrize("attack", [pytest.param(sql, id=sql[:70]) for attacks in ATTACKS.values() for sql in attacks])
async def test_an_attack_gets_nothing(full: Store, tmp_path: Path, attack: str) -> None:
    await gets_nothing(full, tmp_path, attack)


@pytest.mark.parametrize("attack", [pytest.param(sql, id=sql[:70]) for name, attacks in ATTACKS.items() if name != "several" for sql in attacks])
async def test_an_attack_gets_nothing_by_its_parse_alone(by_parse: Store, tmp_path: Path, attack: str) -> None:
    await gets_nothing(by_parse, tmp_path, attack)


async def gets_nothing(full: Store, tmp_path: Path, attack: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    async with await asyncio.start_server(lambda _reader, writer: connections.append(writer), "127.0.0.1", 0) as server:
        connections: list[asyncio.StreamWriter] = []
        sql = attack.replace("{dir}", str(tmp_path)).replace("{port}", str(server.sockets[0].getsockname()[1]))
        with pytest.raises((QueryRefused, QueryFailed)) as refusal:
            await ask(full, sql)
        assert not connections
    assert SECRET not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert os.listdir(tmp_path) == ["secret"]
    assert await ask(full, "SELECT count() FROM open") == "23"


@pytest.mark.parametrize("sql", [pytest.param(sql, id=sql[:70]) for sql in LEGITIMATE])
async def test_a_question_is_answered(full: Store, sql: str) -> None:
    await ask(full, sql)


@pytest.mark.parametrize("sql", [pytest.param(sql, id=sql[:70]) for sql in LEGITIMATE])
async def test_a_question_is_answered_by_its_parse_alone(by_parse: Store, sql: str) -> None:
    await ask(by_parse, sql)


async def test_each_layer_holds_alone(full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gate wide open, ClickHouse's own access rights still keep a reader from writing and from outside sources."""
    monkeypatch.setattr("infrasight.store.gate.Gate.check", lambda *_: False)
    (tmp_path / "secret").write_text(SECRET)
    for sql in (
        "INSERT INTO open (pid) VALUES (1)",
        "DROP TABLE open",
        "CREATE TABLE t (a Int) ENGINE = Memory",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SET readonly = 0",
        f"SELECT * FROM file('{tmp_path}/secret', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM executable('x', 'TSV', 'a String')",
    ):
        with pytest.raises(QueryFailed, match=r"privileges|readonly"):
            await ask(full, sql)


@pytest.mark.parametrize("kind", ["ordinary", "aggregate", "table"])
async def test_every_function_of_the_engine_that_is_not_on_the_list_is_refused(full: Store, kind: str) -> None:
    """So one that a later version brings is, too."""
    listed = OPEN_TABLES if kind == "table" else OPEN
    sql = {
        "ordinary": "SELECT name || '=' || alias_to FROM system.functions WHERE NOT is_aggregate",
        "aggregate": "SELECT name || '=' || alias_to FROM system.functions WHERE is_aggregate",
        "table": "SELECT name || '=' FROM system.table_functions",
    }[kind]
    has = [line.split("=") for line in (await ask(full, sql)).split("\n")]
    assert len(has) > 50
    others = [name for name, alias in has if name.lower() not in listed and alias.lower() not in listed]
    for name in others:
        with pytest.raises((QueryRefused, QueryFailed), match=r"not available in queries|SYNTAX_ERROR"):
            await ask(full, f"SELECT * FROM `{name}`(1)" if kind == "table" else f"SELECT `{name}`(1)")
    assert len(others) > 50 or kind == "aggregate"


async def test_an_aggregate_function_off_the_list_is_refused_with_any_ending(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrasight.store.gate.OPEN", OPEN - {"sum", "sumcount"})
    session = full._connect()  # type: ignore[attr-defined]  # of every store that there is
    gate = Gate(session)
    for name in ("sum", "SUM", "sumIf", "sumOrNullIf"):
        with pytest.raises(QueryRefused, match="not available"):
            gate.check(session, f"SELECT {name}(1, 1)", "CSV")
    session.close()


async def test_explaining_into_a_file_writes_none(full: Store, tmp_path: Path) -> None:
    await ask(full, f"EXPLAIN AST SELECT 1 INTO OUTFILE '{tmp_path}/out'")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("", "empty|Empty|Syntax|SELECT"),
        ("SELECT 1 +", r"^Syntax error: failed at position 11 "),
        ("SELEC 1", r"^Syntax error: failed at position 1 "),
        ("SELECT nothing FROM open", r"nothing.*UNKNOWN_IDENTIFIER"),
        ("SELECT * FROM nowhere", r"nowhere.*UNKNOWN_TABLE"),
        ("SELECT nofunction(1)", r"nofunction.*UNKNOWN_FUNCTION"),
        ("SELECT toUInt8('x')", r"Cannot parse"),
    ],
)
async def test_malformed_sql_is_one_clear_line(full: Store, sql: str, says: str) -> None:
    with pytest.raises((QueryFailed, QueryRefused), match=says) as failure:
        await ask(full, sql)
    assert "\n" not in str(failure.value)
    assert "version" not in str(failure.value)
    assert "Code:" not in str(failure.value)


@pytest.mark.parametrize("format", ["Nope", "Null", "JSONEachRow\nFORMAT CSV", "Template", ""])
async def test_an_unknown_format_is_refused(full: Store, format: str) -> None:
    with pytest.raises(QueryRefused, match="no such format"):
        await ask(full, "SELECT 1", format)
