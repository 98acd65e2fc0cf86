"""What the node's actors hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from infrasight.kernel import Records
from infrasight.schema.layout import Layout


@dataclass(frozen=True)
class Loss:
    """So many events of one probe were lost for one reason, between two times (ns since the epoch)."""

    probe: str
    reason: str
    count: int
    since_ns: int
    until_ns: int


@dataclass(frozen=True)
class Drain:
    """What one look at the rings brought. Whoever holds it owns the records; nobody writes into them."""

    life: list[Records]
    """Process life, to be learned before `data` is read."""
    data: list[tuple[Layout, Records]]
    losses: list[Loss]
    accounts: list[tuple[Layout, Records]]
    """Accounts of processes as they were just before, some of a kind at a time."""
    wall_offset_ns: int
    """To be added to a record's monotonic clock to get ns since the epoch."""
    looked_ns: int = 0
    """When the accounts were looked at, by the monotonic clock."""
    swept: str = ""
    """The kind of which, with this, all accounts have come."""
    whole_until_ns: int = 0
    """All events of before this time (monotonic) have come by now."""

    def weight(self) -> int:
        """Bytes."""
        return sum(records.nbytes for records in self.life) + sum(records.nbytes for _, records in (*self.data, *self.accounts))


@dataclass(frozen=True)
class Batch:
    """Columns of one kind, in the schema `arrow_schema(kind)`; never empty."""

    kind: str
    columns: pa.RecordBatch
    oldest_ns: int
    """`ts` of its first row, ns since the epoch."""

    def weight(self) -> int:
        """Bytes."""
        return int(self.columns.get_total_buffer_size())


@dataclass(frozen=True)
class Encoded:
    """A batch, or a piece of one, as it travels: frozen, so that sending it again is sending the same bytes."""

    seq: int
    kind: str
    rows: int
    payload: bytes = field(repr=False)
    oldest_ns: int
    more: bool = False
    """Whether more of the batch follows, under the same `seq`."""
    epoch: int = 0
    """The life of the node that it is from; 0: this one."""
    piece: int = 0
    """Which piece of its batch it is, from 0 on."""

    def weight(self) -> int:
        """Bytes."""
        return len(self.payload)


@dataclass
class Attention:
    """Whether somebody watches: then what happens is told at once, else when it is worth it."""

    watched: bool = False
