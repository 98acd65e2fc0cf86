"""What the server knows about nodes: who is connected, and how much came from whom."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from infrasight.wire import Hello, NodeStatus

MAX_NODES = 4096
"""Nodes remembered; beyond it the one that was heard of first goes, connected or not."""


REMEMBERED = 128
"""Batches of each node that are remembered as stored: more than can have been on one stream without an Ack. The store itself forgets tokens after so
many inserts of all nodes together, and a node may come back after days with what it had no Ack for."""

log = logging.getLogger(__name__)


@dataclass
class Node:
    """One node since the server started. Times are ns since the epoch."""

    hello: Hello
    live: Counter[int] = field(default_factory=Counter)
    """Streams that are open, by epoch."""
    last_batch_unix_ns: int = 0
    last_oldest_unix_ns: int = 0
    batches: int = 0
    rows: int = 0
    rejected_batches: int = 0
    retried_batches: int = 0
    _stored: dict[tuple[int, int], None] = field(default_factory=dict)

    def received(self, oldest_unix_ns: int) -> None:
        """A batch came, whose oldest event is that old."""
        self.last_batch_unix_ns, self.last_oldest_unix_ns = time.time_ns(), oldest_unix_ns

    def stored(self, epoch: int, seq: int, rows: int) -> None:
        """A batch was stored."""
        self.batches += 1
        self.rows += rows
        self._stored[epoch, seq] = None
        if len(self._stored) > REMEMBERED:
            del self._stored[next(iter(self._stored))]

    def has(self, epoch: int, seq: int) -> bool:
        """Whether the batch is known to be stored."""
        return (epoch, seq) in self._stored

    def status(self) -> NodeStatus:
        """As the wire tells it."""
        return NodeStatus(
            name=self.hello.node,
            version=self.hello.version,
            boot_id=self.hello.boot_id,
            epoch=self.hello.epoch,
            connected=bool(self.live),
            last_batch_unix_ns=self.last_batch_unix_ns,
            last_oldest_unix_ns=self.last_oldest_unix_ns,
            batches=self.batches,
            rows=self.rows,
            rejected_batches=self.rejected_batches,
            retried_batches=self.retried_batches,
            live_epochs=sorted(self.live),
        )


class Nodes:
    """All nodes by name."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    @contextmanager
    def connected(self, hello: Hello) -> Iterator[Node]:
        """The node that says `hello`, counted as connected for as long as this lasts."""
        node = self._nodes.setdefault(hello.node, Node(hello))
        node.hello = hello
        if len(self._nodes) > MAX_NODES:
            del self._nodes[next(iter(self._nodes))]
        node.live[hello.epoch] += 1
        if len(node.live) > 1:
            log.warning(
                "streams of node %s are open of epochs %s: two nodes have one name, or it came back before its old connection was known to be gone",
                hello.node,
                " and ".join(map(str, sorted(node.live))),
            )
        try:
            yield node
        finally:
            node.live[hello.epoch] -= 1
            node.live += Counter()  # only those that are left
