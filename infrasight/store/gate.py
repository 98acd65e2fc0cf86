"""What a query may be, judged on ClickHouse's own parse of it, never on the text.

The engine's access rights (settings.py) already keep a reader from writing and from sources outside. The gate is for what they do not cover:
statements that change the session, functions that read files or call out, Python(), SETTINGS, FORMAT and other databases, whose tables may be
elsewhere. What it does not know, it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from infrasight.errors import QueryRefused
from infrasight.schema.ddl import DATABASE, text
from infrasight.store.functions import OPEN, OPEN_TABLES, words
from infrasight.store.session import Session

FORMATS_STREAMED = frozenset(
    {"JSONEachRow", "JSONCompactEachRow", "JSONCompactStringsEachRow", "JSONStringsEachRow", "CSV", "TSV", "TabSeparated", "TSVRaw"}
)
"""Formats whose chunks just follow each other. chDB makes every chunk a document of its own, with head and tail."""
FORMATS = FORMATS_STREAMED | {
    *("JSON", "JSONCompact", "JSONColumns", "JSONCompactEachRowWithNames", "JSONCompactEachRowWithNamesAndTypes", "CSVWithNames", "TSVWithNames"),
    *("JSONCompactStringsEachRowWithNames", "JSONCompactStringsEachRowWithNamesAndTypes", "TabSeparatedWithNames", "TSVWithNamesAndTypes"),
    *("Arrow", "ArrowStream", "Parquet", "Native", "Markdown", "Vertical", "Pretty", "PrettyCompact", "PrettyCompactMonoBlock", "PrettySpace", "XML"),
}
"""Formats that may be asked for."""


_NODES = words(
    """
    SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery ExpressionList Literal Identifier TableIdentifier Function Asterisk
    QualifiedAsterisk ColumnsRegexpMatcher ColumnsListMatcher QualifiedColumnsRegexpMatcher QualifiedColumnsListMatcher ColumnsTransformerList
    ColumnsExceptTransformer ColumnsReplaceTransformer ColumnsReplaceTransformer::Replacement Subquery TablesInSelectQuery
    TablesInSelectQueryElement TableExpression TableJoin ArrayJoin OrderByElement InterpolateElement WithElement WindowDefinition
    WindowListElement SampleRatio Collation Explain ShowTables ShowColumns ShowCreateTableQuery ShowCreateDatabaseQuery DescribeQuery
    ExistsTableQuery ExistsDatabaseQuery
    """
)
_SPECIAL = {
    "Set": "SETTINGS are the server's to choose",
    "ColumnsApplyTransformer": "APPLY is not available: name the function for each column",
    "QueryParameter": "query parameters are not available: write the values",
}
_SYSTEM_TABLES = words(
    """
    one numbers numbers_mt zeros zeros_mt columns tables databases parts parts_columns merges mutations functions table_functions formats settings
    errors events metrics data_type_families time_zones keywords build_options processes
    """
)
_DATABASES = frozenset({DATABASE, "audit", "information_schema", "INFORMATION_SCHEMA"})
"""Databases all of which may be read, as far as ClickHouse lets the reader: ours, the one with the original's names, and the standard's."""
_OF_DATABASES = words("ShowCreateTableQuery ShowCreateDatabaseQuery ExistsTableQuery ExistsDatabaseQuery")
_LINE = re.compile(r"(?P<indent> *)(?P<node>[A-Za-z:]+)(?: (?P<rest>.*))?")
_TAIL = re.compile(r" \((?:alias |children ).*")


class Gate:
    """Knows the engine's functions, so that a name it does not know is one that ClickHouse does not know either."""

    def __init__(self, session: Session) -> None:
        """Asks the engine what it has. Raises EngineError."""
        self._closed, self._closed_aggregates = _closed(session)
        self._formats = {name.lower() for (name,) in session.rows("SELECT name FROM system.formats")}

    def check(self, session: Session, sql: str, format: str) -> bool:
        """Whether the result may be streamed. `session` is the reader's. Raises QueryRefused, or EngineError for what does not parse."""
        if format not in FORMATS:
            raise QueryRefused(f"no such format: {format!r:.60}")
        if "\0" in sql:
            raise QueryRefused("the SQL has a NUL in it")
        if not session.is_one_read(sql):
            session.check_syntax(sql)
            raise QueryRefused("one statement that only reads, please: SELECT, WITH, SHOW, DESCRIBE, EXISTS or EXPLAIN")
        lines = session.explain(sql)
        explained = lines[0].startswith("Explain ")
        above, dotted = "", set()
        for depth, node, rest in _nodes(lines):
            if not (explained and depth == 1 and node == "Set"):  # EXPLAIN's own options, as in EXPLAIN indexes = 1
                self._check_node(depth, node, rest, above)
            if node == "Identifier" and "." in rest:
                dotted.add(rest.partition(".")[0])
            above = node
        _check_qualifiers(session, dotted - _DATABASES - {"system"})
        return format in FORMATS_STREAMED and lines[0].startswith("SelectWithUnionQuery")

    def _check_node(self, depth: int, node: str, rest: str, above: str) -> None:
        if node in _SPECIAL:
            raise QueryRefused(_SPECIAL[node])
        if node not in _NODES:
            raise QueryRefused(f"not available in queries: {node!r:.60}")
        name = _TAIL.sub("", rest)
        if node == "Function" and (name.lower() not in OPEN_TABLES if above == "TableExpression" else self._is_closed(name.lower())):
            raise QueryRefused(f"the function {name} is not available in queries")
        if node == "TableIdentifier" and "." in name:
            _check_database(name.partition(".")[0], name)
        if node in _OF_DATABASES and (database := name.partition(" ")[0]):
            _check_database(database, database)
        if node in {"TableIdentifier", "Identifier"}:
            _check_identifier(name)
            if node == "Identifier" and depth <= 2 and name.lower() in self._formats:
                raise QueryRefused("ask for the format beside the SQL, not with FORMAT in it")
        if node == "Explain" and "OVERRIDE" in name:
            raise QueryRefused("EXPLAIN TABLE OVERRIDE is not available")

    def _is_closed(self, name: str) -> bool:
        return name in self._closed or name.startswith(self._closed_aggregates)  # that with combinators, as in sumIf


def _closed(session: Session) -> tuple[frozenset[str], tuple[str, ...]]:
    """What the engine has and queries may not have, in lower case: functions of all kinds, and of those the aggregate ones once more."""
    known = {name.lower(): alias.lower() for name, alias in session.rows("SELECT name, alias_to FROM system.functions")}
    aggregate = {name.lower() for (name,) in session.rows("SELECT name FROM system.functions WHERE is_aggregate")}
    tables = {name.lower() for (name,) in session.rows("SELECT name FROM system.table_functions")}
    closed = {name for name, alias in known.items() if name not in OPEN and alias not in OPEN}
    return frozenset(closed | (tables - known.keys() - OPEN_TABLES)), tuple(sorted(closed & aggregate))


def _nodes(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Depth, kind and text of each line. A name of the user's with a line end in it can make more lines, never fewer."""
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise QueryRefused(f"names with line ends or such in them are not available: {line.strip()!r:.60}")
        yield len(match["indent"]), match["node"], match["rest"] or ""


def _check_identifier(name: str) -> None:
    database, _, table = name.partition(".")
    if database == "system" and table.partition(".")[0] not in _SYSTEM_TABLES:
        raise QueryRefused(f"{name} is not available in queries")


def _check_database(database: str, shown: str) -> None:
    if database not in _DATABASES and database != "system":
        raise QueryRefused(f"{shown} is not available in queries: there are the databases {DATABASE} and system")


def _check_qualifiers(session: Session, names: set[str]) -> None:
    """Of `a.b`, where that may be a table's column as well as a database's table (`x IN a.b`): refuses what is a database."""
    if names:
        named = ", ".join(map(text, sorted(names)))
        if session.rows(f"SELECT count() FROM system.databases WHERE name IN ({named})") != [["0"]]:
            raise QueryRefused(f"{', '.join(sorted(names))}: there are the databases {DATABASE} and system in queries")
