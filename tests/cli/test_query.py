"""`infrasight query`: what comes back as a table, JSON and CSV, and what goes wrong in one line."""

from __future__ import annotations

import csv
import io
import json

import pytest

from infrasight.cli.ask import ascii_json, literal
from infrasight.cli.main import main
from infrasight.errors import QueryFailed, QueryRefused
from tests.cli.stub import Stub, refuse, served

TABLE = "JSONCompactStringsEachRowWithNamesAndTypes"
HOSTILE = b"\xff\x1b[2J\xe2\x80\xae"


def ask(stub: Stub, *argv: str) -> int:
    with served(stub) as port:
        return main(["query", *argv, "--server-port", port])


def canned(expected: str, *chunks: bytes) -> Stub:
    """Answers in chunks, for one format only."""

    def answer(_sql: str, format: str) -> list[bytes]:
        assert format == expected
        return list(chunks)

    return Stub(answer)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    stub = canned(TABLE, b'["comm", "n"]\n["String", "UInt6', b'4"]\n["b\\u001b\xff\\n", "12"]\n["\xe6\x97\xa5\xe6\x9c\xac","7"]\n')
    assert ask(stub, "SELECT comm, count() FROM open") == 0
    assert capsys.readouterr().out.splitlines() == [
        "comm        n",
        "─────────  ──",
        r"b\e\xff\n  12",
        "日本        7",
    ]


def test_a_table_without_rows_has_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(canned(TABLE, b'["comm"]\n["String"]\n'), "SELECT comm FROM open") == 0
    assert capsys.readouterr().out.splitlines() == ["comm", "────"]


def test_json_is_one_array_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    stub = canned("JSONEachRow", b'{"path":"/\xc3\xa9', HOSTILE.replace(b"\x1b", b"\\u001b"), b'"}\n{"n":18446744073709551615}\n')
    assert ask(stub, "SELECT 1", "-o", "json") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == [{"path": "/é\\xff\x1b[2J\u202e"}, {"n": 2**64 - 1}]


def test_json_of_nothing_is_an_empty_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(canned("JSONEachRow"), "SELECT 1 WHERE 0", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_csv_has_a_header_and_keeps_newlines_in_values(capsys: pytest.CaptureFixture[str]) -> None:
    stub = canned("CSVWithNames", b'"path","n"\n"a\nb', b'",1\n')
    assert ask(stub, "SELECT 1", "--output=csv") == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [["path", "n"], ["a\nb", "1"]]


def test_sql_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 'in'\n"))
    stub = canned("JSONEachRow")
    assert ask(stub, "-", "-o", "json") == 0
    assert stub.asked == ["SELECT 'in'\n"]
    capsys.readouterr()


@pytest.mark.parametrize("error", [QueryRefused("only SELECT\nis allowed"), QueryFailed("Unknown table 'nope' \x1b[31m")])
def test_a_refusal_is_one_safe_line(error: QueryRefused | QueryFailed, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(Stub(refuse(error)), "DROP TABLE open") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("infrasight: ")
    assert "\x1b" not in said.err


def test_nobody_there(unused_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT 1", "--server-port", str(unused_port)]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "infrasight up" in line


def test_no_sql(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "  "]) == 1
    assert capsys.readouterr().err == "infrasight: there is no SQL to ask\n"


def test_literals_cannot_end_early() -> None:
    assert literal("a'b\\") == r"'a\'b\\'"
    assert literal("\udcff") == r"'\xff'"


def test_json_escapes_keep_the_meaning() -> None:
    assert ascii_json(b'{"a":1}') == '{"a":1}'
    assert ascii_json(rb'{"a":"\/etc\\/\"\/"}') == r'{"a":"/etc\\/\"/"}'
    assert json.loads(ascii_json('{"a":"\U0001f600\x7f\\n\\\\"}'.encode() + b"")) == {"a": "\U0001f600\x7f\n\\"}
    assert json.loads(ascii_json(b'{"a":"\\\\\xff"}')) == {"a": "\\\\xff"}
