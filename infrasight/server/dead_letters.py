"""Rows of `dead_letter`: what never can be stored as what it was sent as is kept as it is, with the reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from infrasight.schema import arrow_schema
from infrasight.schema.events.dead_letter import DEAD_LETTER, PAYLOAD_MAX


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
    columns: dict[str, list[Any]] = {
        "ts": [time.time_ns()] * len(letters),
        "node": [node.encode()] * len(letters),
        "epoch": [int(epoch)] * len(letters),
        "seq": [int(seq)] * len(letters),
        "kind": [kind.encode()[:64]] * len(letters),
        "rows": [letter.rows for letter in letters],
        "reason": [reason.encode()] * len(letters),
        "length": [letter.length for letter in letters],
        "payload": [letter.head for letter in letters],
    }
    schema = arrow_schema(DEAD_LETTER.name)
    return pa.RecordBatch.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(values: list[Any], type: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(type):
        return pa.array(values, type.value_type).dictionary_encode().cast(type)
    return pa.array(values, type)
