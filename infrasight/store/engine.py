"""Sessions with chDB. The only module that imports it; its errors leave as EngineError.

chDB has one engine per process, bound to one path; any number of sessions may be open on it, used from any thread, each by one at a time.
It releases the GIL while it works. A session keeps its role, database and settings to itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chdb.state import sqlitelike as chdb

from infrasight.schema.ddl import text
from infrasight.store.blocks import Bytes
from infrasight.store.interface import QueryLimits
from infrasight.store.session import EngineError
from infrasight.store.settings import reader_session


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, chdb.ChdbError) as error:  # type: ignore[attr-defined]  # it is what chdb raises, imported but not exported
        raise EngineError(str(error)) from error


class Stream:
    """The result of a running SELECT. One call at a time, each may come from another thread."""

    def __init__(self, result: chdb.StreamingResult) -> None:
        self._result = result

    def fetch(self) -> bytes | None:
        """Blocks for the next chunk; None is the end. Raises EngineError."""
        with _translated():
            chunk = self._result.fetch()  # type: ignore[no-untyped-call]  # chdb has no annotations there
        return None if chunk is None else bytes(chunk.bytes())

    def cancel(self) -> None:
        """End the query. Legal after its end and twice. Raises EngineError."""
        with _translated():
            self._result.cancel()  # type: ignore[no-untyped-call]  # likewise


class Session:
    """One session. Not thread-safe: one call at a time, but each may come from another thread. Every method raises EngineError."""

    def __init__(self, data: Path, config: Path) -> None:
        """Start the engine on the directory `data` if this is the first session, with the configuration file `config`."""
        with _translated():
            self._connection = chdb.connect(f"{data}?config-file={config}")

    def restrict(self, limits: QueryLimits, mark: str) -> None:
        """Take the reader's role and settings, for good."""
        self.execute(reader_session(limits, mark))

    def execute(self, sql: str, format: str = "TabSeparatedRaw") -> bytes:
        """Run statements; the result of the last."""
        with _translated():
            return bytes(self._connection.query(sql, format).bytes() or b"")

    def rows(self, sql: str) -> list[list[str]]:
        """The result of a query of ours, whose values have no tabs, line ends or backslashes."""
        return [line.split("\t") for line in self.execute(sql).decode().splitlines()]

    def stream(self, sql: str, format: str) -> Stream:
        """Start a SELECT whose result is fetched piece by piece. While it is not at its end, the session can do nothing else."""
        with _translated():
            return Stream(self._connection.send_query(sql, format))

    def insert(self, statement: Callable[[str], str], block: Iterable[Bytes]) -> None:
        """Run an INSERT of a block of the Native format, in a file without a name whose path `statement` puts into it.

        Not by `send_insert`: that one says nothing when the engine cannot write, as on a full disk (chdb-core 26.9; tests/store/test_directory.py).
        """
        with os.fdopen(os.memfd_create("batch"), "wb") as file, _translated():
            file.writelines(block)
            file.flush()
            self._connection.query(statement(f"/proc/self/fd/{file.fileno()}"))

    def is_one_read(self, sql: str) -> bool:
        """Whether ClickHouse parses it as exactly one statement and that one only reads. INTO OUTFILE, SET, USE and KILL do not."""
        with _translated():
            # Bound on the extension only; chdb.durable reaches it the same way.
            report: dict[str, Any] = self._connection._conn.classify_query(sql)
        return bool(report["query_class"].name == "READ_ONLY" and report["statement_count"] == 1)

    def explain(self, sql: str) -> list[str]:
        """ClickHouse's parse of one statement, a line each node."""
        return self.execute(f"EXPLAIN AST {sql}").decode(errors="replace").split("\n")[:-1]

    def check_syntax(self, sql: str) -> None:
        """Raises EngineError with ClickHouse's own words when it is not one well-formed statement. Runs nothing of it."""
        self.execute(f"SELECT formatQuery({text(sql)})")

    def close(self) -> None:
        """End it; the engine ends with the last one. Legal twice."""
        self._connection.close()
