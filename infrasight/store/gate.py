"""What a query may be, judged on ClickHouse's own parse of it, never on the text.

The engine's access rights (settings.py) already keep a reader from writing and from sources outside. The gate is for what they do not cover:
statements that change the session, functions that read files or call out, Python(), SETTINGS and FORMAT. What it does not know, it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from infrasight.errors import QueryRefused
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


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NODES = _words(
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
_TABLE_FUNCTIONS = _words(
    """
    numbers numbers_mt zeros zeros_mt values null generaterandom generateseries generate_series view
    """
)
_CLOSED_CATEGORIES = frozenset({"AI", "Machine Learning", "Dictionary", "Embedded Dictionary", "Internal", "Introspection"})
_OPEN_OTHERS = _words(
    """
    fqdn macnumtostring macstringtonum bar blocknumber blocksize bytesize countdigits currentdatabase currentuser defaultvalueofargumenttype
    defaultvalueoftypename errorcodetoname finalizeaggregation formatreadabledecimalsize formatreadablequantity formatreadablesize
    formatreadabletimedelta hostname identity ignore indexhint initializeaggregation isconstant isdecimaloverflow lowcardinalityindices
    lowcardinalitykeys materialize neighbor parsereadablesize parsereadablesizeornull parsereadablesizeorzero parsetimedelta
    rownumberinallblocks rownumberinblock runningaccumulate runningdifference runningdifferencestartingwithfirstvalue throwif tocolumntypename
    totypename transform tuple uptime variantelement varianttype version visiblewidth
    """
)
"""Functions of the category Other, which has everything from version() to file()."""
_SYSTEM_TABLES = _words(
    """
    one numbers numbers_mt zeros zeros_mt columns tables databases parts parts_columns merges mutations functions table_functions formats settings
    errors events metrics data_type_families time_zones keywords build_options processes
    """
)
_LINE = re.compile(r"(?P<indent> *)(?P<node>[A-Za-z:]+)(?: (?P<rest>.*))?")
_TAIL = re.compile(r" \((?:alias |children ).*")


class Gate:
    """Knows the engine's functions, so that a name it does not know is one that ClickHouse does not know either."""

    def __init__(self, session: Session) -> None:
        """Asks the engine what it has. Raises EngineError."""
        self._closed = self._closed_functions(session) | self._closed_table_functions(session)
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
        for depth, node, rest in _nodes(lines):
            if not (explained and depth == 1 and node == "Set"):  # EXPLAIN's own options, as in EXPLAIN indexes = 1
                self._check_node(depth, node, rest)
        return format in FORMATS_STREAMED and lines[0].startswith("SelectWithUnionQuery")

    def _check_node(self, depth: int, node: str, rest: str) -> None:
        if node in _SPECIAL:
            raise QueryRefused(_SPECIAL[node])
        if node not in _NODES:
            raise QueryRefused(f"not available in queries: {node!r:.60}")
        name = _TAIL.sub("", rest)
        if node == "Function" and name.lower() in self._closed:
            raise QueryRefused(f"the function {name} is not available in queries")
        if node in {"TableIdentifier", "Identifier"}:
            _check_identifier(name)
            if node == "Identifier" and depth <= 2 and name.lower() in self._formats:
                raise QueryRefused("ask for the format beside the SQL, not with FORMAT in it")
        if node == "Explain" and "OVERRIDE" in name:
            raise QueryRefused("EXPLAIN TABLE OVERRIDE is not available")

    @staticmethod
    def _closed_functions(session: Session) -> frozenset[str]:
        known = {
            name.lower(): (alias.lower(), category)
            for name, alias, category in session.rows("SELECT name, alias_to, categories FROM system.functions WHERE NOT is_aggregate")
        }

        def is_closed(name: str) -> bool:
            alias, category = known[name]
            if alias in known and alias != name:
                return is_closed(alias)
            return category in _CLOSED_CATEGORIES or (category in {"Other", ""} and name not in _OPEN_OTHERS)

        return frozenset(name for name in known if is_closed(name))

    def _closed_table_functions(self, session: Session) -> frozenset[str]:
        functions = {name.lower() for (name,) in session.rows("SELECT name FROM system.functions")}
        known = {name.lower() for (name,) in session.rows("SELECT name FROM system.table_functions")}
        return frozenset(known - _TABLE_FUNCTIONS - functions)


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
