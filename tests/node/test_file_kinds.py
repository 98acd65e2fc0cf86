"""Kinds about the file tree as rows: their strings, where paths led, and what the columns of a mount mean by its call."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infrasight.kernel import Records
from infrasight.schema import KINDS
from infrasight.schema.events.mount import CALLS
from infrasight.schema.layout import stride
from tests.node.records import layout_of
from tests.node.test_enricher import drain, enricher_of, one, rows

CALL_OF = {name: number for number, name in CALLS.items()}
CWD = b"b\0a\0"  # /a/b, as the kernel tells it
ROOT = b"jail\0srv\0"


def told(tmp_path: Path, kind: str, count: int, **members: list[Any]) -> list[dict[str, Any]]:
    """The kind's own columns of records which have only the members given; strings are empty and numbers 0 in the others."""
    layout = layout_of(kind)
    view = np.zeros(count, layout.dtype(stride([layout])))
    for name, values in members.items():
        for row, value in enumerate(values):
            if isinstance(value, bytes):
                view[name][row, : len(value)] = np.frombuffer(value, np.uint8)
                view[f"{name}_len"][row] = len(value)
            else:
                view[name][row] = value
    found = rows(one(enricher_of(tmp_path), drain((kind, Records.gather(layout, view)))))
    columns = [column.name for column in KINDS[kind].columns if 20 <= column.number < 100]
    return [{name: row[name] for name in columns} for row in found]


def path(name: str, given: bytes, led: bytes) -> dict[str, bytes]:
    return {name: given, f"{name}_resolved": led}


@pytest.mark.parametrize(
    ("given", "names", "flags", "led"),
    [
        (b"/x", b"", 0, b"/x"),
        (b"x/../\xff\n", CWD, 0, b"/a/b/\xff\n"),
        (b"../..", CWD, 0, b"/"),
        (b"../../../..", CWD, 2, b".../"),
        (b"x", b"...\0" + CWD, 0, b"/a/b/.../x"),
        (b".../x", CWD, 0, b"/a/b/.../x"),
        (b"/../../x", ROOT, 0, b"/srv/jail/x"),
        (b"/", ROOT, 0, b"/srv/jail"),
        (b"/", b"\0", 0, b"/"),
        (b"/../x", b"\0", 0, b"/x"),
        (b"anything", CWD, 1, b"/a/b"),
        (b"/anything", CWD, 3, b".../a/b"),
        (b"x", b"", 0, b""),
        (b"", b"", 0, b""),
        (b"", CWD, 0, b"/a/b"),
    ],
)
def test_where_a_path_leads(tmp_path: Path, given: bytes, names: bytes, flags: int, led: bytes) -> None:
    (row,) = told(tmp_path, "unlink", 1, path=[given], path_place=[names], path_whole=[flags], directory=[1])
    assert row == {**path("path", given, led), "directory": 1}


def test_two_paths(tmp_path: Path) -> None:
    both = {"old_path": [b"x", b"/x"], "old_path_place": [CWD, b""], "new_path": [b"/y", b"y"], "new_path_place": [ROOT, b"\0"], "flags": [2, 0]}
    expected = [
        {**path("old_path", b"x", b"/a/b/x"), **path("new_path", b"/y", b"/srv/jail/y"), "flags": 2},
        {**path("old_path", b"/x", b"/x"), **path("new_path", b"y", b"/y"), "flags": 0},
    ]
    assert told(tmp_path, "rename", 2, **both) == told(tmp_path, "link", 2, **both) == expected


def test_mkdir_symlink_chroot(tmp_path: Path) -> None:
    given = {"path": [b"x"], "path_place": [CWD]}
    led = path("path", b"x", b"/a/b/x")
    assert told(tmp_path, "mkdir", 1, mode=[0o1750], **given) == [{**led, "mode": 0o1750}]
    assert told(tmp_path, "symlink", 1, target=[b"\x1b"], **given) == [{**led, "target": b"\x1b"}]
    assert told(tmp_path, "chroot", 1, call=[0], **given) == [{**led, **path("put_old", b"", b""), "call": b"chroot"}]
    assert told(tmp_path, "chroot", 1, call=[1], put_old=[b"/y"], **given) == [{**led, **path("put_old", b"/y", b"/y"), "call": b"pivot_root"}]


def test_what_the_columns_of_a_mount_mean(tmp_path: Path) -> None:
    """Of fsconfig the one string is a value, and the source too when the key says so."""
    table = [
        # call, command, source slot, key -> source, value, command, key
        (("mount", 0, b"/dev/sda", b""), (b"/dev/sda", b"", b"", b"")),
        (("move_mount", 1, b"/from", b""), (b"/from", b"", b"", b"")),
        (("fsopen", 7, b"", b""), (b"", b"", b"", b"")),
        (("fsconfig", 0, b"", b"ro"), (b"", b"", b"FSCONFIG_SET_FLAG", b"ro")),
        (("fsconfig", 1, b"/dev/sdb", b"source"), (b"/dev/sdb", b"/dev/sdb", b"FSCONFIG_SET_STRING", b"source")),
        (("fsconfig", 1, b"64k", b"size"), (b"", b"64k", b"FSCONFIG_SET_STRING", b"size")),
        (("fsconfig", 1, b"v", b"sources"), (b"", b"v", b"FSCONFIG_SET_STRING", b"sources")),
        (("fsconfig", 6, b"", b""), (b"", b"", b"FSCONFIG_CMD_CREATE", b"")),
        (("fsconfig", 99, b"", b""), (b"", b"", b"99", b"")),
    ]
    raw = {name: [given[place] for given, _ in table] for place, name in enumerate(("call", "command", "source", "key"))}
    raw["call"] = [CALL_OF[name] for name in raw["call"]]
    found = told(tmp_path, "mount", len(table), **raw, fd=list(range(-1, 8)), aux=[-7] * 9, attr_set=[2**63] * 9, flags=[2**40] * 9)
    columns = ("source", "value", "command", "key")
    assert [tuple(row[name] for name in columns) for row in found] == [meant for _, meant in table]
    assert [row["call"].decode() for row in found] == [given[0] for given, _ in table]
    assert [(row["fd"], row["aux"], row["attr_set"], row["flags"]) for row in found] == [(fd, -7, 2**63, 2**40) for fd in range(-1, 8)]
