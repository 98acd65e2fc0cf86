from __future__ import annotations

import betterproto2
import pytest

from infrasight.schema import KINDS, Type
from infrasight.wire import SubscribeResponse
from infrasight.wire.events import encode_events, encode_response, to_messages
from tests.wire.batches import batch, with_column


def expected(kind: str, row: dict[str, object]) -> dict[str, object]:
    """The fields of a row's message, worked out the slow way."""
    fields: dict[str, object] = {}
    for column in KINDS[kind].columns:
        value = row[column.name]
        match column.type:
            case Type.NAME | Type.TEXT:
                fields[column.name] = value.decode("utf-8", "backslashreplace")
            case Type.LINEAGE:
                fields[column.name] = [name.decode() for name in value.split(b"\0") if name]
            case Type.WORDS:
                fields[column.name] = [word.decode("utf-8", "backslashreplace") for word in value]
            case Type.BOOL:
                fields[column.name] = bool(value)
            case Type.TIME:
                fields[column.name] = value.value
            case _:
                fields[column.name] = value
    return fields


@pytest.mark.needs("pandas")
@pytest.mark.parametrize("kind", KINDS)
def test_every_column_arrives(kind: str) -> None:
    source = batch(kind, 307)
    messages = to_messages(kind, source)
    assert len(messages) == 307
    for message, row in zip(messages, source.to_pylist(), strict=True):
        name, event = betterproto2.which_one_of(message, "kind")
        assert name == kind
        assert {column.name: getattr(event, column.name) for column in KINDS[kind].columns} == expected(kind, row)


def test_chosen_rows_only_and_in_their_order() -> None:
    messages = to_messages("open", batch("open", 100), [7, 3, 3])
    whole = to_messages("open", batch("open", 100))
    assert messages == [whole[7], whole[3], whole[3]]
    assert to_messages("open", batch("open", 100), []) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("ret", -(2**63)), ("ret", 2**63 - 1), ("dirfd", -(2**31)), ("process_id", 2**64 - 1), ("flags", 2**32 - 1), ("ret", 0)],
)
def test_extremes(name: str, value: int) -> None:
    (message,) = to_messages("open", with_column(batch("open", 1), name, [value]))
    assert getattr(message.open, name) == value


def test_long_text() -> None:
    path = b"/" + b"x" * 4094
    (message,) = to_messages("open", with_column(batch("open", 1), "path", [path]))
    assert message.open.path == path.decode()


def test_a_response_is_read_by_any_protobuf_library() -> None:
    source = batch("open", 20)
    response = SubscribeResponse.parse(encode_response(encode_events("open", source), 300))
    assert response == SubscribeResponse(events=to_messages("open", source), dropped=300)
    assert encode_response([], 0) == b""
