from __future__ import annotations

import time

import pytest

from infrasight.errors import InvalidRequest
from infrasight.wire import Batch, Hello, QueryRequest, ShipRequest, SubscribeRequest
from infrasight.wire.strict import MAX_FIELDS, parse


@pytest.mark.parametrize(
    "message",
    [
        ShipRequest(hello=Hello(node="n", version="1", boot_id="b", epoch=2**64 - 1)),
        ShipRequest(batch=Batch(seq=2**63, kind="open", rows=7, arrow=b"\0\1" * 1000, oldest_unix_ns=5)),
        ShipRequest(),
        SubscribeRequest(kinds=["open", "execve"], pids=[1, 2**32 - 1], path_prefixes=["/etc/ž"]),
        QueryRequest(sql="SELECT 1", format="CSV"),
    ],
)
def test_what_we_write_we_read(message: ShipRequest | SubscribeRequest | QueryRequest) -> None:
    assert parse(bytes(message), type(message)) == message


def test_fields_of_a_newer_version_are_passed_over() -> None:
    newer = bytes(QueryRequest(sql="SELECT 1")) + b"\xfa\x01\x03abc" + b"\xf8\x01\x05"  # field 31, as bytes and as a number
    assert parse(newer, QueryRequest).sql == "SELECT 1"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0a\x05abc", "cut off"),
        (b"\x0a", "out of bounds"),
        (b"\x80" * 20, "too long"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01", "another type"),
        (b"\x0a\x02\xff\xfe", "decode"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut off"),
    ],
    ids=["cut", "no value", "endless varint", "group", "number for text", "not utf-8", "huge length"],
)
def test_what_is_malformed_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"not a QueryRequest.*{why}"):
        parse(data, QueryRequest)


def test_the_inside_is_checked_too() -> None:
    with pytest.raises(InvalidRequest, match=r"not a ShipRequest.*another type"):
        parse(b"\x0a\x02\x08\x01", ShipRequest)  # hello.node as a number


@pytest.mark.parametrize(
    "data", [b"\xf8\x01\x05" * 5_000_000, b"\x12" + b"\xc0\x96\xb1\x02" + b"\xf8\x01\x05" * 1_674_656], ids=["outside", "inside"]
)
def test_millions_of_unknown_fields_cost_nothing(data: bytes) -> None:
    """betterproto2 collects unknown fields in quadratic time: this many would hold the event loop for hours."""
    start = time.process_time()
    with pytest.raises(InvalidRequest, match=r"too many fields|cut off"):
        parse(data, ShipRequest)
    assert time.process_time() - start < 1


def test_packed_numbers_are_bounded() -> None:
    few = SubscribeRequest(pids=[1] * (MAX_FIELDS - 10))
    assert parse(bytes(few), SubscribeRequest) == few
    with pytest.raises(InvalidRequest, match="too many fields"):
        parse(bytes(SubscribeRequest(pids=[1] * (MAX_FIELDS + 10))), SubscribeRequest)
