"""The declaration itself: numbers, names, and that every engine has a type for every column."""

import dataclasses
import re

import pyarrow as pa
import pytest

from infrasight.schema import KINDS, LOSS_REASONS, NODE_LOSS_REASONS, PROBES, SHIPPED, Kind, Type, arrow, arrow_schema, ddl, protobuf, tables
from infrasight.schema.columns import Buffer, Length, Source
from infrasight.schema.kinds import BUFFERS, records_of
from infrasight.schema.layout import CTYPES, layouts
from infrasight.schema.parts import CALL, HEAD, INTERVAL, TOLD, WHO

SHARED = {column.name for column in (*WHO, *CALL)}
ALL = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)


def test_kinds_have_numbers_and_names_of_their_own() -> None:
    assert len({kind.number for kind in KINDS.values()}) == len(KINDS)
    released = {"execve": 1, "open": 2, "connect": 3, "process": 4, "loss": 5, "chmod": 6, "ptrace": 7, "mount": 8, "umount": 9}
    assert {name: kind.number for name, kind in KINDS.items() if name in released} == released
    assert set(PROBES) == {name for name, kind in KINDS.items() if kind.origin == "kernel"}
    assert set(SHIPPED) == {*PROBES, "loss", "container"}
    made_by_server = {name: kind.number for name, kind in KINDS.items() if kind.origin == "server"}
    assert made_by_server == {"batches": 101, "nodes": 102, "alerts": 103, "scores": 104, "dead_letter": 105}
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
            if column.name in SHARED and kind.origin == "kernel":
                assert seen.setdefault(column.name, (column.number, column.type)) == (column.number, column.type)
    assert set(seen) == SHARED


@pytest.mark.parametrize("kind", [KINDS[name] for name in PROBES], ids=lambda kind: kind.name)
def test_every_kind_begins_with_who_did_it(kind: Kind) -> None:
    assert kind.columns[: len(WHO)] == WHO
    then = INTERVAL if kind.account else () if kind.name == "process" else CALL
    own = kind.columns[len(WHO) + len(then) :]
    assert kind.columns[len(WHO) : len(WHO) + len(then)] == then
    assert all(20 <= column.number < 101 for column in own)
    assert not {column.name for column in own} & SHARED


@pytest.mark.parametrize("kind", [KINDS[name] for name in PROBES], ids=lambda kind: kind.name)
def test_a_path_says_where_it_leads(kind: Kind) -> None:
    """Beside each column for a path as given."""
    names = [column.name for column in kind.columns]
    for slot in kind.slots:
        if slot.source is Source.PATH:
            at = names.index(slot.name)
            assert names[at + 1] == f"{slot.name}_resolved"
            assert kind.columns[at + 1].number == kind.columns[at].number + 1


@ALL
def test_every_engine_has_every_column(kind: Kind) -> None:
    schema = arrow_schema(kind.name)
    assert schema.names == [column.name for column in kind.columns]
    assert not any(field.nullable for field in schema)
    (table,), proto = tables.table_of(kind).create(), protobuf.events_proto()
    for column in kind.columns:
        assert f"`{column.name}` {ddl.TYPES[column.type]} " in table
        assert f"`{ddl.stored_name(column)}` " in table
        assert f"  {protobuf.TYPES[column.type]} {column.name} = {column.number};" in proto


def test_type_tables_are_complete() -> None:
    assert set(arrow.TYPES) == set(ddl.TYPES) == set(protobuf.TYPES) == set(Type)


@ALL
def test_the_insert_takes_the_columns_in_the_order_of_the_declaration(kind: Kind) -> None:
    inserted = [name.strip("`") for name in ddl.insert_columns(kind).split(", ")]
    assert inserted == [*(ddl.stored_name(column) for column in kind.columns), "batch_given", "stored"]


def test_texts_are_quoted_in_ddl() -> None:
    column = dataclasses.replace(KINDS["open"].column("path"), doc=r"it's a \ path")
    assert r"COMMENT 'it\'s a \\ path'" in ddl.table_columns(column)[0].ddl()
    assert r"COMMENT 'it\'s'" in tables.table_of(dataclasses.replace(KINDS["open"], doc="it's")).create()[0]


def test_text_is_a_dictionary_of_bytes() -> None:
    assert arrow_schema("open").field("path").type == pa.dictionary(pa.int32(), pa.binary())
    assert arrow_schema("execve").field("argv").type == pa.list_(pa.binary())


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("execve", "path path_resolved argv argv_truncated exe_memfd exe_upper redacted"),
        ("open", "path path_resolved flags mode dirfd"),
        ("connect", "family protocol daddr dport saddr sport path path_resolved fd name name_source"),
        ("chmod", "path path_resolved mode dirfd fd flags"),
        ("ptrace", "request target_pid addr data"),
    ],
)
def test_names_that_people_rely_on(kind: str, columns: str) -> None:
    who = "ts node pid tid ppid uid gid user group comm ns_pid cgroup_id process_id parent_id ancestors"
    who += " euid login_uid session_id tty cap_effective exe cwd container_id container_runtime pod_uid"
    who += " container_name image image_digest container_labels container_created privileged pod_name pod_namespace identity"
    who += " container_started workload ret latency_ns"
    assert [column.name for column in KINDS[kind].columns] == [*who.split(), *columns.split()]


def test_names_of_the_other_kinds() -> None:
    assert [column.name for column in KINDS["process"].columns][-4:] == ["workload", "action", "exit_code", "signal"]
    assert [column.name for column in KINDS["loss"].columns] == ["ts", "node", "since", "probe", "reason", "count"]
    assert not LOSS_REASONS.keys() & NODE_LOSS_REASONS.keys()
    assert tuple(NODE_LOSS_REASONS) == ("killed", "unseen", "spool_full", "spool_expired", "spool_damaged")
    told = [name for name in (column.name for column in WHO) if name in TOLD]
    who = ["ts", "node", "container_id", "container_runtime", "pod_uid", "container_started"]
    assert sorted(column.name for column in KINDS["container"].columns) == sorted([*who, *told, "state"])
    assert len(told) == len(TOLD)
    assert tuple(LOSS_REASONS) == ("ring_full", "inflight_full", "accounts_full", "throttled", "repeated")


def test_an_unknown_column_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        KINDS["open"].column("nothing")
    with pytest.raises(KeyError):
        arrow_schema("nothing")


@pytest.mark.parametrize("kind", [KINDS[name] for name in PROBES], ids=lambda kind: kind.name)
def test_what_the_kernel_writes_is_declared_soundly(kind: Kind) -> None:
    names = [member.name for each in layouts(kind)[:1] for member in each.members]
    assert len(set(names)) == len(names)
    assert all(field.ctype in CTYPES or re.fullmatch(r"(char|u8|u32)\[\d+\]", field.ctype) for field in (*HEAD, *kind.fields))
    assert all(area.short <= area.medium <= area.long for area in kind.areas)
    assert kind.composed or all(slot.short == slot.long for slot in kind.slots if slot.source is Source.OWN), "it is in the draft, which has one size"
    assert kind.ring in BUFFERS


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=lambda each: each.name)
def test_rings_can_be_made(buffer: Buffer) -> None:
    assert buffer.bytes >= 1 << 20
    assert buffer.bytes & (buffer.bytes - 1) == 0, "the kernel takes powers of two only"
    assert records_of(buffer.name), "nothing goes through it"


def test_every_record_goes_through_one_ring() -> None:
    """And process life through one of its own."""
    through = [record.name for buffer in BUFFERS for record in records_of(buffer)]
    assert sorted(through) == sorted(record.name for name in PROBES for record in layouts(KINDS[name]))
    assert [record.name for record in records_of("process")] == ["process"]
    for length in (Length.MEDIUM, Length.LONG):
        assert {record.length for record in records_of(length.value)} == {length}
    assert records_of("nothing") == ()
