"""Answers over HTTP: whole, in pieces, and broken off in the middle, as each age of ClickHouse says it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from infrasight.errors import StoreUnavailable
from infrasight.store.addresses import parse
from infrasight.store.http import Session
from infrasight.store.session import EngineError
from tests.store.clickhouse import ClickHouse

ROWS = b"".join(b"%d\n" % number for number in range(20_000))
SAID = b"Code: 395. DB::Exception: Value passed to 'throwIf' is non-zero. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.9.1.1 (official build))"
TAG = b"abcdefghijklmnop"
CUT = b"cut"
"""The end of a body that has none: the connection is closed instead."""


@contextmanager
def answering(*body: bytes, header: bytes = b"") -> Iterator[Session]:
    """A session with a server that gives one answer, in these chunks."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\nSELECT" not in request:
                    request += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + header + b"\r\n")
                for chunk in body:
                    if chunk is CUT:
                        return
                    connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                connection.sendall(b"0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        session = Session(parse(f"clickhouse://127.0.0.1:1/?http_port={server.getsockname()[1]}"))
        try:
            yield session
        finally:
            session.close()
            thread.join()


def fetched(session: Session) -> Iterator[bytes]:
    stream = session.stream("SELECT 1", "TSV")
    while (chunk := stream.fetch()) is not None:
        assert chunk
        yield chunk


@pytest.mark.parametrize("cut", [1, 7, 64, 1000, 65536])
def test_an_answer_in_pieces_of_any_size(cut: int) -> None:
    with answering(*(ROWS[start : start + cut] for start in range(0, len(ROWS), cut))) as session:
        assert b"".join(fetched(session)) == ROWS


@pytest.mark.parametrize(
    ("tail", "header"),
    [
        (
            [b"\r\n__exception__\r\n" + TAG + b"\r\n" + SAID + b"\n150 " + TAG + b"\r\n__exception__\r\n", CUT],
            b"X-ClickHouse-Exception-Tag: " + TAG + b"\r\n",
        ),
        ([b"__exception__\r\n" + SAID + b"\n", CUT], b""),
        ([b"\r\n__exce", b"ption__\r", b"\n" + SAID[:9], SAID[9:], CUT], b""),
        ([b"Code: 395, e.displayText() = DB::Exception: Value passed to 'throwIf' is non-zero, e.what() = DB::Exception\n"], b""),
    ],
    ids=["26.9", "25.3", "cut anywhere", "18.16"],
)
def test_an_error_after_the_first_rows(tail: list[bytes], header: bytes) -> None:
    """None of the error is taken for rows. All rows but the last, which come with it, may have been handed out."""
    with answering(ROWS, *tail, header=header) as session:
        got = []
        with pytest.raises(EngineError, match=r"^Value passed to 'throwIf' is non-zero") as error:
            got += fetched(session)
        assert error.value.code == 395
        assert "\n" not in str(error.value)
        assert ROWS.startswith(b"".join(got))


def test_an_answer_that_breaks_off_is_not_taken_for_whole() -> None:
    with answering(ROWS, CUT) as session, pytest.raises(StoreUnavailable, match="the connection broke"):
        list(fetched(session))
    with answering(ROWS, CUT) as session, pytest.raises(StoreUnavailable, match="the connection broke"):
        session.execute("SELECT 1")


def test_text_that_looks_like_an_error_is_rows() -> None:
    rows = b"__exception__\tCode: 1\nCode: 1. DB::Exception: no\n"
    with answering(rows) as session:
        assert b"".join(fetched(session)) == rows


@pytest.mark.needs("clickhouse")
def test_a_real_error_after_the_first_rows(clickhouse: ClickHouse) -> None:
    session = Session(parse(clickhouse.url()))
    session._settings = {}  # the database is not there
    stream = session.stream("SELECT number, throwIf(number = 300000) FROM system.numbers LIMIT 1000000", "TSV")
    rows: list[bytes] = []
    with pytest.raises(EngineError, match=r"throwIf.*\[ClickHouse 395\]$"):
        rows += iter(stream.fetch, None)
    assert b"".join(rows).splitlines()[100_000] == b"100000\t0"
    session.close()


@pytest.mark.needs("clickhouse")
def test_a_query_is_given_up_while_its_server_waits_for_us_to_read(clickhouse: ClickHouse) -> None:
    session = Session(parse(clickhouse.url()))
    session._settings = {}
    session.execute("CREATE DATABASE IF NOT EXISTS infrasight")
    session._mark = "0123456789abcdef"
    stream = session.stream("SELECT number FROM system.numbers", "TSV")
    assert stream.fetch()
    stream.cancel()
    stream.cancel()
    other = Session(parse(clickhouse.url()))
    other._settings = {}
    assert other.rows("SELECT count() FROM system.processes WHERE query LIKE '%system.numbers' AND query NOT LIKE '%processes%'") == [["0"]]
