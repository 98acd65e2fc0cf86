"""What a person and a script see of an event of each kind."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from typing import Any

import pytest

from infrasight.present.gist import error_name, open_flags, signal_name
from infrasight.present.lines import compact_line, json_line, time_text
from infrasight.present.safe import width_of
from infrasight.schema.kinds import KINDS

NOW = time.time_ns()
WHO: dict[str, Any] = {"ts": NOW, "node": "box", "pid": 4711, "ppid": 1, "user": "root", "comm": "bash", "ancestors": ["sshd", "systemd"]}
ROWS: dict[str, dict[str, Any]] = {
    "execve": WHO | {"ret": 0, "path": "/bin/ls", "argv": ["ls", "-l", "a b"], "argv_truncated": False},
    "open": WHO | {"ret": 3, "path": "/etc/passwd", "flags": os.O_RDONLY | os.O_CLOEXEC},
    "connect": WHO | {"ret": 0, "family": "inet", "protocol": "tcp", "daddr": "10.0.0.1", "dport": 443, "path": ""},
    "process": WHO | {"action": "exit", "exit_code": 0, "signal": 9},
    "chmod": WHO | {"ret": 0, "path": "/bin/sh", "mode": 0o4755, "dirfd": -100, "fd": -1, "flags": 0},
    "ptrace": WHO | {"ret": -3, "request": "PTRACE_ATTACH", "target_pid": 99, "addr": 0, "data": 0},
    "mount": WHO | {"ret": 0, "source": "/dev/sda1", "target": "/mnt", "fstype": "ext4", "flags": 0},
    "umount": WHO | {"ret": -22, "target": "/mnt", "flags": 0},
    "loss": {"ts": NOW, "node": "box", "since": NOW - 1, "probe": "open", "reason": "ring_full", "count": 7},
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def gist_of(kind: str, **changed: object) -> str:
    line = compact_line(kind, ROWS[kind] | changed)
    return line.split(f" {kind}", 1)[1].strip()


@pytest.mark.parametrize(
    ("kind", "changed", "shown"),
    [
        ("execve", {}, "/bin/ls as ls -l 'a b'"),
        ("execve", {"argv": ["/bin/ls"]}, "/bin/ls"),
        ("execve", {"ret": -errno.ENOENT, "argv": ["/bin/ls"], "argv_truncated": True}, "/bin/ls … → ENOENT"),
        ("execve", {"argv": []}, "/bin/ls as (no arguments)"),
        ("open", {}, "/etc/passwd rdonly|cloexec → 3"),
        ("open", {"ret": -13, "path": "a\nb\x1b[31m"}, r"a\nb\e[31m rdonly|cloexec → EACCES"),
        ("connect", {}, "tcp 10.0.0.1:443"),
        ("connect", {"family": "inet6", "daddr": "::1", "ret": -111}, "tcp [::1]:443 → ECONNREFUSED"),
        ("connect", {"family": "unix", "protocol": "stream", "path": "@x\0y", "daddr": ""}, r"unix stream @x\x00y"),
        ("connect", {"ret": -errno.EINPROGRESS}, "tcp 10.0.0.1:443 → EINPROGRESS"),
        ("process", {}, "exit SIGKILL"),
        ("process", {"signal": 0, "exit_code": 3}, "exit 3"),
        ("process", {"action": "fork"}, "fork by sshd (1)"),
        ("process", {"action": "exec"}, "exec"),
        ("chmod", {}, "/bin/sh 4755"),
        ("chmod", {"path": "", "fd": 5, "mode": 0o640, "ret": -1}, "fd 5 0640 → EPERM"),
        ("ptrace", {}, "PTRACE_ATTACH of 99 → ESRCH"),
        ("mount", {}, "/dev/sda1 on /mnt type ext4"),
        ("mount", {"source": "", "fstype": "", "ret": -2}, "(nothing) on /mnt → ENOENT"),
        ("umount", {}, "/mnt → EINVAL"),
        ("loss", {}, "7 open events lost (ring_full)"),
    ],
)
def test_the_gist(kind: str, changed: dict[str, object], shown: str) -> None:
    assert gist_of(kind, **changed) == shown


def test_there_is_a_sample_of_every_kind() -> None:
    assert ROWS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", list(KINDS))
def test_colour_changes_nothing_but_colour(kind: str) -> None:
    coloured = compact_line(kind, ROWS[kind], colour=True)
    assert "\x1b[" in coloured
    assert ANSI.sub("", coloured).rstrip() == compact_line(kind, ROWS[kind])


@pytest.mark.parametrize("kind", list(KINDS))
def test_kinds_are_aligned(kind: str) -> None:
    assert compact_line(kind, ROWS[kind]).index(f" {kind} ") == compact_line("open", ROWS["open"]).index(" open ")


def test_hostile_names_stay_on_the_line() -> None:
    row = ROWS["open"] | {"comm": "\x1b]0;x\x07\n", "user": "\r", "node": "\x9b", "path": "\u202e"}
    assert compact_line("open", row, node=True).isprintable()


@pytest.mark.parametrize("width", [1, 20, 50, 62, 63, 64, 200])
def test_a_narrow_terminal_cuts_with_an_ellipsis(width: int) -> None:
    row = ROWS["open"] | {"path": "/日本"}
    whole, line = compact_line("open", row), compact_line("open", row, width=width)
    assert width_of(line) <= width
    assert line == whole if width_of(whole) <= width else line.endswith("…")
    assert ANSI.sub("", compact_line("open", row, colour=True, width=width)) == line


def test_the_node_is_shown_on_request() -> None:
    assert " box " in compact_line("open", ROWS["open"], node=True)
    assert " box " not in compact_line("open", ROWS["open"])


def test_another_day_shows_its_date() -> None:
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} ", compact_line("open", ROWS["open"]))
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:", compact_line("open", ROWS["open"] | {"ts": NOW - 3 * 86_400 * 10**9}))


def test_a_kind_that_is_not_known_shows_its_columns() -> None:
    assert "colour=blue" in compact_line("paint", WHO | {"colour": "blue"})


@pytest.mark.parametrize("kind", list(KINDS))
def test_json_has_every_column(kind: str) -> None:
    line = json_line(kind, ROWS[kind] | {"node": "\x1b\x7f\u202e"})
    assert line.isascii()
    assert line.isprintable()
    said = json.loads(line)
    assert said.pop("kind") == kind
    assert said.keys() == ROWS[kind].keys()
    assert said["node"] == "\x1b\x7f\u202e"


def test_times_keep_their_nanoseconds() -> None:
    assert time_text(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"


def test_flags_by_name() -> None:
    assert open_flags(os.O_WRONLY | os.O_CREAT | os.O_TRUNC) == "wronly|creat|trunc"
    assert open_flags(os.O_RDWR | os.O_TMPFILE) == "rdwr|tmpfile"
    assert open_flags(os.O_RDONLY | os.O_SYNC | os.O_DIRECTORY) == "rdonly|sync|directory"
    assert open_flags(0x40000000) == "rdonly|0x40000000"


def test_numbers_without_a_name_stay_numbers() -> None:
    assert error_name(-4095) == "-4095"
    assert error_name(-512) == "ERESTARTSYS"
    assert signal_name(99) == "signal 99"
