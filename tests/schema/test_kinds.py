"""The declaration itself: numbers, names, and that every engine has a type for every column."""

import dataclasses
import re

import pyarrow as pa
import pytest

from infrasight.schema import KINDS, LOSS_REASONS, PROBES, Kind, Type, arrow, arrow_schema, ddl, protobuf
from infrasight.schema.layout import CTYPES
from infrasight.schema.parts import HEAD

ALL = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)


def test_kinds_have_numbers_and_names_of_their_own() -> None:
    assert len({kind.number for kind in KINDS.values()}) == len(KINDS)
    numbers = {"execve": 1, "open": 2, "connect": 3, "process": 4, "loss": 5, "chmod": 6, "ptrace": 7, "mount": 8, "umount": 9}
    assert {name: kind.number for name, kind in KINDS.items()} == numbers
    assert set(PROBES) == KINDS.keys() - {"loss"}
    assert all(name == kind.name for name, kind in KINDS.items())


@ALL
def test_columns_have_numbers_and_names_of_their_own(kind: Kind) -> None:
    numbers, names = [column.number for column in kind.columns], [column.name for column in kind.columns]
    assert len(set(numbers)) == len(numbers)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert all(0 < number < 19_000 for number in numbers), "protobuf keeps 19000 and up for itself"
    assert all(column.doc.endswith(".") for column in kind.columns)


def test_a_column_means_the_same_in_every_kind() -> None:
    seen: dict[str, tuple[int, Type]] = {}
    for kind in KINDS.values():
        for column in kind.columns:
            if column.number < 20 and kind.origin == "kernel":
                assert seen.setdefault(column.name, (column.number, column.type)) == (column.number, column.type)


@ALL
def test_every_engine_has_every_column(kind: Kind) -> None:
    schema = arrow_schema(kind.name)
    assert schema.names == [column.name for column in kind.columns]
    assert not any(field.nullable for field in schema)
    table, proto = ddl.table_ddl(kind), protobuf.events_proto()
    for column in kind.columns:
        assert f"`{column.name}` {ddl.TYPES[column.type]} " in table
        assert f"`{ddl.stored_name(column)}` " in table
        assert f"  {protobuf.TYPES[column.type]} {column.name} = {column.number};" in proto


def test_type_tables_are_complete() -> None:
    assert set(arrow.TYPES) == set(ddl.TYPES) == set(protobuf.TYPES) == set(Type)


@ALL
def test_the_insert_takes_the_columns_in_the_order_of_the_declaration(kind: Kind) -> None:
    inserted = [name.strip("`") for name in ddl.insert_columns(kind).split(", ")]
    assert inserted == [ddl.stored_name(column) for column in kind.columns]


def test_texts_are_quoted_in_ddl() -> None:
    column = dataclasses.replace(KINDS["open"].column("path"), doc=r"it's a \ path")
    assert r"COMMENT 'it\'s a \\ path'" in ddl.column_ddl(column)[0]
    assert r"COMMENT 'it\'s'" in ddl.table_ddl(dataclasses.replace(KINDS["open"], doc="it's"))


def test_text_is_a_dictionary_of_bytes() -> None:
    assert arrow_schema("open").field("path").type == pa.dictionary(pa.int32(), pa.binary())
    assert arrow_schema("execve").field("argv").type == pa.list_(pa.binary())


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("execve", "path argv argv_truncated"),
        ("open", "path flags mode dirfd"),
        ("connect", "family protocol daddr dport saddr sport path fd"),
    ],
)
def test_names_that_people_rely_on(kind: str, columns: str) -> None:
    who = "ts node pid tid ppid uid gid user group comm ns_pid cgroup_id process_id parent_id ancestors ret latency_ns"
    assert [column.name for column in KINDS[kind].columns] == [*who.split(), *columns.split()]


def test_names_of_the_other_kinds() -> None:
    assert [column.name for column in KINDS["process"].columns][-4:] == ["ancestors", "action", "exit_code", "signal"]
    assert [column.name for column in KINDS["loss"].columns] == ["ts", "node", "since", "probe", "reason", "count"]
    assert tuple(LOSS_REASONS) == ("ring_full", "inflight_full")


def test_an_unknown_column_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        KINDS["open"].column("nothing")
    with pytest.raises(KeyError):
        arrow_schema("nothing")


@pytest.mark.parametrize("kind", [KINDS[name] for name in PROBES], ids=lambda kind: kind.name)
def test_what_the_kernel_writes_is_declared_soundly(kind: Kind) -> None:
    names = [field.name for field in (*HEAD, *kind.fields)] + [slot.name for slot in kind.slots] + [f"{slot.name}_len" for slot in kind.slots]
    assert len(set(names)) == len(names)
    assert all(field.ctype in CTYPES or re.fullmatch(r"(char|u8)\[\d+\]", field.ctype) for field in (*HEAD, *kind.fields))
    assert all(slot.short <= slot.long for slot in kind.slots)
    for ring_bytes in (kind.ring_bytes, kind.long_ring_bytes):
        assert ring_bytes >= 1 << 16
        assert ring_bytes & (ring_bytes - 1) == 0, "the kernel takes powers of two only"
