"""Doing once for nothing what the node is for."""

from __future__ import annotations

import numpy as np

from infrasight.actors import Mailbox
from infrasight.kernel import Records
from infrasight.node.columns import FEW
from infrasight.node.enricher import Enricher
from infrasight.node.flow import Drain
from infrasight.schema import KINDS
from infrasight.schema.layout import layout, stride
from infrasight.wire.codec import encode, join


def rehearse() -> None:
    """Make batches of many rows, and encode them. The first take Arrow 40 ms, in which a flood that breaks out would fill a ring."""
    record = layout(KINDS["open"])
    view = np.zeros(2 * FEW, record.dtype(stride([record])))
    enricher = Enricher(Mailbox("rehearsed drains", limit=1), Mailbox("rehearsed batches", limit=1), node="", boot="")
    for place in (0, 1):  # paths that say all, and such as need to be told where they lead
        view["path_place_len"] = place
        for batch in enricher.batches(Drain([], [(record, Records.gather(record, view))], [], [], 0)):
            encode(join([batch.columns, batch.columns]))
