"""What the server knows about nodes: who is connected, and how much came from whom."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from infrasight.wire import Hello, NodeStatus

MAX_NODES = 4096
"""Nodes remembered; beyond it the one that was heard of first goes, connected or not."""

MAX_LIVES = 4
"""Lives (epochs) of one node whose batches' numbers are remembered, those that were heard of last."""
MAX_NUMBERS = 256
"""Numbers above the first gap that are remembered of a life."""


class Numbers:
    """Which numbers batches of one life of a node have had since the server started. Of more than it can remember, the lowest count as had."""

    def __init__(self) -> None:
        self._below = 0
        """All before this have been."""
        self._above: set[int] = set()

    def take(self, number: int) -> bool:
        """Whether this is the first time."""
        if number < self._below or number in self._above:
            return False
        self._above.add(number)
        if len(self._above) > MAX_NUMBERS:
            self._below = sorted(self._above)[MAX_NUMBERS // 2]
            self._above = {each for each in self._above if each >= self._below}
        while self._below in self._above:
            self._above.remove(self._below)
            self._below += 1
        return True


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
    _numbers: dict[int, Numbers] = field(default_factory=dict, repr=False)

    @property
    def connections(self) -> int:
        """Streams that are open."""
        return self.live.total()

    def numbers(self, epoch: int) -> Numbers:
        """Those of a life."""
        numbers = self._numbers[epoch] = self._numbers.pop(epoch, Numbers())
        if len(self._numbers) > MAX_LIVES:
            del self._numbers[next(iter(self._numbers))]
        return numbers

    def received(self, oldest_unix_ns: int) -> None:
        """A batch came, whose oldest event is that old."""
        self.last_batch_unix_ns, self.last_oldest_unix_ns = time.time_ns(), oldest_unix_ns

    def stored(self, rows: int) -> None:
        """A batch was stored."""
        self.batches += 1
        self.rows += rows

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
        self.changes: deque[tuple[int, str, Node]] = deque(maxlen=MAX_NODES)
        """Who was `connected` and `disconnected`, and when (ns since the epoch), until the ledger has it."""

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
        self.changes.append((time.time_ns(), "connected", node))
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
            self.changes.append((time.time_ns(), "disconnected", node))
