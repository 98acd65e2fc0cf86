"""Names of users and groups."""

import os
from pathlib import Path

from infrasight.node.names.users import Names


def write(path: Path, content: bytes, stamp: int) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(stamp, stamp))


def test_names_and_numbers(tmp_path: Path) -> None:
    write(tmp_path / "passwd", b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:\nsecond:x:0:0::/:\n", 1)
    names = Names(tmp_path / "passwd")
    assert [names.name(number) for number in (0, 33, 34, 2**32 - 1)] == [b"root", b"www-data", b"34", b"4294967295"]


def test_lines_that_are_none(tmp_path: Path) -> None:
    write(tmp_path / "group", b"\n#comment\n:::\nfew:x\nno-number:x:abc:\nminus:x:-1:\n+\nlast\xff:x:7:a,b\nmissing-end:x:8:", 1)
    names = Names(tmp_path / "group")
    assert [names.name(number) for number in (7, 8, 9)] == [b"last\xff", b"missing-end", b"9"]


def test_remarks_and_entries_for_nis(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("#old:x:0:\n+nis:x:0:\n-not:x:0:\n+::::::\n+@group::0:\n  root:x:0:\n")
    assert Names(tmp_path / "passwd").name(0) == b"root"


def test_a_change_is_seen_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    write(path, b"one:x:1:\n", 1)
    names = Names(path)
    write(path, b"two:x:1:\n", 2)
    assert names.name(1) == b"one"
    names.refresh()
    assert names.name(1) == b"two"


def test_a_file_that_did_not_change_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    write(path, b"one:x:1:\n", 1)
    names = Names(path)
    write(path, b"two:x:1:\n", 1)
    names.refresh()
    assert names.name(1) == b"one"


def test_a_missing_file_leaves_what_was_known(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    assert Names(path).name(1) == b"1"
    write(path, b"one:x:1:\n", 1)
    names = Names(path)
    path.unlink()
    names.refresh()
    assert names.name(1) == b"one"
    path.mkdir()
    names.refresh()
    assert names.name(1) == b"one"
