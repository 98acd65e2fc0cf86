"""Deduplication marks that a crash left without their rows.

ClickHouse's plain MergeTree notes a batch's token in `deduplication_logs/` just before it puts the batch's part in place
(MergeTreeSink::commitPart: addPart, then renameTempPartAndAdd). A process killed in between leaves a token whose rows never came, and the batch,
sent again, would be taken for a duplicate and lost. So before the engine starts, such marks are taken off the end of each log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from infrasight.errors import StoreUnavailable

_PART = re.compile(r"(?P<partition>[^_]+)_(?P<first>\d+)_(?P<last>\d+)_\d+(_\d+)?")
_ADDED = b"1"
"""First field of a record that adds a token; 2 takes one away (MergeTreeDeduplicationLog.cpp)."""

Part = tuple[str, int, int]
"""Partition, first and last block."""


def repair(data: Path) -> int:
    """Repair every table under chDB's directory; how many marks were taken off. The engine must not run. Raises StoreUnavailable."""
    try:
        return sum(_repair_table(logs) for logs in sorted(data.glob("store/*/*/deduplication_logs")))
    except OSError as error:
        raise StoreUnavailable(f"store {error.filename or data}: {error.strerror}") from error


def _repair_table(logs: Path) -> int:
    parts = [part for entry in os.scandir(logs.parent) if entry.is_dir() and (part := _parse(entry.name))]
    removed = 0
    for log in sorted(logs.glob("deduplication_log_*.txt"), key=_number, reverse=True):
        kept, lost = _without_orphans(log.read_bytes(), parts)
        if lost:
            os.truncate(log, kept)
            removed += lost
        if kept:
            break  # a mark that has its rows: all before it were in place when it was made
    return removed


def _without_orphans(log: bytes, parts: Iterable[Part]) -> tuple[int, int]:
    """How many bytes of a log to keep, and how many records that takes off its end. A torn last line goes too."""
    kept = log.rfind(b"\n") + 1
    removed = int(kept < len(log))
    while kept:
        start = log.rfind(b"\n", 0, kept - 1) + 1
        operation, name, *_ = [*log[start : kept - 1].split(b"\t"), b""]
        part = _parse(name.decode(errors="replace"))
        if operation != _ADDED or part is None or any(_covers(other, part) for other in parts):
            break
        kept, removed = start, removed + 1
    return kept, removed


def _covers(part: Part, other: Part) -> bool:
    return part[0] == other[0] and part[1] <= other[1] and other[2] <= part[2]


def _parse(name: str) -> Part | None:
    match = _PART.fullmatch(name)
    return (match["partition"], int(match["first"]), int(match["last"])) if match else None


def _number(log: Path) -> int:
    return int(log.stem.rpartition("_")[2])
