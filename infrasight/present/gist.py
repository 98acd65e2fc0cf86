"""What matters in an event of each kind, in a few words. Pieces are (text, style) with the text already safe to show."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from infrasight.present.safe import command, printable

Row = Mapping[str, Any]
Piece = tuple[str, str]

_ACCESS = {os.O_RDONLY: "rdonly", os.O_WRONLY: "wronly", os.O_RDWR: "rdwr", os.O_ACCMODE: "ioctl"}
_FLAGS = (
    "TMPFILE",
    "SYNC",
    "DSYNC",
    "CREAT",
    "EXCL",
    "TRUNC",
    "APPEND",
    "DIRECTORY",
    "NOFOLLOW",
    "PATH",
    "NONBLOCK",
    "NOCTTY",
    "DIRECT",
    "NOATIME",
)
_NOT_ERRNO = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}  # include/linux/errno.h


def error_name(ret: int) -> str:
    """`-2` -> `ENOENT`; the number where it has no name."""
    return errno.errorcode.get(-ret) or _NOT_ERRNO.get(-ret, str(ret))


def open_flags(flags: int) -> str:
    """`0o100001` -> `wronly|...`: the access mode, then the O_* names in lower case; bits without a name stay in hexadecimal."""
    words = [_ACCESS[flags & os.O_ACCMODE]]
    rest = flags & ~os.O_ACCMODE & ~os.O_CLOEXEC
    for name in _FLAGS:
        bits = getattr(os, f"O_{name}")
        if bits and rest & bits == bits:
            words.append(name.lower())
            rest &= ~bits
    words += ["cloexec"] if flags & os.O_CLOEXEC else []
    return "|".join(words + ([hex(rest)] if rest else []))


def signal_name(number: int) -> str:
    """`9` -> `SIGKILL`; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _outcome(row: Row, good: str = "") -> list[Piece]:
    """An arrow and what came of the call; `good` is what a success shows, nothing when empty."""
    if row["ret"] >= 0:
        return [(f" → {good}", "faint")] if good else []
    return [(" → ", "faint"), (error_name(row["ret"]), "plain" if row["ret"] == -errno.EINPROGRESS else "bad")]


def _execve(row: Row) -> list[Piece]:
    words = row["argv"]
    shown = command(words) + (" …" if row["argv_truncated"] else "")
    asked = [] if words and words[0] == row["path"] else [(printable(row["path"]), "strong"), (" as ", "faint")]
    return [*asked, (shown or "(no arguments)", "strong" if not asked else "plain"), *_outcome(row)]


def _open(row: Row) -> list[Piece]:
    return [(printable(row["path"]), "strong"), (f" {open_flags(row['flags'])}", "faint"), *_outcome(row, str(row["ret"]))]


def _connect(row: Row) -> list[Piece]:
    if row["family"] in ("inet", "inet6"):
        address = printable(row["daddr"])
        where = f"[{address}]:{row['dport']}" if ":" in address else f"{address}:{row['dport']}"
    else:
        where = printable(row["path"]) or "(no path)"
    how = printable(row["protocol"] if row["family"] in ("inet", "inet6") else f"{row['family']} {row['protocol']}")
    return [(how + " ", "faint"), (where, "strong"), *_outcome(row)]


def _process(row: Row) -> list[Piece]:
    if row["action"] == "fork":
        parent = printable(row["ancestors"][0]) if row["ancestors"] else "?"
        return [("fork", "strong"), (f" by {parent} ({row['ppid']})", "faint")]
    if row["action"] != "exit":
        return [(printable(row["action"]), "strong")]
    if row["signal"]:
        return [("exit ", "strong"), (signal_name(row["signal"]), "bad")]
    return [("exit ", "strong"), (str(row["exit_code"]), "bad" if row["exit_code"] else "plain")]


def _loss(row: Row) -> list[Piece]:
    return [(f"{row['count']} {printable(row['probe'])} events lost", "bad"), (f" ({printable(row['reason'])})", "plain")]


def _any(row: Row) -> list[Piece]:
    return [(printable(" ".join(f"{name}={value}" for name, value in row.items())), "plain")]


def _chmod(row: Row) -> list[Piece]:
    what = printable(row["path"]) if row["fd"] < 0 else f"fd {row['fd']}"
    return [(what, "strong"), (f" {row['mode']:04o}", "plain"), *_outcome(row)]


def _ptrace(row: Row) -> list[Piece]:
    return [(printable(row["request"]), "strong"), (f" of {row['target_pid']}", "plain"), *_outcome(row)]


def _mount(row: Row) -> list[Piece]:
    kind = f" type {printable(row['fstype'])}" if row["fstype"] else ""
    return [(printable(row["source"]) or "(nothing)", "strong"), (f" on {printable(row['target'])}{kind}", "plain"), *_outcome(row)]


def _umount(row: Row) -> list[Piece]:
    return [(printable(row["target"]), "strong"), *_outcome(row)]


GISTS: dict[str, Callable[[Row], list[Piece]]] = {
    "execve": _execve,
    "open": _open,
    "connect": _connect,
    "process": _process,
    "loss": _loss,
    "chmod": _chmod,
    "ptrace": _ptrace,
    "mount": _mount,
    "umount": _umount,
}


def gist(kind: str, row: Row) -> list[Piece]:
    """What an event of `kind` is about."""
    return GISTS.get(kind, _any)(row)
