"""What engines are told: how much of a machine the embedded one takes, how batches go in, what a query may."""

from __future__ import annotations

import os

from infrasight.schema.ddl import DATABASE
from infrasight.schema.original import ORIGINAL_DATABASE
from infrasight.store.interface import QueryLimits

ENGINE_XML = """<clickhouse>
    <user_directories><users_xml><path>users.xml</path></users_xml></user_directories>
    <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
    <mark_cache_size>67108864</mark_cache_size>
    <primary_index_cache_size>67108864</primary_index_cache_size>
    <index_mark_cache_size>8388608</index_mark_cache_size>
    <query_condition_cache_size>16777216</query_condition_cache_size>
    <compiled_expression_cache_size>16777216</compiled_expression_cache_size>
    <!-- One big merge at a time and room for a small one, both behind whoever produces and inserts events. -->
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>1</background_merges_mutations_concurrency_ratio>
    <os_threads_nice_value_merge_mutate>5</os_threads_nice_value_merge_mutate>
    <background_schedule_pool_size>1</background_schedule_pool_size>
    <memory_worker_period_ms>1000</memory_worker_period_ms>
</clickhouse>
"""
"""Caches default to gigabytes; the rest was measured (docs/STORE.md)."""

USERS_XML = f"""<clickhouse>
    <profiles><default/></profiles>
    <quotas><default/></quotas>
    <roles>
        <writer><grants><query>GRANT ALL ON *.*</query></grants></writer>
        <reader><grants>
            <query>GRANT SELECT, SHOW ON {DATABASE}.*</query>
            <query>GRANT SELECT, SHOW ON {ORIGINAL_DATABASE}.*</query>
            <query>GRANT SELECT ON system.*</query>
        </grants></reader>
    </roles>
    <users><default>
        <password></password>
        <networks><ip>::/0</ip></networks>
        <profile>default</profile>
        <quota>default</quota>
        <grants><query>GRANT writer</query><query>GRANT reader</query></grants>
    </default></users>
</clickhouse>
"""
"""chDB knows one user. What a session may do is the role that it takes, once, before anything from outside reaches it; the reader's has no
CREATE TEMPORARY TABLE and no source, so ClickHouse itself refuses file, url, s3, remote, mysql, executable and their kin."""

WRITER_SESSION = (
    "SET ROLE writer; SET max_threads = 1, max_insert_threads = 1, async_insert = 0, insert_deduplicate = 1, insert_select_deduplicate = 1, "
    "min_insert_block_size_rows = 1000000000, min_insert_block_size_bytes = 1000000000000, max_partitions_per_insert_block = 0"
)
"""One batch is one block and so one part: never split, never collected with others."""

SUMMING = "summing"
SUMMING_SESSION = f"{WRITER_SESSION}, os_threads_nice_value_query = 5, max_memory_usage = {2 << 30}, log_comment = '{SUMMING}'"
"""Behind whoever produces and inserts events, as merges are. How much memory a server gives is its own affair."""

HEALER_SESSION = "SET ROLE writer; SET max_query_size = 16777216, mutations_sync = 0"
"""A mutation names each container a dozen times."""

SERVER_INSERT = {
    "async_insert": "0",
    "insert_deduplicate": "1",
    "min_insert_block_size_rows": "1000000000",
    "min_insert_block_size_bytes": "1000000000000",
    "max_partitions_per_insert_block": "0",
    "distributed_foreground_insert": "1",
    "insert_allow_materialized_columns": "1",
}
"""The same for an insert into a server; threads and roles are its own affair. Into a cluster, it is stored when it is answered, and with the mark of
its batch: a Distributed table sends on no EPHEMERAL columns, and what is MATERIALIZED of them only so."""

SERVER_HEALER = {"max_query_size": "16777216", "mutations_sync": "0", "allow_nondeterministic_mutations": "1"}
"""Of the connection that heals: replicated tables take a subquery for something that may change, and in each replica it finds the same rows."""

SERVER_QUERY = {
    "result_overflow_mode": "throw",
    "output_format_json_quote_64bit_integers": "0",
    "cancel_http_readonly_queries_on_client_close": "1",
    "allow_introspection_functions": "0",
    "allow_ddl": "0",
}
"""Of a query on a server, with its limits and `readonly = 1`. What it may read is for the server's administrator to grant."""


ANSWER_ROWS = 8192
"""Of one chunk of an answer, which is in memory until it is read. ClickHouse's own 65,409 rows may be hundreds of megabytes."""


def reader_session(limits: QueryLimits, mark: str) -> str:
    """The statements that make a session safe for one query. `mark` (hex) finds the running query again. `readonly` comes last: it is the door."""
    settings = {
        "max_execution_time": limits.seconds,
        "max_memory_usage": limits.memory_bytes,
        "max_result_rows": limits.rows,
        "max_result_bytes": 4 * limits.result_bytes,
        "max_temporary_data_on_disk_size_for_query": limits.memory_bytes,
        "max_block_size": ANSWER_ROWS,
        "max_threads": max(1, (os.cpu_count() or 1) // 2),
        "os_threads_nice_value_query": 5,
        "implicit_select": 0,
        "allow_introspection_functions": 0,
        "allow_ddl": 0,
    }
    listed = ", ".join(f"{name} = {value}" for name, value in settings.items())
    return f"SET ROLE reader; USE {DATABASE}; SET {listed}, log_comment = '{mark}', readonly = 1"
