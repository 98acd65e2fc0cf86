"""What a column is in ClickHouse, derived: in the tables of the kinds (`schema.tables`), and on the way into them."""

from __future__ import annotations

from dataclasses import dataclass

from infrasight.schema.columns import Column, Kind, Type

DATABASE = "infrasight"
SCHEMA_VERSION = 2
"""Recorded in the database's comment. It grows when older code can no longer work with the tables, or when they need what
`store.steps` does to them; a new column or kind is no reason."""
LINEAGE_SEPARATOR = "\\0"
"""Between the names of a LINEAGE column on the wire: the one byte that no name can hold, as ClickHouse spells it."""
TYPES: dict[Type, str] = {
    Type.BOOL: "Bool",
    Type.U16: "UInt16",
    Type.U32: "UInt32",
    Type.U64: "UInt64",
    Type.I32: "Int32",
    Type.I64: "Int64",
    Type.F64: "Float64",
    Type.TIME: "DateTime64(9, 'UTC')",
    Type.NAME: "LowCardinality(String)",
    Type.TEXT: "String",
    Type.WORDS: "Array(String)",
    Type.LINEAGE: "Array(LowCardinality(String))",
}

MARK, MARK_GIVEN = "batch", "batch_given"
"""Which batch brought a row, as its insert keeps it and as it is given: a number that stands for the batch's token, 0 where that is not known.
`SELECT *` leaves it out."""
STORED = "stored"
"""When a row was stored, by which rollups are filled."""


@dataclass(frozen=True)
class TableColumn:
    """A column as a table has it: its type as ClickHouse itself writes it, and the rest of its definition."""

    name: str
    type: str
    rest: str

    def ddl(self) -> str:
        """The definition in a CREATE TABLE or ALTER TABLE ADD COLUMN."""
        return f"{quoted(self.name)} {self.type}{self.rest}"


def quoted(name: str) -> str:
    """An identifier of ours, quoted (`group` is a keyword)."""
    return f"`{name}`"


def text(value: str) -> str:
    """A string literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def on(cluster: str) -> str:
    """The clause that has all servers of a cluster do it; empty for one server."""
    return f" ON CLUSTER {text(cluster)}" if cluster else ""


def stored_name(column: Column) -> str:
    """The name under which a column is inserted: a LINEAGE goes in joined, into a column that is not stored, and is kept as an array."""
    return f"{column.name}_joined" if column.type is Type.LINEAGE else column.name


def table_columns(column: Column) -> tuple[TableColumn, ...]:
    """What a table has for a column, in order."""
    codec = f" CODEC({column.codec})" if column.codec else ""
    comment = f" COMMENT {text(column.doc)}"
    if column.type is not Type.LINEAGE:
        return (TableColumn(column.name, TYPES[column.type], f"{comment}{codec}"),)
    joined = stored_name(column)
    split = f"if(empty({joined}), [], splitByChar('{LINEAGE_SEPARATOR}', {joined}))"
    return (
        TableColumn(joined, "LowCardinality(String)", " EPHEMERAL ''"),
        TableColumn(column.name, TYPES[column.type], f" DEFAULT {split}{comment} CODEC(ZSTD(1))"),
    )


def own_columns() -> tuple[TableColumn, ...]:
    """What every table of a kind has after the columns of its kind."""
    meaning = "Which batch of its node brought the row: what tells a batch that is sent again from a new one."
    stored = "When the server stored it; 1970 for rows of before there were rollups."
    return (
        TableColumn(MARK_GIVEN, "UInt64", " EPHEMERAL 0"),
        TableColumn(MARK, "UInt64", f" MATERIALIZED {MARK_GIVEN} COMMENT {text(meaning)} CODEC(ZSTD(1))"),
        TableColumn(STORED, "DateTime('UTC')", f" COMMENT {text(stored)} CODEC(ZSTD(1))"),
    )


def inserted_columns(kind: Kind) -> tuple[TableColumn, ...]:
    """What an INSERT takes: a batch's columns in the order of the declaration, its mark, and when it is stored."""
    given, _, stored = own_columns()
    return (*(table_columns(column)[0] for column in kind.columns), given, stored)


def insert_columns(kind: Kind) -> str:
    """The column list of an INSERT."""
    return ", ".join(quoted(column.name) for column in inserted_columns(kind))
