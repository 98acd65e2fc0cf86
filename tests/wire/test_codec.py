from __future__ import annotations

import random

import pyarrow as pa
import pytest

from infrasight.errors import InvalidBatch
from infrasight.schema import KINDS, SHIPPED, arrow_schema
from infrasight.wire.codec import decode, encode
from tests.wire.batches import batch, with_column


def stream(*batches: pa.RecordBatch, compression: str | None = "lz4") -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for each in batches:
            writer.write_batch(each)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("kind", SHIPPED)
@pytest.mark.parametrize("rows", [0, 1, 1009])
def test_a_batch_survives_the_wire(kind: str, rows: int) -> None:
    sent = batch(kind, rows)
    assert decode(kind, encode(sent)).equals(sent)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_other_compressions_are_taken(compression: str | None) -> None:
    sent = batch("open", 101)
    assert decode("open", stream(sent, compression=compression)).equals(sent)


def test_a_slice_is_sent_without_what_it_was_cut_from() -> None:
    whole = batch("open", 10_007)
    cut = whole.slice(5_000, 10)
    assert decode("open", encode(cut)).equals(cut)
    assert len(encode(cut)) < len(encode(whole)) / 3


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidBatch, match="no event kind 'ope\\\\n'"):
        decode("ope\n", encode(batch("open", 1)))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - SHIPPED))
def test_what_the_server_makes_is_not_for_nodes_to_ship(kind: str) -> None:
    with pytest.raises(InvalidBatch, match=f"^{kind}: the server's own"):
        decode(kind, encode(batch(kind, 1)))


def test_another_kinds_columns_are_refused() -> None:
    with pytest.raises(InvalidBatch, match="columns are not those of open"):
        decode("open", encode(batch("execve", 3)))


@pytest.mark.parametrize(
    "schema",
    [
        arrow_schema("open").with_metadata({"a": "b"}),
        pa.schema([field.with_nullable(True) for field in arrow_schema("open")]),
        pa.schema([field.with_name(field.name.upper()) for field in arrow_schema("open")]),
    ],
    ids=["metadata", "nullable", "names"],
)
def test_a_schema_that_is_nearly_right_is_refused(schema: pa.Schema) -> None:
    wrong = pa.RecordBatch.from_arrays(batch("open", 3).columns, schema=schema)
    with pytest.raises(InvalidBatch, match="columns are not those of open"):
        decode("open", stream(wrong))


@pytest.mark.parametrize(("name", "values"), [("pid", [1, None]), ("comm", [b"a", None])])
def test_nulls_are_refused(name: str, values: list[object]) -> None:
    with pytest.raises(InvalidBatch, match=f"open.{name} has nulls"):
        decode("open", stream(with_column(batch("open", 2), name, values)))


def test_nulls_in_a_list_and_in_a_dictionary_are_refused() -> None:
    with pytest.raises(InvalidBatch, match=r"execve\.argv has nulls"):
        decode("execve", stream(with_column(batch("execve", 1), "argv", [[b"a", None]])))
    comm = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([b"a", None], pa.binary()))
    columns = [comm if name == "comm" else column for name, column in zip(arrow_schema("open").names, batch("open", 1).columns, strict=True)]
    with pytest.raises(InvalidBatch, match=r"open\.comm has nulls"):
        decode("open", stream(pa.RecordBatch.from_arrays(columns, schema=arrow_schema("open"))))


def test_an_index_out_of_range_is_refused() -> None:
    indices = pa.array([7], pa.int32())
    comm = pa.DictionaryArray.from_arrays(indices, pa.array([b"a"], pa.binary()), safe=False)
    columns = [comm if name == "comm" else column for name, column in zip(arrow_schema("open").names, batch("open", 1).columns, strict=True)]
    with pytest.raises(InvalidBatch, match="not an Arrow stream of open"):
        decode("open", stream(pa.RecordBatch.from_arrays(columns, schema=arrow_schema("open"))))


def test_more_than_one_batch_is_refused() -> None:
    with pytest.raises(InvalidBatch, match="2 batches"):
        decode("loss", stream(batch("loss", 3), batch("loss", 3)))


def test_too_many_rows_are_refused() -> None:
    assert decode("loss", encode(batch("loss", 100)), max_rows=100).num_rows == 100
    with pytest.raises(InvalidBatch, match="101 rows in one batch, at most 100"):
        decode("loss", encode(batch("loss", 101)), max_rows=100)


def test_a_bomb_is_refused_before_it_is_decompressed() -> None:
    bomb = encode(with_column(batch("open", 1), "path", [b"\0" * (64 << 20)]))
    assert len(bomb) < 1 << 20
    before = pa.total_allocated_bytes()
    with pytest.raises(InvalidBatch, match="more than 1048576 bytes when decompressed"):
        decode("open", bomb, max_bytes=1 << 20)
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    column = with_column(batch("open", 1), "path", [b"\0" * (4 << 20)])
    honest = encode(column)
    size = (4 << 20).to_bytes(8, "little")
    assert honest.count(size) >= 1
    for lie in (1, 0, (1 << 62), (1 << 63) + 5):
        with pytest.raises(InvalidBatch):
            decode("open", honest.replace(size, lie.to_bytes(8, "little")))


def test_every_cut_is_refused() -> None:
    whole = encode(batch("loss", 7))
    for length in range(len(whole) - 8):  # the last 8 bytes only say that nothing follows
        with pytest.raises(InvalidBatch):
            decode("loss", whole[:length])


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_is_a_sound_batch_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    reasons: list[str] = []
    for kind in ("execve", "open", "loss"):
        whole = encode(batch(kind, 50))
        for _ in range(400):
            broken = bytearray(whole)
            for _ in range(chance.choice((1, 1, 2, 8))):
                place = chance.randrange(len(broken))
                broken[place : place + chance.choice((1, 8))] = chance.choice((b"\xff" * 8, bytes(8), chance.randbytes(1), chance.randbytes(8)))
            try:
                sound = decode(kind, bytes(broken), max_bytes=1 << 20)
            except InvalidBatch as error:
                reasons.append(str(error))
            else:
                sound.validate(full=True)
                assert sound.schema.equals(arrow_schema(kind))
    assert len(reasons) > 100
    assert not [reason for reason in reasons if "\n" in reason]
