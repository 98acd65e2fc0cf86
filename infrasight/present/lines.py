"""One event, one line: compact for people, JSON for scripts. Takes plain mappings, as `rows_of` and the client's typed events give them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache

from infrasight.present.gist import Piece, Row, gist
from infrasight.present.safe import cut, printable, width_of

_STYLES = {"plain": "", "faint": "2", "strong": "1", "bad": "31", "who": "33"}
_KINDS = {"execve": "32", "open": "34", "connect": "35", "process": "36", "loss": "1;31"}
_NODE_COLUMNS = 12
_KIND_COLUMNS = 14
_CONTAINER_COLUMNS = 12
"""As much of a container's id as people are used to."""


@lru_cache(maxsize=256)
def _clock(second: int) -> str:
    """Local time of day; with the date when that is not today's."""
    then = datetime.fromtimestamp(second).astimezone()
    today = then.date() == datetime.now(then.tzinfo).date()
    return then.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def _pad(text: str, columns: int) -> str:
    return text + " " * (columns - width_of(text))


def _head(kind: str, row: Row, node: bool) -> list[Piece]:
    """Who and when: time, node, pid, user, comm, kind, and the container where there is one."""
    second, rest = divmod(row["ts"], 1_000_000_000)
    pieces = [(f"{_clock(second)}.{rest // 1_000_000:03d} ", "faint")]
    if node:
        pieces.append((_pad(printable(row["node"]), _NODE_COLUMNS) + " ", "faint"))
    who = f"{row['pid']:>7} {_pad(printable(row['user']), 8)} " if "pid" in row else " " * 17
    pieces += [(who, "plain"), (_pad(printable(row.get("comm", "")), 15) + " ", "who"), (_pad(kind, _KIND_COLUMNS) + " ", _KINDS.get(kind, ""))]
    if container := row.get("container_id"):
        pieces.append((cut(printable(container), _CONTAINER_COLUMNS) + " ", "faint"))
    return pieces


def _painted(text: str, style: str) -> str:
    code = _STYLES.get(style, style)
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


def compact_line(kind: str, row: Row, colour: bool = False, *, node: bool = False, width: int | None = None) -> str:
    """One line without its newline; every character in it that came from the kernel is printable.

    `row` has `ts` in nanoseconds since the epoch. `node` shows the node's name too; `width` is where the line is cut, in terminal columns.
    """
    pieces = [*_head(kind, row, node), *gist(kind, row)]
    if width is not None and sum(width_of(text) for text, _ in pieces) > width:
        pieces = _cut(pieces, width)
    return "".join(_painted(*piece) for piece in pieces) if colour else "".join(text for text, _ in pieces).rstrip()


def _cut(pieces: list[Piece], width: int) -> list[Piece]:
    kept, room = [], width - 1
    for text, style in pieces:
        kept.append((cut(text, room), style))
        room -= width_of(text)
        if room < 0:
            break
    return [*kept, ("…", "faint")]


def time_text(ns: int) -> str:
    """Nanoseconds since the epoch as `2026-01-31T12:00:00.123456789Z`."""
    second, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def json_line(kind: str, row: Row) -> str:
    """One JSON object in ASCII without its newline: `kind`, then every column; times in RFC 3339 with nanoseconds, UTC."""
    times = {name: time_text(row[name]) for name in ("ts", "since", "container_created", "container_started") if name in row}
    return json.dumps({"kind": kind, **row, **times}, separators=(",", ":")).replace("\x7f", "\\u007f")
