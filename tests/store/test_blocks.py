"""The bytes of a native block, read by ClickHouse itself: chDB, which has the modern types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infrasight.errors import InvalidBatch, StoreIncompatible
from infrasight.schema import KINDS, Type
from infrasight.schema.ddl import insert_columns, quoted
from infrasight.schema.tables import TABLES, database_ddl
from infrasight.store import batches, blocks
from infrasight.store.engine import Session
from infrasight.store.settings import ENGINE_XML, USERS_XML
from tests.store import samples

DICTIONARY = pa.dictionary(pa.int32(), pa.binary())


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    directory = tmp_path_factory.mktemp("blocks")
    (directory / "engine.xml").write_text(ENGINE_XML)
    (directory / "users.xml").write_text(USERS_XML)
    session = Session(directory / "clickhouse", directory / "engine.xml")
    session.execute("SET ROLE writer")
    yield session
    session.close()


def types(kind: str) -> list[tuple[str, str]]:
    """The columns of an INSERT, as a modern server names them."""
    return list(batches.stored_types(kind))


def read(session: Session, directory: Path, block: list[blocks.Bytes]) -> pa.Table:
    """What ClickHouse makes of a block."""
    (directory / "block").write_bytes(b"".join(block))
    arrow = session.execute(
        f"SELECT * FROM file('{directory}/block', 'Native') SETTINGS output_format_arrow_string_as_string = 0, "
        "output_format_arrow_low_cardinality_as_dictionary = 0",
        "ArrowStream",
    )
    return pa.ipc.open_stream(arrow).read_all()


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """The rows, times as integers."""
    fields = [field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field for field in table.schema]
    return [{name: _number(value) for name, value in row.items()} for row in table.cast(pa.schema(fields)).to_pylist()]


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def sent(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    return plain(pa.Table.from_batches([batch]).cast(pa.schema([_decoded(field) for field in batch.schema])))


def _decoded(field: pa.Field) -> pa.Field:
    return field.with_type(pa.binary()) if pa.types.is_dictionary(field.type) else field


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("offset", "rows"), [(0, 41), (0, 1), (7, 11), (40, 1)])
def test_every_value_of_every_kind_is_read_back(session: Session, tmp_path: Path, kind: str, offset: int, rows: int) -> None:
    batch = samples.as_stored(kind, samples.batch(kind, 41).slice(offset, rows), 7)
    assert plain(read(session, tmp_path, blocks.block(batch, types(kind)))) == sent(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_is_what_clickhouse_itself_writes(session: Session, tmp_path: Path, kind: str) -> None:
    """But for dictionaries, where it has the entries in another order, the empty one in front, and for time zones, which it leaves out."""
    columns = [(name, type) for name, type in types(kind) if type not in ("LowCardinality(String)", "DateTime('UTC')")]
    block = b"".join(blocks.block(samples.as_stored(kind, samples.batch(kind, 41), 7), columns))
    (tmp_path / "block").write_bytes(block)
    assert session.execute(f"SELECT * FROM file('{tmp_path}/block', 'Native')", "Native") == block


@pytest.mark.parametrize("kind", KINDS)
def test_into_the_tables_as_they_are(session: Session, tmp_path: Path, kind: str) -> None:
    session.execute(database_ddl())
    (create,) = TABLES[kind].create()
    session.execute(create)
    batch = samples.batch(kind, 41)
    (tmp_path / "block").write_bytes(b"".join(blocks.block(samples.as_stored(kind, batch, 7), types(kind))))
    source = f"SELECT * FROM file('{tmp_path}/block', 'Native')"
    session.execute(f"INSERT INTO infrasight.{quoted(kind)} ({insert_columns(KINDS[kind])}) {source}")
    session.execute("SET output_format_arrow_string_as_string = 0, output_format_arrow_low_cardinality_as_dictionary = 0")
    arrow = session.execute(f"SELECT * EXCEPT stored FROM infrasight.{quoted(kind)} ORDER BY ts", "ArrowStream")
    assert plain(pa.ipc.open_stream(arrow).read_all()) == samples.expected(kind, batch)


def one(values: pa.Array, type: str) -> list[blocks.Bytes]:
    return blocks.block(pa.RecordBatch.from_arrays([values], ["c"]), [("c", type)])


@pytest.mark.parametrize("type", ["LowCardinality(String)", "String"])
@pytest.mark.parametrize("entries", [1, 128, 129, 255, 256, 257, 65535, 65536, 65537])
def test_dictionaries_of_any_size(session: Session, tmp_path: Path, type: str, entries: int) -> None:
    indices = np.concatenate([np.arange(entries), np.arange(entries)[::-1]]).astype(np.int32)
    values = pa.DictionaryArray.from_arrays(pa.array(indices), pa.array([b"%d" % i for i in range(entries)], pa.binary()))
    assert read(session, tmp_path, one(values, type))["c"].to_pylist() == values.to_pylist()
    part = values.slice(entries - 1, 2)  # of which most entries belong to other rows
    assert read(session, tmp_path, one(part, type))["c"].to_pylist() == part.to_pylist()
    assert sum(map(len, one(part, type))) < 200


@pytest.mark.parametrize("type", ["LowCardinality(String)", "String"])
def test_strings_of_any_length(session: Session, tmp_path: Path, type: str) -> None:
    lengths = [0, 1, 127, 128, 129, 16383, 16384, 16385, 2097151, 2097152]
    values = pa.array([b"x" * length for length in lengths], pa.binary()).dictionary_encode()
    assert [len(value) for value in read(session, tmp_path, one(values, type))["c"].to_pylist()] == lengths


def test_a_flag_is_one_or_zero(session: Session, tmp_path: Path) -> None:
    assert read(session, tmp_path, one(pa.array([0, 1, 2, 255], pa.uint8()), "Bool"))["c"].to_pylist() == [False, True, True, True]


def test_no_rows(session: Session, tmp_path: Path) -> None:
    for kind in KINDS:
        batch = samples.as_stored(kind, samples.batch(kind, 3).slice(1, 0), 7)
        assert b"".join(blocks.block(batch, types(kind)))


@pytest.mark.parametrize(
    ("values", "type"),
    [
        (pa.array([1], pa.uint32()), "UInt64"),
        (pa.array([1], pa.uint32()), "String"),
        (pa.array([1], pa.timestamp("ns", "UTC")), "DateTime"),
        (pa.array([1], pa.timestamp("ns", "UTC")), "DateTime64(3)"),
        (pa.array([b"x"], pa.binary()).dictionary_encode(), "Nullable(String)"),
        (pa.array([b"x"], pa.binary()).dictionary_encode(), "LowCardinality(Nullable(String))"),
        (pa.array([[b"x"]], pa.list_(pa.binary())), "String"),
    ],
)
def test_a_type_that_a_column_cannot_become_is_refused(values: pa.Array, type: str) -> None:
    with pytest.raises(StoreIncompatible, match="column c is "):
        one(values, type)


def test_more_text_than_a_machine_has_is_refused() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1 << 20, np.int32)), pa.array([b"x" * 4096], pa.binary()))
    with pytest.raises(InvalidBatch, match="1024 MiB of text in c"):
        one(values, "String")
    assert sum(map(len, one(values, "LowCardinality(String)"))) < 2 << 20


def test_every_type_that_a_kind_can_have_is_covered() -> None:
    assert {column.type for kind in KINDS.values() for column in kind.columns} == set(Type)
