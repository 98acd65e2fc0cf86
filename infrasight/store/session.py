"""What reading, the gate and the migration need of an engine, and how its errors look."""

from __future__ import annotations

import re
from typing import Protocol

from infrasight.errors import StoreError
from infrasight.store.interface import QueryLimits

_CODE = re.compile(r"Code: (\d+)(?:\.|, e\.displayText\(\) =) DB::\w*Exception: ")
_NOISE = re.compile(
    r"Code: \d+(?:\.|, e\.displayText\(\) =) DB::\w*Exception: |, e\.what\(\) = DB::\w*Exception|Streaming (query|insert \w+) failed: "
    r"| \(version [^)]*\)"
    r"|[.:]* (Expected one of: |In scope SELECT formatQuery\()[^\n]*?(?= \([A-Z_]+\)$|$|\n)",
    re.MULTILINE,
)
"""Repetitions, the engine's version, pages of tokens that would have been right, and what we wrapped around the user's SQL."""


class EngineError(StoreError):
    """ClickHouse's error: `code` as in its ErrorCodes.cpp (0 when it gave none), `line` the first line of its message."""

    def __init__(self, text: str) -> None:
        code = _CODE.search(text)
        self.code = int(code[1]) if code else 0
        line = _NOISE.sub("", text).strip().partition("\n")[0].strip()
        self.line = "".join(each if each.isprintable() else "?" for each in line) or "unknown error"
        super().__init__(f"{self.line} [ClickHouse {self.code}]" if self.code else self.line)


class Rows(Protocol):
    """Where our own statements run."""

    def execute(self, sql: str) -> object:
        """Run a statement. Raises EngineError, StoreUnavailable."""

    def rows(self, sql: str) -> list[list[str]]:
        """The result of a query of ours, whose values are text without tabs, line ends or backslashes. Raises EngineError, StoreUnavailable."""


class Stream(Protocol):
    """The result of a running SELECT. One call at a time, each may come from another thread."""

    def fetch(self) -> bytes | None:
        """Blocks for the next chunk; None is the end. Raises EngineError, StoreUnavailable."""

    def cancel(self) -> None:
        """End the query. Legal after its end and twice. Raises EngineError."""


class Session(Protocol):
    """Where one query of somebody's runs. One call at a time, each may come from another thread; each raises EngineError, StoreUnavailable."""

    def restrict(self, limits: QueryLimits, mark: str) -> None:
        """From here on nothing but reading, within `limits`. `mark` (hex) finds the running query again."""

    def execute(self, sql: str, format: str = "TabSeparatedRaw") -> bytes:
        """Run a statement; the whole result."""

    def rows(self, sql: str) -> list[list[str]]:
        """As `Rows.rows`."""

    def stream(self, sql: str, format: str) -> Stream:
        """Start a SELECT whose result is fetched piece by piece. While it is not at its end, the session can do nothing else."""

    def is_one_read(self, sql: str) -> bool:
        """Whether ClickHouse parses it as exactly one statement and that one only reads."""

    def explain(self, sql: str) -> list[str]:
        """ClickHouse's parse of one statement, a line each node."""

    def check_syntax(self, sql: str) -> None:
        """Raises EngineError with ClickHouse's own words when it is not one well-formed statement. Runs nothing of it."""

    def close(self) -> None:
        """End it. Legal twice."""
