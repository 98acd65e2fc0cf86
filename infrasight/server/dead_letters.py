"""Rows of `dead_letter`: what never can be stored as what it was sent as is kept as it is, with the reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from infrasight.schema.events.dead_letter import DEAD_LETTER, PAYLOAD_MAX
from infrasight.server.rows import made


class Letter(NamedTuple):
    """A batch, or a piece of one, as it came."""

    rows: int
    """As the node says."""
    length: int
    """Bytes of the payload."""
    head: bytes
    """What is kept of it."""

    @classmethod
    def of(cls, rows: int, payload: bytes) -> Letter:
        """Of a whole payload."""
        return cls(rows, len(payload), payload[:PAYLOAD_MAX])

    @property
    def nbytes(self) -> int:
        """What it holds in memory, about."""
        return len(self.head) + 200


def as_rows(token: str, kind: str, reason: str, letters: Sequence[Letter]) -> pa.RecordBatch:
    """A row for each. `token` is (node, epoch, seq), as `Session.token` writes it."""
    node, epoch, seq = token.rsplit(":", 2)
    about = {"ts": time.time_ns(), "node": node, "epoch": int(epoch), "seq": int(seq), "event_kind": kind[:64], "reason": reason}
    return made(DEAD_LETTER.name, [about | {"rows": letter.rows, "length": letter.length, "payload": letter.head} for letter in letters])
