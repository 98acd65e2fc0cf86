"""Spools for tests: batches to put in, and taking everything out."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import Any

from infrasight.node.delivery.lane import Held, Id
from infrasight.node.delivery.limits import SpoolLimits
from infrasight.node.delivery.spool import Spool
from infrasight.node.flow import Encoded, Loss
from infrasight.server.rows import made
from infrasight.wire.codec import encode

KINDS = ("execve", "open", "resource")
"""One of each lane, the most valuable first."""


def piece(seq: int, kind: str = "open", *, rows: int = 10, size: int = 100, more: bool = False, number: int = 0) -> Encoded:
    """Its payload says which it is."""
    mark = f"{kind} {seq} {number} ".encode()
    return Encoded(seq, kind, rows, (mark * (size // len(mark) + 1))[:size], 10**18 + seq, more, piece=number)


def telling(seq: int, losses: list[Loss]) -> Encoded:
    """Rows of `loss`, as the node has them made of what its ledger gives."""
    names = ("probe", "reason", "count", "since", "ts")
    rows = [{"node": "n1", **dict(zip(names, astuple(each), strict=True))} for each in losses]
    return Encoded(seq, "loss", len(rows), encode(made("loss", rows)), losses[0].since_ns)


def killed(spool: Spool) -> None:
    """Its process is: what the kernel does then."""
    os.close(spool.disk._lock)


def opened(directory: Path | None, **limits: Any) -> Spool:
    """A life of a node's spool."""
    spool = Spool(directory, SpoolLimits(**limits))
    spool.open()
    spool.recover()
    return spool


def payload(spool: Spool, held: Held) -> bytes | None:
    """As the exporter gets it."""
    return held.payload if held.payload is not None else spool.load(held)


def delivered(spool: Spool, most: int = 1 << 30) -> list[tuple[Id, str, int, bytes]]:
    """Take out as many batches, in the order of delivery, and have them acknowledged. What is damaged is not among them."""
    out: list[tuple[Id, str, int, bytes]] = []
    begun: dict[Id, list[Held]] = {}
    while len(out) < most and (held := spool.next()):
        data = payload(spool, held)
        if data is None:
            spool.damaged(held)
            data = b""
        pieces = begun.setdefault(held.id, [])
        pieces.append(held)
        held.payload = data
        if not held.more:
            whole = b"".join(each.payload or b"" for each in begun.pop(held.id))
            rows = sum(each.rows for each in pieces)
            if rows:
                out.append((held.id, held.kind, rows, whole))
            spool.done(pieces)
    return out


def rows(batches: list[tuple[Id, str, int, bytes]]) -> dict[str, int]:
    """By kind."""
    counts: Counter[str] = Counter()
    for _, kind, count, _ in batches:
        counts[kind] += count
    return dict(counts)
